// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
)

// Unmarked copies the ids that are below limit and not in the set marks to out,
// puts them into the set and returns how many they are. The set has a bit per id,
// in a word for each 1<<shift ids, shift being at most 6: where all is in the nearest
// cache, more words take less time, since a word that was just written has to be
// waited for. It stops at the first id that is ^uint32(0). It is
//
//	for _, id := range ids {
//		if id == ^uint32(0) { break }
//		if id < limit && !marks.has(id) { marks.add(id); out[n] = id; n++ }
//	}
//
// without a branch that depends on the set, which nobody could predict. Each id
// is loaded as one word, so others may store ids meanwhile. out must have room
// for all ids, and marks for limit.
func Unmarked(ids []uint32, marks []uint64, shift uint32, limit uint32, out []uint32) int {
	if len(out) < len(ids) || !haveMarks(marks, shift, limit) {
		panic(fmt.Sprintf("distance: %d ids below %d, a set of %d words by %d bits, room for %d", len(ids), limit, len(marks), shift, len(out)))
	}
	if len(ids) == 0 || limit == 0 {
		return 0
	}
	return unmarked(ids, marks, shift, limit, out)
}

func haveMarks(marks []uint64, shift, limit uint32) bool {
	return shift <= 6 && uint64(len(marks))<<shift >= uint64(limit)
}

func unmarkedGeneric(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int {
	n := 0
	for i := range ids {
		id := atomic.LoadUint32(&ids[i])
		if id >= limit {
			if id == ^uint32(0) {
				break
			}
			continue
		}
		w := marks[id>>shift]
		out[n] = id
		n += int(^w >> (id & 63) & 1)
		marks[id>>shift] = w | 1<<(id&63)
	}
	return n
}

// MembersRoom is how much room Members wants to look at a word.
const MembersRoom = 80

// Members writes the numbers of the bits that are set in words to out, ascending, the
// lowest bit of the first word being number first. It ends where there is no room for
// MembersRoom more, and returns how many it has written and how many words that were.
// What is behind in out is overwritten.
func Members(words []uint64, first uint32, out []uint32) (n, done int) {
	if len(words) == 0 || len(out) < MembersRoom {
		return 0, 0
	}
	return members(words, first, out)
}

func membersGeneric(words []uint64, first uint32, out []uint32) (n, done int) {
	for ; done < len(words) && n+MembersRoom <= len(out); done++ {
		for w := words[done]; w != 0; w &= w - 1 {
			out[n] = first + 64*uint32(done) + uint32(bits.TrailingZeros64(w))
			n++
		}
	}
	return n, done
}

// PrefetchBytes is how much of the rows that will be compared next is worth asking
// for at once; what comes behind, the kernels ask for as they go.
const PrefetchBytes = 8192

// PrefetchRows asks for the first length bytes of the rows base[id*stride:]. An
// id outside base costs time and nothing else.
func PrefetchRows(base []byte, stride, length int, ids []uint32) {
	if len(ids) != 0 && len(base) != 0 && length > 0 {
		prefetchRows(base, stride, length, ids)
	}
}

// InsertSorted puts x where it belongs into items, ascending but for the last,
// which is overwritten, and returns where that is: behind its equals.
func InsertSorted(items []uint64, x uint64) int {
	if len(items) <= 1 {
		items[0] = x
		return 0
	}
	return insertSorted(items, x)
}

// Margin is how many zeros are in front of the items of InsertAll.
const Margin = 8

// Short lists fit in registers. In lists above long a place is sought, below it is come to.
const (
	Short = 64
	long  = 3000
)

// InsertAll puts each of xs where it belongs into the n items behind the Margin of
// room, ascending, of which the limit smallest are kept. It returns how many there are
// then, and the first place where one of xs is, which is limit if none is. What is behind
// the items and the order of xs are lost. Lists of up to Short items take less time if
// room has as much.
func InsertAll(room []uint64, n, limit int, xs []uint64) (length, first int) {
	if n < 0 || n > limit || limit > len(room)-Margin {
		panic(fmt.Sprintf("distance: %d items, limit %d, room for %d", n, limit, len(room)-Margin))
	}
	if len(xs) == 0 || limit == 0 {
		return n, limit
	}
	if limit > long {
		return insertMerged(room, n, limit, xs)
	}
	return insertAll(room, n, limit, xs)
}

// insertOneByOne is InsertAll by insertSorted.
func insertOneByOne(room []uint64, n, limit int, xs []uint64) (length, first int) {
	items := room[Margin:][:limit]
	first = limit // the places where they are put can but go down
	for _, x := range xs {
		switch {
		case n < limit:
			n++
		case n == 0 || x >= items[n-1]:
			continue
		}
		first = min(first, insertSorted(items[:n], x))
	}
	return n, first
}

// insertMerged is InsertAll for long lists: what is behind the place of one of xs is moved
// once for all of them.
func insertMerged(room []uint64, n, limit int, xs []uint64) (length, first int) {
	items := room[Margin:][:limit]
	slices.Sort(xs)
	for n+len(xs) > limit { // the last of both is too much
		if last := len(xs) - 1; last >= 0 && (n == 0 || xs[last] >= items[n-1]) {
			xs = xs[:last]
		} else {
			n--
		}
	}
	length, first = n+len(xs), limit
	for left := len(xs); left > 0; left-- {
		x := xs[left-1]
		first = upperBound(items[:n], x)
		copy(items[first+left:], items[first:n])
		items[first+left-1] = x
		n = first
	}
	return length, first
}

// upperBound is how many of items, ascending, are at most x. Which half is next
// is no branch but a conditional move: it cannot be foreseen.
func upperBound(items []uint64, x uint64) int {
	low, n := 0, len(items)
	for n > 1 {
		half := n / 2
		next := low + half
		if items[next-1] <= x {
			low = next
		}
		n -= half
	}
	if n == 1 && items[low] <= x {
		low++
	}
	return low
}

// insertSortedGeneric moves one by one where there are few, since that is faster
// than a search that is followed by a call of memmove.
func insertSortedGeneric(items []uint64, x uint64) int {
	at := len(items) - 1
	if at > 48 {
		at = upperBound(items[:at], x)
		copy(items[at+1:], items[at:])
		items[at] = x
		return at
	}
	for at > 0 && items[at-1] > x {
		items[at] = items[at-1]
		at--
	}
	items[at] = x
	return at
}
