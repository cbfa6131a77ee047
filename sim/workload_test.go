// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

const (
	collectionID = "0190d3c5-7a4e-7000-8000-000000000001"
	registers    = 5
	accounts     = 6
	startBalance = 100
)

// clients drive the cluster through the API of the nodes, as rpc does.
type clients struct {
	c     *Cluster
	h     *history
	value atomic.Int64 // unique values
	// quiet is the time in ns over which the next operation of each is spread.
	quiet atomic.Int64
	stop  chan struct{}
	wg    sync.WaitGroup
}

// client is one of them, with its own draws.
type client struct {
	*clients
	id   int
	name string
	rng  *rand.Rand
	ops  int
}

// pick chooses a process at random; nil if the chosen host is down.
func (k *client) pick() *Process {
	return k.c.hosts[k.rng.IntN(len(k.c.hosts))].process()
}

// classify sorts an error of a write into what it says about the write.
func classify(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, node.ErrUnknownOutcome), errors.Is(err, errDied):
		return unknown
	}
	return failed // everything else promises so
}

// propose sends a command to a node. The result is nil unless done.
func (k *client) propose(p *Process, cmd *fsmv1.Command) (*fsmv1.Result, outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), 12*heartbeat)
	defer cancel()
	var res *fsmv1.Result
	err := p.call(func(n *node.Node) (err error) {
		res, err = n.Propose(ctx, cmd)
		return err
	})
	o := classify(err)
	if o == done {
		k.h.acknowledged(res.LogIndex)
		return res, done
	}
	return nil, o
}

// read takes a view and checks what its consistency promises about the index.
func (k *client) read(p *Process, o node.ReadOptions, f func(v *raftfsm.View) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 12*heartbeat)
	defer cancel()
	floor := k.h.floor.Load()
	start := time.Now()
	return p.call(func(n *node.Node) error {
		before := p.applied.Load()
		v, err := n.Read(ctx, o)
		if err != nil {
			return err
		}
		defer v.Close()
		at := v.Applied()
		k.h.countRead(string(o.Consistency))
		if at < before {
			k.h.wrong("%s: view at log index %d after one at %d: applied went back", p.host.name, at, before)
		}
		raise(&p.applied, at)
		switch o.Consistency {
		case node.Linearizable:
			if at < floor {
				k.h.wrong("%s: linearizable read at log index %d, but %d was seen before it began", p.host.name, at, floor)
			}
			if !p.dead.Load() {
				k.h.raise(at)
			}
		case node.Session:
			if at < o.MinIndex {
				k.h.wrong("%s: session read at log index %d with token %d", p.host.name, at, o.MinIndex)
			}
		case node.Bounded:
			if need := k.h.ackedBefore(start.Add(-o.MaxStaleness)); at < need {
				k.h.wrong("%s: read bounded by %v at log index %d, but %d was acknowledged before that", p.host.name, o.MaxStaleness, at, need)
			}
		}
		return f(v)
	})
}

func raise(a *atomic.Uint64, v uint64) {
	for {
		old := a.Load()
		if v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

var linearizable = node.ReadOptions{Consistency: node.Linearizable}

func write(writes ...*fsmv1.Write) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{CollectionId: collectionID, Writes: writes}}}
}

// vectorOf is different for different values, so that a search at distance zero
// finds one document.
func vectorOf(value int) []float32 {
	return []float32{float32(value % 1000), float32(value / 1000), float32(value%7) / 8, 1}
}

func upsert(kind fsmv1.Write_Kind, id string, value int, ifVersion *uint64) *fsmv1.Write {
	var b []byte
	for _, x := range vectorOf(value) {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return &fsmv1.Write{Kind: kind, DocId: id, Vector: b, Metadata: fmt.Appendf(nil, `{"v":%d}`, value), IfVersion: ifVersion}
}

// document reads one: 0 if absent.
func document(v *raftfsm.View, id string) (value int, version uint64, err error) {
	coll, err := v.Collection(collectionID)
	if err != nil {
		return 0, 0, err
	}
	d, err := coll.Get(id, raftfsm.Projection{Metadata: true})
	if errors.Is(err, raftfsm.ErrDocumentNotFound) {
		return 0, 0, nil
	}
	if err != nil || d == nil {
		return 0, 0, err
	}
	var m struct{ V int }
	if err := json.Unmarshal(d.Metadata, &m); err != nil {
		return 0, 0, err
	}
	return m.V, d.Version, nil
}

// setup makes the collection and the accounts.
func (cs *clients) setup() error {
	k := &client{clients: cs, rng: rand.New(rand.NewPCG(1, 1))}
	try := func(cmd *fsmv1.Command) error {
		deadline := time.Now().Add(200 * heartbeat)
		for time.Now().Before(deadline) {
			if p := k.pick(); p != nil {
				if res, o := k.propose(p, cmd); o == done {
					return raftfsm.ResultError(res)
				}
			}
			elapse(heartbeat)
		}
		return errors.New("sim: no leader within 200 heartbeats of the start")
	}
	err := try(&fsmv1.Command{RequestId: "create", Op: &fsmv1.Command_CreateCollection{CreateCollection: &fsmv1.CreateCollection{
		CollectionId: collectionID, Tenant: raftfsm.DefaultTenant, Database: raftfsm.DefaultDatabase, Name: "sim", Dimension: 4,
		Metric: fsmv1.Metric_METRIC_L2, Index: &fsmv1.IndexParams{M: 8, EfConstruction: 40, EfSearch: 40, Quantization: "none"},
	}}})
	if err != nil {
		return err
	}
	var all []*fsmv1.Write
	for i := range accounts {
		all = append(all, upsert(fsmv1.Write_KIND_INSERT, account(i), startBalance, nil))
	}
	cmd := write(all...)
	cmd.RequestId = "accounts"
	return try(cmd)
}

func account(i int) string { return fmt.Sprintf("account-%d", i) }

// run starts the clients; they end soon after stop is closed.
func (cs *clients) run(seed uint64) {
	for i, work := range []func(*client){
		(*client).register, (*client).register, (*client).register,
		(*client).set, (*client).set, (*client).bank, (*client).bank, (*client).session,
	} {
		k := &client{clients: cs, id: i, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), name: fmt.Sprintf("c%d", i)}
		cs.wg.Go(func() {
			for {
				wait := time.Duration(k.rng.Int64N(int64(2 * heartbeat)))
				if n := cs.quiet.Load(); n > 0 { // somebody always asks, seldom
					wait += time.Duration(k.rng.Int64N(n))
				}
				select {
				case <-cs.stop:
					return
				case <-time.After(wait):
				}
				k.ops++
				work(k)
			}
		})
	}
}

// register reads, writes, swaps and deletes single documents.
func (k *client) register() {
	p := k.pick()
	if p == nil {
		return
	}
	key := fmt.Sprintf("register-%d", k.rng.IntN(registers))
	value := int(k.value.Add(1))
	call := k.h.now()
	switch d := k.rng.IntN(10); {
	case d < 4:
		var got int
		if err := k.read(p, linearizable, func(v *raftfsm.View) (err error) {
			got, _, err = document(v, key)
			return err
		}); err == nil {
			k.h.register(k.id, key, call, registerInput{kind: "read"}, registerOutput{value: got}, done)
		}
	case d < 7:
		res, o := k.propose(p, write(upsert(fsmv1.Write_KIND_UPSERT, key, value, nil)))
		if o == done && res.Status != fsmv1.Status_STATUS_OK {
			k.h.wrong("upsert of %s: %v %s", key, res.Status, res.Message)
			return
		}
		k.h.register(k.id, key, call, registerInput{kind: "write", to: value}, registerOutput{}, o)
	case d < 8:
		res, o := k.propose(p, write(&fsmv1.Write{Kind: fsmv1.Write_KIND_DELETE, DocId: key}))
		if o == done && res.Status == fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND { // it was read as absent
			k.h.register(k.id, key, call, registerInput{kind: "read"}, registerOutput{}, o)
			return
		}
		k.h.register(k.id, key, call, registerInput{kind: "write"}, registerOutput{}, o)
	default:
		k.swap(p, key, value)
	}
}

// swap reads a document and replaces it if it is still the same.
func (k *client) swap(p *Process, key string, value int) {
	var from int
	var version uint64
	call := k.h.now()
	if err := k.read(p, linearizable, func(v *raftfsm.View) (err error) {
		from, version, err = document(v, key)
		return err
	}); err != nil {
		return
	}
	k.h.register(k.id, key, call, registerInput{kind: "read"}, registerOutput{value: from}, done)
	call = k.h.now()
	res, o := k.propose(p, write(upsert(fsmv1.Write_KIND_UPSERT, key, value, &version)))
	swapped := o == done && res.Status == fsmv1.Status_STATUS_OK
	if o == done && !swapped && res.Status != fsmv1.Status_STATUS_VERSION_MISMATCH && res.Status != fsmv1.Status_STATUS_DOCUMENT_EXISTS &&
		res.Status != fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND {
		k.h.wrong("swap of %s: %v %s", key, res.Status, res.Message)
		return
	}
	k.h.register(k.id, key, call, registerInput{kind: "cas", from: from, to: value}, registerOutput{swapped: swapped}, o)
}

// surely repeats a command with a request id until its outcome is known, at a
// node drawn anew each time: a retry must not apply it again.
func (k *client) surely(cmd *fsmv1.Command) (*fsmv1.Result, outcome) {
	cmd.RequestId = fmt.Sprintf("%s-%d", k.name, k.ops*8+int(k.rng.Int32N(8)))
	last := failed
	for {
		if p := k.pick(); p != nil {
			// A refusal says nothing about tries before it.
			res, o := k.propose(p, cmd)
			if o == done {
				return res, done
			}
			if o == unknown {
				last = unknown
			}
		}
		select {
		case <-k.stop:
			return nil, last
		case <-time.After(heartbeat / 4):
		}
	}
}

// set inserts a document that nobody else writes, finds it, and perhaps deletes
// it.
func (k *client) set() {
	value := int(k.value.Add(1))
	id := fmt.Sprintf("e%d", value)
	k.h.setElement(id, func(e *element) { e.insert = unknown })
	res, o := k.surely(write(upsert(fsmv1.Write_KIND_INSERT, id, value, nil)))
	if o == done && res.Status != fsmv1.Status_STATUS_OK {
		k.h.wrong("insert of %s, which only this client writes: %v %s (replayed %v)", id, res.Status, res.Message, res.Replayed)
	}
	k.h.count(o)
	k.h.setElement(id, func(e *element) {
		e.insert = o
		if o == done {
			e.index = res.LogIndex
		}
	})
	if o != done {
		return
	}
	if k.rng.IntN(3) == 0 {
		k.find(id, value)
	}
	if k.rng.IntN(4) != 0 {
		return
	}
	k.ops++
	k.h.setElement(id, func(e *element) { e.remove = unknown })
	res, o = k.surely(write(&fsmv1.Write{Kind: fsmv1.Write_KIND_DELETE, DocId: id}))
	if o == done && res.Status != fsmv1.Status_STATUS_OK {
		k.h.wrong("delete of %s, which only this client writes: %v %s", id, res.Status, res.Message)
	}
	k.h.count(o)
	k.h.setElement(id, func(e *element) { e.remove = o })
	if o == done {
		k.missing(id, value)
	}
}

// find searches for a document that was acknowledged.
func (k *client) find(id string, value int) {
	p := k.pick()
	if p == nil {
		return
	}
	_ = k.read(p, linearizable, func(v *raftfsm.View) error {
		ms, err := k.search(v, value)
		if err == nil && (len(ms) == 0 || ms[0].ID != id || ms[0].Distance != 0) {
			k.h.wrong("%s: search at log index %d does not find %s, which was acknowledged: %v", p.host.name, v.Applied(), id, ms)
		}
		return err
	})
}

// missing searches for a document whose delete was acknowledged.
func (k *client) missing(id string, value int) {
	p := k.pick()
	if p == nil {
		return
	}
	_ = k.read(p, linearizable, func(v *raftfsm.View) error {
		ms, err := k.search(v, value)
		for _, m := range ms {
			if m.ID == id {
				k.h.wrong("%s: search at log index %d finds %s after its delete was acknowledged", p.host.name, v.Applied(), id)
			}
		}
		return err
	})
}

func (k *client) search(v *raftfsm.View, value int) ([]raftfsm.Match, error) {
	coll, err := v.Collection(collectionID)
	if err != nil {
		return nil, err
	}
	ms, _, err := coll.Search(context.Background(), index.Query{Vector: vectorOf(value), K: 3}, raftfsm.Projection{})
	k.h.countRead("search")
	return ms, err
}

// bank moves money between two accounts, if neither has changed meanwhile, and
// counts all of it.
func (k *client) bank() {
	p := k.pick()
	if p == nil {
		return
	}
	var balances [accounts]int
	var versions [accounts]uint64
	sum := 0
	if err := k.read(p, linearizable, func(v *raftfsm.View) (err error) {
		for i := range balances {
			if balances[i], versions[i], err = document(v, account(i)); err != nil {
				return err
			}
			sum += balances[i]
		}
		if sum != accounts*startBalance {
			k.h.wrong("%s: accounts hold %d at log index %d, not %d: %v", p.host.name, sum, v.Applied(), accounts*startBalance, balances)
		}
		return nil
	}); err != nil {
		return
	}
	from, to := k.rng.IntN(accounts), k.rng.IntN(accounts)
	if from == to || balances[from] < 2 {
		return
	}
	amount := 1 + k.rng.IntN(balances[from]-1)
	_, o := k.propose(p, write(
		upsert(fsmv1.Write_KIND_UPSERT, account(from), balances[from]-amount, &versions[from]),
		upsert(fsmv1.Write_KIND_UPSERT, account(to), balances[to]+amount, &versions[to])))
	k.h.count(o)
}

// session writes at one node and reads at others with the token, and reads with
// the weaker consistencies.
func (k *client) session() {
	p := k.pick()
	if p == nil {
		return
	}
	id := "session-" + k.name
	value := int(k.value.Add(1))
	res, o := k.propose(p, write(upsert(fsmv1.Write_KIND_UPSERT, id, value, nil)))
	k.h.count(o)
	if o != done {
		return
	}
	for range 2 {
		q := k.pick()
		if q == nil {
			continue
		}
		_ = k.read(q, node.ReadOptions{Consistency: node.Session, MinIndex: res.LogIndex}, func(v *raftfsm.View) error {
			got, version, err := document(v, id)
			// An older write of unknown outcome may have come after this one.
			if err == nil && (version < res.LogIndex || version == res.LogIndex && got != value) {
				k.h.wrong("%s: session read with token %d sees %d of version %d, not its own %d", q.host.name, res.LogIndex, got, version, value)
			}
			return err
		})
		_ = k.read(q, node.ReadOptions{Consistency: node.Bounded, MaxStaleness: time.Duration(1+k.rng.IntN(8)) * heartbeat / 2}, func(*raftfsm.View) error { return nil })
		_ = k.read(q, node.ReadOptions{Consistency: node.Eventual}, func(*raftfsm.View) error { return nil })
	}
}
