// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
)

// Time limits of local clusters on a slow or busy machine.
const (
	startLimit = 2 * time.Minute
	stopLimit  = 30 * time.Second
)

type devOptions struct {
	nodes  int
	dir    string
	asJSON bool
	flags  []string
}

func newDev() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev [-- flags of serve]",
		Short: "Run a local cluster of real processes until interrupted",
		Example: `  akidb dev
  akidb dev --nodes 5 --dir ./cluster
  akidb dev --json -- --snapshot-threshold 1000`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.flags = args
			return dev(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().IntVar(&o.nodes, "nodes", 0, "how many nodes (default: as many as --dir holds, or 3)")
	cmd.Flags().StringVar(&o.dir, "dir", "", "keep the cluster here, and start it again from here (default: a directory that is removed at the end)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print one line of JSON first: nodes, ca_cert, api_key")
	return cmd
}

// devJSON is the line that `akidb dev --json` prints.
type devJSON struct {
	Nodes  []devNode `json:"nodes"`
	CACert string    `json:"ca_cert"`
	APIKey string    `json:"api_key"`
}

type devNode struct {
	ID      string `json:"id"`
	REST    string `json:"rest"`
	GRPC    string `json:"grpc"`
	Metrics string `json:"metrics"`
	PID     int    `json:"pid"`
	DataDir string `json:"data_dir"`
}

func dev(ctx context.Context, o devOptions, out, errOut io.Writer) (err error) {
	var mu sync.Mutex // nodes may end at once
	ended := func(e localcluster.Ending) {
		how := "status 0"
		if e.Err != nil {
			how = e.Err.Error()
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(errOut, "akidb: node %s (pid %d) ended by itself: %s; its log is %s\n", e.Node.ID, e.PID, how, e.Node.LogPath())
	}
	cluster, cleanup, err := startLocal(ctx, localcluster.Options{Dir: o.dir, Nodes: o.nodes, Flags: o.flags, Ended: ended})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	if o.asJSON {
		if err := json.NewEncoder(out).Encode(describe(cluster)); err != nil {
			return err
		}
	} else if err := printDev(out, cluster); err != nil {
		return err
	}
	<-ctx.Done()
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintln(errOut, "stopping ...")
	return nil
}

// startLocal starts a cluster of this binary and waits until it serves. cleanup
// stops it, and removes its directory if o names none.
func startLocal(ctx context.Context, o localcluster.Options) (_ *localcluster.Cluster, cleanup func() error, err error) {
	temporary := o.Dir == ""
	if temporary {
		if o.Dir, err = os.MkdirTemp("", "akidb-"); err != nil {
			return nil, nil, err
		}
	}
	remove := func() error {
		if !temporary {
			return nil
		}
		return os.RemoveAll(o.Dir)
	}
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return nil, nil, errors.Join(err, remove())
		}
	}
	cluster, err := localcluster.Start(o)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	cleanup = func() error {
		// ctx has ended by now: the stop has a limit of its own.
		stop, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		return errors.Join(cluster.Close(stop), remove())
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := cluster.WaitReady(limited); err != nil {
		return nil, nil, errors.Join(err, cleanup())
	}
	return cluster, cleanup, nil
}

func describe(c *localcluster.Cluster) devJSON {
	d := devJSON{CACert: c.CACert}
	for _, n := range c.Nodes {
		d.Nodes = append(d.Nodes, devNode{n.ID, "https://" + n.REST, n.GRPC, n.Metrics, n.PID(), n.DataDir()})
	}
	return d
}

// printDev prints what a person needs to go on, to be copied as it is.
func printDev(w io.Writer, c *localcluster.Cluster) error {
	ew := &errWriter{w: w}
	word := "started"
	if c.Resumed {
		word = "started again"
	}
	ew.printf("%d nodes %s.\n\n", len(c.Nodes), word)
	ew.printf("  %-4s %-28s %-18s %-8s %s\n", "NODE", "REST", "GRPC", "PID", "DATA")
	for _, n := range c.Nodes {
		ew.printf("  %-4s %-28s %-18s %-8d %s\n", n.ID, "https://"+n.REST, n.GRPC, n.PID(), n.DataDir())
	}
	rest, grpc := "https://"+c.Nodes[0].REST, c.Nodes[len(c.Nodes)-1].GRPC
	ew.printf("\nTry it: make a collection, write through one node, search on another.\n\n")
	ew.printf("  export CA=%s\n", c.CACert)
	ew.printf("  curl --cacert $CA %s/api/v1/collections -d '{\"name\":\"notes\",\"dimension\":3,\"metric\":\"cosine\"}'\n", rest)
	ew.printf("  curl --cacert $CA %s/api/v1/collections/notes/upsert -d '{\"doc_id\":\"a\",\"vector\":[1,0,0],\"metadata\":{\"title\":\"first\"}}'\n", rest)
	ew.printf("  curl --cacert $CA https://%s/api/v1/collections/notes/query -d '{\"query_vector\":[1,0.1,0],\"top_k\":3,\"include_metadata\":true}'\n", c.Nodes[len(c.Nodes)-1].REST)
	ew.printf("  curl --cacert $CA %s/admin/cluster/status\n", rest)
	ew.printf("\n  grpcurl -cacert $CA %s list\n", grpc)
	ew.printf("  grpcurl -cacert $CA -d '{\"collection_id\":\"notes\",\"query_vector\":[1,0,0],\"top_k\":3}' %s akidb.collection.v1.CollectionService/Query\n", grpc)
	ew.printf("\n  export AKIDB_CA_CERT=$CA AKIDB_ENDPOINTS=")
	for i, e := range c.Endpoints() {
		if i > 0 {
			ew.printf(",")
		}
		ew.printf("%s", e)
	}
	ew.printf("\n  akidb cluster status\n\nCtrl-C stops the cluster.\n")
	return ew.err
}

// errWriter keeps the first error of many small writes.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) printf(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
}
