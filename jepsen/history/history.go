// SPDX-License-Identifier: Apache-2.0

// Package history holds what clients did and saw: one JSON line for each
// invocation and one for each completion, in the order in which they happened.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"
)

// Type of an event.
type Type string

// The types. A completed operation is OK (it happened, Value says how), Fail
// (it certainly did not happen and never will) or Info (nobody knows: it may
// have happened, or may yet).
const (
	Invoke Type = "invoke"
	OK     Type = "ok"
	Fail   Type = "fail"
	Info   Type = "info"
)

// NemesisProcess is the process of fault events; they are Info throughout.
const NemesisProcess = -1

// Forever is the return time of an operation whose outcome is unknown: it may
// take effect at any time after its invocation.
const Forever = math.MaxInt64

// Event is one line of a history.
type Event struct {
	Type    Type   `json:"type"`
	Process int    `json:"process"`
	Worker  int    `json:"worker"`
	TimeNs  int64  `json:"time_ns"` // monotonic, since the start of the run
	Node    string `json:"node,omitempty"`
	Phase   string `json:"phase,omitempty"`
	F       string `json:"f"`
	Key     string `json:"key,omitempty"`
	Value   Value  `json:"value,omitzero"`
	Error   string `json:"error,omitempty"`
	// Served: the database answered, if only with a refusal.
	Served bool `json:"served,omitempty"`
}

// Value is the input of an invocation or the output of a completion. Each
// workload uses a few of the fields.
type Value struct {
	// N is a value written or read; values are unique for each write, and 0
	// means that there is no document.
	N int64 `json:"n,omitempty"`
	// Expect is the value a conditional write was based on.
	Expect int64 `json:"expect,omitempty"`
	// Version of the document, or the version a write was conditional on.
	Version uint64 `json:"version,omitempty"`
	// Result is a definite answer of the state other than success: "exists",
	// "absent" or "mismatch".
	Result string `json:"result,omitempty"`
	ID     string `json:"id,omitempty"`
	// Docs are the documents a scan or a search returned.
	Docs []Doc `json:"docs,omitempty"`
	// Txn are the micro-operations of a transaction.
	Txn []Mop `json:"txn,omitempty"`

	Consistency string `json:"consistency,omitempty"`
	MaxStaleMs  int64  `json:"max_stale_ms,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	Token       string `json:"token,omitempty"`
	Applied     uint64 `json:"applied,omitempty"`
	ServedBy    string `json:"served_by,omitempty"`
	// Versions are what repeated sends of one request answered.
	Versions []uint64 `json:"versions,omitempty"`
	IDs      []string `json:"ids,omitempty"`
	Note     string   `json:"note,omitempty"`
}

// Doc is a document as a read returned it.
type Doc struct {
	ID       string  `json:"id"`
	N        int64   `json:"n,omitempty"`
	Version  uint64  `json:"version,omitempty"`
	Distance float32 `json:"distance,omitempty"`
	// Bad says what is wrong with the document itself, such as a vector that
	// does not belong to its payload.
	Bad string `json:"bad,omitempty"`
}

// Mop is one micro-operation of a transaction: a read of a list or an append.
type Mop struct {
	F    string  `json:"f"` // "r" or "append"
	Key  string  `json:"k"`
	List []int64 `json:"list,omitempty"` // what a read saw
	N    int64   `json:"n,omitempty"`    // what an append added
}

// Op is an operation: an invocation with its completion.
type Op struct {
	Index   int // position of the invocation in the history
	Process int
	Worker  int
	Node    string
	Phase   string
	F       string
	Key     string
	In, Out Value
	Call    int64
	Return  int64 // Forever if the outcome is unknown
	Type    Type
	Error   string
	Served  bool
	Ended   int64 // when the client gave up or got an answer; 0: never
}

// String shows an operation on one line.
func (o *Op) String() string {
	in, _ := json.Marshal(o.In)
	out, _ := json.Marshal(o.Out)
	end := "never"
	if o.Return != Forever {
		end = fmt.Sprintf("%.6fs", float64(o.Return)/1e9)
	}
	return fmt.Sprintf("#%d process %d %s %s %s -> %s %s %s [%.6fs, %s]",
		o.Index, o.Process, o.F, o.Key, in, o.Type, out, o.Error, float64(o.Call)/1e9, end)
}

// Recorder writes a history. Its methods are safe for concurrent use, and the
// order of events in the file is the order of their times.
type Recorder struct {
	start time.Time

	mu     sync.Mutex // guards the fields below
	w      *bufio.Writer
	enc    *json.Encoder
	events []Event
	err    error
}

// NewRecorder records to w (nil: in memory only); time starts now.
func NewRecorder(w io.Writer) *Recorder { return NewRecorderSince(time.Now(), w) }

// NewRecorderSince records to w as NewRecorder does, with times since start:
// histories of one run can be laid beside each other.
func NewRecorderSince(start time.Time, w io.Writer) *Recorder {
	r := &Recorder{start: start}
	if w != nil {
		r.w = bufio.NewWriterSize(w, 1<<16)
		r.enc = json.NewEncoder(r.w)
	}
	return r
}

// Now is the time since the start of the run.
func (r *Recorder) Now() time.Duration { return time.Since(r.start) }

// Add appends an event and stamps its time. The clock is read under the lock:
// an event that is earlier in the file is earlier in time.
func (r *Recorder) Add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.TimeNs = int64(time.Since(r.start))
	r.events = append(r.events, e)
	if r.enc != nil && r.err == nil {
		r.err = r.enc.Encode(&e)
	}
}

// Events returns a copy of what was recorded.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Event(nil), r.events...)
}

// Close flushes the file and returns the first error of writing it.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w == nil {
		return nil
	}
	return errors.Join(r.err, r.w.Flush())
}

// Read reads a history from JSON lines. A last line that was cut off is left
// out: a run that was killed still has a history.
func Read(rd io.Reader) ([]Event, error) {
	var events []Event
	dec := json.NewDecoder(bufio.NewReaderSize(rd, 1<<16))
	for {
		var e Event
		err := dec.Decode(&e)
		switch {
		case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("history: event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
}

// ReadFile reads the history in the named file.
func ReadFile(name string) ([]Event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(f)
}

// Ops pairs invocations with their completions, in the order of invocation. An
// invocation without a completion is an operation of unknown outcome.
func Ops(events []Event) ([]Op, error) {
	var ops []Op
	open := make(map[int]int) // process -> its open operation
	for i := range events {
		e := &events[i]
		if e.Process == NemesisProcess {
			continue
		}
		if e.Type == Invoke {
			if at, busy := open[e.Process]; busy {
				return nil, fmt.Errorf("history: process %d invokes %s while %s is open", e.Process, e.F, ops[at].F)
			}
			open[e.Process] = len(ops)
			ops = append(ops, Op{
				Index: i, Process: e.Process, Worker: e.Worker, Node: e.Node, Phase: e.Phase, F: e.F, Key: e.Key,
				In: e.Value, Call: e.TimeNs, Return: Forever, Type: Info, Error: "no completion recorded",
			})
			continue
		}
		at, ok := open[e.Process]
		if !ok {
			return nil, fmt.Errorf("history: event %d completes nothing", i+1)
		}
		delete(open, e.Process)
		op := &ops[at]
		op.Type, op.Out, op.Error, op.Served, op.Ended = e.Type, e.Value, e.Error, e.Served, e.TimeNs
		if e.Type != Info {
			op.Return = e.TimeNs
		}
	}
	return ops, nil
}

// Counts are the totals of the verdict line.
type Counts struct {
	Ops     int `json:"ops"`
	OK      int `json:"ok"`
	Failed  int `json:"failed"`
	Unknown int `json:"unknown"`
}

// Count counts operations by outcome.
func Count(ops []Op) Counts {
	c := Counts{Ops: len(ops)}
	for i := range ops {
		switch ops[i].Type {
		case OK:
			c.OK++
		case Fail:
			c.Failed++
		default:
			c.Unknown++
		}
	}
	return c
}

// Plus is the sum of two counts.
func (c Counts) Plus(d Counts) Counts {
	return Counts{c.Ops + d.Ops, c.OK + d.OK, c.Failed + d.Failed, c.Unknown + d.Unknown}
}
