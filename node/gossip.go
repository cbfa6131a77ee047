// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// gossip tells who is alive and where, as a hint: nothing about membership or
// leadership follows from it alone.
type gossip struct {
	n    *Node
	ml   *memberlist.Memberlist
	ring *memberlist.Keyring

	mu   sync.Mutex // guards seen
	seen map[string]gossiped
	wg   sync.WaitGroup
}

type gossiped struct {
	info *nodev1.NodeInfo
	at   time.Time
	gone bool // it left or died, and was not seen since
}

// maxGone bounds the nodes that are remembered though they are gone: those that went
// last may be back at the same address.
const maxGone = 64

func startGossip(n *Node) (*gossip, error) {
	g := &gossip{n: n, seen: make(map[string]gossiped)}
	conf := memberlist.DefaultLANConfig()
	conf.Name = n.cfg.NodeID
	host, port, err := splitHostPort(n.cfg.GossipAddr)
	if err != nil {
		return nil, fmt.Errorf("node: GossipAddr %q: %w", n.cfg.GossipAddr, err)
	}
	conf.BindAddr, conf.BindPort = host, port
	if host == "" {
		conf.BindAddr = "0.0.0.0"
	}
	if a := n.cfg.AdvertiseGossipAddr; a != "" {
		host, port, err := splitHostPort(a)
		if err != nil {
			return nil, fmt.Errorf("node: AdvertiseGossipAddr %q: %w", a, err)
		}
		conf.AdvertisePort = port
		// memberlist wants an IP address; a name is looked up once, now, and
		// left out if that fails (it then advertises what it is bound to).
		if ips, err := n.cfg.Net.LookupHost(n.ctx, host); err == nil && len(ips) > 0 {
			conf.AdvertiseAddr = ips[0]
		}
	}
	if len(n.cfg.GossipKeys) > 0 {
		if g.ring, err = memberlist.NewKeyring(n.cfg.GossipKeys, n.cfg.GossipKeys[0]); err != nil {
			return nil, fmt.Errorf("node: GossipKeys: %w", err)
		}
		conf.Keyring = g.ring
	}
	conf.Delegate, conf.Events = g, g
	conf.TCPTimeout = dialTimeout // a stop waits for a join under way
	// A node may come back at another address as soon as it was found dead.
	conf.DeadNodeReclaimTime = time.Second
	conf.Logger = log.New(slogWriter{n.log}, "", 0)
	if g.ml, err = memberlist.Create(conf); err != nil {
		return nil, fmt.Errorf("node: start gossip on %s: %w", n.cfg.GossipAddr, err)
	}
	g.wg.Go(g.keepJoined)
	return g, nil
}

// keepJoined tries the peers again and again: one that was down when this node
// started, or that a partition took away, is found without anybody's help.
func (g *gossip) keepJoined() {
	for {
		pause(g.n.ctx, time.Second)
		if g.n.ctx.Err() != nil {
			return
		}
		known := make(map[string]bool)
		for _, m := range g.ml.Members() {
			known[m.Name] = true
		}
		missing := false
		for _, s := range g.n.g.servers() {
			missing = missing || !known[string(s.ID)]
		}
		if !missing && len(known) > 1 {
			pause(g.n.ctx, 5*time.Second)
			continue
		}
		for _, a := range g.addrs() {
			if g.n.ctx.Err() != nil {
				return
			}
			_, _ = g.ml.Join([]string{a})
		}
	}
}

// addrs are where gossip may reach others: what they told of themselves, and
// behind the addresses of those that have not said anything yet, this node's own
// gossip port.
func (g *gossip) addrs() []string {
	told := g.n.book.gossipAddrs()
	_, port, err := net.SplitHostPort(g.n.cfg.GossipAddr)
	if err != nil {
		return nil
	}
	peers, _ := g.n.peerAddrs(g.n.ctx)
	set := map[string]bool{}
	for _, p := range peers {
		host, _, err := net.SplitHostPort(p)
		if err != nil {
			continue
		}
		a := net.JoinHostPort(host, port)
		if toldHost, toldPort, err := net.SplitHostPort(told[p]); err == nil {
			if ip := net.ParseIP(toldHost); toldHost != "" && !ip.IsUnspecified() {
				host = toldHost
			}
			a = net.JoinHostPort(host, toldPort)
		}
		set[a] = true
	}
	own := g.n.selfInfo().GossipAddr
	delete(set, own)
	return slices.Sorted(maps.Keys(set))
}

func splitHostPort(addr string) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(p)
	return host, port, err
}

func (g *gossip) stop() {
	if err := g.ml.Leave(time.Second); err != nil {
		g.n.log.Debug("gossip leave", "err", err)
	}
	if err := g.ml.Shutdown(); err != nil {
		g.n.log.Debug("gossip shutdown", "err", err)
	}
	g.wg.Wait()
}

// SetGossipKeys replaces the gossip keys: the first encrypts, all decrypt. To
// rotate, first add the new key behind the old one on every node, then put it
// first on every node, then leave the old one out.
func (n *Node) SetGossipKeys(keys [][]byte) error {
	if n.gossip == nil || n.gossip.ring == nil {
		return errors.New("node: gossip runs without keys: configure GossipKeys and restart")
	}
	if len(keys) == 0 {
		return errors.New("node: no gossip key given")
	}
	ring := n.gossip.ring
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return fmt.Errorf("node: gossip key: %w", err)
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return err
	}
	keep := make(map[string]bool)
	for _, k := range keys {
		keep[string(k)] = true
	}
	for _, k := range ring.GetKeys() {
		if !keep[string(k)] {
			if err := ring.RemoveKey(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// health is "alive", "dead" or, if gossip never saw the node, ""; gone is when it
// was found dead. memberlist 0.7 keeps to itself who is suspected and who left:
// the state in what it hands out is never set.
func (g *gossip) health(id string) (word string, gone time.Time) {
	for _, m := range g.ml.Members() {
		if m.Name == id {
			return "alive", gone
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.seen[id]; ok {
		return "dead", s.at
	}
	return "", gone
}

func (g *gossip) infos() []*nodev1.NodeInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*nodev1.NodeInfo
	for id, s := range g.seen {
		if id != g.n.cfg.NodeID && s.info != nil {
			out = append(out, s.info)
		}
	}
	return out
}

// NodeMeta is what others learn of this node.
func (g *gossip) NodeMeta(limit int) []byte {
	b, err := proto.Marshal(g.n.selfInfo())
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// NotifyJoin, NotifyUpdate and NotifyLeave note what gossip saw. They are
// called with memberlist's lock held and only touch the map.
func (g *gossip) NotifyJoin(m *memberlist.Node) { g.saw(m, false) }

// NotifyUpdate is NotifyJoin for a known member.
func (g *gossip) NotifyUpdate(m *memberlist.Node) { g.saw(m, false) }

// NotifyLeave is called for members that left and for those that died.
func (g *gossip) NotifyLeave(m *memberlist.Node) { g.saw(m, true) }

func (g *gossip) saw(m *memberlist.Node, gone bool) {
	info := new(nodev1.NodeInfo)
	if err := proto.Unmarshal(m.Meta, info); err != nil || info.NodeId != m.Name {
		info = nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[m.Name] = gossiped{info, time.Now(), gone}
	if !gone {
		return
	}
	many, oldest := 0, ""
	for name, s := range g.seen {
		if !s.gone {
			continue
		}
		if many++; oldest == "" || s.at.Before(g.seen[oldest].at) {
			oldest = name
		}
	}
	if many > maxGone {
		delete(g.seen, oldest)
	}
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState are not used.
func (g *gossip) NotifyMsg([]byte)                {}
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }
func (g *gossip) LocalState(bool) []byte          { return nil }
func (g *gossip) MergeRemoteState([]byte, bool)   {}

type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(p []byte) (int, error) {
	w.log.Debug("gossip: " + string(p))
	return len(p), nil
}
