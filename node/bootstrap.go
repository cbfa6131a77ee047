// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// addressBook holds addresses learned from the nodes themselves. They go
// before those in the Raft configuration, so that a cluster whose members all
// came back at other addresses finds itself. A node's own address is not among
// them: nobody else knows better where it is.
type addressBook struct {
	self string

	mu    sync.Mutex // guards the fields below
	infos map[string]*nodev1.NodeInfo
	lives map[string]uint64 // see ofNow
}

func newAddressBook(self string) *addressBook {
	return &addressBook{self: self, infos: make(map[string]*nodev1.NodeInfo), lives: make(map[string]uint64)}
}

func (b *addressBook) info(id string) *nodev1.NodeInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.infos[id]
}

// learn records what a node said of itself.
func (b *addressBook) learn(i *nodev1.NodeInfo) {
	if i == nil || i.NodeId == "" || i.NodeId == b.self {
		return
	}
	b.mu.Lock()
	b.infos[i.NodeId] = i
	b.mu.Unlock()
}

// gossipAddrs are the gossip addresses that nodes told, by their raft address;
// "" for those that take no part.
func (b *addressBook) gossipAddrs() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]string)
	for _, i := range b.infos {
		out[i.RaftAddr] = i.GossipAddr
	}
	return out
}

var _ raft.ServerAddressProvider = (*group)(nil)

// ServerAddr is where a node is reached: the address it told, else that of the
// Raft configuration.
func (g *group) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if i := g.book.info(string(id)); i != nil && i.RaftAddr != "" {
		return raft.ServerAddress(i.RaftAddr), nil
	}
	for _, s := range g.servers() {
		if s.ID == id {
			return s.Address, nil
		}
	}
	return "", fmt.Errorf("address of node %s is not known", id)
}

func (g *group) addrOf(s raft.Server) string {
	if i := g.book.info(string(s.ID)); i != nil && i.RaftAddr != "" {
		return i.RaftAddr
	}
	return string(s.Address)
}

// livesAt returns an error unless the node of an id, of this cluster, answers at an
// address: an address may be another node's by now.
func (g *group) livesAt(ctx context.Context, id, addr string) error {
	var r nodev1.StatsReply
	if err := g.rpc.call(ctx, addr, laneControl, methodStats, &nodev1.StatsRequest{}, &r); err != nil {
		return err
	}
	if who := r.Node.GetNodeId(); who != id {
		return fmt.Errorf("%w: %q", errOtherNode, who)
	}
	if own := g.clusterID(); own != "" && r.ClusterId != "" && r.ClusterId != own {
		return fmt.Errorf("%w: %s", errWrongCluster, foreign(own, r.ClusterId))
	}
	return g.book.ofNow(r.Node)
}

const (
	helloPause    = 200 * time.Millisecond
	helloPauseMax = 2 * time.Second
	helloTimeout  = time.Second
)

// lookAround makes findCluster look at once.
func (n *Node) lookAround() {
	select {
	case n.findNow <- struct{}{}:
	default:
	}
}

// findCluster makes an empty node a member: it bootstraps together with the
// nodes it was told to expect if none of them belongs to a cluster, and joins
// if one does. No node is special, and none founds a cluster by itself unless
// it has no peers, or was told to expect only itself and all peers answer that
// they belong to no cluster. A node with state only says hello, to
// learn and tell addresses.
func (n *Node) findCluster() {
	wait, longest := n.cfg.paced(helloPause), n.cfg.paced(helloPauseMax)
	for n.ctx.Err() == nil {
		done, err := n.tryFindCluster(n.ctx)
		if err != nil {
			n.log.Info("looking for the cluster", "err", err)
		}
		if err != nil && !done {
			text := err.Error()
			n.seeking.Store(&text)
		}
		if done {
			wait = longest
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-n.findNow:
		case <-n.ctx.Done():
		}
		t.Stop()
		if !done {
			wait = min(wait*5/4, longest)
		}
	}
}

// tryFindCluster is one round; done means that this node is a member.
func (n *Node) tryFindCluster(ctx context.Context) (done bool, err error) {
	replies, silent, err := n.greet(ctx)
	if n.g.member.Load() {
		return true, errors.Join(err, n.rejoin(ctx, replies))
	}
	if n.cfg.BootstrapExpect == 1 && err != nil {
		return false, err // who the peers are is not known
	}
	var founding, found *nodev1.HelloReply
	var differ error
	empty := []*nodev1.NodeInfo{n.selfInfo()}
	choices := make(map[string][]string)
	for _, r := range replies {
		switch {
		case r.ClusterId != "":
			if found == nil || supersedes(r.ClusterId, found.ClusterId) {
				found = r
			}
		case r.Member:
			founding = r
		case r.BootstrapExpect == 0 || n.cfg.BootstrapExpect == 0:
			// One of the two waits for a cluster and founds none.
		case int(r.BootstrapExpect) == n.cfg.BootstrapExpect:
			if !r.Node.ReadReplica {
				empty = append(empty, r.Node)
				choices[r.Node.NodeId] = r.Choice
			}
		default:
			differ = fmt.Errorf("node %s expects %d nodes to bootstrap, this one %d: make BootstrapExpect equal",
				r.Node.NodeId, r.BootstrapExpect, n.cfg.BootstrapExpect)
		}
	}
	if found != nil {
		return n.join(ctx, found)
	}
	if differ != nil {
		return false, differ
	}
	if founding != nil {
		// Others have just bootstrapped and wait for votes, perhaps for ours.
		return n.followBootstrap(founding, replies)
	}
	if n.cfg.ReadReplica {
		return false, errors.New("a read replica waits for a cluster to join")
	}
	if n.cfg.BootstrapExpect == 0 {
		return false, fmt.Errorf("waiting for a cluster to join: of the peers %v %s; to found one, start the nodes that shall found it with their number as bootstrap_expect, or one node without peers",
			n.cfg.Peers, whoAnswered(len(replies), silent))
	}
	if n.cfg.BootstrapExpect == 1 && len(silent) > 0 {
		// One that does not answer may belong to the cluster that there is.
		return false, fmt.Errorf("waiting for %v to answer: with peers and a bootstrap_expect of 1 this node founds a cluster alone only once all of them have said that they belong to none", silent)
	}
	if len(empty) < n.cfg.BootstrapExpect {
		return false, fmt.Errorf("%d of %d nodes found to bootstrap with", len(empty), n.cfg.BootstrapExpect)
	}
	chosen, err := n.choose(empty, choices)
	if err != nil {
		return false, err
	}
	return n.bootstrap(chosen)
}

// choose picks the founders: of the empty nodes seen those with the smallest
// ids, as many as expected. Nodes may see different ones while they come up, so
// the first of the founders bootstraps, and only once all of them have picked
// the same; the others follow it (followBootstrap). Two nodes that bootstrapped
// with different lists would each hold a first log entry of its own.
func (n *Node) choose(empty []*nodev1.NodeInfo, choices map[string][]string) ([]*nodev1.NodeInfo, error) {
	sort.Slice(empty, func(i, j int) bool { return empty[i].NodeId < empty[j].NodeId })
	chosen := empty[:n.cfg.BootstrapExpect]
	ids := make([]string, len(chosen))
	for i, c := range chosen {
		ids[i] = c.NodeId
	}
	n.choice.Store(&ids)
	if ids[0] != n.cfg.NodeID {
		return nil, fmt.Errorf("%s founds the cluster with %v", ids[0], ids)
	}
	for _, id := range ids[1:] {
		if !slices.Equal(choices[id], ids) {
			return nil, fmt.Errorf("waiting for %s to agree on the founders %v", id, ids)
		}
	}
	return chosen, nil
}

// bootstrap founds the cluster with the same configuration as every other node
// of the list, which makes the result the same whoever comes first.
func (n *Node) bootstrap(nodes []*nodev1.NodeInfo) (bool, error) {
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].NodeId < nodes[j].NodeId })
	var conf raft.Configuration
	for i, s := range nodes {
		if i > 0 && nodes[i-1].NodeId == s.NodeId {
			return false, fmt.Errorf("two nodes have the id %q", s.NodeId)
		}
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(s.NodeId), Address: raft.ServerAddress(s.RaftAddr)})
	}
	done, err := n.bootstrapWith(conf)
	if done {
		// Tell the others at once, so that none of them finds the cluster led
		// already and has to be taken in as a stranger.
		_, _ = n.helloAll(n.ctx)
	}
	return done, err
}

// followBootstrap founds the cluster with the configuration of a node that has
// done so just before. Every node of it must have answered that it knows of no
// leader yet: this node may be one that lost its disk, and then the founder may
// be one that was cut off when the cluster came to life without it. None of them may
// be in a later term than the founding one either: whoever stands for election raises
// its term first, and this node may have voted for it before it lost its disk. Raft asks
// for pre-votes before that, so that a founder whose peers are not there stays where it
// is, and one that went on has a majority and a leader soon, who takes this node in.
func (n *Node) followBootstrap(r *nodev1.HelloReply, replies []*nodev1.HelloReply) (bool, error) {
	answered := map[string]bool{n.cfg.NodeID: true}
	for _, a := range replies {
		if a.Term > foundingTerm {
			return false, fmt.Errorf("waiting for the cluster that %s is founding: %s is in an election (if nothing comes of it because another founder lost its disk, start all of them empty)", r.Node.NodeId, a.Node.NodeId)
		}
		answered[a.Node.NodeId] = true
	}
	var conf raft.Configuration
	listed := false
	for _, s := range r.Servers {
		if !answered[s.NodeId] {
			return false, fmt.Errorf("waiting for %s to answer before founding the cluster with %s", s.NodeId, r.Node.NodeId)
		}
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(s.NodeId), Address: raft.ServerAddress(s.RaftAddr)})
		listed = listed || s.NodeId == n.cfg.NodeID
	}
	if !listed {
		return false, fmt.Errorf("waiting for the cluster that %s is founding", r.Node.NodeId)
	}
	return n.bootstrapWith(conf)
}

// foundingTerm is what BootstrapCluster sets (hashicorp/raft 1.8.0).
const foundingTerm = 1

func (n *Node) bootstrapWith(conf raft.Configuration) (bool, error) {
	c := n.g.core.Load()
	if c == nil {
		return false, errors.New("log is not open")
	}
	// Durable first: after a crash between the two Raft is bootstrapped again.
	if err := c.r.BootstrapCluster(conf).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return false, fmt.Errorf("bootstrap: %w", err)
	}
	if err := n.g.setIdentity(identity{Member: true}); err != nil {
		return false, err
	}
	n.log.Info("bootstrapped", "voters", len(conf.Servers))
	return true, nil
}

// join asks the cluster's leader, through any member, to admit this node.
func (n *Node) join(ctx context.Context, via *nodev1.HelloReply) (bool, error) {
	addr := via.LeaderAddr
	if addr == "" {
		addr = via.Node.RaftAddr
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reply, err := n.askToJoin(ctx, addr, &nodev1.JoinRequest{Node: n.selfInfo(), Empty: true})
	if err != nil {
		return false, fmt.Errorf("join cluster %s through %s: %w", via.ClusterId, addr, err)
	}
	if err := n.g.setIdentity(identity{Member: true, ClusterID: reply.ClusterId, JoinedIndex: reply.LogIndex, JoinedTerm: reply.Term}); err != nil {
		return false, err
	}
	n.rpc.reset() // the connections so far announced no cluster
	n.log.Info("joined", "cluster", reply.ClusterId)
	return true, nil
}

// rejoin tells the leader a changed address of this node, and asks to be taken
// back if it was removed while it was down. A node removed while it runs does
// not ask: somebody meant it.
func (n *Node) rejoin(ctx context.Context, replies []*nodev1.HelloReply) error {
	if c := n.g.core.Load(); c != nil && c.r.State() == raft.Leader {
		n.wasListed.Store(true) // a leader has no other to learn it from
	}
	for _, r := range replies {
		if r.ClusterId == "" || r.ClusterId != n.g.clusterID() || r.LeaderAddr == "" || r.LeaderId == n.cfg.NodeID {
			continue
		}
		listed, addr := false, ""
		for _, s := range r.Servers {
			if s.NodeId == n.cfg.NodeID {
				listed, addr = true, s.ConfiguredAddr
			}
		}
		switch {
		case listed:
			n.wasListed.Store(true)
			if addr == n.cfg.AdvertiseAddr {
				return nil
			}
		case n.wasListed.Load():
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := n.askToJoin(ctx, r.LeaderAddr, &nodev1.JoinRequest{Node: n.selfInfo(), ClusterId: r.ClusterId})
		return err
	}
	return nil
}

// errLeaving is why a node that leaves asks nobody to take it in.
var errLeaving = errors.New("node: this node leaves the cluster, so it does not join")

// askToJoin asks the leader at addr to take this node into the configuration,
// where it is once that succeeded: it is not asked for a second time if somebody
// takes the node out afterwards. A request may be carried out after the removal it
// was sent before, and would undo it: see endJoining.
func (n *Node) askToJoin(ctx context.Context, addr string, req *nodev1.JoinRequest) (*nodev1.JoinReply, error) {
	select {
	case n.joinTurn <- struct{}{}:
		defer func() { <-n.joinTurn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if n.leaving.Load() {
		return nil, errLeaving
	}
	var reply nodev1.JoinReply
	if err := n.rpc.call(ctx, addr, laneBulk, methodJoin, req, &reply); err != nil {
		return nil, err
	}
	n.wasListed.Store(true)
	return &reply, nil
}

// endJoining returns once no request of this node to join is under way; none comes
// after it. It waits for half the time that the context leaves: removing a node
// that may be back is better than not removing it.
func (n *Node) endJoining(ctx context.Context) {
	n.leaving.Store(true)
	t := time.NewTimer(timeoutOf(ctx) / 2)
	defer t.Stop()
	select {
	case n.joinTurn <- struct{}{}:
		<-n.joinTurn
	case <-t.C:
		n.log.Warn("leaving while the leader was asked to let this node join: it may be a member again, see akidb cluster members")
	case <-ctx.Done():
	}
}

func whoAnswered(replies int, silent []string) string {
	switch {
	case replies == 0:
		return "none answers"
	case len(silent) == 0:
		return "none belongs to one"
	}
	return fmt.Sprintf("those that answer belong to none and %v do not answer", silent)
}

// helloAll introduces this node to every address it knows of and learns theirs.
func (n *Node) helloAll(ctx context.Context) ([]*nodev1.HelloReply, error) {
	replies, _, err := n.greet(ctx)
	return replies, err
}

// greet is helloAll, with the addresses that did not answer.
func (n *Node) greet(ctx context.Context) (replies []*nodev1.HelloReply, silent []string, _ error) {
	addrs, err := n.peerAddrs(ctx)
	req := &nodev1.HelloRequest{From: n.selfInfo(), ClusterId: n.g.clusterID(), Member: n.g.member.Load(), AppliedIndex: n.g.ad.applied()}
	type answer struct {
		addr string
		r    *nodev1.HelloReply
		err  error
	}
	answers := make(chan answer, len(addrs))
	for _, a := range addrs {
		if !n.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, helloTimeout)
			defer cancel()
			var r nodev1.HelloReply
			err := n.rpc.call(ctx, a, laneControl, methodHello, req, &r)
			answers <- answer{a, &r, err}
		}) {
			answers <- answer{addr: a, err: ErrClosed}
		}
	}
	seen := map[string]bool{n.cfg.NodeID: true}
	own := n.g.clusterID()
	for range addrs {
		a := <-answers
		if a.err != nil || a.r.Node == nil {
			silent = append(silent, a.addr)
			continue
		}
		if seen[a.r.Node.NodeId] {
			continue
		}
		if own != "" && a.r.ClusterId != "" && a.r.ClusterId != own {
			n.meet(a.r.Node.NodeId, a.r.ClusterId)
			continue
		}
		if own != "" && a.r.ClusterId == own {
			_ = n.g.book.ofNow(a.r.Node) // whether it is or not: it counts where it is dialled
			n.hearOfLife(a.r.HeardJoinedIndex)
		}
		seen[a.r.Node.NodeId] = true
		if n.speaksFor(a.r.Node, a.r.Member) {
			n.book.learn(a.r.Node)
			n.pilot.hear(a.r.Node.NodeId, a.r.AppliedIndex)
		}
		replies = append(replies, a.r)
	}
	sort.Strings(silent)
	return replies, silent, err
}

// peerAddrs are the configured peers (a single one may be a DNS name of all),
// the members by Raft's configuration, and what gossip saw.
func (n *Node) peerAddrs(ctx context.Context) ([]string, error) {
	set := map[string]bool{}
	var lookupErr error
	for _, p := range n.cfg.Peers {
		set[p] = true
	}
	if len(n.cfg.Peers) == 1 {
		host, port, err := net.SplitHostPort(n.cfg.Peers[0])
		if err == nil && net.ParseIP(host) == nil {
			ctx, cancel := context.WithTimeout(ctx, helloTimeout)
			ips, err := n.cfg.Net.LookupHost(ctx, host)
			cancel()
			if err != nil {
				lookupErr = fmt.Errorf("look up %s: %w", host, err)
			}
			for _, ip := range ips {
				set[net.JoinHostPort(ip, port)] = true
			}
		}
	}
	for _, s := range n.g.servers() {
		if string(s.ID) != n.cfg.NodeID {
			set[n.g.addrOf(s)] = true
		}
	}
	if n.gossip != nil {
		for _, i := range n.gossip.infos() {
			set[i.RaftAddr] = true
		}
	}
	delete(set, n.cfg.AdvertiseAddr)
	delete(set, "")
	var addrs []string
	for a := range set {
		addrs = append(addrs, a)
	}
	sort.Strings(addrs)
	return addrs, lookupErr
}

// hello answers a peer.
func (n *Node) hello(req *nodev1.HelloRequest) *nodev1.HelloReply {
	own := n.g.clusterID()
	if f := req.From; f != nil && (own == "" || req.ClusterId == "" || req.ClusterId == own) && n.knows(f.NodeId) && n.speaksFor(f, req.Member) {
		n.book.learn(f)
		n.pilot.hear(f.NodeId, req.AppliedIndex)
	}
	if req.From != nil {
		n.meet(req.From.NodeId, req.ClusterId)
	}
	var heard uint64
	if f := req.From; f != nil && own != "" && req.ClusterId == own {
		_ = n.book.ofNow(f)
		heard = n.book.life(f.NodeId)
	}
	choice := n.choice.Load()
	if !n.g.member.Load() && (req.Member || choice != nil && (*choice)[0] == n.cfg.NodeID) {
		// A founder, or one that may have come to agree: look at once.
		n.lookAround()
	}
	r := &nodev1.HelloReply{
		Node: n.selfInfo(), ClusterId: own, Member: n.g.member.Load(), BootstrapExpect: uint32(n.cfg.BootstrapExpect),
		AppliedIndex: n.g.ad.applied(), HeardJoinedIndex: heard,
	}
	if choice != nil {
		r.Choice = *choice
	}
	r.LeaderId, r.LeaderAddr = n.g.leader()
	if c := n.g.core.Load(); c != nil {
		r.Term = c.r.CurrentTerm()
	}
	for _, s := range n.g.servers() {
		r.Servers = append(r.Servers, &nodev1.Server{NodeId: string(s.ID), RaftAddr: n.g.addrOf(s), ConfiguredAddr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return r
}

// speaksFor reports whether a process under an id may be believed where the node
// of that id is. A member's place is its own until the leader gives it to another
// (serveJoin): an empty process that goes by its id may be a mistake, and one with
// data the member that was replaced. While there is no leader members are believed,
// for otherwise those that all moved at once would not find each other, and while
// the cluster is being founded everybody is.
func (n *Node) speaksFor(i *nodev1.NodeInfo, member bool) bool {
	if n.g.clusterID() == "" {
		return true
	}
	s, registered := n.server(i.NodeId)
	if !registered || member && i.RaftAddr == string(s.Address) {
		return true
	}
	leader, _ := n.g.leader()
	return member && leader == ""
}

// knows reports whether id is in the configuration, or may yet be.
func (n *Node) knows(id string) bool {
	servers := n.g.servers()
	for _, s := range servers {
		if string(s.ID) == id {
			return true
		}
	}
	return len(servers) == 0 && !strings.EqualFold(id, n.cfg.NodeID)
}
