// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// outcome of an operation.
type outcome int

const (
	failed  outcome = iota // for certain not applied
	done                   // applied
	unknown                // perhaps applied, perhaps later
)

// history records what clients did and saw. Times are places in one order, not
// clock readings: on a fake clock many events share an instant.
type history struct {
	seq   atomic.Int64
	bad   atomic.Bool   // something is wrong: the run may end
	floor atomic.Uint64 // the newest log index that a linearizable read must see

	mu        sync.Mutex // guards the fields below
	registers map[string][]porcupine.Operation
	elements  map[string]*element
	acks      []ack
	violation []string
	counts    [3]int
	reads     map[string]int
}

// ack is a log index that was acknowledged at a time on the fake clock.
type ack struct {
	at    time.Time
	index uint64
}

func newHistory() *history {
	return &history{registers: make(map[string][]porcupine.Operation), elements: make(map[string]*element), reads: make(map[string]int)}
}

func (h *history) now() int64 { return h.seq.Add(1) }

// wrong records that a promise was broken.
func (h *history) wrong(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bad.Store(true)
	if len(h.violation) < 20 {
		h.violation = append(h.violation, fmt.Sprintf(format, args...))
	}
}

func (h *history) broken() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.violation)
}

func (h *history) count(o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[o]++
}

func (h *history) countRead(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[kind]++
}

// acknowledged notes that a client knows of a log index from now on.
func (h *history) acknowledged(index uint64) {
	h.raise(index)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, ack{time.Now(), index})
}

// raise lifts the floor: whoever has seen an index may tell others, and a
// linearizable read that begins later must see it too.
func (h *history) raise(index uint64) {
	for {
		old := h.floor.Load()
		if index <= old || h.floor.CompareAndSwap(old, index) {
			return
		}
	}
}

// ackedBefore is the newest index acknowledged at or before a time.
func (h *history) ackedBefore(t time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var newest uint64
	for _, a := range h.acks {
		if !a.at.After(t) {
			newest = max(newest, a.index)
		}
	}
	return newest
}

// registerInput is an operation on a register. Values are unique, 0 is absent.
type registerInput struct {
	kind     string // "read", "write", "cas"
	from, to int
}

type registerOutput struct {
	value   int
	swapped bool
	unknown bool
}

// registerModel is a register with compare-and-swap.
var registerModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(int), input.(registerInput), output.(registerOutput)
		switch in.kind {
		case "read":
			return out.value == s, s
		case "write":
			return true, in.to
		}
		if out.unknown {
			if s == in.from {
				return true, in.to
			}
			return true, s
		}
		if out.swapped {
			return s == in.from, in.to
		}
		return s != in.from, s
	},
	Equal: func(a, b any) bool { return a.(int) == b.(int) },
	DescribeOperation: func(input, output any) string {
		in, out := input.(registerInput), output.(registerOutput)
		switch in.kind {
		case "read":
			return fmt.Sprintf("read = %d", out.value)
		case "write":
			return fmt.Sprintf("write %d", in.to)
		}
		return fmt.Sprintf("cas %d → %d = %v (unknown %v)", in.from, in.to, out.swapped, out.unknown)
	},
}

// register records an operation; one that failed for certain is left out, and
// one of unknown outcome may take effect until the end of time.
func (h *history) register(client int, key string, call int64, in registerInput, out registerOutput, o outcome) {
	h.count(o)
	if o == failed {
		return
	}
	ret := h.now()
	if o == unknown {
		ret, out.unknown = math.MaxInt64, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.registers[key] = append(h.registers[key], porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
}

// checkRegisters runs outside of the bubble: its time limit is real time.
func (h *history) checkRegisters() (ops int, problems []string) {
	keys := make([]string, 0, len(h.registers))
	for k := range h.registers {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		ops += len(h.registers[k])
		switch porcupine.CheckOperationsTimeout(registerModel, h.registers[k], 20*time.Second) {
		case porcupine.Illegal:
			problems = append(problems, fmt.Sprintf("register %s: %d operations are not linearizable", k, len(h.registers[k])))
		case porcupine.Unknown:
			problems = append(problems, fmt.Sprintf("register %s: %d operations could not be checked within 20s", k, len(h.registers[k])))
		}
	}
	return ops, problems
}

// element is a document of the set workload. Its writes carry request ids and
// are repeated until their outcome is known.
type element struct {
	insert, remove outcome // remove is failed unless tried
	index          uint64  // log index of the acknowledged insert
}

func (h *history) setElement(id string, f func(e *element)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.elements[id]
	if e == nil {
		e = &element{}
		h.elements[id] = e
	}
	f(e)
}
