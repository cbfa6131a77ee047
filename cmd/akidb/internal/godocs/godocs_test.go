// SPDX-License-Identifier: Apache-2.0

package godocs

import (
	"errors"
	"slices"
	"testing"
)

// nearest is the exact search, by inner product of unit vectors.
func nearest(vectors [][]float32, q []float32, k int) []int {
	type hit struct {
		i     int
		score float32
	}
	var hits []hit
	for i, v := range vectors {
		var s float32
		for j := range v {
			s += v[j] * q[j]
		}
		hits = append(hits, hit{i, s})
	}
	slices.SortFunc(hits, func(a, b hit) int {
		if a.score > b.score {
			return -1
		}
		return 1
	})
	var out []int
	for _, h := range hits[:k] {
		out = append(out, h.i)
	}
	return out
}

// What the demo shows must be true: a person's words find the right packages.
func TestQuestionsFindTheirPackages(t *testing.T) {
	docs, err := Load(t.Context())
	if err != nil {
		t.Skip(err)
	}
	if len(docs) < 3000 {
		t.Fatalf("only %d comments", len(docs))
	}
	e := NewEmbedder(docs)
	var vectors [][]float32
	ids := map[string]bool{}
	for _, d := range docs {
		if ids[d.ID] {
			t.Fatalf("%s twice", d.ID)
		}
		ids[d.ID] = true
		v, err := e.Doc(d)
		if err != nil {
			t.Fatal(d.ID, err)
		}
		vectors = append(vectors, v)
	}
	for _, q := range Questions() {
		v, err := e.Text(q.Text)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		var got []string
		for _, i := range nearest(vectors, v, 5) {
			got = append(got, docs[i].ID)
			found = found || slices.Contains(q.Packages, docs[i].Package)
		}
		t.Logf("%q: %v", q.Text, got)
		if !found {
			t.Errorf("%q finds none of %v", q.Text, q.Packages)
		}
	}
}

func TestEmbeddingIsTheSameEveryTime(t *testing.T) {
	docs := []Doc{{ID: "a", Package: "compress/gzip", Text: "Package gzip implements reading and writing of gzip format compressed files."},
		{ID: "b", Package: "sort", Text: "Package sort provides primitives for sorting slices."}}
	e := NewEmbedder(docs)
	want, err := e.Doc(docs[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if got, _ := NewEmbedder(docs).Doc(docs[0]); !slices.Equal(got, want) {
			t.Fatal("two runs differ")
		}
	}
	if _, err := e.Text("the of"); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
}

func TestWords(t *testing.T) {
	if got := Words("NewReader returns the HTTPServer's 2 readers"); !slices.Equal(got, []string{"new", "read", "return", "httpserv", "read"}) {
		t.Fatalf("%q", got)
	}
}
