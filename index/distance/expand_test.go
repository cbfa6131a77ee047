// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"slices"
	"testing"
)

// Goal: Neighbours gives what Unmarked, the kernels on rows and a comparison with
// the bound give one after the other, for short and long rows; and Rows and Given give
// what the last two do.
func TestNeighboursAreThoseOfTheSeparateSteps(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 4000 {
			width := 64 * (1 + r.IntN(4))
			codes := width - 4 - r.IntN(60)
			stride := width
			way := []string{"L2", "L2 by terms", "L2 by terms apart", "dot"}[r.IntN(4)]
			if way == "L2" {
				codes = width
			} else if r.IntN(2) == 0 {
				stride = codes + 4
			}
			limit, most := uint32(r.IntN(200)), 40
			if r.IntN(20) == 0 {
				limit, most = 600, 400
			}
			base, checkBase := guarded[byte](int(limit)*stride+width, r.IntN(4), 77)
			for i := range base {
				base[i] = byte(r.Uint32())
			}
			query := make([]byte, codes)
			for i := range query {
				query[i] = byte(r.Uint32())
			}
			signed := make([]int8, width)
			var e Expansion
			term := L2Query(signed, query)
			termAt := codes
			switch way {
			case "dot":
				e.SetDot(signed, base, stride, limit)
			case "L2":
				e.SetL2(query, base, stride, limit)
			case "L2 by terms apart":
				apart := make([][2]int32, limit)
				for v := range apart {
					apart[v] = [2]int32{r.Int32(), L2Term(base[v*stride:][:codes])}
				}
				e.SetL2Apart(signed, term, base, stride, apart, limit)
			default:
				for v := range int(limit) {
					binary.LittleEndian.PutUint32(base[v*stride+termAt:], uint32(L2Term(base[v*stride:][:codes])))
				}
				e.SetL2Term(signed, term, base, stride, termAt, limit)
			}

			links, checkLinks := guarded[uint32](r.IntN(most), r.IntN(4), 77)
			for i := range links {
				links[i] = uint32(i)
				if r.IntN(most) < 20 {
					links[i] = uint32(r.IntN(int(limit) + 10))
				}
				if r.IntN(10*most) == 0 {
					links[i] = ^uint32(0)
				}
			}
			shift := uint32(r.IntN(7))
			marks, checkMarks := guarded[uint64](int((limit+1<<shift-1)>>shift), r.IntN(4), wordGuard)
			if r.IntN(3) > 0 {
				for i := range marks {
					marks[i] = r.Uint64() & r.Uint64()
				}
			}
			same := slices.Clone(marks)
			want := make([]uint32, len(links))
			want = want[:Unmarked(links, same, shift, limit, want)]
			candidates := func(ids []uint32) (all []uint64) {
				keys := make([]int32, len(ids))
				switch way {
				case "dot":
					DotU8S8Rows(signed, base, stride, ids, keys)
				case "L2":
					L2U8Rows(query, base, stride, ids, keys)
				case "L2 by terms apart":
					for i, id := range ids {
						keys[i] = L2U8(query, base[int(id)*stride:][:codes])
					}
				default:
					L2U8TermRows(signed, term, base, stride, termAt, ids, keys)
				}
				for i, id := range ids {
					k := uint32(keys[i])
					if way == "dot" {
						k = uint32(-keys[i]) ^ 1<<31
					}
					all = append(all, uint64(k)<<32|uint64(id)<<1)
				}
				return all
			}
			all := candidates(want)
			bound := ^uint64(0)
			if len(all) > 0 && r.IntN(4) > 0 {
				bound = all[r.IntN(len(all))] + uint64(r.IntN(2))
			}
			below := func(all []uint64) []uint64 {
				return slices.DeleteFunc(all, func(c uint64) bool { return c >= bound })
			}
			near := below(all)

			ids, checkIDs := guarded[uint32](len(links)+Slack, r.IntN(4), 77)
			out, checkOut := guarded[uint64](len(links)+Slack, r.IntN(4), wordGuard)
			for i := range ids {
				ids[i] = 1 << 31 // no row is there
			}
			seen, found := e.Neighbours(links, marks, shift, bound, ids, out)
			if !slices.Equal(ids[:seen], want) || !slices.Equal(out[:found], near) || !slices.Equal(marks, same) {
				t.Fatalf("%s, %d codes in rows of %d, links %v, bound %x: %v, %x; want %v, %x", way, codes, stride, links, bound,
					ids[:seen], out[:found], want, near)
			}
			from := uint32(r.IntN(int(limit) + 1))
			to := from + uint32(r.IntN(int(limit-from)+1))
			row, checkRow := guarded[uint64](int(to-from)+Slack, r.IntN(4), wordGuard)
			var several []uint32
			for v := from; v < to; v++ {
				several = append(several, v)
			}
			near = below(candidates(several))
			if found := e.Rows(from, to, bound, row); !slices.Equal(row[:found], near) {
				t.Fatalf("%s, %d codes in rows of %d, rows %d to %d, bound %x: %x; want %x", way, codes, stride, from, to, bound, row[:found], near)
			}
			some, checkSome := guarded[uint32](r.IntN(3*piece), r.IntN(4), 77)
			if limit == 0 {
				some = some[:0]
			}
			for i := range some {
				some[i] = uint32(r.IntN(int(limit)))
			}
			same32 := slices.Clone(some)
			given, checkGiven := guarded[uint64](len(some)+Slack, r.IntN(4), wordGuard)
			near = below(candidates(same32))
			if found := e.Given(some, bound, given); !slices.Equal(given[:found], near) || !slices.Equal(some, same32) {
				t.Fatalf("%s, %d codes in rows of %d, rows %d, bound %x: %x; want %x", way, codes, stride, some, bound, given[:found], near)
			}
			for _, check := range []func() error{checkSome, checkGiven, checkBase, checkLinks, checkMarks, checkIDs, checkOut, checkRow} {
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
