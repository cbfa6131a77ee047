// SPDX-License-Identifier: Apache-2.0

// Package check decides whether a history keeps a promise. Checkers look only
// at what clients did and saw, never at the database, so any history can be
// checked again later.
package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/akidb/akidb/jepsen/history"
)

// Verdict of a checker.
type Verdict string

// The verdicts. Unknown means that the checker could not decide: too little
// happened, or the search for an order took too long.
const (
	Valid   Verdict = "valid"
	Invalid Verdict = "invalid"
	Unknown Verdict = "unknown"
)

// maxAnomalies bounds what a report lists of each checker.
const maxAnomalies = 20

// Anomaly is one broken promise.
type Anomaly struct {
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
	// Ops are the operations that show it, as text.
	Ops []string `json:"ops,omitempty"`
}

// Result of a checker.
type Result struct {
	Checker   string         `json:"checker"`
	Verdict   Verdict        `json:"verdict"`
	Anomalies []Anomaly      `json:"anomalies,omitempty"`
	Total     int            `json:"anomalies_total,omitempty"`
	Stats     map[string]int `json:"stats,omitempty"`
	Note      string         `json:"note,omitempty"`
}

func newResult(name string) *Result {
	return &Result{Checker: name, Verdict: Valid, Stats: make(map[string]int)}
}

// fail records an anomaly.
func (r *Result) fail(kind string, ops []*history.Op, format string, args ...any) {
	r.Verdict = Invalid
	r.Total++
	if len(r.Anomalies) >= maxAnomalies {
		return
	}
	a := Anomaly{Kind: kind, Detail: fmt.Sprintf(format, args...)}
	for _, op := range ops {
		if op != nil {
			a.Ops = append(a.Ops, op.String())
		}
	}
	r.Anomalies = append(r.Anomalies, a)
}

// unsure turns a valid result into an unknown one.
func (r *Result) unsure(note string) {
	if r.Verdict == Valid {
		r.Verdict = Unknown
	}
	r.Note = note
}

// Merge gives the verdict of several results: the worst of them.
func Merge(results []*Result) Verdict {
	v := Valid
	for _, r := range results {
		v = Worse(v, r.Verdict)
	}
	return v
}

// Worse is the worse of two verdicts: invalid beats unknown beats valid.
func Worse(a, b Verdict) Verdict {
	switch {
	case a == Invalid || b == Invalid:
		return Invalid
	case a == Unknown || b == Unknown:
		return Unknown
	}
	return Valid
}

// Observed is a checker's own guard: a history in which nothing was read and
// nothing was written proves nothing.
func Observed(ops []history.Op, reads, writes func(*history.Op) bool) *Result {
	r := newResult("observed")
	for i := range ops {
		if ops[i].Type != history.OK {
			continue
		}
		if reads(&ops[i]) {
			r.Stats["reads"]++
		}
		if writes(&ops[i]) {
			r.Stats["writes"]++
		}
	}
	if r.Stats["reads"] == 0 || r.Stats["writes"] == 0 {
		r.unsure("too few operations succeeded to say anything")
	}
	return r
}

// noteAll is the note of a read that lists all documents.
const noteAll = "all"

// Whole checks what each operation shows by itself: a reply that makes sense, and
// documents whose vector and payload belong together. Whoever met another notes it.
func Whole(ops []history.Op) *Result {
	r := newResult("whole")
	for i := range ops {
		op := &ops[i]
		if op.Type != history.OK {
			continue
		}
		r.Stats["operations"]++
		if note := op.Out.Note; note != "" && note != noteAll {
			r.fail("bad reply", []*history.Op{brief(op)}, "%s", note)
		}
		for _, d := range op.Out.Docs {
			if d.Bad != "" {
				r.fail("bad document", []*history.Op{brief(op)}, "%s: %s", d.ID, d.Bad)
			}
		}
	}
	return r
}

// lookedAtTheEnd makes r unknown if nobody listed everything after the last of the
// operations of these names was acknowledged: what became of that is not known.
func lookedAtTheEnd(r *Result, ops []history.Op, scans []*history.Op, names ...string) {
	var acked, looked int64
	for i := range ops {
		if op := &ops[i]; op.Type == history.OK && slices.Contains(names, op.F) {
			acked = max(acked, op.Return)
		}
	}
	for _, s := range scans {
		looked = max(looked, s.Call)
	}
	if looked < acked { // at one time is enough: the clock may stand still
		r.unsure("nobody looked at everything after the last acknowledgement")
	}
}

// sortedKeys are the keys of m in order, so that reports do not depend on chance.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
