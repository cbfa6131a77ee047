// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: wherever the terms of rows are, keys on codes are squared distances of
// codes. Method: widths with room for them, without, and too wide to do without;
// queries and vertices against a loop.
func TestKeysOnCodesAreSquaredDistances(t *testing.T) {
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprintf("short=%v", short), func(t *testing.T) { testKeysOnCodes(t, short) })
	}
}

func testKeysOnCodes(t *testing.T, short bool) {
	forms := map[rowForm]int{}
	for _, dim := range []int{1, 56, 57, 60, 64, 100, 384, 385, 440, 446, 448} {
		r := seeded(t, uint64(dim))
		cfg, err := Config{Dimension: dim, Metric: distance.L2}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		cfg.VectorsOnDisk = short
		g, err := newGeneration(&cfg, nil, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer g.release()
		const n = 100
		for i, v := range clustered(r, n, dim, 3, 0.5) {
			g.append(Slot(i), v, 0)
		}
		codes, err := newCodeset(trainCodec(g, n), &cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer codes.release()
		forms[codes.form]++
		if short && codes.form == termsInRow && codes.stride > dim+termBytes+1 {
			t.Errorf("dimension %d: rows of %d bytes", dim, codes.stride)
		}
		codes.grow(n)
		ids, keys := make([]uint32, n), make([]uint32, n)
		for v := range ids {
			ids[v] = uint32(v)
			codes.add(g, uint32(v))
		}
		var m measure
		check := func(what string, of []byte) {
			t.Helper()
			m.keys(ids, keys)
			for u, key := range keys {
				var want uint32
				for d, c := range codes.row(uint32(u))[:dim] {
					diff := int32(c) - int32(of[d])
					want += uint32(diff * diff)
				}
				if key != want {
					t.Fatalf("dimension %d: %s to row %d: %d, want %d", dim, what, u, key, want)
				}
			}
		}
		for v := range uint32(n) {
			// In turn, since the second must not write to what the first read.
			codes.rowMeasure(&m, v)
			check("vertex", codes.row(v))
			codes.queryMeasure(&m, distance.L2, g.vector((v+1)%n))
			check("query", codes.row((v+1)%n))
		}
	}
	if len(forms) != 3 {
		t.Errorf("forms of rows met: %v, want all three", forms)
	}
}
