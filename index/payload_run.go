// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"unsafe"
)

// run is the payloads of up to 65,536 neighbouring slots, frozen: nothing in it
// changes, so readers share it without locks. Postings have the layout of
// roaring bitmaps' containers (a sorted array of 16-bit numbers, or a bit per
// slot where that is smaller), and values stand in a few pointer-free arrays, so
// that the garbage collector has next to nothing to look at; the roaring library
// was tried on paper and left out for that (docs/adr/0021).
type run struct {
	lo, hi  Slot // slots [lo, hi), hi-lo <= 65536
	docs    int
	columns map[uint32]*column // by path
	size    int64
}

// postings is a set of slots of a run, as offsets from its beginning.
type postings struct {
	list []uint16
	bits []uint64 // instead of list
}

func makePostings(sorted []uint16, width int) postings {
	slices.Sort(sorted) // as a rule it is
	sorted = slices.Compact(sorted)
	if len(sorted)*16 <= width {
		return postings{list: slices.Clone(sorted)}
	}
	p := postings{bits: make([]uint64, (width+63)/64)}
	for _, o := range sorted {
		p.bits[o>>6] |= 1 << (o & 63)
	}
	return p
}

// or adds the set to out.
func (p *postings) or(out []uint64) {
	for i, w := range p.bits {
		out[i] |= w
	}
	orList(out, p.list)
}

func orList(out []uint64, list []uint16) {
	for _, o := range list {
		out[o>>6] |= 1 << (o & 63)
	}
}

func (p *postings) bytes() int64 { return int64(2*len(p.list) + 8*len(p.bits) + 48) }

// column is one field of a run.
type column struct {
	present postings
	other   postings // elements that are objects
	multi   postings // slots with more than one element
	no, yes postings // booleans
	words   dictionary
	numbers sorted
	times   sorted // seconds and nanoseconds
	places  places
}

// dictionary is the strings of a column in order, each with its slots.
type dictionary struct {
	text  []byte
	ends  []uint32 // of value i in text
	posts []uint16
	tails []uint32 // end of value i's slots in posts
	dense []dense  // ascending
}

// dense is the slots of a value that so many have that bits take less time.
type dense struct {
	value int
	bits  []uint64
}

func (d *dictionary) len() int { return len(d.ends) }

func (d *dictionary) value(i int) []byte {
	if i == 0 {
		return d.text[:d.ends[0]]
	}
	return d.text[d.ends[i-1]:d.ends[i]]
}

func (d *dictionary) slots(i, j int) []uint16 { // of values [i, j)
	if i >= j {
		return nil
	}
	from := uint32(0)
	if i > 0 {
		from = d.tails[i-1]
	}
	return d.posts[from:d.tails[j-1]]
}

// or adds the slots of values [i, j) to out.
func (d *dictionary) or(out []uint64, i, j int) {
	for _, v := range d.dense {
		if v.value < i || v.value >= j {
			continue
		}
		orList(out, d.slots(i, v.value))
		for w, b := range v.bits {
			out[w] |= b
		}
		i = v.value + 1
	}
	orList(out, d.slots(i, j))
}

func (d *dictionary) bytes() int64 {
	n := len(d.text) + 4*len(d.ends) + 4*len(d.tails) + 2*len(d.posts)
	for _, v := range d.dense {
		n += 32 + 8*len(v.bits)
	}
	return int64(n)
}

// search is the first value not below key.
func (d *dictionary) search(key []byte) int {
	return sort.Search(d.len(), func(i int) bool { return bytes.Compare(d.value(i), key) >= 0 })
}

// sorted is numbers in order, each with its slot.
type sorted struct {
	f     []float64
	r     []int32 // nil if all are zero
	posts []uint16
	// sums[i] is the set of posts[:(i+1)*step], the last of all. A range is the
	// difference of two of them but for its ends, if no slot has two numbers
	// (single).
	sums   [][]uint64
	step   int
	single bool
}

// sumParts is how many sums a column with a number in every slot has: sixteen take
// two bytes a slot.
const sumParts = 16

func (s *sorted) at(i int) number {
	if s.r == nil {
		return number{s.f[i], 0}
	}
	return number{s.f[i], s.r[i]}
}

// search is the first number not below n, or above it if after is set.
func (s *sorted) search(n number, after bool) int {
	return sort.Search(len(s.f), func(i int) bool {
		c := s.at(i).compare(n)
		return c > 0 || c == 0 && !after
	})
}

// or adds the slots of numbers [i, j) to out.
func (s *sorted) or(out []uint64, i, j int) {
	if i >= j {
		return
	}
	a, b := (i+s.step-1)/s.step, j/s.step
	if !s.single || b <= a {
		orList(out, s.posts[i:j])
		return
	}
	orList(out, s.posts[i:a*s.step])
	orList(out, s.posts[b*s.step:j])
	upper := s.sums[b-1]
	if a == 0 {
		for w := range upper {
			out[w] |= upper[w]
		}
		return
	}
	lower := s.sums[a-1]
	for w := range upper {
		out[w] |= upper[w] &^ lower[w]
	}
}

// fill adds the slots of numbers [i, j) to out, which is empty: those before j
// without those before i. Both begin with the sum that ends nearest, and what lies
// between is added or taken back.
func (s *sorted) fill(out []uint64, i, j int) {
	if !s.single || j-i < s.step/4 {
		s.or(out, i, j)
		return
	}
	take := func(list []uint16) {
		for _, o := range list {
			out[o>>6] &^= 1 << (o & 63)
		}
	}
	upper, at := s.nearest(j)
	copy(out, upper)
	if at < j {
		orList(out, s.posts[at:j])
	} else {
		take(s.posts[j:at])
	}
	lower, at := s.nearest(i)
	for w := range lower {
		out[w] &^= lower[w]
	}
	if at < i {
		take(s.posts[at:i])
	} else {
		orList(out, s.posts[i:min(at, j)])
	}
}

// nearest is a sum whose end at is near to i; it is nil for an empty one.
func (s *sorted) nearest(i int) (sum []uint64, at int) {
	down := i / s.step
	up := min((down+1)*s.step, len(s.posts))
	if i-down*s.step > up-i {
		return s.sums[down], up
	}
	if down == 0 {
		return nil, 0
	}
	return s.sums[down-1], down * s.step
}

// places is points by latitude, each with its slot.
type places struct {
	lat, lon []float64
	posts    []uint16
}

// freeze makes a run of leaves, which are in the order of slots.
func freeze(lo, hi Slot, docs int, leaves []leaf) *run {
	r := &run{lo: lo, hi: hi, docs: docs, columns: map[uint32]*column{}}
	leaves = byColumn(leaves)
	for len(leaves) > 0 {
		n := 1
		for n < len(leaves) && leaves[n].path == leaves[0].path {
			n++
		}
		c, size := freezeColumn(leaves[:n], int(hi-lo))
		r.columns[leaves[0].path] = c
		r.size += size
		leaves = leaves[n:]
	}
	return r
}

// byColumn returns the leaves ordered by path and kind and else as they were: a
// counting sort, since there are many leaves and few columns.
func byColumn(leaves []leaf) []leaf {
	counts := map[uint64]int{}
	key := func(l *leaf) uint64 { return uint64(l.path)<<8 | uint64(l.kind) }
	for i := range leaves {
		counts[key(&leaves[i])]++
	}
	keys := make([]uint64, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	at := 0
	for _, k := range keys {
		n := counts[k]
		counts[k] = at
		at += n
	}
	out := make([]leaf, len(leaves))
	for i := range leaves {
		k := key(&leaves[i])
		out[counts[k]] = leaves[i]
		counts[k]++
	}
	return out
}

// freezeColumn takes the leaves of one path, by kind, and within a kind in the
// order of slots.
func freezeColumn(leaves []leaf, width int) (*column, int64) {
	c := &column{}
	elements := make([]uint8, width)
	var many []uint16
	for _, l := range leaves {
		if l.kind != leafPresent && l.kind != leafTime && l.kind != leafGeo {
			if elements[l.off] < 2 {
				elements[l.off]++
			}
		}
	}
	for off, n := range elements {
		if n > 1 {
			many = append(many, uint16(off))
		}
	}
	c.multi = makePostings(many, width)
	size := int64(unsafe.Sizeof(*c)) + 64 + c.multi.bytes()
	for len(leaves) > 0 {
		n := 1
		for n < len(leaves) && leaves[n].kind == leaves[0].kind {
			n++
		}
		part := leaves[:n]
		switch part[0].kind {
		case leafPresent:
			c.present = makePostings(offsets(part), width)
			size += c.present.bytes()
		case leafOther:
			c.other = makePostings(offsets(part), width)
			size += c.other.bytes()
		case leafFalse:
			c.no = makePostings(offsets(part), width)
			size += c.no.bytes()
		case leafTrue:
			c.yes = makePostings(offsets(part), width)
			size += c.yes.bytes()
		case leafNumber:
			c.numbers = freezeNumbers(part, width)
			size += c.numbers.bytes()
		case leafTime:
			c.times = freezeNumbers(part, width)
			size += c.times.bytes()
		case leafString:
			c.words = freezeWords(part, width)
			size += c.words.bytes()
		case leafGeo:
			c.places = freezePlaces(part)
			size += int64(18 * len(c.places.posts))
		}
		leaves = leaves[n:]
	}
	return c, size
}

func offsets(leaves []leaf) []uint16 {
	out := make([]uint16, len(leaves))
	for i, l := range leaves {
		out[i] = l.off
	}
	return out
}

func freezeNumbers(leaves []leaf, width int) sorted {
	slices.SortFunc(leaves, func(a, b leaf) int {
		if c := a.num.compare(b.num); c != 0 {
			return c
		}
		return cmp.Compare(a.off, b.off)
	})
	s := sorted{f: make([]float64, len(leaves)), posts: offsets(leaves), step: max(64, (width+sumParts-1)/sumParts)}
	for i, l := range leaves {
		s.f[i] = l.num.f
		if l.num.r != 0 && s.r == nil {
			s.r = make([]int32, len(leaves))
		}
		if s.r != nil {
			s.r[i] = l.num.r
		}
	}
	have := make([]uint64, (width+63)/64)
	s.single = true
	for i, o := range s.posts {
		s.single = s.single && have[o>>6]&(1<<(o&63)) == 0
		have[o>>6] |= 1 << (o & 63)
		if (i+1)%s.step == 0 || i == len(s.posts)-1 {
			s.sums = append(s.sums, slices.Clone(have))
		}
	}
	if !s.single {
		s.sums = nil
	}
	return s
}

func (s *sorted) bytes() int64 {
	n := int64(len(s.f)*8 + len(s.r)*4 + len(s.posts)*2)
	for _, b := range s.sums {
		n += int64(len(b) * 8)
	}
	return n
}

func freezeWords(leaves []leaf, width int) dictionary {
	slices.SortFunc(leaves, func(a, b leaf) int {
		if c := bytes.Compare(a.str, b.str); c != 0 {
			return c
		}
		return cmp.Compare(a.off, b.off)
	})
	var d dictionary
	d.posts = make([]uint16, 0, len(leaves))
	for i, l := range leaves {
		if i == 0 || !bytes.Equal(l.str, leaves[i-1].str) {
			d.text = append(d.text, l.str...)
			d.ends = append(d.ends, uint32(len(d.text)))
			d.tails = append(d.tails, uint32(len(d.posts)))
		}
		d.posts = append(d.posts, l.off)
		d.tails[len(d.tails)-1] = uint32(len(d.posts))
	}
	d.text, d.ends, d.tails = slices.Clip(d.text), slices.Clip(d.ends), slices.Clip(d.tails)
	for i := range d.len() {
		if slots := d.slots(i, i+1); len(slots)*16 > width && len(slots) > 64 {
			bits := make([]uint64, (width+63)/64)
			orList(bits, slots)
			d.dense = append(d.dense, dense{i, bits})
		}
	}
	return d
}

func freezePlaces(leaves []leaf) places {
	slices.SortFunc(leaves, func(a, b leaf) int {
		if a.a != b.a {
			return cmp.Compare(a.a, b.a)
		}
		return cmp.Compare(a.off, b.off)
	})
	p := places{posts: offsets(leaves)}
	for _, l := range leaves {
		p.lat = append(p.lat, l.a)
		p.lon = append(p.lon, l.b)
	}
	return p
}

// thaw gives the leaves of a run back, offsets counted from lo; slots for which
// keep is false are left out.
func (r *run) thaw(lo Slot, leaves []leaf, keep func(Slot) bool) []leaf {
	shift := int(r.lo) - int(lo)
	add := func(l leaf, off uint16) {
		if keep == nil || keep(r.lo+Slot(off)) {
			l.off = uint16(int(off) + shift)
			leaves = append(leaves, l)
		}
	}
	set := func(path uint32, kind leafKind, p *postings) {
		for _, o := range p.list {
			add(leaf{path: path, kind: kind}, o)
		}
		for w, bits := range p.bits {
			for i := range 64 {
				if bits&(1<<i) != 0 {
					add(leaf{path: path, kind: kind}, uint16(w*64+i))
				}
			}
		}
	}
	for path, c := range r.columns {
		set(path, leafPresent, &c.present)
		set(path, leafOther, &c.other)
		set(path, leafFalse, &c.no)
		set(path, leafTrue, &c.yes)
		for i, o := range c.numbers.posts {
			add(leaf{path: path, kind: leafNumber, num: c.numbers.at(i)}, o)
		}
		for i, o := range c.times.posts {
			add(leaf{path: path, kind: leafTime, num: c.times.at(i)}, o)
		}
		for i := range c.words.len() {
			value := c.words.value(i)
			for _, o := range c.words.slots(i, i+1) {
				add(leaf{path: path, kind: leafString, str: value}, o)
			}
		}
		for i, o := range c.places.posts {
			add(leaf{path: path, kind: leafGeo, a: c.places.lat[i], b: c.places.lon[i]}, o)
		}
	}
	return leaves
}
