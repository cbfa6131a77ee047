// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/vecfile"
	"github.com/akidb/akidb/rpc"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

type searchOptions struct {
	vector, vectorFile, id string
	filter, recallTarget   string
	k                      int32
	ef                     uint32
	exact, asJSON, full    bool
}

func newSearch() *cobra.Command {
	var conn connection
	var o searchOptions
	cmd := &cobra.Command{
		Use:   "search COLLECTION",
		Short: "Find the documents nearest to a vector",
		Example: `  akidb search notes --id readme -k 5
  akidb search notes --vector 0.1,0.2,0.3 --filter '{"must":[{"key":"lang","match":{"value":"go"}}]}'
  my-embedder "compress a file" | akidb search notes --vector-file -`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(func(cl *client.Client) error {
				return search(cmd.Context(), cl, args[0], o, cmd.InOrStdin(), cmd.OutOrStdout())
			})
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.vector, "vector", "", "the query: numbers with commas between, or a JSON array")
	f.StringVar(&o.vectorFile, "vector-file", "", "read the query from a file, - for standard input")
	f.StringVar(&o.id, "id", "", "the query is the vector of this document")
	f.Int32VarP(&o.k, "top-k", "k", 10, "how many results")
	f.StringVar(&o.filter, "filter", "", "JSON filter over the payload, as in the REST API")
	f.Uint32Var(&o.ef, "ef", 0, "candidates to expand (at least half of top-k; default: the collection's)")
	f.StringVar(&o.recallTarget, "recall-target", "", "0.95, 0.99 or exact")
	f.BoolVar(&o.exact, "exact", false, "compare with every vector")
	f.BoolVar(&o.asJSON, "json", false, "print the reply as JSON")
	f.BoolVar(&o.full, "full", false, "do not shorten payloads")
	cmd.MarkFlagsMutuallyExclusive("vector", "vector-file", "id")
	cmd.MarkFlagsOneRequired("vector", "vector-file", "id")
	return cmd
}

func search(ctx context.Context, cl *client.Client, collection string, o searchOptions, in io.Reader, out io.Writer) error {
	q := &collectionv1.QueryRequest{CollectionId: collection, TopK: o.k, IncludeMetadata: true,
		Ef: o.ef, Exact: o.exact, RecallTarget: o.recallTarget}
	var err error
	if q.QueryVector, err = o.query(ctx, cl, collection, in); err != nil {
		return err
	}
	if o.filter != "" {
		q.Filter = &collectionv1.Filter{}
		if err := rpc.DecodeJSON([]byte(o.filter), q.Filter); err != nil {
			return fmt.Errorf("--filter: %w", err)
		}
	}
	reply, err := cl.Query(ctx, q)
	if err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(out, reply)
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RANK\tSCORE\tID\tPAYLOAD")
	for i, m := range reply.Matches {
		payload := string(m.GetMetadata().GetRaw())
		if !o.full {
			payload = shorten(payload, 100)
		}
		fmt.Fprintf(tw, "%d\t%.4f\t%s\t%s\n", i+1, m.Distance, m.DocId, payload)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d results in %.2f ms from %s (%s, log index %d)\n", len(reply.Matches), reply.LatencyMs, reply.ServedBy, reply.Consistency, reply.AppliedIndex)
	return err
}

// query finds the vector to search with.
func (o *searchOptions) query(ctx context.Context, cl *client.Client, collection string, in io.Reader) ([]float32, error) {
	switch {
	case o.id != "":
		doc, err := cl.Get(ctx, &collectionv1.GetRequest{CollectionId: collection, DocId: o.id})
		if err != nil {
			return nil, err
		}
		if doc.Document == nil {
			return nil, fmt.Errorf("--id: no document %q in %s", o.id, collection)
		}
		return doc.Document.Vector, nil
	case o.vectorFile == "-":
		text, err := io.ReadAll(io.LimitReader(in, maxVectorText))
		if err != nil {
			return nil, err
		}
		return parseVector(string(text))
	case o.vectorFile != "":
		text, err := os.ReadFile(o.vectorFile)
		if err != nil {
			return nil, err
		}
		return parseVector(string(text))
	}
	return parseVector(o.vector)
}

// maxVectorText is room for 16,384 numbers with all their digits.
const maxVectorText = 1 << 20

func parseVector(text string) ([]float32, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "[") {
		text = "[" + strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' || r == ';' }), ",") + "]"
	}
	v, err := vecfile.ParseVector([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the query vector: %w", err)
	}
	if len(v) == 0 {
		return nil, errors.New("the query vector is empty")
	}
	return v, nil
}

// shorten cuts text for one line of a table.
func shorten(s string, limit int) string {
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}
