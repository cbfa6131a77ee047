// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// filteredQuery is a query with its filter and how many slots that admits.
type filteredQuery struct {
	vector  []float32
	filter  *Filter
	matches int
}

// costs is what queries of one kind took on average.
type costs struct {
	n                     int
	recall                float64
	micros                float64
	plain                 float64 // the same queries without their filters
	visited, scanned      float64
	exactPlans, exactMics float64
}

// measureCosts runs all queries some times, in turn with the same ones without
// filters, and counts the quickest of each, since other work on the machine only
// ever makes one slower.
func measureCosts(t *testing.T, x *Index, qs []filteredQuery, ef int, view View, exactToo bool) costs {
	c := costs{n: len(qs)}
	least, plain := make([]float64, len(qs)), make([]float64, len(qs))
	run := func(least []float64, filtered, exact, count bool) (sum float64) {
		var rs []Result
		for i, fq := range qs {
			q := Query{Vector: fq.vector, K: 10, Ef: ef, Exact: exact}
			if filtered {
				q.Filter = fq.filter
			}
			start := time.Now()
			var st Stats
			var err error
			if rs, st, err = x.Search(context.Background(), q, view, rs[:0]); err != nil {
				t.Fatal(err)
			}
			micros := float64(time.Since(start).Nanoseconds()) / 1e3
			if least[i] == 0 || micros < least[i] {
				least[i] = micros
			}
			if count {
				c.visited += float64(st.Visited)
				c.scanned += float64(st.Scanned)
				if st.Plan == "exact" {
					c.exactPlans++
				}
			}
		}
		for _, m := range least {
			sum += m
		}
		return sum
	}
	for pass := range 12 {
		c.micros = run(least, true, false, pass == 0)
		if exactToo {
			c.plain = run(plain, false, false, false)
		}
	}
	if exactToo {
		clear(least)
		for range 3 {
			c.exactMics = run(least, true, true, false)
		}
	}
	hit, want := 0, 0
	for _, fq := range qs {
		q := Query{Vector: fq.vector, K: 10, Ef: ef, Filter: fq.filter}
		got, _ := search(t, x, q, view)
		q.Exact = true
		truth, _ := search(t, x, q, view)
		want += len(truth)
		for i := range truth {
			if i < len(got) && got[i].Distance <= truth[len(truth)-1].Distance {
				hit++
			}
		}
	}
	n := float64(max(1, len(qs)))
	c.recall = float64(hit) / float64(max(1, want))
	c.micros, c.visited, c.scanned, c.exactMics, c.plain = c.micros/n, c.visited/n, c.scanned/n, c.exactMics/n, c.plain/n
	return c
}

// Goal: a table of what filters cost beside no filter at equal recall, for the
// data set's own filters and for ones that have nothing to do with the vectors.
//
//	AKIDB_DATA=... AKIDB_FILTERED=sift-bsds500-128-l2 go test ./index -run TestFilteredCost -v
//
// AKIDB_FILTERED_EF is the list to search with, instead of the default.
func TestFilteredCost(t *testing.T) {
	names := os.Getenv("AKIDB_FILTERED")
	if names == "" {
		t.Skip("AKIDB_FILTERED names no data sets")
	}
	ef, _ := strconv.Atoi(os.Getenv("AKIDB_FILTERED_EF"))
	for _, name := range strings.Split(names, ",") {
		dir := dataDir(t, name)
		base, queries := readVectors(t, dir, "base"), readVectors(t, dir, "query")
		metric := map[string]distance.Metric{"l2": distance.L2, "cosine": distance.Cosine, "ip": distance.Dot}[name[strings.LastIndexByte(name, '-')+1:]]
		x := open(t, Config{Dimension: len(base[0]), Metric: metric}, &memory{})
		i := 0
		readLines(t, dir+"/payload.jsonl", func(line []byte) {
			chance := mix(uint64(i)) % 10000
			x.Append(Slot(i), base[i], fmt.Appendf(nil, `%s,"chance":%d}`, strings.TrimRight(string(line), " }"), chance))
			i++
		})
		waitIdle(t, x)
		view := View{Slots: Slot(len(base)), Applied: 1}
		kinds := map[string][]filteredQuery{}
		readLines(t, dir+"/filtered_tests.jsonl", func(line []byte) {
			var c struct {
				Query  int
				Filter jsonFilter
				NMatch int `json:"n_match"`
			}
			d := json.NewDecoder(strings.NewReader(string(line)))
			d.UseNumber()
			if err := d.Decode(&c); err != nil {
				t.Fatal(err)
			}
			share := math.Log10(float64(max(1, c.NMatch)) / float64(len(base)))
			kind := fmt.Sprintf("data 10^%.1f", math.Floor(2*share)/2)
			kinds[kind] = append(kinds[kind], filteredQuery{queries[c.Query], c.Filter.filter(), c.NMatch})
		})
		var plain []filteredQuery
		for q := range 200 {
			plain = append(plain, filteredQuery{vector: queries[q]})
			for _, below := range []int64{1, 3, 10, 30, 100, 300, 1000, 3000, 5000, 7000, 9000, 9900, 10000} {
				if q < 60 {
					f := &Filter{Must: []Condition{{Key: "chance", Range: &Range{Lt: &Scalar{Kind: KindInt, Int: below}}}}}
					kind := fmt.Sprintf("chance %6.2f%%", float64(below)/100)
					kinds[kind] = append(kinds[kind], filteredQuery{queries[q], f, int(below) * len(base) / 10000})
				}
			}
		}
		var curve []costs
		for _, ef := range []int{10, 16, 24, 32, 48, 64, 100, 150, 200, 400} {
			c := measureCosts(t, x, plain, ef, view, false)
			curve = append(curve, c)
			t.Logf("%s unfiltered ef %3d: recall %.4f %7.1f us, visited %.0f", name, ef, c.recall, c.micros, c.visited)
		}
		var order []string
		for k := range kinds {
			order = append(order, k)
		}
		slices.Sort(order)
		for _, k := range order {
			c := measureCosts(t, x, kinds[k], ef, view, true)
			// The least that as much recall costs without a filter.
			equal := curve[len(curve)-1]
			for i := range curve {
				if curve[i].recall >= c.recall {
					equal = curve[i]
					break
				}
			}
			verdict := ""
			if c.micros > 2*equal.micros && c.micros > 1.1*c.exactMics {
				verdict = "TOO SLOW"
			}
			t.Logf("%s %-16s n %3d recall %.4f %7.1f us, visited %6.0f scanned %6.0f, exact %3.0f%% | unfiltered %6.1f us (%.2f), at equal recall %6.1f us, exact scan %7.1f us %s",
				name, k, c.n, c.recall, c.micros, c.visited, c.scanned, 100*c.exactPlans/float64(c.n), c.plain, c.micros/c.plain, equal.micros, c.exactMics, verdict)
		}
	}
}
