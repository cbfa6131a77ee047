// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// lineage is what a cluster id tells of its past. The first leader mints a UUID;
// each recovery replaces the id by "<12 hex>-r<recoveries>-<the UUID>", fresh in
// front, since session tokens carry the first digits, and with its ancestor behind,
// so that everybody can tell which of two ids is of a history that was given up.
type lineage struct {
	recoveries int
	founded    string
}

func lineageOf(clusterID string) lineage {
	parts := strings.SplitN(clusterID, "-", 3)
	if len(parts) == 3 {
		// The second group of a UUID is hexadecimal and never begins with r.
		if n, err := strconv.Atoi(strings.TrimPrefix(parts[1], "r")); err == nil && parts[1][:1] == "r" && n > 0 {
			return lineage{n, parts[2]}
		}
	}
	return lineage{0, clusterID}
}

// recoveredID is a new id for what is left of a cluster.
func recoveredID(old string) string {
	l := lineageOf(old)
	return fmt.Sprintf("%s-r%d-%s", uuid.NewString()[24:], l.recoveries+1, l.founded)
}

// supersedes reports whether a cluster came from another by recovery: the members
// of the other that were not recovered hold a history that somebody gave up.
func supersedes(newer, older string) bool {
	n, o := lineageOf(newer), lineageOf(older)
	return older != "" && n.founded == o.founded && n.recoveries > o.recoveries
}

// foreign says in words how a node of cluster own stands to one of another.
func foreign(own, theirs string) string {
	switch {
	case supersedes(theirs, own):
		return fmt.Sprintf("the cluster was recovered as %s without this node, whose data are of the history before: stop it, move its data directory away and start it again, and it joins", theirs)
	case supersedes(own, theirs) || theirs == "":
		return fmt.Sprintf("this cluster was recovered as %s without that node, whose data are of the history before: stop it, move its data directory away and start it again, and it joins", own)
	case own != "" && lineageOf(own) == lineageOf(theirs):
		return fmt.Sprintf("%s and %s were recovered apart from each other: decide which of them to keep, and move the data directories of the other away", own, theirs)
	}
	return fmt.Sprintf("that node is of cluster %s, this one of %q", theirs, own)
}

// sameCluster refuses a stream by what its dialler announced, which is the id of a
// recovered cluster or nothing: nodes of before announce nothing, and so do
// binaries that know of no such thing.
func (g *group) sameCluster(announced string) error {
	own := g.clusterID()
	if announced == own || announced == "" && lineageOf(own).recoveries == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errWrongCluster, foreign(own, announced))
}

// announced is what this node tells of its cluster on every stream that it opens.
func (g *group) announced() string {
	if id := g.clusterID(); lineageOf(id).recoveries > 0 {
		return id
	}
	return ""
}

// maxStrangers bounds what is remembered in order not to say it again.
const maxStrangers = 64

// meet notes the cluster of a peer. If it is this node's own, recovered without
// it, the node goes out of service: what it would serve was given up.
func (n *Node) meet(peer, theirs string) {
	own := n.g.clusterID()
	if own == "" || theirs == "" || theirs == own {
		return
	}
	n.strangersMu.Lock()
	defer n.strangersMu.Unlock()
	key := peer + " " + theirs
	if n.strangers[key] {
		return
	}
	if n.strangers == nil || len(n.strangers) >= maxStrangers {
		n.strangers = make(map[string]bool)
	}
	n.strangers[key] = true
	text := foreign(own, theirs)
	if supersedes(theirs, own) {
		n.log.Error("this node is out of service", "reason", text, "told by", peer)
		n.successor.Store(&text)
		n.g.poke()
		return
	}
	n.log.Warn("peer belongs to another cluster", "peer", peer, "cluster", theirs, "reason", text)
}

// superseded is not nil once a peer told that the cluster was recovered without
// this node. It is forgotten by a restart: peers tell it again.
func (n *Node) superseded() error {
	if why := n.successor.Load(); why != nil {
		return fmt.Errorf("%w: %s", ErrFenced, *why)
	}
	return nil
}
