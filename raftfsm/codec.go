// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// EntryFormat is the version of the Entry message that is written.
const EntryFormat = 1

// EncodeEntry encodes commands as the payload of a Raft log entry. It is the
// only encoding DecodeEntry accepts: fields in the order of their numbers, no
// default values, shortest varints. Protobuf leaves these open; the log may not,
// since what a replica refuses all must refuse.
func EncodeEntry(cmds []*fsmv1.Command) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&fsmv1.Entry{Format: EntryFormat, Commands: cmds})
	if err != nil {
		return nil, fmt.Errorf("raftfsm: encode entry: %w", err)
	}
	return b, nil
}

// DecodeEntry decodes the payload of a Raft log entry. Bytes in the commands
// alias data.
func DecodeEntry(data []byte) (*fsmv1.Entry, error) {
	cmds, err := decodeEntry(data, nil)
	if err != nil {
		return nil, err
	}
	e := &fsmv1.Entry{Format: EntryFormat}
	for i := range cmds {
		if cmds[i].bodyErr != nil {
			return nil, fmt.Errorf("raftfsm: command %d of an entry: %w", i, cmds[i].bodyErr)
		}
		e.Commands = append(e.Commands, cmds[i].pb)
	}
	return e, nil
}

// command is a decoded command with the bytes of its operation.
type command struct {
	pb   *fsmv1.Command
	kind protowire.Number // field number of the operation
	body []byte           // aliases the entry
	// bodyErr says why the operation cannot be decoded. It counts only if this
	// cluster version should know the operation.
	bodyErr error
}

var (
	errNotCanonical = errors.New("not in the canonical encoding that EncodeEntry makes (fields in the order of their numbers, so proposed_at_ms first; no default values; shortest varints)")
	errNoOperation  = errors.New("no operation")
)

// Field numbers of the messages that are decoded by hand.
const (
	entryFormat   protowire.Number = 1
	entryCommands protowire.Number = 2

	commandProposedAt protowire.Number = 1
	commandRequestID  protowire.Number = 2
	commandMinVersion protowire.Number = 3
	opFirst           protowire.Number = 10
	opCreate          protowire.Number = 10
	opDrop            protowire.Number = 11
	opWrite           protowire.Number = 12
	opLeader          protowire.Number = 13
	opStateCheck      protowire.Number = 14
	opAlarm           protowire.Number = 15
	opClusterVersion  protowire.Number = 16
	opSeal            protowire.Number = 17
	opPurgeSlots      protowire.Number = 18
	opPurgeCollection protowire.Number = 19
	opPutNode         protowire.Number = 20
)

// fields walks over the fields of a message in canonical order: each number is
// above the last, or equal to it where repeated allows it.
type fields struct {
	b    []byte
	last protowire.Number
	err  error
}

// next returns the next field's number and type; false at the end or on an error.
func (f *fields) next(repeated protowire.Number) (protowire.Number, protowire.Type, bool) {
	if f.err != nil || len(f.b) == 0 {
		return 0, 0, false
	}
	tag := f.varint()
	num, typ := protowire.DecodeTag(tag)
	if f.err == nil && (num <= 0 || num < f.last || num == f.last && num != repeated) {
		f.err = errNotCanonical
	}
	f.last = num
	return num, typ, f.err == nil
}

func (f *fields) varint() uint64 {
	v, n := protowire.ConsumeVarint(f.b)
	if n < 0 || n != protowire.SizeVarint(v) {
		f.err = errNotCanonical
		return 0
	}
	f.b = f.b[n:]
	return v
}

// number reads a varint field that is not zero and at most limit.
func (f *fields) number(typ protowire.Type, limit uint64) uint64 {
	if typ != protowire.VarintType {
		f.err = errNotCanonical
		return 0
	}
	v := f.varint()
	if v == 0 || v > limit {
		f.err = errNotCanonical
	}
	return v
}

// bytes reads a field of bytes.
func (f *fields) bytes(typ protowire.Type) []byte {
	if typ != protowire.BytesType {
		f.err = errNotCanonical
		return nil
	}
	n := f.varint()
	if f.err != nil || n > uint64(len(f.b)) {
		f.err = errNotCanonical
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

// filled reads a field of bytes that is not empty.
func (f *fields) filled(typ protowire.Type) []byte {
	v := f.bytes(typ)
	if len(v) == 0 && f.err == nil {
		f.err = errNotCanonical
	}
	return v
}

func (f *fields) text(v []byte) string {
	if !utf8.Valid(v) {
		f.err = errors.New("text is not UTF-8")
		return ""
	}
	return string(v)
}

// decodeEntry appends the commands of an entry to dst. An error means that the
// framing cannot be understood at all.
func decodeEntry(data []byte, dst []command) ([]command, error) {
	f := fields{b: data}
	sawFormat := false
	for {
		num, typ, ok := f.next(entryCommands)
		if !ok {
			break
		}
		switch num {
		case entryFormat:
			if v := f.number(typ, 1<<32-1); f.err == nil && v != EntryFormat {
				return dst, fmt.Errorf("entry format %d is not known to this version (it knows %d): run a newer akidb", v, EntryFormat)
			}
			sawFormat = true
		case entryCommands:
			body := f.bytes(typ)
			if f.err == nil {
				c, err := decodeCommand(body)
				if err != nil {
					return dst, fmt.Errorf("command %d: %w", len(dst), err)
				}
				dst = append(dst, c)
			}
		default:
			return dst, fmt.Errorf("entry has an unknown field %d", num)
		}
	}
	if f.err == nil && !sawFormat {
		f.err = errors.New("entry without a format")
	}
	return dst, f.err
}

func decodeCommand(b []byte) (command, error) {
	c := command{pb: &fsmv1.Command{}}
	f := fields{b: b}
	for {
		num, typ, ok := f.next(0)
		if !ok {
			break
		}
		switch {
		case num == commandProposedAt:
			c.pb.ProposedAtMs = f.number(typ, 1<<64-1)
		case num == commandRequestID:
			c.pb.RequestId = f.text(f.filled(typ))
		case num == commandMinVersion:
			c.pb.MinClusterVersion = uint32(f.number(typ, 1<<32-1))
		case num >= opFirst && c.kind == 0:
			c.kind, c.body = num, f.bytes(typ)
		default:
			return c, fmt.Errorf("unknown field %d", num)
		}
	}
	if f.err != nil {
		return c, f.err
	}
	if c.kind == 0 {
		c.bodyErr = errNoOperation
	} else {
		c.bodyErr = c.decodeBody()
	}
	return c, nil
}

func (c *command) decodeBody() error {
	if c.kind == opWrite {
		w, err := decodeWriteBatch(c.body)
		c.pb.Op = &fsmv1.Command_Write{Write: w}
		return err
	}
	var m proto.Message
	switch c.kind {
	case opCreate:
		v := &fsmv1.CreateCollection{}
		c.pb.Op, m = &fsmv1.Command_CreateCollection{CreateCollection: v}, v
	case opDrop:
		v := &fsmv1.DropCollection{}
		c.pb.Op, m = &fsmv1.Command_DropCollection{DropCollection: v}, v
	case opLeader:
		v := &fsmv1.LeaderEstablished{}
		c.pb.Op, m = &fsmv1.Command_LeaderEstablished{LeaderEstablished: v}, v
	case opStateCheck:
		v := &fsmv1.StateCheck{}
		c.pb.Op, m = &fsmv1.Command_StateCheck{StateCheck: v}, v
	case opAlarm:
		v := &fsmv1.SetAlarm{}
		c.pb.Op, m = &fsmv1.Command_SetAlarm{SetAlarm: v}, v
	case opClusterVersion:
		v := &fsmv1.SetClusterVersion{}
		c.pb.Op, m = &fsmv1.Command_SetClusterVersion{SetClusterVersion: v}, v
	case opSeal:
		v := &fsmv1.SealGeneration{}
		c.pb.Op, m = &fsmv1.Command_SealGeneration{SealGeneration: v}, v
	case opPurgeSlots:
		v := &fsmv1.PurgeSlots{}
		c.pb.Op, m = &fsmv1.Command_PurgeSlots{PurgeSlots: v}, v
	case opPurgeCollection:
		v := &fsmv1.PurgeCollection{}
		c.pb.Op, m = &fsmv1.Command_PurgeCollection{PurgeCollection: v}, v
	case opPutNode:
		v := &fsmv1.PutNode{}
		c.pb.Op, m = &fsmv1.Command_PutNode{PutNode: v}, v
	default:
		return fmt.Errorf("unknown kind of command %d", c.kind)
	}
	return unmarshalCanonical(c.body, m)
}

// unmarshalCanonical accepts only what encodes to the same bytes again, hence
// also no unknown fields out of place. These messages are small and rare.
func unmarshalCanonical(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return err
	}
	again, err := marshalCanonical(m)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return errNotCanonical
	}
	return nil
}

// decodeWriteBatch decodes by hand, without copying vectors and metadata: this
// is the hot path of Apply, and Go's decoder copies every bytes field.
func decodeWriteBatch(b []byte) (*fsmv1.WriteBatch, error) {
	w := &fsmv1.WriteBatch{}
	f := fields{b: b}
	for {
		num, typ, ok := f.next(2)
		if !ok {
			break
		}
		switch num {
		case 1:
			w.CollectionId = f.text(f.filled(typ))
		case 2:
			body := f.bytes(typ)
			if f.err == nil {
				one := &fsmv1.Write{}
				if err := decodeWrite(body, one); err != nil {
					return nil, fmt.Errorf("write %d: %w", len(w.Writes), err)
				}
				w.Writes = append(w.Writes, one)
			}
		default:
			return nil, fmt.Errorf("unknown field %d of a write batch", num)
		}
	}
	return w, f.err
}

func decodeWrite(b []byte, w *fsmv1.Write) error {
	f := fields{b: b}
	for {
		num, typ, ok := f.next(0)
		if !ok {
			break
		}
		switch num {
		case 1:
			w.Kind = fsmv1.Write_Kind(f.number(typ, 1<<31-1))
		case 2:
			w.DocId = f.text(f.filled(typ))
		case 3:
			ext := f.text(f.bytes(typ))
			w.ExternalId = &ext
		case 4:
			w.Vector = f.filled(typ)
		case 5:
			w.Metadata = f.filled(typ)
		case 6:
			if typ != protowire.VarintType {
				return errNotCanonical
			}
			v := f.varint()
			w.IfVersion = &v
		case 7:
			w.SkipIfUnmet = f.number(typ, 1) == 1
		default:
			return fmt.Errorf("unknown field %d of a write", num)
		}
	}
	return f.err
}

// fingerprint tells requests apart. What a retry of the same request may mint
// anew is left out: the id of a new collection, and the documents that a delete
// by filter found, which are written as deletes that may be passed over.
func (c *command) fingerprint() (StateHash, error) {
	body := c.body
	switch c.kind {
	case opCreate:
		v := proto.CloneOf(c.pb.GetCreateCollection())
		v.CollectionId = ""
		b, err := marshalCanonical(v)
		if err != nil {
			return StateHash{}, err
		}
		body = b
	case opWrite:
		w := c.pb.GetWrite()
		found := len(w.Writes) > 0
		for _, one := range w.Writes {
			found = found && one.Kind == fsmv1.Write_KIND_DELETE && one.SkipIfUnmet
		}
		if found {
			body = append([]byte("found:"), w.CollectionId...)
		}
	}
	h := xxh3.Hash128Seed(body, uint64(c.kind))
	var fp StateHash
	binary.BigEndian.PutUint64(fp[:8], h.Hi)
	binary.BigEndian.PutUint64(fp[8:], h.Lo)
	return fp, nil
}
