// SPDX-License-Identifier: Apache-2.0

package check

import (
	"github.com/akidb/akidb/jepsen/history"
)

// SearchOps reads the steps of a search workload. Each document is a register;
// a linearizable search for the vector of value In.N of document Key observes
// every document it returned, at the value it returned, and that Key did not
// hold In.N if the exact match is missing. Keys that tracked refuses (such as a
// static population) are left out.
func SearchOps(ops []history.Op, tracked func(id string) bool) []RegOp {
	out := RegisterOps(ops)
	for i := range ops {
		op := &ops[i]
		if op.F != "search" || op.Type != history.OK {
			continue
		}
		step := func(in RegIn, o RegOut) {
			o.Known = true
			out = append(out, RegOp{In: in, Out: o, Process: op.Process, Call: op.Call, Return: op.Return})
		}
		found := false
		for _, d := range op.Out.Docs {
			if !tracked(d.ID) {
				continue
			}
			found = found || d.ID == op.Key && d.N == op.In.N
			step(RegIn{Key: d.ID, Kind: RegObserve}, RegOut{N: d.N})
		}
		if !found && op.In.N != 0 {
			step(RegIn{Key: op.Key, Kind: RegDiffers, N: op.In.N}, RegOut{})
		}
	}
	return out
}

// Searches checks what each search shows by itself: no document twice, nearest
// first, documents whole, and the exact match at distance zero.
func Searches(ops []history.Op) *Result {
	r := newResult("searches")
	for i := range ops {
		op := &ops[i]
		if op.F != "search" || op.Type != history.OK {
			continue
		}
		r.Stats["searches"]++
		seen := make(map[string]bool)
		for j, d := range op.Out.Docs {
			if seen[d.ID] {
				r.fail("returned twice", []*history.Op{op}, "%s", d.ID)
			}
			seen[d.ID] = true
			if d.Bad != "" {
				r.fail("bad document", []*history.Op{op}, "%s: %s", d.ID, d.Bad)
			}
			if j > 0 && d.Distance < op.Out.Docs[j-1].Distance {
				r.fail("wrong order", []*history.Op{op}, "%s is nearer than the one before it", d.ID)
			}
			if d.ID == op.Key && d.N == op.In.N && d.N != 0 {
				r.Stats["exact matches"]++
				if d.Distance != 0 {
					r.fail("distance of itself", []*history.Op{op}, "%s is %g away from its own vector", d.ID, d.Distance)
				}
			}
		}
	}
	if r.Stats["exact matches"] == 0 {
		r.unsure("no search found the document it looked for")
	}
	return r
}

// CatalogOps reads the steps of a catalog workload: a name is a register that
// holds the mark of the collection with that name. "list" observes all of names.
func CatalogOps(ops []history.Op, names []string) []RegOp {
	out := RegisterOps(ops)
	for i := range ops {
		op := &ops[i]
		if op.F != "list" || op.Type != history.OK {
			continue
		}
		marks := make(map[string]int64)
		for _, d := range op.Out.Docs {
			marks[d.ID] = d.N
		}
		for _, name := range names {
			out = append(out, RegOp{
				In: RegIn{Key: name, Kind: RegObserve}, Out: RegOut{Known: true, N: marks[name]},
				Process: op.Process, Call: op.Call, Return: op.Return,
			})
		}
	}
	return out
}

// Contents checks the documents a "peek" into a collection showed: each was
// written into that very collection, not into an earlier one of its name.
func Contents(ops []history.Op) *Result {
	r := newResult("contents")
	for i := range ops {
		op := &ops[i]
		if op.F != "peek" || op.Type != history.OK {
			continue
		}
		r.Stats["peeks"]++
		for _, d := range op.Out.Docs {
			r.Stats["documents"]++
			if d.N != op.Out.N {
				r.fail("document of another collection", []*history.Op{op}, "%s carries the mark %d in collection %d", d.ID, d.N, op.Out.N)
			}
		}
	}
	return r
}
