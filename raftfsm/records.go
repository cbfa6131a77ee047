// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Records are byte tables, not protobuf, where they are many; integers are
// little endian. Each decoder checks lengths and fails with ErrCorrupt.

// reader takes a record apart; after a failure everything reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) rest() []byte { return r.take(len(r.b)) }

// done reports whether the record was read to its end without a failure.
func (r *reader) done(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: %s record has a wrong length", ErrCorrupt, what)
	}
	return nil
}

// docRecord is the value of a document key: where its newest version is.
type docRecord struct {
	slot       index.Slot
	version    uint64
	insertedAt uint64
}

func (d docRecord) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(d.slot))
	dst = binary.LittleEndian.AppendUint64(dst, d.version)
	return binary.LittleEndian.AppendUint64(dst, d.insertedAt)
}

func decodeDoc(b []byte) (docRecord, error) {
	r := reader{b: b}
	d := docRecord{slot: index.Slot(r.u32()), version: r.u64(), insertedAt: r.u64()}
	return d, r.done("document")
}

// slotRecord is the value of a slot key: all of a document version but its
// vector. It is never changed.
type slotRecord struct {
	id          string
	externalID  *string
	version     uint64
	insertedAt  uint64
	updatedAt   uint64
	metadata    []byte // aliases the decoded bytes
	metadataPos int
}

const flagExternalID = 1

// appendHead appends the record up to its metadata, which ends it.
func (s slotRecord) appendHead(dst []byte) []byte {
	flags := byte(0)
	if s.externalID != nil {
		flags |= flagExternalID
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint64(dst, s.version)
	dst = binary.LittleEndian.AppendUint64(dst, s.insertedAt)
	dst = binary.LittleEndian.AppendUint64(dst, s.updatedAt)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s.id)))
	dst = append(dst, s.id...)
	if s.externalID != nil {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(*s.externalID)))
		dst = append(dst, *s.externalID...)
	}
	return dst
}

func decodeSlot(b []byte) (slotRecord, error) {
	r := reader{b: b}
	flags := r.u8()
	s := slotRecord{version: r.u64(), insertedAt: r.u64(), updatedAt: r.u64()}
	s.id = string(r.take(int(r.u16())))
	if flags&flagExternalID != 0 {
		ext := string(r.take(int(r.u16())))
		s.externalID = &ext
	}
	s.metadataPos = len(b) - len(r.b)
	s.metadata = r.rest()
	if flags&^flagExternalID != 0 {
		r.bad = true
	}
	return s, r.done("slot")
}

// counters is the value of a collection's counters key.
type counters struct {
	nextSlot    uint32
	live        uint32
	tombstones  uint32
	purgeCursor uint32 // slots below were looked at by PurgeSlots since the seal
}

func (c counters) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, c.nextSlot)
	dst = binary.LittleEndian.AppendUint32(dst, c.live)
	dst = binary.LittleEndian.AppendUint32(dst, c.tombstones)
	return binary.LittleEndian.AppendUint32(dst, c.purgeCursor)
}

func decodeCounters(b []byte) (counters, error) {
	r := reader{b: b}
	c := counters{nextSlot: r.u32(), live: r.u32(), tombstones: r.u32(), purgeCursor: r.u32()}
	return c, r.done("counters")
}

// metaState is the value of keyState: the small part of the replicated state.
type metaState struct {
	clockMs        uint64 // the largest proposed_at_ms seen
	clusterVersion uint32
	nextNumber     uint32 // of the next collection
	requestHead    uint64 // oldest remembered request
	requestTail    uint64 // next sequence number
	clusterID      string
}

func (m metaState) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, keyspaceFormat)
	dst = binary.LittleEndian.AppendUint64(dst, m.clockMs)
	dst = binary.LittleEndian.AppendUint32(dst, m.clusterVersion)
	dst = binary.LittleEndian.AppendUint32(dst, m.nextNumber)
	dst = binary.LittleEndian.AppendUint64(dst, m.requestHead)
	dst = binary.LittleEndian.AppendUint64(dst, m.requestTail)
	return append(dst, m.clusterID...)
}

func decodeMetaState(b []byte) (metaState, error) {
	r := reader{b: b}
	if f := r.u16(); f != keyspaceFormat && !r.bad {
		return metaState{}, fmt.Errorf("keyspace format %d is not known to this version (it knows %d): run a newer akidb", f, keyspaceFormat)
	}
	m := metaState{
		clockMs: r.u64(), clusterVersion: r.u32(), nextNumber: r.u32(),
		requestHead: r.u64(), requestTail: r.u64(),
	}
	m.clusterID = string(r.rest())
	return m, r.done("state")
}

// appliedRecord is the value of keyApplied.
type appliedRecord struct {
	applied, term uint64
	hash          StateHash
}

func (a appliedRecord) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, a.applied)
	dst = binary.LittleEndian.AppendUint64(dst, a.term)
	return append(dst, a.hash[:]...)
}

func decodeApplied(b []byte) (appliedRecord, error) {
	r := reader{b: b}
	a := appliedRecord{applied: r.u64(), term: r.u64()}
	copy(a.hash[:], r.take(16))
	return a, r.done("applied")
}

// Alarms and dropped collections.

func appendAlarm(dst []byte, a Alarm) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, a.RaisedIndex)
	dst = binary.LittleEndian.AppendUint64(dst, a.RaisedAtMs)
	return append(dst, a.Message...)
}

func decodeAlarm(key, b []byte) (Alarm, error) {
	r := reader{b: b}
	a := Alarm{RaisedIndex: r.u64(), RaisedAtMs: r.u64()}
	a.Message = string(r.rest())
	for i, c := range key {
		if c == 0 {
			a.Kind, a.NodeID = string(key[1:i]), string(key[i+1:])
			return a, r.done("alarm")
		}
	}
	return a, fmt.Errorf("%w: alarm key without a separator", ErrCorrupt)
}

// droppedRecord is a dropped collection whose keys are still to be purged.
type droppedRecord struct {
	droppedIndex uint64
	id           string
}

func (d droppedRecord) append(dst []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(dst, d.droppedIndex), d.id...)
}

func decodeDropped(b []byte) (droppedRecord, error) {
	r := reader{b: b}
	d := droppedRecord{droppedIndex: r.u64()}
	d.id = string(r.rest())
	return d, r.done("dropped collection")
}

// marshalCanonical encodes the few records that are protobuf. Go's encoder
// writes known fields in the order of their numbers; golden tests pin the bytes,
// since the state hash covers them.
func marshalCanonical(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func unmarshalRecord(b []byte, m proto.Message, what string) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %s record: %w", ErrCorrupt, what, err)
	}
	return nil
}

// requestRecord is a remembered request. The message of a refusal is not part
// of it: the state hash covers the record, and the wording may change from one
// version to the next.
type requestRecord struct {
	fingerprint StateHash
	seq         uint64
	result      *fsmv1.Result
}

func (q requestRecord) append(dst []byte) ([]byte, error) {
	res := q.result
	dst = append(dst, q.fingerprint[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, q.seq)
	dst = append(dst, byte(res.GetStatus()))
	dst = binary.LittleEndian.AppendUint64(dst, res.GetLogIndex())
	dst = binary.LittleEndian.AppendUint32(dst, res.GetFailedWrite())
	more := byte(0)
	if res.GetMore() {
		more = 1
	}
	dst = append(dst, more)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(res.GetWrites())))
	dst = appendOutcomes(dst, res.GetWrites())
	if res.GetCollection() == nil {
		return dst, nil
	}
	b, err := marshalCanonical(res.GetCollection())
	return append(dst, b...), err
}

// appendOutcomes packs two bits a write: created and applied.
func appendOutcomes(dst []byte, ws []*fsmv1.WriteOutcome) []byte {
	var acc byte
	for i, w := range ws {
		bits := byte(0)
		if w.GetCreated() {
			bits |= 1
		}
		if w.GetApplied() {
			bits |= 2
		}
		acc |= bits << (2 * (i & 3))
		if i&3 == 3 {
			dst, acc = append(dst, acc), 0
		}
	}
	if len(ws)&3 != 0 {
		dst = append(dst, acc)
	}
	return dst
}

func decodeRequest(b []byte) (requestRecord, error) {
	r := reader{b: b}
	q := requestRecord{}
	copy(q.fingerprint[:], r.take(16))
	q.seq = r.u64()
	res := &fsmv1.Result{Status: fsmv1.Status(r.u8()), LogIndex: r.u64(), FailedWrite: r.u32(), More: r.u8() == 1}
	n := int(r.u32())
	packed := r.take((n + 3) / 4)
	if packed != nil && n > 0 {
		slab := make([]fsmv1.WriteOutcome, n)
		res.Writes = make([]*fsmv1.WriteOutcome, n)
		for i := range n {
			bits := packed[i/4] >> (2 * (i & 3))
			slab[i].Created, slab[i].Applied = bits&1 != 0, bits&2 != 0
			res.Writes[i] = &slab[i]
		}
	}
	if rest := r.rest(); len(rest) > 0 {
		res.Collection = &fsmv1.CollectionRecord{}
		if err := unmarshalRecord(rest, res.Collection, "collection"); err != nil {
			return q, err
		}
	}
	q.result = res
	return q, r.done("request")
}

// requestSeqRecord is the value of a sequence key.
type requestSeqRecord struct {
	atMs uint64
	id   string
}

func (q requestSeqRecord) append(dst []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(dst, q.atMs), q.id...)
}

func decodeRequestSeq(b []byte) (requestSeqRecord, error) {
	r := reader{b: b}
	q := requestSeqRecord{atMs: r.u64()}
	q.id = string(r.rest())
	return q, r.done("request sequence")
}
