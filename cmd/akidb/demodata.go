// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/godocs"
	"github.com/akidb/akidb/cmd/akidb/internal/vecfile"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// demoSet is what the demo needs of a data set.
type demoSet interface {
	describe() string
	// fill makes the collection and imports all documents.
	fill(ctx context.Context, cl *client.Client) (documents, dim int, err error)
	questions() []question
	// queries are n vectors for the recall.
	queries(n int) [][]float32
	// good returns the test whether a score belongs among the true nearest ten;
	// by score, since ties have no order.
	good(ctx context.Context, cl *client.Client, q []float32) (func(score float32) bool, error)
}

// question is a search that a person can judge.
type question struct {
	text   string
	vector []float32
}

// scoreSlack is what float32 sums may differ by, relative to the score.
const scoreSlack = 1e-5

// goDocs is the default data set.
type goDocs struct {
	docs    []godocs.Doc
	vectors [][]float32
	embed   *godocs.Embedder
}

func openGoDocs(ctx context.Context) (demoSet, error) {
	docs, err := godocs.Load(ctx)
	if err != nil {
		return nil, err
	}
	g := &goDocs{embed: godocs.NewEmbedder(docs)}
	for _, d := range docs {
		v, err := g.embed.Doc(d)
		if err != nil { // a comment without a word
			continue
		}
		g.docs, g.vectors = append(g.docs, d), append(g.vectors, v)
	}
	return g, nil
}

func (g *goDocs) describe() string {
	return fmt.Sprintf("%s doc comments of Go's standard library", thousands(len(g.docs)))
}

func (g *goDocs) fill(ctx context.Context, cl *client.Client) (int, int, error) {
	_, err := cl.CreateCollection(ctx, &collectionv1.CreateCollectionRequest{Name: demoCollection, Dimension: godocs.Dim, Metric: "cosine"})
	if err != nil {
		return 0, 0, err
	}
	in := cl.Ingest(ctx, demoCollection, client.IngestOptions{BatchDocs: 250})
	for i, d := range g.docs {
		payload, err := d.Payload()
		if err == nil {
			err = in.Add(&collectionv1.UpsertRequest{DocId: d.ID, Vector: g.vectors[i], Metadata: &collectionv1.Json{Raw: payload}})
		}
		if err != nil {
			break // Close says what went wrong
		}
	}
	res, err := in.Close()
	return res.Documents, godocs.Dim, err
}

func (g *goDocs) questions() []question {
	var out []question
	for _, q := range godocs.Questions() {
		if v, err := g.embed.Text(q.Text); err == nil {
			out = append(out, question{q.Text, v})
		}
	}
	return out
}

// queries are first sentences of comments all over the library.
func (g *goDocs) queries(n int) [][]float32 {
	var out [][]float32
	for i := 0; i < len(g.docs) && len(out) < n; i += max(1, len(g.docs)/n) {
		if v, err := g.embed.Text(godocs.Summary(g.docs[i].Text)); err == nil {
			out = append(out, v)
		}
	}
	return out
}

// good compares with every vector here, so that the database is not its own judge.
func (g *goDocs) good(_ context.Context, _ *client.Client, q []float32) (func(float32) bool, error) {
	scores := make([]float64, len(g.vectors))
	for i, v := range g.vectors {
		var s float64
		for j := range v {
			s += float64(v[j]) * float64(q[j])
		}
		scores[i] = s
	}
	slices.Sort(scores)
	kth := scores[max(0, len(scores)-demoK)]
	return func(s float32) bool { return float64(s) >= kth-scoreSlack }, nil
}

// folderSet is a benchmark data set.
type folderSet struct {
	folder *vecfile.Folder
	asked  [][]float32
	metric string
}

func openFolderSet(dir string) (demoSet, error) {
	f, err := vecfile.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	if f.Query == "" || f.Metric == "" {
		return nil, fmt.Errorf("%s: want query vectors, and meta.json with the metric", dir)
	}
	asked, err := vecfile.All(f.Query, vecfile.Options{})
	return &folderSet{folder: f, asked: asked, metric: f.Metric}, err
}

func (f *folderSet) describe() string {
	return fmt.Sprintf("%s (%s), %s queries", f.folder.Name, f.metric, thousands(len(f.asked)))
}

func (f *folderSet) fill(ctx context.Context, cl *client.Client) (int, int, error) {
	job := importJob{collection: demoCollection, path: f.folder.Base, payload: f.folder.Payload, batch: 250, inFlight: 4,
		index: indexFlags{metric: f.metric}}
	res, err := job.run(ctx, cl, nil)
	return res.Rows, len(f.asked[0]), err
}

func (f *folderSet) questions() []question {
	var out []question
	for i, v := range f.asked[:min(3, len(f.asked))] {
		out = append(out, question{fmt.Sprintf("query %d of the data set", i), v})
	}
	return out
}

func (f *folderSet) queries(n int) [][]float32 { return f.asked[:min(n, len(f.asked))] }

func (f *folderSet) good(ctx context.Context, cl *client.Client, q []float32) (func(float32) bool, error) {
	exact, err := cl.Query(ctx, &collectionv1.QueryRequest{CollectionId: demoCollection, QueryVector: q, TopK: demoK, Exact: true})
	if err != nil || len(exact.Matches) == 0 {
		return func(float32) bool { return false }, err
	}
	kth := float64(exact.Matches[len(exact.Matches)-1].Distance)
	slack := scoreSlack * math.Max(1, math.Abs(kth))
	return func(s float32) bool {
		if strings.EqualFold(f.metric, "l2") {
			return float64(s) <= kth+slack
		}
		return float64(s) >= kth-slack
	}, nil
}
