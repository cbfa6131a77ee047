// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/jepsen/cluster"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// admin asks the nodes one by one. Its answers are only used to aim faults and
// to wait; no verdict rests on them.
type admin struct {
	c      *cluster.Cluster
	apiKey string

	mu      sync.Mutex // guards clients
	clients map[string]*client.Client
}

func newAdmin(c *cluster.Cluster, apiKey string) *admin {
	return &admin{c: c, apiKey: apiKey, clients: make(map[string]*client.Client)}
}

// to is a client pinned to one node.
func (a *admin) to(n *cluster.Node) (*client.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[n.GRPCAddr]; c != nil {
		return c, nil
	}
	c, err := client.Open(client.Config{Endpoints: []string{n.GRPCAddr}, TLS: a.c.TLS(), Pin: true, APIKey: a.apiKey,
		Timeout: 5 * time.Second, ConnsPerEndpoint: 1})
	if err == nil {
		a.clients[n.GRPCAddr] = c
	}
	return c, err
}

func (a *admin) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, c := range a.clients {
		errs = append(errs, c.Close())
	}
	clear(a.clients)
	return errors.Join(errs...)
}

func (a *admin) status(ctx context.Context, n *cluster.Node) (*clusterv1.StatusResponse, error) {
	c, err := a.to(n)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.Status(ctx, n.GRPCAddr)
}

// Leader is the node that says that it leads in the highest term.
func (a *admin) Leader(ctx context.Context) (*cluster.Node, error) {
	nodes := a.c.Nodes()
	found := make([]*clusterv1.StatusResponse, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { found[i], _ = a.status(ctx, n) })
	}
	wg.Wait()
	var leader *cluster.Node
	var term uint64
	for i, s := range found {
		if s.GetState() == "leader" && s.GetTerm() >= term {
			leader, term = nodes[i], s.GetTerm()
		}
	}
	if leader == nil {
		return nil, errors.New("no node says that it leads")
	}
	return leader, nil
}

// throughLeader does something on the leader.
func (a *admin) throughLeader(ctx context.Context, f func(*client.Client) error) error {
	n, err := a.Leader(ctx)
	if err != nil {
		return err
	}
	c, err := a.to(n)
	if err != nil {
		return err
	}
	return f(c)
}

func (a *admin) TransferLeader(ctx context.Context, to string) error {
	return a.throughLeader(ctx, func(c *client.Client) error {
		_, err := c.TransferLeader(ctx, &clusterv1.TransferLeaderRequest{NodeId: to})
		return err
	})
}

func (a *admin) RemoveMember(ctx context.Context, id string) error {
	return a.throughLeader(ctx, func(c *client.Client) error {
		_, err := c.RemoveMember(ctx, &clusterv1.RemoveMemberRequest{NodeId: id})
		if client.Code(err) == codes.NotFound {
			return nil // an earlier try took it out
		}
		return err
	})
}

func (a *admin) Members(ctx context.Context) (all, voters []string, err error) {
	err = a.throughLeader(ctx, func(c *client.Client) error {
		resp, err := c.Members(ctx)
		for _, m := range resp.GetMembers() {
			all = append(all, m.GetNodeId())
			if m.GetVoter() {
				voters = append(voters, m.GetNodeId())
			}
		}
		return err
	})
	return all, voters, err
}

func (a *admin) Snapshot(ctx context.Context, n *cluster.Node) error {
	c, err := a.to(n)
	if err != nil {
		return err
	}
	_, err = c.Snapshot(ctx, n.GRPCAddr)
	return err
}

// CaughtUp waits until n is ready and has applied what the leader had committed
// when the wait began.
func (a *admin) CaughtUp(ctx context.Context, n *cluster.Node) error {
	var last error
	var goal uint64
	for {
		if goal == 0 {
			if leader, err := a.Leader(ctx); err == nil {
				if s, err := a.status(ctx, leader); err == nil {
					goal = s.GetAppliedIndex()
				}
			}
		}
		s, err := a.status(ctx, n)
		switch {
		case err != nil:
			last = err
		case goal == 0:
			last = errors.New("no leader to compare with")
		case !s.GetReady() || s.GetAppliedIndex() < goal:
			last = fmt.Errorf("applied %d of %d, ready %v %s", s.GetAppliedIndex(), goal, s.GetReady(), s.GetNotReadyReason())
		default:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", n.ID, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// verify compares the hashes of all members, until they are equal and all graphs
// are complete, or ctx ends: members that are behind are no anomaly.
func (a *admin) verify(ctx context.Context) (string, error) {
	var last string
	for {
		err := a.throughLeader(ctx, func(c *client.Client) error {
			resp, err := c.Verify(ctx)
			if err != nil {
				return err
			}
			if resp.GetEqual() && !resp.GetBuilding() && answered(resp) >= len(a.c.Nodes()) {
				last = ""
				return nil
			}
			last = resp.String()
			return errors.New("hashes differ, graphs are not complete, or not all members answered")
		})
		if err == nil {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// answered is how many members told their hashes: the others are left out of what
// "equal" says.
func answered(v *clusterv1.VerifyResponse) int {
	n := 0
	for _, m := range v.GetMembers() {
		if m.GetError() == "" {
			n++
		}
	}
	return n
}
