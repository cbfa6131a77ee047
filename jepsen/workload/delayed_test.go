// SPDX-License-Identifier: Apache-2.0

package workload_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/akidb/akidb/jepsen/workload"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// slowDB gives calls a duration, before and after they happen, so that those of
// several clients overlap. The rest of the methods are as fast as the database.
type slowDB struct {
	workload.DB
	mu   sync.Mutex // guards rand
	rand *rand.Rand
}

func delayed(db workload.DB, seed uint64) workload.DB {
	return &slowDB{DB: db, rand: rand.New(rand.NewPCG(seed, 7))}
}

func around[Q, P any](s *slowDB, ctx context.Context, q Q, f func(context.Context, Q) (P, error)) (P, error) {
	s.mu.Lock()
	before, after := time.Duration(s.rand.IntN(8)), time.Duration(s.rand.IntN(8))
	s.mu.Unlock()
	time.Sleep(before * time.Millisecond) // in a synctest bubble: no time passes
	p, err := f(ctx, q)
	time.Sleep(after * time.Millisecond)
	return p, err
}

func (s *slowDB) Upsert(ctx context.Context, r *cv1.UpsertRequest) (*cv1.UpsertResponse, error) {
	return around(s, ctx, r, s.DB.Upsert)
}

func (s *slowDB) Batch(ctx context.Context, r *cv1.BatchRequest) (*cv1.BatchResponse, error) {
	return around(s, ctx, r, s.DB.Batch)
}

func (s *slowDB) Insert(ctx context.Context, r *cv1.InsertRequest) (*cv1.InsertResponse, error) {
	return around(s, ctx, r, s.DB.Insert)
}

func (s *slowDB) Delete(ctx context.Context, r *cv1.DeleteRequest) (*cv1.DeleteResponse, error) {
	return around(s, ctx, r, s.DB.Delete)
}

func (s *slowDB) Get(ctx context.Context, r *cv1.GetRequest) (*cv1.GetResponse, error) {
	return around(s, ctx, r, s.DB.Get)
}

func (s *slowDB) Query(ctx context.Context, r *cv1.QueryRequest) (*cv1.QueryResponse, error) {
	return around(s, ctx, r, s.DB.Query)
}
