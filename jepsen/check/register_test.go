// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"testing"
	"time"

	"github.com/akidb/akidb/jepsen/history"
)

// at builds an operation with the interval [call, ret] in milliseconds; ret 0
// leaves its outcome unknown, ret < 0 makes it fail at -ret.
func at(process int, call, ret int64, f, key string, in, out history.Value) history.Op {
	op := history.Op{
		Process: process, Worker: process, F: f, Key: key, In: in, Out: out,
		Call: call * 1e6, Return: ret * 1e6, Type: history.OK,
	}
	switch {
	case ret == 0:
		op.Type, op.Return, op.Out = history.Info, history.Forever, history.Value{}
	case ret < 0:
		op.Type, op.Return, op.Out = history.Fail, -ret*1e6, history.Value{}
	}
	return op
}

func n(v int64) history.Value             { return history.Value{N: v} }
func cas(from, to int64) history.Value    { return history.Value{Expect: from, N: to} }
func result(res string) history.Value     { return history.Value{Result: res} }
func ver(v int64, x uint64) history.Value { return history.Value{N: v, Version: x} }

var none history.Value

// verdictTest is a history with the verdict it deserves.
type verdictTest struct {
	name string
	want Verdict
	kind string // of the first anomaly, if invalid
	ops  []history.Op
}

func runVerdicts(t *testing.T, tests []verdictTest, check func([]history.Op) *Result) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := check(tt.ops)
			if r.Verdict != tt.want {
				t.Fatalf("verdict %s, want %s: %+v", r.Verdict, tt.want, r.Anomalies)
			}
			if tt.kind != "" && r.Anomalies[0].Kind != tt.kind {
				t.Fatalf("anomaly %q, want %q: %+v", r.Anomalies[0].Kind, tt.kind, r.Anomalies)
			}
		})
	}
}

func TestRegisterChecker(t *testing.T) {
	const k = "x"
	runVerdicts(t, []verdictTest{
		{"in order", Valid, "", []history.Op{
			at(1, 1, 2, "read", k, none, none),
			at(1, 3, 4, "insert", k, n(1), none),
			at(2, 5, 6, "read", k, none, n(1)),
			at(2, 7, 8, "cas", k, cas(1, 2), none),
			at(1, 9, 10, "cas", k, cas(1, 3), result("mismatch")),
			at(1, 11, 12, "insert", k, n(4), result("exists")),
			at(1, 13, 14, "delete", k, none, none),
			at(1, 15, 16, "delete", k, none, result("absent")),
			at(2, 17, 18, "patch", k, n(5), result("absent")),
			at(2, 19, 20, "cas", k, cas(0, 6), none),
			at(2, 21, 22, "cas-del", k, cas(6, 0), none),
			at(3, 23, 24, "read", k, none, none),
		}},
		{"concurrent write seen early", Valid, "", []history.Op{
			at(1, 1, 10, "write", k, n(1), none),
			at(2, 2, 3, "read", k, none, n(1)),
			at(2, 4, 5, "read", k, none, n(1)),
		}},
		{"stale read", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", k, n(1), none),
			at(1, 3, 4, "write", k, n(2), none),
			at(2, 5, 6, "read", k, none, n(1)),
		}},
		{"read goes back", Invalid, "not linearizable", []history.Op{
			at(1, 1, 20, "write", k, n(1), none),
			at(2, 2, 3, "read", k, none, n(1)),
			at(3, 4, 5, "read", k, none, none),
		}},
		{"lost acknowledged write", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", k, n(1), none),
			at(2, 5, 6, "read", k, none, none),
		}},
		{"unknown write takes effect late", Valid, "", []history.Op{
			at(1, 1, 0, "write", k, n(1), none),
			at(2, 5, 6, "read", k, none, none),
			at(2, 7, 8, "read", k, none, n(1)),
		}},
		{"unknown write never happens", Valid, "", []history.Op{
			at(1, 1, 0, "write", k, n(1), none),
			at(2, 5, 6, "read", k, none, none),
		}},
		{"unknown write happens twice", Invalid, "not linearizable", []history.Op{
			at(1, 1, 0, "write", k, n(1), none),
			at(2, 5, 6, "read", k, none, n(1)),
			at(2, 7, 8, "write", k, n(2), none),
			at(2, 9, 10, "read", k, none, n(1)),
		}},
		{"failed write is seen", Invalid, "not linearizable", []history.Op{
			at(1, 1, -2, "write", k, n(1), none),
			at(2, 5, 6, "read", k, none, n(1)),
		}},
		{"two compare-and-sets from one value", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", k, n(1), none),
			at(1, 3, 9, "cas", k, cas(1, 2), none),
			at(2, 4, 10, "cas", k, cas(1, 3), none),
		}},
		{"refused for no reason", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", k, n(1), none),
			at(1, 3, 4, "cas", k, cas(1, 2), result("mismatch")),
		}},
		{"two inserts succeed", Invalid, "not linearizable", []history.Op{
			at(1, 1, 5, "insert", k, n(1), none),
			at(2, 2, 6, "insert", k, n(2), none),
		}},
		{"deleted comes back", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "insert", k, n(1), none),
			at(1, 3, 4, "delete", k, none, none),
			at(2, 5, 6, "read", k, none, n(1)),
		}},
		{"other keys are other registers", Valid, "", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 4, "read", "b", none, none),
		}},
	}, func(ops []history.Op) *Result {
		var html bytes.Buffer
		r := Linearizable("register", RegisterOps(ops), LinearOptions{Timeout: 10 * time.Second, HTML: &html})
		if !bytes.Contains(html.Bytes(), []byte("<html")) {
			t.Errorf("no timeline was written")
		}
		return r
	})
}

func TestVersionsChecker(t *testing.T) {
	runVerdicts(t, []verdictTest{
		{"agreeing", Valid, "", []history.Op{
			at(1, 1, 2, "write", "x", n(1), ver(0, 7)),
			at(2, 3, 4, "read", "x", none, ver(1, 7)),
			at(2, 5, 6, "write", "y", n(2), ver(0, 7)),
		}},
		{"one write applied twice", Invalid, "two versions of one write", []history.Op{
			at(1, 1, 2, "write", "x", n(1), ver(0, 7)),
			at(2, 3, 4, "read", "x", none, ver(1, 8)),
		}},
		{"one version of two writes", Invalid, "one version of two writes", []history.Op{
			at(1, 1, 2, "write", "x", n(1), ver(0, 7)),
			at(2, 3, 4, "write", "x", n(2), ver(0, 7)),
		}},
	}, Versions)
}

func docs(kv ...any) history.Value {
	var v history.Value
	for i := 0; i < len(kv); i += 2 {
		v.Docs = append(v.Docs, history.Doc{ID: kv[i].(string), N: int64(kv[i+1].(int))})
	}
	return v
}

func TestSearchChecker(t *testing.T) {
	all := func(string) bool { return true }
	runVerdicts(t, []verdictTest{
		{"finds what is there", Valid, "", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 4, "write", "b", n(2), none),
			at(2, 5, 6, "search", "a", n(1), docs("a", 1, "b", 2)),
			at(1, 7, 8, "delete", "a", none, none),
			at(2, 9, 10, "search", "a", n(1), docs("b", 2)),
		}},
		{"acknowledged document is not found", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 4, "write", "b", n(2), none),
			at(2, 5, 6, "search", "a", n(1), docs("b", 2)),
		}},
		{"deleted document is found", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 4, "delete", "a", none, none),
			at(1, 3, 4, "write", "b", n(3), none),
			at(2, 5, 6, "search", "b", n(3), docs("b", 3, "a", 1)),
		}},
		{"old value of a document is found", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 4, "write", "a", n(2), none),
			at(2, 5, 6, "search", "a", n(1), docs("a", 1)),
		}},
		{"not found while it is overwritten", Valid, "", []history.Op{
			at(1, 1, 2, "write", "a", n(1), none),
			at(1, 3, 8, "write", "a", n(2), none),
			at(2, 5, 6, "search", "a", n(1), none),
			at(2, 9, 10, "search", "a", n(2), docs("a", 2)),
		}},
	}, func(ops []history.Op) *Result {
		return Linearizable("search", SearchOps(ops, all), LinearOptions{})
	})
	runVerdicts(t, []verdictTest{
		{"whole", Valid, "", []history.Op{at(1, 1, 2, "search", "a", n(1), docs("a", 1, "b", 2))}},
		{"twice", Invalid, "returned twice", []history.Op{at(1, 1, 2, "search", "a", n(1), docs("a", 1, "a", 1))}},
		{"torn", Invalid, "bad document", []history.Op{
			at(1, 1, 2, "search", "a", n(1), history.Value{Docs: []history.Doc{{ID: "a", N: 1, Bad: "vector of 2"}}}),
		}},
		{"far from itself", Invalid, "distance of itself", []history.Op{
			at(1, 1, 2, "search", "a", n(1), history.Value{Docs: []history.Doc{{ID: "a", N: 1, Distance: 0.5}}}),
		}},
		{"unsorted", Invalid, "wrong order", []history.Op{
			at(1, 1, 2, "search", "a", n(1), history.Value{Docs: []history.Doc{{ID: "b", N: 2, Distance: 1}, {ID: "a", N: 1}}}),
		}},
		{"nothing found", Unknown, "", []history.Op{at(1, 1, 2, "search", "a", n(1), none)}},
	}, Searches)
}

func TestCatalogChecker(t *testing.T) {
	names := []string{"a", "b"}
	runVerdicts(t, []verdictTest{
		{"create, list, drop", Valid, "", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(2, 3, 4, "list", "", none, docs("a", 1)),
			at(2, 5, 6, "insert", "a", n(2), result("exists")),
			at(2, 7, 8, "delete", "a", none, none),
			at(1, 9, 10, "insert", "a", n(3), none),
			at(2, 11, 12, "list", "", none, docs("a", 3)),
		}},
		{"list misses a collection", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(2, 3, 4, "list", "", none, none),
		}},
		{"dropped collection is listed", Invalid, "not linearizable", []history.Op{
			at(1, 1, 2, "insert", "a", n(1), none),
			at(2, 3, 4, "delete", "a", none, none),
			at(2, 5, 6, "list", "", none, docs("a", 1)),
		}},
		{"created twice", Invalid, "not linearizable", []history.Op{
			at(1, 1, 4, "insert", "a", n(1), none),
			at(2, 2, 5, "insert", "a", n(2), none),
		}},
	}, func(ops []history.Op) *Result {
		return Linearizable("catalog", CatalogOps(ops, names), LinearOptions{})
	})
	runVerdicts(t, []verdictTest{
		{"own documents", Valid, "", []history.Op{at(1, 1, 2, "peek", "a", none, history.Value{N: 3, Docs: docs("d", 3).Docs})}},
		{"documents of the dropped one", Invalid, "document of another collection", []history.Op{
			at(1, 1, 2, "peek", "a", none, history.Value{N: 3, Docs: docs("d", 1).Docs}),
		}},
	}, Contents)
}
