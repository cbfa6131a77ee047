// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// readVectors reads NAME.fvecs or NAME.bvecs of a data set.
func readVectors(t testing.TB, dir, name string) [][]float32 {
	t.Helper()
	size, raw, err := 4, []byte(nil), error(nil)
	if raw, err = os.ReadFile(dir + "/" + name + ".fvecs"); err != nil {
		size = 1
		if raw, err = os.ReadFile(dir + "/" + name + ".bvecs"); err != nil {
			t.Fatal(err)
		}
	}
	dim := int(binary.LittleEndian.Uint32(raw))
	var out [][]float32
	for ; len(raw) >= 4+dim*size; raw = raw[4+dim*size:] {
		v := make([]float32, dim)
		for i := range v {
			if size == 1 {
				v[i] = float32(raw[4+i])
			} else {
				v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4+4*i:]))
			}
		}
		out = append(out, v)
	}
	return out
}

// readLines calls fn with each line of a file.
func readLines(t testing.TB, path string, fn func([]byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		fn(s.Bytes())
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
}

// jsonFilter is the form filters have in the data sets.
type jsonFilter struct {
	Must, Should []jsonCondition
	MustNot      []jsonCondition `json:"must_not"`
}

type jsonCondition struct {
	Key   string
	Match *struct {
		Value any
		Any   []any
	}
	Range     map[string]any
	IsMissing *bool `json:"is_missing"`
}

func (f jsonFilter) filter() *Filter {
	conv := func(cs []jsonCondition) (out []Condition) {
		for _, c := range cs {
			to := Condition{Key: c.Key, IsMissing: c.IsMissing}
			if c.Match != nil && c.Match.Value != nil {
				to.Any = []Scalar{jsonScalar(c.Match.Value)}
			} else if c.Match != nil {
				for _, v := range c.Match.Any {
					to.Any = append(to.Any, jsonScalar(v))
				}
			}
			if c.Range != nil {
				to.Range = &Range{}
				for k, v := range c.Range {
					s := jsonScalar(v)
					*map[string]**Scalar{"gt": &to.Range.Gt, "gte": &to.Range.Gte, "lt": &to.Range.Lt, "lte": &to.Range.Lte}[k] = &s
				}
			}
			out = append(out, to)
		}
		return out
	}
	return &Filter{Must: conv(f.Must), Should: conv(f.Should), MustNot: conv(f.MustNot)}
}

func jsonScalar(v any) Scalar {
	switch v := v.(type) {
	case string:
		return Scalar{Kind: KindString, String: v}
	case bool:
		return Scalar{Kind: KindBool, Bool: v}
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return Scalar{Kind: KindInt, Int: i}
		}
		f, _ := v.Float64()
		return Scalar{Kind: KindFloat, Float: f}
	}
	return Scalar{}
}

// Goal: the filtered tests of the data sets are answered to recall 0.95, and
// plain queries at the default ef to 0.99 (0.95 under Dot).
func TestDataSets(t *testing.T) {
	if testing.Short() {
		t.Skip("builds whole data sets")
	}
	for _, set := range []struct {
		name   string
		metric distance.Metric
		floor  float64
	}{
		{"fashion-mnist-784-l2", distance.L2, 0.99},
		{"sift-bsds500-128-l2", distance.L2, 0.99},
		{"aiml-notes-bge384-cosine", distance.Cosine, 0.99},
		{"lastfm2k-als-64-ip", distance.Dot, 0.95},
	} {
		t.Run(set.name, func(t *testing.T) {
			dir := dataDir(t, set.name)
			base, queries := readVectors(t, dir, "base"), readVectors(t, dir, "query")
			x := open(t, Config{Dimension: len(base[0]), Metric: set.metric, Quantization: Quantization(os.Getenv("AKIDB_QUANT"))}, &memory{})
			i := 0
			readLines(t, dir+"/payload.jsonl", func(line []byte) {
				x.Append(Slot(i), base[i], line)
				i++
			})
			waitIdle(t, x)
			view := View{Slots: Slot(len(base)), Applied: 1}
			if got := recall(t, x, queries[:min(len(queries), 300)], Query{K: 10}, view); got < set.floor {
				t.Errorf("recall at the default ef %.4f, want %.2f", got, set.floor)
			} else {
				t.Logf("recall at the default ef %.4f", got)
			}
			if got := recall(t, x, queries[:min(len(queries), 300)], Query{K: 10, Ef: 600}, view); set.metric != distance.Dot && got < 0.999 {
				t.Errorf("recall at ef 600 %.4f", got)
			}
			checkFiltered(t, x, dir, queries, view)
		})
	}
}

// checkFiltered runs filtered_tests.jsonl and wants recall in each decade of
// selectivity.
func checkFiltered(t *testing.T, x *Index, dir string, queries [][]float32, view View) {
	type tally struct{ hit, want, n, exact int }
	decades := map[int]*tally{}
	readLines(t, dir+"/filtered_tests.jsonl", func(line []byte) {
		var c struct {
			Query  int
			Filter jsonFilter
			NMatch int `json:"n_match"`
			IDs    []Slot
			Scores []float64
		}
		d := json.NewDecoder(strings.NewReader(string(line)))
		d.UseNumber()
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		f := c.Filter.filter()
		if n, err := x.Count(t.Context(), f, view); err != nil || n != c.NMatch {
			t.Errorf("filter %s: count %d, %v; want %d", line[:min(200, len(line))], n, err, c.NMatch)
		}
		q := Query{Vector: queries[c.Query], K: 10, Filter: f}
		got, st := search(t, x, q, view)
		q.Exact = true
		truth, _ := search(t, x, q, view)
		decade := int(math.Floor(2 * math.Log10(float64(c.NMatch)/float64(view.Slots))))
		if decades[decade] == nil {
			decades[decade] = &tally{}
		}
		tl := decades[decade]
		tl.n++
		if st.Plan == "exact" {
			tl.exact++
		}
		for i, r := range truth {
			tl.want++
			if i < len(got) && got[i].Distance <= truth[len(truth)-1].Distance {
				tl.hit++
			}
			if i < len(c.Scores) && scoreGap(r.Distance, c.Scores[i]) > 1e-3 {
				t.Errorf("query %d: exact result %d at %g, the data set says %g", c.Query, i, r.Distance, c.Scores[i])
			}
		}
	})
	for d, tl := range decades {
		got := float64(tl.hit) / float64(max(1, tl.want))
		t.Logf("selectivity from 10^%.1f: recall %.4f of %d filters, %d exact", float64(d)/2, got, tl.n, tl.exact)
		if got < 0.95 {
			t.Errorf("selectivity from 10^%.1f: recall %.4f", float64(d)/2, got)
		}
	}
}

// scoreGap compares a distance with a score of a data set, which is a distance, a
// similarity or an inner product.
func scoreGap(distance float32, score float64) float64 {
	d := float64(distance)
	return min(math.Abs(d-score), math.Abs(1-d-score), math.Abs(-d-score)) / (1 + math.Abs(score))
}
