// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/mutants"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// command applies one command. An error means that this replica cannot go on; a
// refusal is a result.
func (a *applier) command(c *command) (*fsmv1.Result, error) {
	m := &a.e.meta
	m.clockMs = max(m.clockMs, c.pb.GetProposedAtMs())
	if v := c.pb.GetMinClusterVersion(); v > m.clusterVersion {
		// Refused before the operation is looked at: an older binary cannot.
		return a.refuse(fsmv1.Status_STATUS_INVALID, "the command needs cluster version %d, the cluster has %d", v, m.clusterVersion), nil
	}
	if c.bodyErr != nil {
		return nil, fmt.Errorf("decode operation: %w", c.bodyErr)
	}
	id := c.pb.GetRequestId()
	if id == "" || mutants.DedupeOff {
		return a.dispatch(c)
	}
	if err := ValidateRequestID(id); err != nil {
		return a.invalid(err), nil
	}
	fp, err := c.fingerprint()
	if err != nil {
		return nil, err
	}
	known, err := a.request(id)
	if err != nil {
		return nil, err
	}
	if known != nil {
		if known.fingerprint != fp {
			res := a.refuse(fsmv1.Status_STATUS_REQUEST_ID_REUSED, "request id %q", id)
			// A proposer that looked a name up too early learns that by this.
			res.Replayed = known.result.Status == fsmv1.Status_STATUS_COLLECTION_NOT_FOUND
			return res, nil
		}
		a.f.metrics.replayed()
		res := proto.CloneOf(known.result)
		res.Replayed = true
		if res.Status != fsmv1.Status_STATUS_OK {
			res.Message = fmt.Sprintf("request %q was refused so at log index %d", id, res.LogIndex)
		}
		return res, nil
	}
	res, err := a.dispatch(c)
	if err != nil {
		return nil, err
	}
	if res.Status != fsmv1.Status_STATUS_ENTRY_CONFLICT {
		// A conflict is an accident of grouping, to be tried again.
		err = a.remember(id, fp, res)
	}
	return res, err
}

func (a *applier) dispatch(c *command) (*fsmv1.Result, error) {
	switch op := c.pb.Op.(type) {
	case *fsmv1.Command_Write:
		return a.write(op.Write, c.pb.GetProposedAtMs(), len(c.body))
	case *fsmv1.Command_CreateCollection:
		return a.createCollection(op.CreateCollection, c.pb.GetProposedAtMs())
	case *fsmv1.Command_DropCollection:
		return a.dropCollection(op.DropCollection)
	case *fsmv1.Command_PurgeCollection:
		return a.purgeCollection(op.PurgeCollection)
	case *fsmv1.Command_SealGeneration:
		return a.sealGeneration(op.SealGeneration)
	case *fsmv1.Command_PurgeSlots:
		return a.purgeSlots(op.PurgeSlots)
	case *fsmv1.Command_LeaderEstablished:
		return a.leaderEstablished(op.LeaderEstablished)
	case *fsmv1.Command_StateCheck:
		return a.stateCheck(op.StateCheck)
	case *fsmv1.Command_SetAlarm:
		return a.setAlarm(op.SetAlarm, c.pb.GetProposedAtMs())
	case *fsmv1.Command_SetClusterVersion:
		return a.setClusterVersion(op.SetClusterVersion)
	case *fsmv1.Command_PutNode:
		return a.putNode(op.PutNode)
	}
	return nil, fmt.Errorf("no code for operation %d", c.kind)
}

func (a *applier) ok() *fsmv1.Result { return &fsmv1.Result{LogIndex: a.logIndex} }

func (a *applier) refuse(s fsmv1.Status, format string, args ...any) *fsmv1.Result {
	msg := fmt.Sprintf(format, args...)
	if len(msg) > MaxResultMessageBytes {
		msg = msg[:MaxResultMessageBytes]
		for !utf8.ValidString(msg) {
			msg = msg[:len(msg)-1]
		}
	}
	return &fsmv1.Result{Status: s, Message: msg, LogIndex: a.logIndex}
}

// invalid turns an error of a Validate function into a result.
func (a *applier) invalid(err error) *fsmv1.Result {
	msg := err.Error()
	if errors.Is(err, ErrInvalid) {
		msg = strings.TrimPrefix(msg, ErrInvalid.Error()+": ")
	}
	return a.refuse(fsmv1.Status_STATUS_INVALID, "%s", msg)
}

func (a *applier) noCollection(id string) *fsmv1.Result {
	return a.refuse(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, "collection %q", id)
}

// request finds a remembered request; nil if there is none.
func (a *applier) request(id string) (*requestRecord, error) {
	if q, ok := a.requests[id]; ok {
		return q, nil
	}
	if !a.e.requests.may(id) {
		return nil, nil
	}
	a.key = appendRequestKey(a.key[:0], id)
	v, ok, err := a.find(a.key, a.val[:0])
	if a.val = v; err != nil || !ok {
		return nil, err
	}
	q, err := decodeRequest(append([]byte(nil), v...))
	return &q, err
}

// remember stores the outcome of a request and forgets old ones.
func (a *applier) remember(id string, fp StateHash, res *fsmv1.Result) error {
	m := &a.e.meta
	q := &requestRecord{fingerprint: fp, seq: m.requestTail, result: res}
	s := requestSeqRecord{atMs: m.clockMs, id: id}
	m.requestTail++
	a.requests[id], a.seqs[q.seq] = q, s
	a.e.requests.add(id)
	v, err := q.append(a.val[:0])
	if err != nil {
		return err
	}
	a.val = v
	if err := a.set(appendRequestKey(a.key[:0], id), nil, v); err != nil {
		return err
	}
	if err := a.set(appendRequestSeqKey(a.key[:0], q.seq), nil, s.append(a.val[:0])); err != nil {
		return err
	}
	return a.evict()
}

// evict forgets the oldest requests beyond the bounds, a few for each command,
// so that no command pays for a long backlog.
func (a *applier) evict() error {
	m := &a.e.meta
	for range evictPerCommand {
		if m.requestHead == m.requestTail {
			return nil
		}
		s, err := a.requestSeq(m.requestHead)
		if err != nil {
			return err
		}
		expired := s.atMs+uint64(a.e.cfg.RequestTTLms) < m.clockMs
		if !expired && m.requestTail-m.requestHead <= uint64(a.e.cfg.MaxRequests) {
			return nil
		}
		if err := a.forget(m.requestHead, s); err != nil {
			return err
		}
		m.requestHead++
	}
	return nil
}

func (a *applier) requestSeq(seq uint64) (requestSeqRecord, error) {
	if s, ok := a.seqs[seq]; ok {
		return s, nil
	}
	if a.oldest.known && a.oldest.seq == seq {
		return a.oldest.rec, nil
	}
	v, ok, err := a.find(appendRequestSeqKey(a.key[:0], seq), nil)
	if err != nil {
		return requestSeqRecord{}, err
	}
	if !ok {
		return requestSeqRecord{}, fmt.Errorf("%w: remembered request %d is missing", ErrCorrupt, seq)
	}
	s, err := decodeRequestSeq(v)
	// The head is asked for again by every command, until it has expired.
	a.oldest.known, a.oldest.seq, a.oldest.rec = err == nil, seq, s
	return s, err
}

func (a *applier) forget(seq uint64, s requestSeqRecord) error {
	q, err := a.request(s.id)
	if err != nil {
		return err
	}
	if q == nil || q.seq != seq {
		return fmt.Errorf("%w: the outcome of request %q is missing", ErrCorrupt, s.id)
	}
	v, err := q.append(a.val[:0])
	if err != nil {
		return err
	}
	a.val = v
	if err := a.remove(appendRequestKey(a.key[:0], s.id), v); err != nil {
		return err
	}
	if err := a.remove(appendRequestSeqKey(a.key[:0], seq), s.append(a.val[:0])); err != nil {
		return err
	}
	a.requests[s.id] = nil
	a.e.requests.remove(s.id)
	delete(a.seqs, seq)
	return nil
}
