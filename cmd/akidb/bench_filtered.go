// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/vecfile"
	"github.com/akidb/akidb/rpc"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// filteredTest is one line of filtered_tests.jsonl: a query with a filter and
// its exact answer.
type filteredTest struct {
	Query  int             `json:"query"`
	Filter json.RawMessage `json:"filter"`
	NMatch int             `json:"n_match"`
	Scores []float64       `json:"scores"`
}

// filteredRow sums up the tests of one band of selectivity.
type filteredRow struct {
	Replica     string  `json:"replica"`
	Selectivity string  `json:"selectivity"`
	Tests       int     `json:"tests"`
	RecallAt10  float64 `json:"recall_at_10"`
	P50ms       float64 `json:"p50_ms"`
}

// Bands of selectivity, by their upper ends.
func bands() []struct {
	name string
	upTo float64
} {
	return []struct {
		name string
		upTo float64
	}{{"< 0.1 %", 0.001}, {"0.1 - 1 %", 0.01}, {"1 - 10 %", 0.1}, {"10 - 50 %", 0.5}, {"> 50 %", math.Inf(1)}}
}

func newBenchFiltered() *cobra.Command {
	var b benchCluster
	var job importJob
	cmd := &cobra.Command{
		Use: "filtered DIR", Short: "Recall of filtered searches against a data set's filtered_tests.jsonl, on every replica", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd.Context(), func(t *benchTarget) error {
				job.path = args[0]
				drop, _, err := fillScratch(cmd.Context(), t, &job)
				if err != nil {
					return err
				}
				defer drop()
				rows, err := filteredRows(cmd.Context(), &b, t, args[0], job.collectionID)
				if err != nil {
					return err
				}
				if b.asJSON {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"dataset": filepath.Base(args[0]), "rows": rows})
				}
				return printFiltered(cmd.OutOrStdout(), rows)
			})
		},
	}
	b.addFlags(cmd)
	job.index.add(cmd)
	return cmd
}

// filteredRows asks every endpoint by itself.
func filteredRows(ctx context.Context, b *benchCluster, t *benchTarget, dir, collection string) ([]filteredRow, error) {
	tests, err := readFilteredTests(filepath.Join(dir, "filtered_tests.jsonl"))
	if err != nil {
		return nil, err
	}
	folder, err := vecfile.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	queries, err := vecfile.All(folder.Query, vecfile.Options{})
	if err != nil {
		return nil, err
	}
	base, err := vecfile.Open(folder.Base, vecfile.Options{})
	if err != nil {
		return nil, err
	}
	n := base.Rows()
	_ = base.Close()
	var out []filteredRow
	for _, addr := range t.endpoints {
		cfg, err := b.conn.config()
		if t.local != nil {
			cfg, err = t.local.ClientConfig()
		}
		if err != nil {
			return nil, err
		}
		cfg.Endpoints, cfg.Pin = []string{addr}, true
		cl, err := client.Open(cfg)
		if err != nil {
			return nil, err
		}
		rows, err := filteredOn(ctx, cl, addr, collection, tests, queries, n, folder.Metric)
		_ = cl.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

func readFilteredTests(path string) ([]filteredTest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []filteredTest
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var t filteredTest
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return nil, fmt.Errorf("%s: row %d: %w", path, len(out), err)
		}
		out = append(out, t)
	}
	return out, lines.Err()
}

func filteredOn(ctx context.Context, cl *client.Client, addr, collection string, tests []filteredTest, queries [][]float32, n int, metric string) ([]filteredRow, error) {
	hits, wanted, count := make([]int, len(bands())), make([]int, len(bands())), make([]int, len(bands()))
	took := make([][]float64, len(bands()))
	for i, test := range tests {
		q := &collectionv1.QueryRequest{CollectionId: collection, QueryVector: queries[test.Query], TopK: demoK, Filter: &collectionv1.Filter{}}
		if err := rpc.DecodeJSON(test.Filter, q.Filter); err != nil {
			return nil, fmt.Errorf("filtered test %d: %w", i, err)
		}
		reply, err := cl.Query(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("filtered test %d: %w", i, err)
		}
		band := 0
		for float64(test.NMatch)/float64(n) > bands()[band].upTo {
			band++
		}
		want := min(demoK, len(test.Scores))
		count[band]++
		wanted[band] += want
		took[band] = append(took[band], reply.LatencyMs)
		if want > 0 {
			hits[band] += min(want, countGood(reply.Matches, test.Scores[want-1], metric))
		}
	}
	var out []filteredRow
	for i, b := range bands() {
		if count[i] > 0 {
			out = append(out, filteredRow{Replica: addr, Selectivity: b.name, Tests: count[i],
				RecallAt10: float64(hits[i]) / float64(max(1, wanted[i])), P50ms: median(took[i])})
		}
	}
	return out, nil
}

// countGood counts matches at least as near as the last true neighbour.
func countGood(matches []*collectionv1.VectorMatch, kth float64, metric string) int {
	slack := 10 * scoreSlack * max(1, math.Abs(kth)) // the files hold six decimals
	good := 0
	for _, m := range matches {
		if d := float64(m.Distance); metric == "l2" && d <= kth+slack || metric != "l2" && d >= kth-slack {
			good++
		}
	}
	return good
}

func printFiltered(w io.Writer, rows []filteredRow) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "REPLICA\tSELECTIVITY\tTESTS\tRECALL@10\tP50 MS")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%.4f\t%.2f\n", r.Replica, r.Selectivity, r.Tests, r.RecallAt10, r.P50ms)
	}
	return tw.Flush()
}
