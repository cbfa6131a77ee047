// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"slices"

	"github.com/akidb/akidb/jepsen/history"
)

// Session checks counters that have one writer each, read with a session token
// on any replica. Operations: "bump" of Key to In.N (the writer counts up by
// one) and "read" of Key in Out.N. Worker is the session. A session's reads see
// its own acknowledged writes, never go back for a key, never go back in the
// applied index, and never see what was not written yet.
func Session(ops []history.Op) *Result {
	r := newResult("session")
	attempted := make(map[string][]*history.Op)
	bySession := make(map[int][]*history.Op)
	for i := range ops {
		op := &ops[i]
		if op.F == "bump" {
			attempted[op.Key] = append(attempted[op.Key], op)
		}
		bySession[op.Worker] = append(bySession[op.Worker], op)
	}
	for _, w := range sortedKeys(bySession) {
		checkSession(r, bySession[w])
	}
	for i := range ops {
		op := &ops[i]
		if op.F == "read" && op.Type == history.OK {
			checkCounter(r, op, attempted[op.Key])
		}
	}
	if r.Stats["session reads"] == 0 || r.Stats["session writes"] == 0 {
		r.unsure("no session read, or no write that was acknowledged")
	}
	return r
}

func checkSession(r *Result, ops []*history.Op) {
	low := make(map[string]int64) // what the session must see at least
	why := make(map[string]*history.Op)
	var applied uint64
	var appliedBy *history.Op
	for _, op := range ops {
		if op.Type != history.OK {
			continue
		}
		switch op.F {
		case "bump":
			r.Stats["session writes"]++
			if op.In.N > low[op.Key] {
				low[op.Key], why[op.Key] = op.In.N, op
			}
		case "read":
			r.Stats["session reads"]++
			if op.Out.N < low[op.Key] {
				kind := "went back"
				if why[op.Key].F == "bump" {
					kind = "own write not seen"
				}
				r.fail(kind, []*history.Op{why[op.Key], op}, "%s is %d, at least %d was due", op.Key, op.Out.N, low[op.Key])
			} else {
				low[op.Key], why[op.Key] = op.Out.N, op
			}
			if op.Out.Applied < applied {
				r.fail("applied index went back", []*history.Op{appliedBy, op}, "from %d to %d", applied, op.Out.Applied)
			}
		}
		if op.Out.Applied > applied {
			applied, appliedBy = op.Out.Applied, op
		}
	}
}

// checkCounter checks that a read saw a value that was attempted before it ended.
func checkCounter(r *Result, read *history.Op, bumps []*history.Op) {
	if read.Out.N == 0 {
		return
	}
	for _, b := range bumps {
		if b.In.N == read.Out.N {
			switch {
			case b.Type == history.Fail:
				r.fail("failed write was read", []*history.Op{b, read}, "%s = %d", read.Key, read.Out.N)
			case b.Call > read.Return:
				r.fail("from the future", []*history.Op{b, read}, "%s = %d", read.Key, read.Out.N)
			}
			return
		}
	}
	r.fail("from nowhere", []*history.Op{read}, "%s was never set to %d", read.Key, read.Out.N)
}

// Bounded checks reads that allow a bounded staleness: each sees at least what
// was acknowledged In.MaxStaleMs (plus slackMs, for what a clock cannot tell)
// before it began. Operations as for Session; reads that were refused fail.
func Bounded(ops []history.Op, slackMs int64) *Result {
	r := newResult("bounded")
	acked := make(map[string][]*history.Op)
	attempted := make(map[string][]*history.Op)
	for i := range ops {
		op := &ops[i]
		if op.F != "bump" {
			continue
		}
		attempted[op.Key] = append(attempted[op.Key], op)
		if op.Type == history.OK {
			acked[op.Key] = append(acked[op.Key], op)
			r.Stats["writes"]++
		}
	}
	for _, bumps := range acked {
		slices.SortFunc(bumps, func(a, b *history.Op) int { return cmp.Compare(a.Return, b.Return) })
	}
	for i := range ops {
		op := &ops[i]
		if op.F != "read" || op.Type != history.OK {
			continue
		}
		r.Stats["reads"]++
		checkCounter(r, op, attempted[op.Key])
		horizon := op.Call - (op.In.MaxStaleMs+slackMs)*1e6
		bumps := acked[op.Key]
		at, _ := slices.BinarySearchFunc(bumps, horizon, func(b *history.Op, t int64) int { return cmp.Compare(b.Return, t) })
		due := newestOf(bumps[:at])
		if due != nil && op.Out.N < due.In.N {
			r.fail("too stale", []*history.Op{due, op}, "%s is %d; %d was acknowledged %.1f ms before, %d are allowed",
				op.Key, op.Out.N, due.In.N, float64(op.Call-due.Return)/1e6, op.In.MaxStaleMs)
		}
		if len(bumps) > 0 && op.Out.N < newestBefore(bumps, op.Call) {
			r.Stats["reads that were stale within the bound"]++
		}
	}
	if r.Stats["reads"] == 0 || r.Stats["writes"] == 0 {
		r.unsure("no read, or no write that was acknowledged")
	}
	return r
}

func newestOf(bumps []*history.Op) *history.Op {
	var newest *history.Op
	for _, b := range bumps {
		if newest == nil || b.In.N > newest.In.N {
			newest = b
		}
	}
	return newest
}

func newestBefore(bumps []*history.Op, t int64) int64 {
	var n int64
	for _, b := range bumps {
		if b.Return < t {
			n = max(n, b.In.N)
		}
	}
	return n
}

// Deleted checks documents that are written once and deleted once and never
// written again. Operations: "insert" and "delete" of Key, and reads of all
// kinds whose Out.Docs are the documents they returned. From the moment a delete
// is acknowledged, or a read that began after some read had seen the document
// misses it, no read may return it; and until a delete is attempted, a document
// that was acknowledged or seen is returned by every read that lists all of them
// (In.Note "all") and by every "get" of it.
func Deleted(ops []history.Op) *Result {
	r := newResult("deleted")
	inserts, deletes := make(map[string]*history.Op), make(map[string]*history.Op)
	var reads, everyDelete []*history.Op
	for i := range ops {
		op := &ops[i]
		switch {
		case op.F == "insert":
			inserts[op.Key] = op
			r.Stats[string(op.Type)+" inserts"]++
		case op.F == "delete":
			// One that failed, or found nothing, took nothing away.
			if d := deletes[op.Key]; op.Type != history.Fail && op.Out.Result == "" && (d == nil || op.Call < d.Call) {
				deletes[op.Key] = op
			}
			everyDelete = append(everyDelete, op)
			r.Stats[string(op.Type)+" deletes"]++
		case op.Type == history.OK:
			reads = append(reads, op)
		}
	}
	r.Stats["reads"] = len(reads)
	if len(reads) == 0 || r.Stats["ok deletes"] == 0 {
		r.unsure("no read, or no delete that was acknowledged")
		return r
	}
	there, gone := thereAt(inserts, reads), goneAt(everyDelete, inserts)
	for _, s := range reads {
		checkMissed(r, s, inserts, deletes, there, gone)
	}
	var scans []*history.Op
	for _, s := range reads {
		checkGone(r, s, inserts, deletes, gone)
		if s.In.Note == noteAll {
			scans = append(scans, s)
		}
	}
	lookedAtTheEnd(r, ops, scans, "insert", "delete")
	return r
}

// thereAt says when each key was certainly there: its insert was acknowledged, or a
// read that saw it returned.
func thereAt(inserts map[string]*history.Op, reads []*history.Op) map[string]int64 {
	there := make(map[string]int64)
	for k, ins := range inserts {
		if ins.Type == history.OK && ins.Out.Result == "" {
			there[k] = ins.Return
		}
	}
	for _, s := range reads {
		for _, d := range s.Out.Docs {
			if at, ok := there[d.ID]; !ok || s.Return < at {
				there[d.ID] = s.Return
			}
		}
	}
	return there
}

// checkMissed looks for keys that were there before the read began and that it
// should have returned: a delete must have been tried, and they are gone for good
// when it returns.
func checkMissed(r *Result, s *history.Op, inserts, deletes map[string]*history.Op, there, gone map[string]int64) {
	if s.In.Consistency == "eventual" {
		return
	}
	due := []string{s.Key}
	if s.In.Note == noteAll {
		due = sortedKeys(there)
	} else if s.F != "get" {
		return
	}
	returned := make(map[string]bool, len(s.Out.Docs))
	for _, d := range s.Out.Docs {
		returned[d.ID] = true
	}
	for _, k := range due {
		if at, ok := there[k]; !ok || at >= s.Call || returned[k] {
			continue
		}
		if del := deletes[k]; del == nil || del.Call > s.Return {
			r.fail("lost", []*history.Op{inserts[k], brief(s)}, "%s was there, never deleted, and is not returned", k)
			continue
		}
		if at, ok := gone[k]; !ok || s.Return < at {
			gone[k] = s.Return
		}
	}
}

// goneAt says when each key was certainly gone for good. A delete that found
// nothing proves it only if the insert had been acknowledged before.
func goneAt(deletes []*history.Op, inserts map[string]*history.Op) map[string]int64 {
	gone := make(map[string]int64)
	for _, d := range deletes {
		ins := inserts[d.Key]
		if d.Type != history.OK || ins == nil {
			continue
		}
		if d.Out.Result == "absent" && (ins.Type != history.OK || ins.Return >= d.Call) {
			continue
		}
		if at, ok := gone[d.Key]; !ok || d.Return < at {
			gone[d.Key] = d.Return
		}
	}
	return gone
}

func checkGone(r *Result, s *history.Op, inserts, deletes map[string]*history.Op, gone map[string]int64) {
	there := make(map[string]bool, len(s.Out.Docs))
	for _, d := range s.Out.Docs {
		if there[d.ID] {
			r.fail("returned twice", []*history.Op{brief(s)}, "%s", d.ID)
		}
		there[d.ID] = true
		ins := inserts[d.ID]
		switch {
		case ins == nil || ins.Call > s.Return:
			r.fail("from nowhere", []*history.Op{ins, brief(s)}, "%s was never inserted before", d.ID)
			continue
		case ins.Type == history.Fail:
			r.fail("failed insert is there", []*history.Op{ins, brief(s)}, "%s", d.ID)
		}
		if at, ok := gone[d.ID]; ok && at < s.Call && s.In.Consistency != "eventual" {
			r.fail("came back", []*history.Op{ins, deletes[d.ID], brief(s)}, "%s was deleted before the read began", d.ID)
		}
		if d.Bad != "" {
			r.fail("bad document", []*history.Op{brief(s)}, "%s: %s", d.ID, d.Bad)
		}
	}
}
