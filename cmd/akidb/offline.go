// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/node"
)

// offlineFlags name a stopped node; all but the data directory it tells itself.
type offlineFlags struct {
	nodeID, dataDir, advertiseAddr, logStore string
}

func (o *offlineFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "data directory of the stopped node")
	f.StringVar(&o.nodeID, "node-id", "", "its id (default: as the data directory says)")
	f.StringVar(&o.advertiseAddr, "advertise-addr", "", "the raft address that other nodes dial (default: the one it had)")
	f.StringVar(&o.logStore, "log-store", "", "its log store: wal or bolt (default: the one that is there)")
	_ = cmd.MarkFlagRequired("data-dir")
}

func (o *offlineFlags) config() node.Config {
	return node.Config{NodeID: o.nodeID, DataDir: o.dataDir, AdvertiseAddr: o.advertiseAddr, LogStore: o.logStore, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
}

func newRaft() *cobra.Command {
	cmd := group(&cobra.Command{Use: "raft", Short: "Look at the log of a stopped node, and move it to another store"})
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
	// Recovering: akidb cluster recover was begun here and not finished.
	Recovering bool `json:"recovering,omitempty"`
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
			out := inspection{in.NodeID, in.ClusterID, in.Applied, in.FirstLogIndex, in.LastLogIndex, in.LastTerm, in.SnapshotIndex, nil, in.Recovering}
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
			if out.Recovering {
				w.printf("a recovery was begun and not finished: run akidb cluster recover again\n")
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
	var clusterID, cert, key, ca string
	var gone []string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Offline: make one survivor of a quorum that is lost for good the only member of a new cluster",
		Long: `recover is for the day on which a majority of the voters is gone for good. Stop all
nodes that are left, compare them with "akidb raft inspect", and run this on the
one with the highest last term and, of those, the highest log index. Writes that
only the lost nodes had are lost.

It asks the other members at their addresses and refuses while one of them answers.
Give the certificate files that the nodes are served with, so that it can ask.

The node goes on as a cluster of its own, with a new id. The others are refused with
the data they have: move their directories away, start them, and they join.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("this makes the node the only member of a new cluster, and writes that only the lost nodes had are lost for ever; say --yes")
			}
			if o.nodeID == "" {
				var err error
				if o.nodeID, err = node.Owner(o.dataDir); err != nil {
					return err
				}
			}
			cfg := o.config()
			if cert != "" {
				files, err := certs.OpenFiles(cert, key, ca, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				_, cfg.ClientTLS = files.Peers()
			}
			out, err := node.Recover(cmd.Context(), cfg, node.RecoverConfirmation{ClusterID: clusterID, NodeID: o.nodeID, Gone: gone})
			if err != nil {
				return err
			}
			w := &errWriter{w: cmd.OutOrStdout()}
			if len(out.Silent) > 0 {
				w.printf("not alive: %s\n", strings.Join(out.Silent, ", "))
			}
			w.printf("%s is the only member of the new cluster %s, with the log up to %d of term %d (%d entries of it unconfirmed)\n", out.NodeID, out.ClusterID, out.LogIndex, out.Term, out.Unconfirmed)
			w.printf("start it, then move the data directories of the others away and start them: they join\n")
			return w.err
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&clusterID, "cluster-id", "", "the cluster's id, as raft inspect shows it")
	f.BoolVar(&yes, "yes", false, "do it")
	f.StringVar(&cert, "tls-cert", "", "certificate that the node is served with, in PEM")
	f.StringVar(&key, "tls-key", "", "its key in PEM")
	f.StringVar(&ca, "tls-ca", "", "authority of the other nodes' certificates in PEM")
	f.StringSliceVar(&gone, "gone", nil, "members whose address is answered by something that is not a node of this cluster")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key", "tls-ca")
	_ = cmd.MarkFlagRequired("cluster-id")
	return cmd
}
