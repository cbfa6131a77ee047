// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/rpc"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

func newCluster() *cobra.Command {
	var conn connection
	cmd := group(&cobra.Command{Use: "cluster", Short: "Look at a cluster and change it"})
	conn.addFlags(cmd)
	asJSON := cmd.PersistentFlags().Bool("json", false, "print JSON")
	cmd.AddCommand(newClusterStatus(&conn, asJSON), newClusterMembers(&conn, asJSON), newClusterAdd(&conn),
		newClusterRemove(&conn), newClusterPromote(&conn), newClusterTransfer(&conn), newClusterVerify(&conn, asJSON),
		newClusterSnapshot(&conn), newClusterAlarms(&conn, asJSON), newClusterRecover())
	return cmd
}

// nodeStatus is one endpoint's answer.
type nodeStatus struct {
	Endpoint string                    `json:"endpoint"`
	Status   *clusterv1.StatusResponse `json:"-"`
	JSON     json.RawMessage           `json:"status,omitempty"`
	Error    string                    `json:"error,omitempty"`
}

// askAll asks every endpoint at once.
func askAll(ctx context.Context, cl *client.Client) []nodeStatus {
	settle(ctx, cl)
	eps := cl.Endpoints()
	out := make([]nodeStatus, len(eps))
	var wg sync.WaitGroup
	for i, e := range eps {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			st, err := cl.Status(ctx, e.Addr)
			out[i] = nodeStatus{Endpoint: e.Addr, Status: st}
			if err != nil {
				out[i].Error = err.Error()
			} else {
				out[i].JSON = rpc.EncodeJSON(st)
			}
		})
	}
	wg.Wait()
	return out
}

func newClusterStatus(conn *connection, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Ask every endpoint how it is; fails if one is not ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				all := askAll(cmd.Context(), cl)
				var err error
				if *asJSON {
					err = json.NewEncoder(cmd.OutOrStdout()).Encode(all)
				} else {
					err = printStatus(cmd.OutOrStdout(), all)
				}
				for _, s := range all {
					if err == nil && !s.Status.GetReady() {
						err = errSilent
					}
				}
				return err
			})
		},
	}
}

func printStatus(w io.Writer, all []nodeStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ENDPOINT\tNODE\tSTATE\tTERM\tCOMMIT\tAPPLIED\tSNAPSHOT\tREADY\tSTATE HASH\tGRAPH HASH")
	for _, s := range all {
		st := s.Status
		if st == nil {
			fmt.Fprintf(tw, "%s\t-\tunreachable\t\t\t\t\tno\t%s\t\n", s.Endpoint, shorten(s.Error, 80))
			continue
		}
		state := st.State
		if !st.Voter {
			state += " (no vote)"
		}
		ready := "yes"
		if !st.Ready {
			ready = "no: " + st.NotReadyReason
		}
		graph := st.GraphHash
		if !st.GraphIdle {
			graph = "building"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%.12s\t%.12s\n", s.Endpoint, st.NodeId, state, st.Term, st.CommitIndex, st.AppliedIndex, st.SnapshotIndex, ready, st.StateHash, graph)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, s := range all {
		for _, a := range s.Status.GetAlarms() {
			if key := a.Kind + a.NodeId; !seen[key] {
				seen[key] = true
				fmt.Fprintf(w, "ALARM %s on %s: %s\n", a.Kind, a.NodeId, a.Message)
			}
		}
	}
	return nil
}

func newClusterMembers(conn *connection, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "List the members", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				out, err := cl.Members(cmd.Context())
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(cmd.OutOrStdout(), out)
				}
				if out.Stale {
					fmt.Fprintf(cmd.ErrOrStderr(), "akidb: %s knows no leader or is no member: what follows may be out of date\n", out.ServedBy)
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "NODE\tROLE\tHEALTH\tRAFT\tGRPC\tREST\tAPPLIED\tVERSION\tZONE")
				for _, m := range out.Members {
					role := "replica"
					switch {
					case m.Leader:
						role = "leader"
					case m.Voter:
						role = "voter"
					}
					fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.NodeId, role, m.Health, m.RaftAddr, m.GrpcAddr, m.RestAddr, m.AppliedIndex, m.Version, m.Zone)
				}
				return tw.Flush()
			})
		},
	}
}

func newClusterAdd(conn *connection) *cobra.Command {
	var voter, force bool
	cmd := &cobra.Command{
		Use: "add NODE-ID RAFT-ADDR", Short: "Add a node as a read replica; autopilot gives it a vote if there is room", Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(func(cl *client.Client) error {
				before, err := cl.Members(cmd.Context())
				if err != nil {
					return err
				}
				word := "added " + args[0] + " at " + args[1]
				for _, m := range before.Members {
					if m.NodeId == args[0] {
						word = args[0] + " is a member already, at " + m.RaftAddr
					}
				}
				if voter {
					word += "; it votes"
				}
				_, err = cl.AddMember(cmd.Context(), &clusterv1.AddMemberRequest{NodeId: args[0], RaftAddr: args[1], Voter: voter, Force: force})
				return said(cmd, err, "%s\n", word)
			})
		},
	}
	cmd.Flags().BoolVar(&voter, "voter", false, "wait until it has caught up and let it vote")
	addForce(cmd, &force, "with --voter: let it vote at once, whether or not anybody answers there; this may cost the majority")
	return cmd
}

func addForce(cmd *cobra.Command, force *bool, usage string) {
	cmd.Flags().BoolVar(force, "force", false, usage)
}

// said prints what was done, if it was.
func said(cmd *cobra.Command, err error, format string, args ...any) error {
	if err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), format, args...)
	}
	return err
}

func newClusterRemove(conn *connection) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NODE-ID", Short: "Take a node that left for good out of the cluster", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(func(cl *client.Client) error {
				if err := isMember(cmd.Context(), cl, args[0]); err != nil {
					return err
				}
				_, err := cl.RemoveMember(cmd.Context(), &clusterv1.RemoveMemberRequest{NodeId: args[0], Force: force})
				return said(cmd, err, "removed %s\n", args[0])
			})
		},
	}
	addForce(cmd, &force, "even if the voters that are left and answer are no majority: nothing can be written then")
	return cmd
}

func newClusterPromote(conn *connection) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "promote NODE-ID", Short: "Give a read replica a vote, once it has caught up", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(func(cl *client.Client) error {
				if err := isMember(cmd.Context(), cl, args[0]); err != nil {
					return err
				}
				_, err := cl.PromoteMember(cmd.Context(), &clusterv1.PromoteMemberRequest{NodeId: args[0], Force: force})
				return said(cmd, err, "%s votes\n", args[0])
			})
		},
	}
	addForce(cmd, &force, "even if it does not answer; this may cost the majority")
	return cmd
}

func newClusterTransfer(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [NODE-ID]", Short: "Hand leadership to a voter", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &clusterv1.TransferLeaderRequest{}
			if len(args) > 0 {
				req.NodeId = args[0]
			}
			return conn.with(func(cl *client.Client) error {
				before, err := cl.Leader(cmd.Context())
				if err != nil {
					return err
				}
				if _, err := cl.TransferLeader(cmd.Context(), req); err != nil {
					return err
				}
				if before.NodeId == req.NodeId {
					return said(cmd, nil, "%s leads already\n", req.NodeId)
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), transferPatience)
				defer cancel()
				now, err := leaderAfter(ctx, cl, before, req.NodeId)
				return said(cmd, err, "%s leads\n", now)
			})
		},
	}
}

// isMember refuses names that are none: taking out who is not in succeeds on the
// server, which a mistyped name must not.
func isMember(ctx context.Context, cl *client.Client, nodeID string) error {
	out, err := cl.Members(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, m := range out.Members {
		if m.NodeId == nodeID {
			return nil
		}
		names = append(names, m.NodeId)
	}
	return fmt.Errorf("there is no member %q; the members are %s", nodeID, strings.Join(names, ", "))
}

// transferPatience is how long a hand-over may take to show.
const transferPatience = 10 * time.Second

// leaderAfter waits until the cluster knows the leader of a later term, and until
// that is the one that was asked for, if one was: what is met first may be an older
// term still, or an election that another one has won.
func leaderAfter(ctx context.Context, cl *client.Client, before *clusterv1.LeaderResponse, want string) (string, error) {
	tick := time.NewTicker(convergePoll)
	defer tick.Stop()
	last := before
	for {
		now, err := cl.Leader(ctx)
		if err != nil && ctx.Err() == nil && client.Code(err) != codes.DeadlineExceeded {
			return "", err
		}
		if err == nil {
			last = now
			if now.Term > before.Term && (want == "" || now.NodeId == want) {
				return now.NodeId, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last.Term > before.Term {
				return "", fmt.Errorf("%s leads, not %s", last.NodeId, want)
			}
			return "", fmt.Errorf("%s still leads", last.NodeId)
		}
	}
}

func newClusterVerify(conn *connection, asJSON *bool) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Compare state and graph hashes of all members while writes go on; fails unless all are equal", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				out, err := verify(cmd.Context(), cl, wait)
				if err != nil {
					return err
				}
				if *asJSON {
					err = printJSON(cmd.OutOrStdout(), out)
				} else {
					err = printVerify(cmd.OutOrStdout(), out)
				}
				if err == nil && (!verified(out) || wait && out.Building) {
					err = errSilent
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until all graphs are complete, as long as nothing differs (end it with Ctrl-C)")
	return cmd
}

// verifyPoll is how often a wait for graphs looks again.
const verifyPoll = 500 * time.Millisecond

// verify asks once, or until all graphs are complete or something is wrong.
func verify(ctx context.Context, cl *client.Client, wait bool) (*clusterv1.VerifyResponse, error) {
	tick := time.NewTicker(verifyPoll)
	defer tick.Stop()
	for {
		out, err := cl.Verify(ctx)
		if err != nil || !wait || !out.Building || !verified(out) {
			return out, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out, nil
		}
	}
}

// verified is true if every member answered and all agree.
func verified(v *clusterv1.VerifyResponse) bool {
	for _, m := range v.Members {
		if m.Error != "" {
			return false
		}
	}
	return v.Equal
}

func printVerify(w io.Writer, v *clusterv1.VerifyResponse) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tAPPLIED\tSTATE HASH\tGRAPH HASH\t")
	for _, m := range v.Members {
		graph := m.GraphHash
		if len(m.Building) > 0 {
			graph = "building"
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\n", m.NodeId, m.AppliedIndex, m.StateHash, graph, remarks(m))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, m := range v.Members {
		for _, g := range m.Building {
			fmt.Fprintf(w, "%s has built %d of %d vectors of %s into its graph\n", m.NodeId, g.Graphed, g.Total, g.Name)
		}
	}
	word := "equal"
	switch {
	case !verified(v):
		word = "NOT EQUAL, or not everybody answered"
	case v.Building:
		word = "equal, graphs as far as they are built,"
	}
	_, err := fmt.Fprintf(w, "%s at log index %d\n", word, v.AppliedIndex)
	return err
}

// remarks is what is wrong with a member.
func remarks(m *clusterv1.MemberHash) string {
	var out []string
	if m.Error != "" {
		out = append(out, m.Error)
	}
	if m.Fenced != "" {
		out = append(out, "out of service: "+m.Fenced)
	}
	if len(m.Differs) > 0 {
		out = append(out, "differs: "+strings.Join(m.Differs, ", "))
	}
	return strings.Join(out, "; ")
}

func newClusterSnapshot(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot", Short: "Make every endpoint take a Raft snapshot now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				settle(cmd.Context(), cl)
				var errs []error
				for _, e := range cl.Endpoints() {
					out, err := cl.Snapshot(cmd.Context(), e.Addr)
					if err != nil {
						errs = append(errs, fmt.Errorf("%s: no snapshot: %w", e.Addr, err))
						continue
					}
					if err := said(cmd, nil, "%s: snapshot at log index %d, term %d\n", e.Addr, out.GetIndex(), out.GetTerm()); err != nil {
						return err
					}
				}
				return errors.Join(errs...)
			})
		},
	}
}

func newClusterAlarms(conn *connection, asJSON *bool) *cobra.Command {
	var clear []string
	cmd := &cobra.Command{
		Use: "alarms", Short: "List the alarms, or clear one whose cause is gone", Args: cobra.NoArgs,
		Example: "  akidb cluster alarms --clear NOSPACE,n2",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				if len(clear) > 0 {
					if len(clear) != 2 {
						return fmt.Errorf("--clear: want KIND,NODE-ID")
					}
					if err := isRaised(cmd.Context(), cl, clear[0], clear[1]); err != nil {
						return err
					}
					_, err := cl.ClearAlarm(cmd.Context(), &clusterv1.ClearAlarmRequest{Kind: clear[0], NodeId: clear[1]})
					return said(cmd, err, "cleared %s of %s\n", clear[0], clear[1])
				}
				out, err := cl.ListAlarms(cmd.Context())
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(cmd.OutOrStdout(), out)
				}
				for _, a := range out.Alarms {
					fmt.Fprintf(cmd.OutOrStdout(), "%s on %s since %s: %s\n", a.Kind, a.NodeId, a.RaisedAt, a.Message)
				}
				return said(cmd, nil, "%d alarms\n", len(out.Alarms))
			})
		},
	}
	cmd.Flags().StringSliceVar(&clear, "clear", nil, "KIND,NODE-ID of the alarm to clear")
	return cmd
}

// isRaised refuses alarms that are not raised: clearing one succeeds on the
// server, which a mistyped kind or node must not.
func isRaised(ctx context.Context, cl *client.Client, kind, nodeID string) error {
	out, err := cl.ListAlarms(ctx)
	if err != nil {
		return err
	}
	raised := "none is raised"
	for i, a := range out.Alarms {
		if a.Kind == kind && a.NodeId == nodeID {
			return nil
		}
		if i == 0 {
			raised = "raised are"
		}
		raised += " " + a.Kind + "," + a.NodeId
	}
	return fmt.Errorf("there is no alarm %s of %s to clear; %s", kind, nodeID, raised)
}
