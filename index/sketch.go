// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"unsafe"

	"github.com/akidb/akidb/index/distance"
)

// sketchset is, for each vertex, the signs of its rotated codes and its distance
// from the centre: about a sixth of the codes, from which a scan sees of most
// vertices that they are too far away (1-bit codes of rotated vectors are those of
// RaBitQ, SIGMOD 2024, arXiv 2405.12497; that the share of differing signs tells
// the angle is Charikar's, STOC 2002, doi 10.1145/509907.509965).
//
// Everything is in the space of the 8-bit codes u of the codeset. Of two vectors
// at an angle a, seen from the centre m, about a share a/pi of the signs differ.
// So the h that differ say that the cosine is at most cosines[h], but for luck,
// and
//
//	|q - u|² is at least |q - m|² + |u - m|² - 2 |q - m| |u - m| cosines[h]
//	 -<q, u> is at least -<q, m> - |q| |u - m| cosines[h]
//
// which is all that is done with a sketch: what is not ruled out is compared by
// its codes, so sketches can lose a result and never bring a wrong one.
type sketchset struct {
	rotation
	codes   *codeset
	rows    *arena // words of signs, then the distance from the centre
	words   int
	centre  []float32 // nil until there are sketches
	cosines []float32
}

// minSketched is the fewest dimensions that sketches are made for: below, a row
// of codes is two cache lines, and comparing it costs no more than a look at a
// sketch.
const minSketched = 129

// luck is how many standard deviations the share of differing signs may be above
// what the angle makes expect. With 2 a scan loses one result in some hundreds, with
// 2.5 one in some thousands, for a quarter more comparisons (docs/adr/0092).
const luck = 2.5

func newSketchset(s *codeset, cfg *Config, rows int) (*sketchset, error) {
	k := &sketchset{codes: s, rotation: newRotation(cfg.Dimension + 64)}
	// With the distance a row is a power of two of words: it begins with a cache line
	// or lies within one.
	k.words = k.turned/64 - 1
	var err error
	if k.rows, err = newArena(8*(k.words+1), rows); err != nil {
		return nil, err
	}
	k.cosines = make([]float32, k.words*64+1)
	n := float64(k.words * 64)
	for h := range k.cosines {
		p := float64(h) / n
		p -= float64(luck * math.Sqrt((p+1/n)*(1-p+1/n)/n))
		k.cosines[h] = float32(cosine(max(0, p)))
	}
	return k, nil
}

// cosine is that of pi times x, from 0 to 1, by its series: math.Cos may have other
// last bits on another CPU.
func cosine(x float64) float64 {
	if x > 0.5 {
		return -cosine(1 - x)
	}
	square := math.Pi * x * math.Pi * x
	sum, term := 1.0, 1.0
	for i := 1.0; i < 26; i += 2 {
		term = -term * square / (i * (i + 1))
		sum += term
	}
	return sum
}

func (k *sketchset) free() {
	if k != nil {
		k.rows.free()
	}
}

func (k *sketchset) row(v uint32) []uint64 {
	return unsafe.Slice((*uint64)(k.rows.row(v)), k.words+1)
}

// base is all rows, to be indexed below graphed only.
func (k *sketchset) base() []uint64 {
	return unsafe.Slice((*uint64)(k.rows.base), k.rows.reserved/8)
}

// put makes the sketch of a vertex that has codes. buf has k.turned elements.
func (k *sketchset) put(v uint32, buf []float32) {
	row := k.row(v)
	row[k.words] = uint64(math.Float32bits(k.turn(buf, k.codes.row(v))))
	k.signs(row[:k.words], buf)
}

// turn writes P(u - m) of codes and returns |u - m|.
func (k *sketchset) turn(dst []float32, codes []byte) float32 {
	return float32(math.Sqrt(k.turnFrom(dst, codes, k.centre)))
}

func (k *sketchset) signs(dst []uint64, v []float32) {
	for i := range dst {
		var w uint64
		for j, x := range v[i*64:][:64] {
			w |= uint64(math.Float32bits(x)>>31) << j
		}
		dst[i] = w
	}
}

// sketcher is a query ready for a scan of sketches.
type sketcher struct {
	turned []float32
	signs  []uint64
	// The least distance is base + norm*(square*norm - times*cosine).
	base, square, times float32
}

// prepare makes the sketch of the query that m measures on codes.
func (k *sketchset) prepare(e *sketcher, m *measure) {
	if cap(e.turned) < k.turned {
		e.turned, e.signs = make([]float32, k.turned), make([]uint64, k.turned/64)
	}
	v := e.turned[:k.turned]
	if m.kind == kindCodeDot {
		var squares, along float64
		for i, c := range k.centre {
			q := float32(m.signed[i])
			v[i] = q
			squares += float64(float64(q) * float64(q))
			along += float64(float64(q) * float64(c))
		}
		clear(v[len(k.centre):])
		k.rotate(v)
		e.base, e.square, e.times = float32(-along), 0, float32(math.Sqrt(squares))
	} else {
		norm := k.turn(v, m.codes)
		e.base, e.square, e.times = float32(norm*norm), 1, 2*norm
	}
	e.signs = e.signs[:k.words]
	k.signs(e.signs, v)
}

// sieve keeps those of ids whose vertices may be at most at limit; out has room
// for a word of each.
func (k *sketchset) sieve(e *sketcher, ids, out []uint32, limit float32) []uint32 {
	if len(ids) == 0 {
		return ids
	}
	differ := unsafe.Slice((*int32)(unsafe.Pointer(&out[0])), len(ids))
	stride := k.words + 1
	distance.HammingRows(e.signs, k.base(), stride, ids, differ)
	const rounding = 1.0 / (1 << 18) // of the arithmetic here, several times
	slack := float32((abs(limit) + abs(e.base)) * rounding)
	limit = limit - e.base + slack
	norms, step := unsafe.Add(k.rows.base, 8*k.words), k.rows.stride
	cosines := k.cosines
	square, times := e.square, e.times
	n := 0
	for i, u := range ids {
		norm := *(*float32)(unsafe.Add(norms, uintptr(u)*step))
		least := float32(norm * (float32(square*norm) - float32(times*cosines[differ[i]])))
		ids[n] = u
		if least <= limit {
			n++
		}
	}
	return ids[:n]
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// fewSketched is how many matches a scan must have to look at sketches first.
const fewSketched = 1024

// sketches is what a scan of the matches looks at before it compares by codes, nil
// if it does not.
func (r *request) sketches() *sketchset {
	if r.codes == nil || r.matching < fewSketched {
		return nil
	}
	return r.codes.sketches
}

// scanSketches is scan for the vertices that the graph covers, but compares by
// codes only what sketches do not rule out. After a block of which they ruled out
// little it goes on without them for some blocks.
func (r *request) scanSketches(k *sketchset, covered uint32, limit int) error {
	const block, rest = 256, 2
	s := r.s
	k.prepare(&s.sketcher, &s.measure)
	s.need(block)
	out := s.out[:cap(s.out)]
	first := r.sample(covered)
	s.pool.reset(limit)
	s.begin(covered)
	skip := 0
	for v := uint32(0); v < covered; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		var ids []uint32
		ids, v = r.see.gather(v, covered, s.ids[:0:block])
		if skip > 0 {
			skip--
		} else if n := len(ids); n > 0 {
			r.stats.Sketched += n
			ids = k.sieve(&s.sketcher, ids, out, min(first, r.farthest()))
			if len(ids) > n/2 {
				skip = rest
			}
		}
		r.compare(ids, ids)
	}
	if len(s.pool.items) < min(r.q.K, r.matching) {
		// One of the sample was ruled out after all, or matches are dead.
		return r.scan(0, covered, limit)
	}
	s.results = append(s.results[:0], s.pool.items...)
	return nil
}

// sampleMatches is how many matches, times K at least, a scan compares beforehand,
// so that whatever the order of vertices it knows about how near is near.
const (
	sampleMatches = 256
	sampleTimes   = 8
)

// sample is the key, as a number, above which no vertex can be among the best K,
// from matches spread over all.
func (r *request) sample(covered uint32) float32 {
	s := r.s
	n := max(sampleMatches, sampleTimes*r.q.K)
	if r.matching < 2*n {
		return math.MaxFloat32
	}
	s.need(n)
	ids := s.ids[:0]
	step := covered/uint32(n) + 1
	for from := uint32(0); from < covered; from += step {
		end := min(from+step, covered)
		if u := r.see.next(from, end); u < end {
			ids = append(ids, u)
		}
	}
	out := s.out[:cap(s.out)]
	s.measure.keys(ids, out)
	s.pool.reset(r.q.K)
	r.offer(ids, out)
	return r.farthest()
}

// farthest is the key, as a number, above which no vertex can be among the best K:
// that of the K-th so far, and what rounding does to both.
func (r *request) farthest() float32 {
	s, m := r.s, &r.s.measure
	if len(s.pool.items) < r.q.K {
		return math.MaxFloat32
	}
	key := candidateKey(s.pool.items[r.q.K-1])
	if r.lossless {
		return float32(key)
	}
	l := m.length(m.distance(key)) + 2*m.noise
	if m.kind == kindCodeDot {
		return float32((l - float64(m.constant)) / float64(m.factor))
	}
	return float32(l * l / float64(m.factor))
}

// farthestKey is the candidate from which on none can be among the best K.
func (r *request) farthestKey() uint64 {
	m := &r.s.measure
	if !m.onCodes() || r.s.pool.limit == r.q.K {
		return math.MaxUint64 // the pool knows it
	}
	// A number in float32 is wrong by one in 1<<24.
	f := float64(r.farthest())
	f += math.Abs(f)/(1<<20) + 1
	if m.kind == kindCodeDot {
		if f >= math.MaxInt32 {
			return math.MaxUint64
		}
		return candidate(uint32(int32(max(f, math.MinInt32)))^1<<31, 0)
	}
	if f >= math.MaxUint32 {
		return math.MaxUint64
	}
	return candidate(uint32(f), 0)
}
