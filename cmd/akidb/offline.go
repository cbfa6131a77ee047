// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/akidb/akidb/node"
)

// offlineFlags name a stopped node.
type offlineFlags struct {
	nodeID, dataDir, advertiseAddr, logStore string
}

func (o *offlineFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "data directory of the stopped node")
	f.StringVar(&o.nodeID, "node-id", "", "its id")
	f.StringVar(&o.advertiseAddr, "advertise-addr", "127.0.0.1:9444", "its raft address")
	f.StringVar(&o.logStore, "log-store", "wal", "its log store: wal or bolt")
	_ = cmd.MarkFlagRequired("data-dir")
	_ = cmd.MarkFlagRequired("node-id")
}

func (o *offlineFlags) config() node.Config {
	return node.Config{NodeID: o.nodeID, DataDir: o.dataDir, RaftAddr: o.advertiseAddr, AdvertiseAddr: o.advertiseAddr,
		LogStore: o.logStore, BootstrapExpect: 1, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
}

func newRaft() *cobra.Command {
	cmd := &cobra.Command{Use: "raft", Short: "Look at the log of a stopped node, and move it to another store"}
	cmd.AddCommand(newRaftInspect(), newRaftMigrate())
	return cmd
}

// inspection is what `akidb raft inspect --json` prints.
type inspection struct {
	NodeID        string   `json:"node_id"`
	ClusterID     string   `json:"cluster_id"`
	Applied       uint64   `json:"applied_index"`
	FirstLogIndex uint64   `json:"first_log_index"`
	LastLogIndex  uint64   `json:"last_log_index"`
	LastTerm      uint64   `json:"last_term"`
	SnapshotIndex uint64   `json:"snapshot_index"`
	Members       []string `json:"members"`
}

func newRaftInspect() *cobra.Command {
	var o offlineFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "inspect", Short: "Show what a stopped node holds, to compare survivors", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := node.Inspect(cmd.Context(), o.config())
			if err != nil {
				return err
			}
			out := inspection{in.NodeID, in.ClusterID, in.Applied, in.FirstLogIndex, in.LastLogIndex, in.LastTerm, in.SnapshotIndex, nil}
			for _, s := range in.Servers {
				out.Members = append(out.Members, fmt.Sprintf("%s at %s (%s)", s.ID, s.Address, s.Suffrage))
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), out)
			}
			w := &errWriter{w: cmd.OutOrStdout()}
			w.printf("node      %s\ncluster   %s\nlog       %d to %d, last term %d\nsnapshot  %d\napplied   %d\n",
				out.NodeID, out.ClusterID, out.FirstLogIndex, out.LastLogIndex, out.LastTerm, out.SnapshotIndex, out.Applied)
			for _, m := range out.Members {
				w.printf("member    %s\n", m)
			}
			return w.err
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newRaftMigrate() *cobra.Command {
	var dataDir, from, to string
	cmd := &cobra.Command{
		Use: "migrate-log", Short: "Move the log of a stopped node from one kind of store to the other", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				from = map[string]string{"wal": "bolt", "bolt": "wal"}[to]
			}
			n, err := node.MigrateLog(dataDir, from, to)
			return said(cmd, err, "moved %d entries from %s to %s; start the node with --log-store %s\n", n, from, to, to)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dataDir, "data-dir", "", "data directory of the stopped node")
	f.StringVar(&from, "from", "", "wal or bolt (default: the other one)")
	f.StringVar(&to, "to", "", "wal or bolt")
	_ = cmd.MarkFlagRequired("data-dir")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func newClusterRecover() *cobra.Command {
	var o offlineFlags
	var clusterID string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Offline: make one survivor of a quorum that is lost for good the only member",
		Long: `recover is for the day on which a majority of the voters is gone for good. Stop all
nodes that are left, compare them with "akidb raft inspect", and run this on the
one with the highest log index. Writes that only the lost nodes had are lost. The
other nodes must never start again with their old data: empty their directories
and let them join.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("this makes the node the only member of its cluster, and writes that only the lost nodes had are lost for ever; say --yes")
			}
			out, err := node.Recover(cmd.Context(), o.config(), node.RecoverConfirmation{ClusterID: clusterID, NodeID: o.nodeID})
			return said(cmd, err, "%s is the only member now, with the log up to %d of term %d (%d entries of it unconfirmed); start it, then let emptied nodes join\n",
				o.nodeID, out.LogIndex, out.Term, out.Unconfirmed)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&clusterID, "cluster-id", "", "the cluster's id, as raft inspect shows it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	_ = cmd.MarkFlagRequired("cluster-id")
	return cmd
}
