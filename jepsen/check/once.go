// SPDX-License-Identifier: Apache-2.0

package check

import (
	"github.com/akidb/akidb/jepsen/history"
)

// Once checks that a request sent many times happens once. Operations: "send"
// inserts In.N under one request id, several times, perhaps on several nodes at
// once and after later requests; Out.Versions and Out.IDs are the answers, which
// must all be the first one. "resend" sends it again much
// later; "erase" deletes the document of In.N; "scan" lists
// all documents. An element is never there twice, an erased one never comes back
// by a resend, and an acknowledged one that nobody erased is there.
func Once(ops []history.Op) *Result {
	r := newResult("once")
	sends, erases := make(map[int64]*history.Op), make(map[int64]*history.Op)
	var scans, resends []*history.Op
	for i := range ops {
		op := &ops[i]
		switch {
		case op.F == "send":
			sends[op.In.N] = op
			r.Stats[string(op.Type)+" sends"]++
			checkAnswers(r, op)
		case op.F == "resend" && op.Type == history.OK:
			resends = append(resends, op)
		case op.F == "erase" && op.Type != history.Fail:
			erases[op.In.N] = op
		case op.F == "scan" && op.Type == history.OK:
			scans = append(scans, op)
		}
	}
	r.Stats["scans"], r.Stats["erases"] = len(scans), len(erases)
	if len(scans) == 0 || r.Stats["ok sends"] == 0 {
		r.unsure("no scan, or no request that was acknowledged")
		return r
	}
	for _, again := range resends {
		r.Stats["resends"]++
		checkAnswers(r, again)
		first := sends[again.In.N]
		if first == nil || first.Type != history.OK || len(first.Out.Versions) == 0 {
			continue
		}
		if len(again.Out.Versions) > 0 && again.Out.Versions[0] != first.Out.Versions[0] {
			r.fail("two answers to one request", []*history.Op{first, again}, "version %d, later %d", first.Out.Versions[0], again.Out.Versions[0])
		}
	}
	for _, s := range scans {
		content := countElements(s)
		checkScan(r, s, content, sends)
		for _, n := range sortedKeys(sends) {
			op, erase := sends[n], erases[n]
			switch {
			case erase == nil:
				if op.Type == history.OK && op.Return < s.Call && content[n] == 0 {
					r.fail("lost", []*history.Op{op, brief(s)}, "%d was acknowledged and is not there", n)
				}
			case erase.Type == history.OK && erase.Return < s.Call && content[n] > 0:
				r.fail("resend brought it back", []*history.Op{op, erase, brief(s)}, "%d was erased", n)
			}
		}
	}
	lookedAtTheEnd(r, ops, scans, "send", "resend", "erase")
	return r
}

func checkAnswers(r *Result, op *history.Op) {
	if op.Type == history.OK && op.Out.Result == "exists" {
		r.fail("own insert refused", []*history.Op{op}, "nobody else inserts %d: an earlier try was applied and forgotten", op.In.N)
	}
	if op.Type == history.OK && op.Out.Result == "reused" {
		r.fail("own request refused", []*history.Op{op}, "nobody else uses the request id of %d, and the request is the same", op.In.N)
	}
	for _, v := range op.Out.Versions {
		if v != op.Out.Versions[0] {
			r.fail("two answers to one request", []*history.Op{op}, "versions %v", op.Out.Versions)
			break
		}
	}
	for _, id := range op.Out.IDs {
		if id != op.Out.IDs[0] {
			r.fail("two answers to one request", []*history.Op{op}, "ids %v", op.Out.IDs)
			break
		}
	}
	r.Stats["answers"] += len(op.Out.Versions)
}
