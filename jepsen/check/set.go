// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"slices"
	"strings"

	"github.com/akidb/akidb/jepsen/history"
)

// Set checks a set that only grows. Operations: "add" of In.N, and "scan",
// whose Out.Docs is the whole set at one log index. Every add that was
// acknowledged before a scan began is in it, exactly once; what one scan saw, no
// later scan misses; an add that failed never shows; nothing comes from nowhere.
func Set(ops []history.Op) *Result {
	r := newResult("set")
	adds := make(map[int64]*history.Op)
	var scans []*history.Op
	for i := range ops {
		op := &ops[i]
		switch {
		case op.F == "add":
			adds[op.In.N] = op
			r.Stats[string(op.Type)+" adds"]++
		case op.F == "scan" && op.Type == history.OK:
			scans = append(scans, op)
		}
	}
	r.Stats["scans"] = len(scans)
	if len(scans) == 0 || r.Stats["ok adds"] == 0 {
		r.unsure("no scan, or no add that was acknowledged")
		return r
	}
	// known is when an element was first certain to be in the set: its add was
	// acknowledged, or a scan that saw it returned.
	known := make(map[int64]int64)
	for n, op := range adds {
		if op.Type == history.OK {
			known[n] = op.Return
		}
	}
	contents := make([]map[int64]int, len(scans))
	for i, s := range scans {
		contents[i] = countElements(s)
		for n := range contents[i] {
			if at, ok := known[n]; !ok || s.Return < at {
				known[n] = s.Return
			}
		}
	}
	elements := sortedKeys(known)
	for i, s := range scans {
		checkScan(r, s, contents[i], adds)
		for _, n := range elements {
			if known[n] < s.Call && contents[i][n] == 0 {
				r.fail("lost", []*history.Op{adds[n], s}, "%d was in the set before the scan began, and is not in it", n)
			}
		}
	}
	recovered := 0
	for n := range contents[len(contents)-1] {
		if a := adds[n]; a != nil && a.Type == history.Info {
			recovered++
		}
	}
	r.Stats["unknown adds that happened"] = recovered
	lookedAtTheEnd(r, ops, scans, "add")
	return r
}

func countElements(s *history.Op) map[int64]int {
	m := make(map[int64]int, len(s.Out.Docs))
	for _, d := range s.Out.Docs {
		m[d.N]++
	}
	return m
}

// checkScan checks what one scan shows by itself.
func checkScan(r *Result, s *history.Op, content map[int64]int, adds map[int64]*history.Op) {
	for _, n := range sortedKeys(content) {
		a := adds[n]
		switch {
		case a == nil:
			r.fail("from nowhere", []*history.Op{brief(s)}, "%d was never added", n)
		case a.Type == history.Fail:
			r.fail("failed add is there", []*history.Op{a, brief(s)}, "the add of %d had failed", n)
		case a.Call > s.Return:
			r.fail("from the future", []*history.Op{a, brief(s)}, "%d is there before it was added", n)
		}
		if content[n] > 1 {
			r.fail("applied twice", []*history.Op{a, brief(s)}, "%d is there %d times", n, content[n])
		}
	}
	for _, d := range s.Out.Docs {
		if d.Bad != "" {
			r.fail("bad document", []*history.Op{brief(s)}, "%s: %s", d.ID, d.Bad)
		}
	}
}

// brief is the operation without its list of documents.
func brief(op *history.Op) *history.Op {
	b := *op
	b.Out.Docs = nil
	return &b
}

// Bank checks transfers between accounts. Operations: "transfer", and "scan",
// whose Out.Docs are the balances (N is the balance plus one: 0 is no document)
// at one log index. Each scan must hold all accounts, none below zero, and the
// total; and a scan that begins after another ended must not be older.
func Bank(ops []history.Op, accounts int, total int64) *Result {
	r := newResult("bank")
	var scans []*history.Op
	for i := range ops {
		op := &ops[i]
		switch {
		case op.F == "transfer":
			r.Stats[string(op.Type)+" transfers"]++
		case op.F == "scan" && op.Type == history.OK:
			scans = append(scans, op)
		}
	}
	r.Stats["scans"] = len(scans)
	if len(scans) == 0 || r.Stats["ok transfers"] == 0 {
		r.unsure("no scan, or no transfer that was acknowledged")
		return r
	}
	for _, s := range scans {
		var sum int64
		for _, d := range s.Out.Docs {
			sum += d.N - 1
			if d.N < 1 {
				r.fail("negative balance", []*history.Op{s}, "account %s holds %d", d.ID, d.N-1)
			}
		}
		if len(s.Out.Docs) != accounts {
			r.fail("missing account", []*history.Op{s}, "%d accounts of %d", len(s.Out.Docs), accounts)
		} else if sum != total {
			r.fail("wrong total", []*history.Op{s}, "the balances add up to %d, not %d", sum, total)
		}
	}
	neverOlder(r, scans)
	transfersSeen(r, ops, scans)
	lookedAtTheEnd(r, ops, scans, "transfer")
	return r
}

// transfersSeen checks that a scan that began after a transfer was acknowledged
// shows both accounts at its version or a later one.
func transfersSeen(r *Result, ops []history.Op, scans []*history.Op) {
	for _, s := range scans {
		at := make(map[string]uint64, len(s.Out.Docs))
		for _, d := range s.Out.Docs {
			at[d.ID] = d.Version
		}
		for i := range ops {
			op := &ops[i]
			if op.F != "transfer" || op.Type != history.OK || op.Return >= s.Call {
				continue
			}
			from, to, _ := strings.Cut(op.Key, ">")
			if at[from] < op.Out.Version || at[to] < op.Out.Version {
				r.fail("transfer lost", []*history.Op{op, s}, "%s is at version %d, %s at %d", from, at[from], to, at[to])
			}
		}
	}
}

// neverOlder checks that linearizable reads never go back in real time: each
// document's version in a read that began after another had returned is at
// least the version that one saw.
func neverOlder(r *Result, reads []*history.Op) {
	byCall := slices.Clone(reads)
	slices.SortFunc(byCall, func(a, b *history.Op) int { return cmp.Compare(a.Call, b.Call) })
	byReturn := slices.Clone(reads)
	slices.SortFunc(byReturn, func(a, b *history.Op) int { return cmp.Compare(a.Return, b.Return) })
	newest := make(map[string]history.Doc)
	from := make(map[string]*history.Op)
	next := 0
	for _, s := range byCall {
		for ; next < len(byReturn) && byReturn[next].Return < s.Call; next++ {
			for _, d := range byReturn[next].Out.Docs {
				if d.Version >= newest[d.ID].Version {
					newest[d.ID], from[d.ID] = d, byReturn[next]
				}
			}
		}
		for _, d := range s.Out.Docs {
			if d.Version < newest[d.ID].Version {
				r.fail("stale read", []*history.Op{from[d.ID], s}, "%s is at version %d after %d was seen", d.ID, d.Version, newest[d.ID].Version)
			}
		}
	}
}
