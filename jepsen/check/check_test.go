// SPDX-License-Identifier: Apache-2.0

package check

import (
	"testing"

	"github.com/akidb/akidb/jepsen/history"
)

func TestSetChecker(t *testing.T) {
	runVerdicts(t, []verdictTest{
		{"all there", Valid, "", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(1, 3, 0, "add", "", n(2), none),
			at(2, 3, -4, "add", "", n(3), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1)),
			at(3, 7, 8, "scan", "", none, docs("a", 1, "b", 2)),
		}},
		{"acknowledged add is lost", Invalid, "lost", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(2, 3, 4, "add", "", n(2), none),
			at(3, 5, 6, "scan", "", none, docs("b", 2)),
		}},
		{"seen and lost", Invalid, "lost", []history.Op{
			at(1, 1, 0, "add", "", n(1), none),
			at(2, 1, 2, "add", "", n(2), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1, "b", 2)),
			at(3, 7, 8, "scan", "", none, docs("b", 2)),
		}},
		{"applied twice", Invalid, "applied twice", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1, "b", 1)),
		}},
		{"failed add is there", Invalid, "failed add is there", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(2, 1, -2, "add", "", n(2), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1, "b", 2)),
		}},
		{"from nowhere", Invalid, "from nowhere", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1, "b", 9)),
		}},
		{"nothing was read", Unknown, "", []history.Op{at(1, 1, 2, "add", "", n(1), none)}},
		{"nobody looked at the end", Unknown, "", []history.Op{
			at(1, 1, 2, "add", "", n(1), none),
			at(3, 5, 6, "scan", "", none, docs("a", 1)),
			at(1, 7, 8, "add", "", n(2), none),
		}},
	}, Set)
}

func TestBankChecker(t *testing.T) {
	balances := func(version uint64, b ...int64) history.Value {
		var v history.Value
		for i, n := range b {
			v.Docs = append(v.Docs, history.Doc{ID: string(rune('a' + i)), N: n + 1, Version: version})
		}
		return v
	}
	move := at(1, 1, 2, "transfer", "", none, none)
	runVerdicts(t, []verdictTest{
		{"conserved", Valid, "", []history.Op{move, at(2, 3, 4, "scan", "", none, balances(5, 3, 7))}},
		{"half a transfer", Invalid, "wrong total", []history.Op{move, at(2, 3, 4, "scan", "", none, balances(5, 3, 6))}},
		{"below zero", Invalid, "negative balance", []history.Op{move, at(2, 3, 4, "scan", "", none, balances(5, -1, 11))}},
		{"account gone", Invalid, "missing account", []history.Op{move, at(2, 3, 4, "scan", "", none, balances(5, 10))}},
		{"older than before", Invalid, "stale read", []history.Op{
			move, at(2, 3, 4, "scan", "", none, balances(5, 3, 7)), at(3, 5, 6, "scan", "", none, balances(4, 5, 5)),
		}},
		{"lost transfer", Invalid, "transfer lost", []history.Op{
			at(1, 1, 2, "transfer", "a>b", none, history.Value{Version: 6}), at(2, 3, 4, "scan", "", none, balances(5, 3, 7)),
		}},
		{"nobody looked", Unknown, "", []history.Op{move}},
		{"nobody looked at the end", Unknown, "", []history.Op{
			move, at(2, 3, 4, "scan", "", none, balances(5, 3, 7)), at(1, 5, 6, "transfer", "a>b", none, history.Value{Version: 6}),
		}},
	}, func(ops []history.Op) *Result { return Bank(ops, 2, 10) })
}

func TestWholeChecker(t *testing.T) {
	bad := history.Value{Docs: []history.Doc{{ID: "a", N: 1}, {ID: "b", N: 2, Bad: "the vector is not that of 2"}}}
	runVerdicts(t, []verdictTest{
		{"whole", Valid, "", []history.Op{at(1, 1, 2, "scan", "", none, history.Value{Note: "all", Docs: docs("a", 1).Docs})}},
		{"one of a list is not", Invalid, "bad document", []history.Op{at(1, 1, 2, "scan", "", none, bad)}},
		{"one read alone is not", Invalid, "bad reply", []history.Op{at(1, 1, 2, "read", "a", none, history.Value{N: 1, Note: "the vector is not that of 1"})}},
		{"nothing was learnt", Valid, "", []history.Op{at(1, 1, -2, "read", "a", none, none)}},
	}, Whole)
}

func TestSessionChecker(t *testing.T) {
	seen := func(v int64, applied uint64) history.Value { return history.Value{N: v, Applied: applied} }
	runVerdicts(t, []verdictTest{
		{"monotonic", Valid, "", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), seen(0, 5)),
			at(2, 3, 4, "read", "x", none, none),
			at(1, 3, 4, "read", "x", none, seen(1, 5)),
			at(1, 5, 0, "bump", "x", n(2), none),
			at(2, 6, 7, "read", "x", none, seen(2, 9)),
			at(1, 8, 9, "read", "x", none, seen(1, 6)),
		}},
		{"own write not seen", Invalid, "own write not seen", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), seen(0, 5)),
			at(1, 3, 4, "read", "x", none, seen(0, 5)),
		}},
		{"went back", Invalid, "went back", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(1, 3, 4, "bump", "x", n(2), none),
			at(2, 5, 6, "read", "x", none, n(2)),
			at(2, 7, 8, "read", "x", none, n(1)),
		}},
		{"applied index went back", Invalid, "applied index went back", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(2, 5, 6, "read", "x", none, seen(1, 9)),
			at(2, 7, 8, "read", "x", none, seen(1, 8)),
		}},
		{"from the future", Invalid, "from the future", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(2, 3, 4, "read", "x", none, n(2)),
			at(1, 5, 6, "bump", "x", n(2), none),
		}},
		{"failed write was read", Invalid, "failed write was read", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(1, 3, -4, "bump", "x", n(2), none),
			at(2, 5, 6, "read", "x", none, n(2)),
		}},
	}, Session)
}

func TestBoundedChecker(t *testing.T) {
	within := func(ms int64) history.Value { return history.Value{MaxStaleMs: ms} }
	runVerdicts(t, []verdictTest{
		{"stale within the bound", Valid, "", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(1, 90, 95, "bump", "x", n(2), none),
			at(2, 150, 151, "read", "x", within(100), n(1)),
		}},
		{"too stale", Invalid, "too stale", []history.Op{
			at(1, 1, 2, "bump", "x", n(1), none),
			at(1, 3, 4, "bump", "x", n(2), none),
			at(2, 150, 151, "read", "x", within(100), n(1)),
		}},
	}, func(ops []history.Op) *Result { return Bounded(ops, 10) })
}

func TestDeletedChecker(t *testing.T) {
	all := history.Value{Note: "all"}
	runVerdicts(t, []verdictTest{
		{"gone for good", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 1, 2, "insert", "b", n(2), none),
			at(2, 3, 4, "scan", "", all, docs("a", 1, "b", 2)),
			at(1, 5, 6, "delete", "a", none, none),
			at(2, 7, 8, "scan", "", all, docs("b", 2)),
		}},
		{"came back", Invalid, "came back", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 5, 6, "delete", "a", none, none),
			at(2, 7, 8, "search", "", none, docs("a", 1)),
		}},
		{"lost without a delete", Invalid, "lost", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(2, 7, 8, "scan", "", all, none),
		}},
		{"unknown delete allows both", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 3, 0, "delete", "a", none, none),
			at(2, 7, 8, "scan", "", all, none),
			at(3, 7, 8, "search", "", none, docs("a", 1)),
		}},
		{"a delete that came too early proves nothing", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 3, 0, "insert", "a", n(1), none),
			at(2, 5, 6, "delete", "a", none, result("absent")),
			at(3, 7, 8, "search", "", none, docs("a", 1)),
			at(3, 9, 10, "scan", "", all, docs("a", 1)),
		}},
		{"lost beside a delete that failed", Invalid, "lost", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 3, -4, "delete", "a", none, none),
			at(2, 7, 8, "scan", "", all, none),
		}},
		{"missed after it was seen, then there again", Invalid, "came back", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 3, 0, "delete", "a", none, none),
			at(2, 5, 6, "scan", "", all, docs("a", 1)),
			at(2, 7, 8, "scan", "", all, none),
			at(2, 9, 10, "get", "a", none, docs("a", 1)),
		}},
		{"missed by a get, then there again", Invalid, "came back", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 0, "insert", "a", n(1), none),
			at(1, 3, 30, "delete", "a", none, none),
			at(2, 5, 6, "get", "a", none, docs("a", 1)),
			at(2, 7, 8, "get", "a", none, none),
			at(2, 9, 10, "search", "", none, docs("a", 1)),
		}},
		{"missed before anybody had seen it", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 0, "insert", "a", n(1), none),
			at(2, 5, 6, "scan", "", all, none),
			at(2, 7, 8, "get", "a", none, docs("a", 1)),
		}},
		{"missed while another saw it", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 2, "insert", "a", n(1), none),
			at(1, 3, 0, "delete", "a", none, none),
			at(2, 5, 9, "scan", "", all, none),
			at(3, 6, 7, "scan", "", all, docs("a", 1)),
			at(3, 8, 10, "scan", "", all, docs("a", 1)),
		}},
		{"seen, then lost without a delete", Invalid, "lost", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 1, 0, "insert", "a", n(1), none),
			at(2, 5, 6, "get", "a", none, docs("a", 1)),
			at(2, 7, 8, "scan", "", all, none),
		}},
		{"nobody looked at the end", Unknown, "", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(2, 7, 8, "scan", "", all, none),
			at(1, 9, 10, "insert", "a", n(1), none),
		}},
		{"failed insert is there", Invalid, "failed insert is there", []history.Op{
			at(1, 1, 2, "insert", "b", n(2), none),
			at(1, 3, 4, "delete", "b", none, none),
			at(1, 3, -4, "insert", "a", n(1), none),
			at(3, 7, 8, "search", "", none, docs("a", 1)),
		}},
	}, Deleted)
}

func TestOnceChecker(t *testing.T) {
	answers := func(v ...uint64) history.Value { return history.Value{Versions: v} }
	runVerdicts(t, []verdictTest{
		{"one answer", Valid, "", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5, 5, 5)),
			at(1, 1, 2, "send", "", n(2), answers(6)),
			at(1, 3, 4, "erase", "", n(1), none),
			at(1, 5, 6, "resend", "", n(1), answers(5)),
			at(2, 7, 8, "scan", "", none, docs("b", 2)),
		}},
		{"two answers", Invalid, "two answers to one request", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5, 6)),
			at(2, 7, 8, "scan", "", none, docs("b", 1)),
		}},
		{"another answer later", Invalid, "two answers to one request", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(1, 3, 4, "resend", "", n(1), answers(9)),
			at(2, 7, 8, "scan", "", none, docs("b", 1)),
		}},
		{"forgotten", Invalid, "own insert refused", []history.Op{
			at(1, 1, 2, "send", "", n(1), result("exists")),
			at(2, 7, 8, "scan", "", none, docs("b", 1)),
		}},
		{"refused as another's", Invalid, "own request refused", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(1, 3, 4, "resend", "", n(1), result("reused")),
			at(2, 7, 8, "scan", "", none, docs("b", 1)),
		}},
		{"applied twice", Invalid, "applied twice", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(2, 7, 8, "scan", "", none, docs("a", 1, "b", 1)),
		}},
		{"brought back", Invalid, "resend brought it back", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(1, 3, 4, "erase", "", n(1), none),
			at(2, 7, 8, "scan", "", none, docs("b", 1)),
		}},
		{"lost", Invalid, "lost", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(2, 7, 8, "scan", "", none, none),
		}},
		{"nobody looked at the end", Unknown, "", []history.Op{
			at(1, 1, 2, "send", "", n(1), answers(5)),
			at(2, 3, 4, "scan", "", none, docs("b", 1)),
			at(1, 5, 6, "send", "", n(2), answers(6)),
		}},
	}, Once)
}

// txn builds a transaction from "r", key, list and "a", key, element triples.
func txn(process int, call, ret int64, parts ...any) history.Op {
	var v history.Value
	for i := 0; i < len(parts); i += 3 {
		m := history.Mop{Key: parts[i+1].(string)}
		if parts[i] == "r" {
			m.F, m.List = "r", parts[i+2].([]int64)
		} else {
			m.F, m.N = "append", int64(parts[i+2].(int))
		}
		v.Txn = append(v.Txn, m)
	}
	return at(process, call, ret, "txn", "", v, v)
}

func l(n ...int64) []int64 { return n }

func TestAppendChecker(t *testing.T) {
	runVerdicts(t, []verdictTest{
		{"serial", Valid, "", []history.Op{
			txn(1, 1, 2, "r", "x", l(), "a", "x", 1),
			txn(2, 3, 4, "r", "x", l(1), "a", "x", 2, "a", "y", 3),
			txn(3, 5, 0, "a", "y", 4),
			txn(1, 7, 8, "r", "x", l(1, 2), "r", "y", l(3, 4)),
		}},
		{"G0: writes interleave", Invalid, "G0", []history.Op{
			txn(1, 1, 9, "a", "x", 1, "a", "y", 1),
			txn(2, 1, 9, "a", "x", 2, "a", "y", 2),
			txn(3, 1, 9, "r", "x", l(1, 2), "r", "y", l(2, 1)),
		}},
		{"G1a: aborted read", Invalid, "G1a: aborted read", []history.Op{
			txn(1, 1, -2, "a", "x", 1),
			txn(2, 1, 9, "r", "x", l(1)),
		}},
		{"G1c: each reads the other", Invalid, "G1c", []history.Op{
			txn(1, 1, 9, "a", "x", 1, "r", "y", l(2)),
			txn(2, 1, 9, "a", "y", 2, "r", "x", l(1)),
		}},
		{"G-single: read skew", Invalid, "G-single", []history.Op{
			txn(1, 1, 9, "a", "x", 1, "a", "y", 1),
			txn(2, 1, 9, "r", "x", l(), "r", "y", l(1)),
			txn(3, 1, 9, "r", "x", l(1)),
		}},
		{"G2: write skew", Invalid, "G2", []history.Op{
			txn(1, 1, 9, "r", "x", l(), "a", "y", 1),
			txn(2, 1, 9, "r", "y", l(), "a", "x", 1),
			txn(3, 1, 9, "r", "x", l(1), "r", "y", l(1)),
		}},
		{"lost update", Invalid, "incompatible order", []history.Op{
			txn(1, 1, 9, "r", "x", l(), "a", "x", 1),
			txn(2, 1, 9, "r", "x", l(), "a", "x", 2),
			txn(3, 1, 9, "r", "x", l(1)),
			txn(4, 1, 9, "r", "x", l(2)),
		}},
		{"stale read breaks only real time", Invalid, "G-single-realtime", []history.Op{
			txn(1, 1, 2, "a", "x", 1),
			txn(2, 3, 4, "r", "x", l()),
			txn(3, 5, 6, "r", "x", l(1)),
		}},
		{"acknowledged append that nobody ever sees", Invalid, "G-single-realtime", []history.Op{
			txn(1, 1, 2, "a", "x", 1),
			txn(2, 3, 4, "a", "x", 2),
			txn(3, 5, 6, "r", "x", l(1)),
		}},
		{"concurrent is no order", Valid, "", []history.Op{
			txn(1, 1, 4, "a", "x", 1),
			txn(2, 3, 6, "r", "x", l()),
			txn(3, 5, 8, "r", "x", l(1)),
		}},
		{"twice in the list", Invalid, "applied twice", []history.Op{
			txn(1, 1, 2, "a", "x", 1),
			txn(3, 5, 6, "r", "x", l(1, 1)),
		}},
		{"from nowhere", Invalid, "from nowhere", []history.Op{txn(3, 5, 6, "r", "x", l(7))}},
		{"nothing was written", Unknown, "", []history.Op{txn(1, 1, -2, "a", "x", 1), txn(3, 5, 6, "r", "x", l())}},
		{"nothing was read", Unknown, "", []history.Op{txn(1, 1, 2, "a", "x", 1)}},
	}, Append)
}
