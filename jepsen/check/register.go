// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/akidb/akidb/jepsen/history"
)

// RegKind is what an operation does with a register, or says about it.
type RegKind string

// The kinds. Observe and Differs come from searches: a search saw the register
// hold a value, or would have returned it had it held the value.
const (
	RegRead    RegKind = "read"
	RegWrite   RegKind = "write"   // whatever was there
	RegInsert  RegKind = "insert"  // only if nothing is there
	RegPatch   RegKind = "patch"   // only if something is there
	RegCAS     RegKind = "cas"     // only if Expect is there
	RegDelete  RegKind = "delete"  // only if something is there
	RegCASDel  RegKind = "cas-del" // only if Expect is there
	RegObserve RegKind = "observe"
	RegDiffers RegKind = "differs"
)

// RegIn is the input of a step of the register model. The state is the value,
// 0 if there is no document.
type RegIn struct {
	Key       string
	Kind      RegKind
	N, Expect int64
}

// RegOut is its output; not Known: any outcome is possible.
type RegOut struct {
	Known  bool
	N      int64
	Result string
}

// RegOp is one step with its interval.
type RegOp struct {
	In           RegIn
	Out          RegOut
	Process      int
	Call, Return int64
}

// stepRegister is the sequential register. It is a pure function.
func stepRegister(state int64, in RegIn, out RegOut) (bool, int64) {
	applies, next := registerEffect(state, in)
	if !out.Known {
		return true, next
	}
	switch in.Kind {
	case RegRead, RegObserve:
		return state == out.N, state
	case RegDiffers:
		return state != in.N, state
	}
	switch out.Result {
	case "":
		return applies, next
	case "exists":
		return in.Kind == RegInsert && state != 0, state
	case "absent":
		return in.Kind != RegWrite && in.Kind != RegInsert && state == 0 && !applies, state
	case "mismatch":
		return (in.Kind == RegCAS || in.Kind == RegCASDel) && state != in.Expect, state
	default:
		return false, state
	}
}

// registerEffect says whether a write takes effect on state, and the state after.
func registerEffect(state int64, in RegIn) (bool, int64) {
	switch in.Kind {
	case RegWrite:
		return true, in.N
	case RegInsert:
		if state == 0 {
			return true, in.N
		}
	case RegPatch:
		if state != 0 {
			return true, in.N
		}
	case RegCAS:
		if state == in.Expect {
			return true, in.N
		}
	case RegDelete:
		if state != 0 {
			return true, 0
		}
	case RegCASDel:
		if state == in.Expect && state != 0 {
			return true, 0
		}
	}
	return false, state
}

// registerModel partitions by key: a history of independent registers is
// linearizable if and only if that of each register is.
func registerModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
			byKey := make(map[string][]porcupine.Operation)
			for _, op := range ops {
				k := op.Input.(RegIn).Key
				byKey[k] = append(byKey[k], op)
			}
			var parts [][]porcupine.Operation
			for _, k := range sortedKeys(byKey) {
				parts = append(parts, byKey[k])
			}
			return parts
		},
		Init: func() any { return int64(0) },
		Step: func(state, input, output any) (bool, any) {
			return stepRegister(state.(int64), input.(RegIn), output.(RegOut))
		},
		Hash: func(state any) uint64 { return uint64(state.(int64)) },
		DescribeOperation: func(input, output any) string {
			return describeRegister(input.(RegIn), output.(RegOut))
		},
		DescribeState: func(state any) string {
			if state.(int64) == 0 {
				return "absent"
			}
			return fmt.Sprint(state)
		},
	}
}

func describeRegister(in RegIn, out RegOut) string {
	s := fmt.Sprintf("%s %s", in.Kind, in.Key)
	switch in.Kind {
	case RegCAS:
		s += fmt.Sprintf(" %d->%d", in.Expect, in.N)
	case RegCASDel:
		s += fmt.Sprintf(" if %d", in.Expect)
	case RegWrite, RegInsert, RegPatch, RegDiffers:
		s += fmt.Sprintf(" %d", in.N)
	}
	switch {
	case !out.Known:
		s += " (unknown)"
	case in.Kind == RegRead || in.Kind == RegObserve:
		s += fmt.Sprintf(" = %d", out.N)
	case out.Result != "":
		s += ": " + out.Result
	}
	return s
}

// LinearOptions bound the check of a register.
type LinearOptions struct {
	Timeout time.Duration // 0: none
	HTML    io.Writer     // nil: no timeline
}

// Linearizable searches an order of ops that the register allows and that
// respects real time.
func Linearizable(name string, ops []RegOp, o LinearOptions) *Result {
	r := newResult(name)
	var pops []porcupine.Operation
	keys := make(map[string]bool)
	for _, op := range ops {
		if !op.Out.Known && readOnly(op.In.Kind) {
			continue // nobody learnt anything from it
		}
		keys[op.In.Key] = true
		pops = append(pops, porcupine.Operation{
			ClientId: op.Process, Input: op.In, Output: op.Out, Call: op.Call, Return: op.Return,
		})
	}
	r.Stats["steps"], r.Stats["keys"] = len(pops), len(keys)
	model := registerModel()
	verdict, info := porcupine.CheckOperationsVerbose(model, pops, o.Timeout)
	switch verdict {
	case porcupine.Unknown:
		r.unsure("the search for an order took longer than " + o.Timeout.String())
	case porcupine.Illegal:
		for _, k := range illegalKeys(model, pops, o.Timeout) {
			r.fail("not linearizable", nil, "no order explains the operations on %s", k)
		}
		if r.Verdict != Invalid { // the second search ran out of time
			r.fail("not linearizable", nil, "no order explains the operations")
		}
	}
	if o.HTML != nil {
		if err := porcupine.Visualize(model, info, o.HTML); err != nil {
			r.Note = "timeline: " + err.Error()
		}
	}
	return r
}

func readOnly(k RegKind) bool { return k == RegRead || k == RegObserve || k == RegDiffers }

func illegalKeys(model porcupine.Model, ops []porcupine.Operation, timeout time.Duration) []string {
	var bad []string
	for _, part := range model.Partition(ops) {
		if porcupine.CheckOperationsTimeout(model, part, timeout) == porcupine.Illegal {
			bad = append(bad, part[0].Input.(RegIn).Key)
		}
	}
	return bad
}

// RegisterOps reads the steps of single-document operations from a history;
// f names one of the kinds.
func RegisterOps(ops []history.Op) []RegOp {
	var out []RegOp
	for i := range ops {
		op := &ops[i]
		if op.Type == history.Fail {
			continue // it never happened
		}
		switch k := RegKind(op.F); k {
		case RegRead, RegWrite, RegInsert, RegPatch, RegCAS, RegDelete, RegCASDel:
			out = append(out, RegOp{
				In:      RegIn{Key: op.Key, Kind: k, N: op.In.N, Expect: op.In.Expect},
				Out:     RegOut{Known: op.Type == history.OK, N: op.Out.N, Result: op.Out.Result},
				Process: op.Process, Call: op.Call, Return: op.Return,
			})
		}
	}
	return out
}

// Versions checks that a version belongs to one write: whoever saw a value of a
// key saw it with the same version, and no two values share one.
func Versions(ops []history.Op) *Result {
	r := newResult("versions")
	type seen struct {
		version uint64
		op      *history.Op
	}
	byValue := make(map[string]seen)
	byVersion := make(map[string]int64)
	note := func(op *history.Op, key string, n int64, version uint64) {
		if n == 0 || version == 0 {
			return
		}
		r.Stats["observations"]++
		kv := fmt.Sprintf("%s=%d", key, n)
		if s, ok := byValue[kv]; ok && s.version != version {
			r.fail("two versions of one write", []*history.Op{s.op, op}, "%s was seen at version %d and at %d", kv, s.version, version)
		} else if !ok {
			byValue[kv] = seen{version, op}
		}
		kver := fmt.Sprintf("%s@%d", key, version)
		if v, ok := byVersion[kver]; ok && v != n {
			r.fail("one version of two writes", []*history.Op{op}, "%s holds %d and %d", kver, v, n)
		}
		byVersion[kver] = n
	}
	for i := range ops {
		op := &ops[i]
		if op.Type != history.OK || op.Out.Result != "" {
			continue
		}
		switch RegKind(op.F) {
		case RegRead:
			note(op, op.Key, op.Out.N, op.Out.Version)
		case RegWrite, RegInsert, RegPatch, RegCAS:
			note(op, op.Key, op.In.N, op.Out.Version)
		}
		for _, d := range op.Out.Docs {
			note(op, d.ID, d.N, d.Version)
		}
	}
	return r
}
