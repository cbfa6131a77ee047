// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/akidb/akidb/jepsen/history"
)

// Append checks transactions over lists for cycles of dependencies, after Adya's
// phenomena and the way Elle infers them (Kingsbury and Alvaro, VLDB 2020):
// appends are unique, so a read of a list shows in which order its writers came.
// Operations: "txn" with Out.Txn (In.Txn if the outcome is unknown).
//
// Edges: ww (wrote the next element), wr (read what the other wrote), rw (the
// other overwrote what was read), rt (ended before the other began). A cycle of
// ww is G0, of ww and wr G1c, with one rw G-single, with more G2; a cycle that
// needs rt breaks only strict serializability, and its name says so.
func Append(ops []history.Op) *Result {
	r := newResult("append")
	g := &txnGraph{r: r, writer: make(map[string]map[int64]int)}
	for i := range ops {
		op := &ops[i]
		if op.F != "txn" {
			continue
		}
		r.Stats[string(op.Type)+" txns"]++
		g.add(op)
	}
	if r.Stats["ok reads"] == 0 || r.Stats["ok appends"] == 0 {
		r.unsure("no read, or no append that was acknowledged")
	}
	g.inferOrders()
	g.connect()
	g.realTime()
	g.findCycles()
	return r
}

type edgeKind uint8

const (
	edgeWW edgeKind = 1 << iota
	edgeWR
	edgeRW
	edgeRT
)

var edgeNames = map[edgeKind]string{edgeWW: "ww", edgeWR: "wr", edgeRW: "rw", edgeRT: "rt"}

// txnGraph is the dependency graph. Vertices below len(txns) are transactions;
// those above are moments in time that keep the real-time edges few.
type txnGraph struct {
	r      *Result
	txns   []*history.Op
	writer map[string]map[int64]int // key -> element -> transaction
	order  map[string][]int64       // key -> elements in the order of the list
	edges  []map[int]edgeKind
}

func mops(op *history.Op) []history.Mop {
	if op.Type == history.OK {
		return op.Out.Txn
	}
	return op.In.Txn
}

func (g *txnGraph) add(op *history.Op) {
	id := len(g.txns)
	g.txns = append(g.txns, op)
	for _, m := range mops(op) {
		if op.Type == history.OK {
			g.r.Stats["ok "+map[string]string{"r": "reads", "append": "appends"}[m.F]]++
		}
		if m.F != "append" {
			continue
		}
		if g.writer[m.Key] == nil {
			g.writer[m.Key] = make(map[int64]int)
		}
		if other, ok := g.writer[m.Key][m.N]; ok {
			g.r.fail("bad workload", []*history.Op{g.txns[other], op}, "%d was appended to %s by two transactions", m.N, m.Key)
		}
		g.writer[m.Key][m.N] = id
	}
}

// inferOrders takes the longest list that was read of each key as the order of
// its elements; every other read must be a prefix of it.
func (g *txnGraph) inferOrders() {
	g.order = make(map[string][]int64)
	longest := make(map[string]*history.Op)
	g.eachRead(func(op *history.Op, m history.Mop) {
		if len(m.List) > len(g.order[m.Key]) {
			g.order[m.Key], longest[m.Key] = m.List, op
		}
	})
	g.eachRead(func(op *history.Op, m history.Mop) {
		if !slices.Equal(m.List, g.order[m.Key][:len(m.List)]) {
			g.r.fail("incompatible order", []*history.Op{longest[m.Key], op}, "two reads of %s are no prefix of each other", m.Key)
		}
	})
	for _, k := range sortedKeys(g.order) {
		seen := make(map[int64]bool)
		for _, n := range g.order[k] {
			w, ok := g.writer[k][n]
			switch {
			case !ok:
				g.r.fail("from nowhere", []*history.Op{longest[k]}, "nobody appended %d to %s", n, k)
			case g.txns[w].Type == history.Fail:
				g.r.fail("G1a: aborted read", []*history.Op{g.txns[w], longest[k]}, "the append of %d to %s had failed", n, k)
			}
			if seen[n] {
				g.r.fail("applied twice", []*history.Op{longest[k]}, "%d is twice in %s", n, k)
			}
			seen[n] = true
		}
	}
}

func (g *txnGraph) eachRead(f func(*history.Op, history.Mop)) {
	for _, op := range g.txns {
		if op.Type != history.OK {
			continue
		}
		for _, m := range op.Out.Txn {
			if m.F == "r" {
				f(op, m)
			}
		}
	}
}

func (g *txnGraph) link(from, to int, k edgeKind) {
	if from == to {
		return
	}
	for len(g.edges) <= max(from, to) {
		g.edges = append(g.edges, make(map[int]edgeKind))
	}
	g.edges[from][to] |= k
}

// connect adds the ww, wr and rw edges.
func (g *txnGraph) connect() {
	for k, order := range g.order {
		for i := 1; i < len(order); i++ {
			a, okA := g.writer[k][order[i-1]]
			b, okB := g.writer[k][order[i]]
			if okA && okB {
				g.link(a, b, edgeWW)
			}
		}
	}
	for id, op := range g.txns {
		if op.Type != history.OK {
			continue
		}
		for _, m := range op.Out.Txn {
			if m.F == "r" {
				g.connectRead(id, m)
			}
		}
	}
}

func (g *txnGraph) connectRead(id int, m history.Mop) {
	if n := len(m.List); n > 0 {
		if w, ok := g.writer[m.Key][m.List[n-1]]; ok {
			g.link(w, id, edgeWR)
		}
	}
	order := g.order[m.Key]
	if len(m.List) < len(order) {
		if w, ok := g.writer[m.Key][order[len(m.List)]]; ok {
			g.link(id, w, edgeRW)
		}
		return
	}
	// Appends that were acknowledged and that no read has shown come after all
	// that was read.
	shown := make(map[int64]bool, len(order))
	for _, n := range order {
		shown[n] = true
	}
	for n, w := range g.writer[m.Key] {
		if !shown[n] && g.txns[w].Type == history.OK {
			g.link(id, w, edgeRW)
		}
	}
}

// realTime adds the edges of real time through a chain of moments: the end of
// each transaction leads to a moment, each moment to the next, and the last
// moment before a transaction began leads to it. That is linear in their number,
// where one edge for each pair would be quadratic.
func (g *txnGraph) realTime() {
	type event struct {
		at  int64
		end bool
		id  int
	}
	var events []event
	for id, op := range g.txns {
		if op.Type == history.Fail {
			continue
		}
		events = append(events, event{op.Call, false, id})
		if op.Return != history.Forever {
			events = append(events, event{op.Return, true, id})
		}
	}
	// A beginning at the time of an end counts as concurrent: it sorts first.
	slices.SortFunc(events, func(a, b event) int {
		switch {
		case a.at != b.at:
			if a.at < b.at {
				return -1
			}
			return 1
		case a.end != b.end && a.end:
			return 1
		case a.end != b.end:
			return -1
		}
		return a.id - b.id
	})
	moment := len(g.txns) - 1 // the newest; none yet
	for _, e := range events {
		switch {
		case e.end:
			if moment >= len(g.txns) {
				g.link(moment, moment+1, edgeRT)
			}
			moment++
			g.link(e.id, moment, edgeRT)
		case moment >= len(g.txns):
			g.link(moment, e.id, edgeRT)
		}
	}
}

// findCycles looks for the strongest anomaly first, on the graph of the edges
// that it allows.
func (g *txnGraph) findCycles() {
	for _, level := range []struct {
		kinds edgeKind
		name  string
	}{
		{edgeWW, "G0"},
		{edgeWW | edgeWR, "G1c"},
		{edgeWW | edgeWR | edgeRW, ""},
		{edgeWW | edgeRT, "G0-realtime"},
		{edgeWW | edgeWR | edgeRT, "G1c-realtime"},
		{edgeWW | edgeWR | edgeRW | edgeRT, "realtime"},
	} {
		found := false
		for _, comp := range g.components(level.kinds) {
			cycle := g.shortestCycle(comp, level.kinds)
			if len(cycle) == 0 {
				continue
			}
			found = true
			g.report(level.name, cycle)
		}
		if found {
			return
		}
	}
}

func (g *txnGraph) report(name string, cycle []step) {
	rw := 0
	var ops []*history.Op
	var path []string
	for _, s := range cycle {
		if s.kind == edgeRW {
			rw++
		}
		if s.from < len(g.txns) {
			ops = append(ops, g.txns[s.from])
			path = append(path, fmt.Sprintf("#%d", g.txns[s.from].Index))
		}
		if s.to < len(g.txns) {
			path = append(path, edgeNames[s.kind])
		}
	}
	if name == "" || name == "realtime" {
		kind := "G2"
		if rw == 1 {
			kind = "G-single"
		}
		if name != "" {
			kind += "-" + name
		}
		name = kind
	}
	g.r.fail(name, ops, "cycle %s and back", strings.Join(path, " "))
}
