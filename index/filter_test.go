// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// naiveMatch is the meaning of a filter, over decoded JSON.
func naiveMatch(doc map[string]any, f *Filter) bool {
	for _, c := range f.Must {
		if !naiveTest(doc, c) {
			return false
		}
	}
	for _, c := range f.MustNot {
		if naiveTest(doc, c) {
			return false
		}
	}
	for _, c := range f.Should {
		if naiveTest(doc, c) {
			return true
		}
	}
	return len(f.Should) == 0
}

// naiveElements is the elements of a field, and whether it is there.
func naiveElements(v any, path string) (elements []any, present bool) {
	var flatten func(v any) []any
	flatten = func(v any) []any {
		if a, ok := v.([]any); ok {
			var out []any
			for _, e := range a {
				out = append(out, flatten(e)...)
			}
			return out
		}
		return []any{v}
	}
	switch v := v.(type) {
	case []any:
		for _, e := range flatten(v) {
			if o, ok := e.(map[string]any); ok {
				es, p := naiveElements(o, path)
				elements = append(elements, es...)
				present = present || p
			}
		}
	case map[string]any:
		for k, x := range v {
			if k == path {
				if a, ok := x.([]any); ok {
					present = present || len(a) > 0
					for _, e := range flatten(a) {
						if e != nil {
							elements = append(elements, e)
						}
					}
				} else if x != nil {
					present = true
					elements = append(elements, x)
				}
			}
			if rest, ok := strings.CutPrefix(path, k+"."); ok {
				es, p := naiveElements(x, rest)
				elements = append(elements, es...)
				present = present || p
			}
		}
	}
	return elements, present
}

func naiveTest(doc map[string]any, c Condition) bool {
	if c.Nested != nil {
		return naiveMatch(doc, c.Nested)
	}
	elements, present := naiveElements(doc, c.Key)
	if c.IsMissing != nil {
		return *c.IsMissing == !present
	}
	return slices.ContainsFunc(elements, func(e any) bool {
		switch {
		case c.Any != nil:
			return slices.ContainsFunc(c.Any, func(s Scalar) bool { return naiveEqual(e, s) })
		case c.Except != nil:
			return !slices.ContainsFunc(c.Except, func(s Scalar) bool { return naiveEqual(e, s) })
		case c.Prefix != nil:
			s, ok := e.(string)
			return ok && strings.HasPrefix(s, *c.Prefix)
		case c.Range != nil:
			return naiveRange(e, c.Range)
		default:
			o, ok := e.(map[string]any)
			if !ok {
				return false
			}
			lat, ok1 := o["lat"].(json.Number)
			lon, ok2 := o["lon"].(json.Number)
			if !ok1 || !ok2 {
				return false
			}
			a, _ := lat.Float64()
			b, _ := lon.Float64()
			return greatCircleM(c.Geo.Lat, c.Geo.Lon, a, b) <= c.Geo.RadiusM
		}
	})
}

func naiveEqual(e any, s Scalar) bool {
	switch e := e.(type) {
	case string:
		return s.Kind == KindString && e == s.String
	case bool:
		return s.Kind == KindBool && e == s.Bool
	case json.Number:
		return (s.Kind == KindInt || s.Kind == KindFloat) && naiveNumber(e).Cmp(naiveScalar(s)) == 0
	}
	return false
}

// naiveNumber: integers are exact, others are their float64.
func naiveNumber(n json.Number) *big.Rat {
	if !strings.ContainsAny(n.String(), ".eE") {
		r, _ := new(big.Rat).SetString(n.String())
		return r
	}
	f, _ := n.Float64()
	return new(big.Rat).SetFloat64(f)
}

func naiveScalar(s Scalar) *big.Rat {
	if s.Kind == KindInt {
		return new(big.Rat).SetInt64(s.Int)
	}
	return new(big.Rat).SetFloat64(s.Float)
}

func naiveRange(e any, r *Range) bool {
	for _, b := range []struct {
		s  *Scalar
		ok func(c int) bool
	}{
		{r.Gt, func(c int) bool { return c > 0 }}, {r.Gte, func(c int) bool { return c >= 0 }},
		{r.Lt, func(c int) bool { return c < 0 }}, {r.Lte, func(c int) bool { return c <= 0 }},
	} {
		if b.s == nil {
			continue
		}
		if b.s.Kind == KindString {
			text, ok := e.(string)
			if !ok {
				return false
			}
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return false
			}
			bound, _ := time.Parse(time.RFC3339Nano, b.s.String)
			if !b.ok(at.Compare(bound)) {
				return false
			}
			continue
		}
		n, ok := e.(json.Number)
		if !ok || !b.ok(naiveNumber(n).Cmp(naiveScalar(*b.s))) {
			return false
		}
	}
	return true
}

// words are few, so that random filters hit.
var (
	testWords   = []string{"", "a", "ab", "abc", "b", "ß", "tag", "日本", strings.Repeat("long", 70), strings.Repeat("long", 70) + "x", "2024-01-02T03:04:05Z", "2024-01-02T05:04:05+02:00", "1999-12-31T23:59:59.999999999Z"}
	testNumbers = []string{"0", "-0", "1", "2", "2.0", "2.5", "-7", "1e2", "9007199254740992", "9007199254740993", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551615", "1.8446744073709552e19"}
	testKeys    = []string{"k", "n", "x.y", "x", "x.y.z", "tags", "geo", "absent", "é"}
)

func randomValue(r *rand.Rand, depth int) string {
	switch n := r.IntN(12); {
	case n < 4:
		b, _ := json.Marshal(testWords[r.IntN(len(testWords))])
		return string(b)
	case n < 8:
		return testNumbers[r.IntN(len(testNumbers))]
	case n == 8:
		return strconv.FormatBool(r.IntN(2) == 0)
	case n == 9:
		return "null"
	case n == 10 && depth < 3:
		var out []string
		for range r.IntN(4) {
			out = append(out, randomValue(r, depth+1))
		}
		return " [" + strings.Join(out, " ,") + "]"
	case depth < 3:
		return randomObject(r, depth+1)
	}
	return "1"
}

func randomObject(r *rand.Rand, depth int) string {
	if r.IntN(3) == 0 {
		return fmt.Sprintf(`{"lat":%.3f,"lon":%.3f}`, r.Float64()*20, r.Float64()*20)
	}
	names := []string{"k", "n", "x", "y", "z", "tags", "geo", "é", "x.y"}
	var out []string
	seen := map[string]bool{}
	for range r.IntN(6) {
		name := names[r.IntN(len(names))]
		if seen[name] {
			continue
		}
		seen[name] = true
		key, _ := json.Marshal(name)
		out = append(out, string(key)+":"+randomValue(r, depth))
	}
	return "{" + strings.Join(out, ",") + "}"
}

func randomScalar(r *rand.Rand) Scalar {
	switch r.IntN(5) {
	case 0, 1:
		return Scalar{Kind: KindString, String: testWords[r.IntN(len(testWords))]}
	case 2:
		return Scalar{Kind: KindBool, Bool: r.IntN(2) == 0}
	default:
		return randomNumber(r)
	}
}

func randomNumber(r *rand.Rand) Scalar {
	s := testNumbers[r.IntN(len(testNumbers))]
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return Scalar{Kind: KindInt, Int: i}
	}
	f, _ := strconv.ParseFloat(s, 64)
	return Scalar{Kind: KindFloat, Float: f}
}

func randomFilter(r *rand.Rand, depth int) *Filter {
	f := &Filter{}
	for _, part := range []*[]Condition{&f.Must, &f.Should, &f.MustNot} {
		for range r.IntN(3) {
			*part = append(*part, randomCondition(r, depth))
		}
	}
	return f
}

func randomCondition(r *rand.Rand, depth int) Condition {
	c := Condition{Key: testKeys[r.IntN(len(testKeys))]}
	scalars := func() (out []Scalar) {
		for range 1 + r.IntN(4) {
			out = append(out, randomScalar(r))
		}
		return out
	}
	switch n := r.IntN(9); {
	case n < 2:
		c.Any = scalars()
	case n < 4:
		c.Except = scalars()
	case n == 4:
		p := testWords[r.IntN(len(testWords))]
		p = p[:min(len(p), r.IntN(300), longString)]
		c.Prefix = &p
	case n == 5:
		missing := r.IntN(2) == 0
		c.IsMissing = &missing
	case n == 6:
		c.Geo = &GeoRadius{Lat: r.Float64() * 20, Lon: r.Float64() * 20, RadiusM: r.Float64() * 1e6}
	case n == 7 && depth < 3:
		return Condition{Nested: randomFilter(r, depth+1)}
	default:
		c.Range = randomRange(r)
	}
	return c
}

func randomRange(r *rand.Rand) *Range {
	out := &Range{}
	bound := func() *Scalar { s := randomNumber(r); return &s }
	if r.IntN(3) == 0 {
		bound = func() *Scalar {
			return &Scalar{Kind: KindString, String: testWords[len(testWords)-1-r.IntN(3)]}
		}
	}
	out.Gte = bound()
	for _, b := range []**Scalar{&out.Gt, &out.Gte, &out.Lt, &out.Lte} {
		if r.IntN(3) == 0 {
			*b = bound()
		}
	}
	return out
}

// Goal: filters mean what they say. Method: random payloads and random filters
// against the naive evaluator, with holes, deletes and a merge in between.
func TestFiltersAgainstNaive(t *testing.T) {
	r := seeded(t, 21)
	x := open(t, Config{Dimension: 2, Metric: distance.L2}, &memory{})
	var docs []map[string]any
	var slots []Slot
	slot := Slot(0)
	filters, hits := 0, 0
	for round := range 12 {
		for range 150 {
			raw := randomObject(r, 0)
			if r.IntN(20) == 0 {
				raw = ""
			}
			doc := map[string]any{}
			if raw != "" {
				d := json.NewDecoder(strings.NewReader(raw))
				d.UseNumber()
				if err := d.Decode(&doc); err != nil {
					t.Fatalf("%s: %v", raw, err)
				}
			}
			x.Append(slot, []float32{r.Float32(), r.Float32()}, []byte(raw))
			docs = append(docs, doc)
			slots = append(slots, slot)
			slot++
			if r.IntN(200) == 0 {
				slot += Slot(r.IntN(1000))
			}
		}
		for range 60 {
			f := randomFilter(r, 0)
			var want, got []Slot
			for i, doc := range docs {
				if naiveMatch(doc, f) {
					want = append(want, slots[i])
				}
			}
			if err := x.Match(context.Background(), f, all, func(s Slot) bool { got = append(got, s); return true }); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				text, _ := json.Marshal(f)
				t.Fatalf("round %d: filter %s: %d slots, want %d: %s", round, text, len(got), len(want), firstDifference(got, want, docs, slots))
			}
			filters++
			if len(want) > 0 && len(want) < len(docs) {
				hits++
			}
		}
	}
	if hits < filters/4 {
		t.Errorf("only %d of %d filters select some", hits, filters)
	}
}

func firstDifference(got, want []Slot, docs []map[string]any, slots []Slot) string {
	for i, s := range slots {
		if slices.Contains(got, s) != slices.Contains(want, s) {
			text, _ := json.Marshal(docs[i])
			return fmt.Sprintf("slot %d, wanted %t: %s", s, slices.Contains(want, s), text)
		}
	}
	return ""
}

func TestBadFilters(t *testing.T) {
	x := open(t, Config{Dimension: 2, Metric: distance.L2}, &memory{})
	yes, text := true, Scalar{Kind: KindString, String: "x"}
	one := Scalar{Kind: KindInt, Int: 1}
	when := Scalar{Kind: KindString, String: "2024-01-02T03:04:05Z"}
	deep := &Filter{}
	for range 40 {
		deep = &Filter{Must: []Condition{{Nested: deep}}}
	}
	for name, f := range map[string]*Filter{
		"no test":         {Must: []Condition{{Key: "k"}}},
		"two tests":       {Must: []Condition{{Key: "k", IsMissing: &yes, Any: []Scalar{one}}}},
		"no key":          {Should: []Condition{{Any: []Scalar{one}}}},
		"empty list":      {MustNot: []Condition{{Key: "k", Any: []Scalar{}}}},
		"no bound":        {Must: []Condition{{Key: "k", Range: &Range{}}}},
		"text bound":      {Must: []Condition{{Key: "k", Range: &Range{Gt: &text}}}},
		"mixed bounds":    {Must: []Condition{{Key: "k", Range: &Range{Gt: &one, Lt: &when}}}},
		"negative radius": {Must: []Condition{{Key: "k", Geo: &GeoRadius{RadiusM: -1}}}},
		"no kind":         {Must: []Condition{{Key: "k", Any: []Scalar{{}}}}},
		"nested with key": {Must: []Condition{{Key: "k", Nested: &Filter{}}}},
		"deep":            deep,
	} {
		if _, err := x.Count(context.Background(), f, all); !errors.Is(err, ErrBadFilter) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := x.Search(context.Background(), Query{Vector: []float32{1, 2}, K: 1, Filter: f}, all, nil); !errors.Is(err, ErrBadFilter) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Goal: the last field of a name counts, as in encoding/json.
func TestRepeatedFields(t *testing.T) {
	x := open(t, Config{Dimension: 1, Metric: distance.L2}, &memory{})
	x.Append(0, []float32{1}, []byte(`{"a":{"b":1,"c":2},"a":{"b":3},"d":1,"d":null}`))
	yes := true
	for _, c := range []struct {
		cond Condition
		want int
	}{
		{Condition{Key: "a.b", Any: []Scalar{{Kind: KindInt, Int: 3}}}, 1},
		{Condition{Key: "a.b", Any: []Scalar{{Kind: KindInt, Int: 1}}}, 0},
		{Condition{Key: "a.c", IsMissing: &yes}, 1},
		{Condition{Key: "d", IsMissing: &yes}, 1},
	} {
		n, err := x.Count(context.Background(), &Filter{Must: []Condition{c.cond}}, all)
		if err != nil || n != c.want {
			t.Errorf("%+v: %d, %v", c.cond, n, err)
		}
	}
}

// Goal: no payload, sound or not, panics or is half indexed; what encoding/json
// takes is taken.
func FuzzPayload(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,{"b":"\u00e9\ud83d\ude00"}]}`, `{"a":{"lat":1,"lon":2}}`, `{"a":1e999}`, `{"a":tru`, `[1]`, "{\"a\":\"\xff\"}", `{"a":"\ud800x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := newPayload()
		p.add(0, raw)
		var doc map[string]any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&doc); err != nil || doc == nil || bytes.Count(raw, []byte("[")) > 8 || bytes.Count(raw, []byte("{")) > 8 {
			return
		}
		run := p.snapshot()[0]
		for key := range doc {
			_, present := naiveElements(map[string]any(doc), key)
			id, _ := p.path(key)
			c := run.columns[id]
			if has := c != nil && len(c.present.list)+len(c.present.bits) > 0; has != present {
				t.Fatalf("%q: key %q present %t, want %t", raw, key, has, present)
			}
		}
	})
}

// Goal: at every selectivity, and where matches lie apart from the query, the
// filtered search finds the true neighbours.
func TestFilteredRecall(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			r := seeded(t, 31)
			const n = 9000
			vectors := clustered(r, n+40, 24, 12, 0.7)
			x := open(t, Config{Dimension: 24, Metric: distance.Cosine, Quantization: quantization}, &memory{})
			for i, v := range vectors[:n] {
				// band follows the first axis: a range of it lies on one side.
				x.Append(Slot(i), v, fmt.Appendf(nil, `{"random":%d,"band":%g}`, r.IntN(10000), v[0]))
			}
			waitIdle(t, x)
			for _, share := range []int{1, 10, 100, 300, 1000, 2000, 3000, 5000, 8000, 10000} {
				upTo := Scalar{Kind: KindInt, Int: int64(share)}
				f := &Filter{Must: []Condition{{Key: "random", Range: &Range{Lt: &upTo}}}}
				if got := recall(t, x, vectors[n:], Query{K: 10, Filter: f}, all); got < 0.95 {
					t.Errorf("share %d/10000: recall %.4f", share, got)
				}
			}
			for _, edge := range []float64{-2.5, -2, -1.5, -1, 0, 1} {
				upTo := Scalar{Kind: KindFloat, Float: edge}
				f := &Filter{Must: []Condition{{Key: "band", Range: &Range{Lt: &upTo}}}}
				if got := recall(t, x, vectors[n:], Query{K: 10, Filter: f}, all); got < 0.95 {
					t.Errorf("band below %g: recall %.4f", edge, got)
				}
			}
		})
	}
}

// dataDir is a folder of AKIDB_DATA; tests on it are skipped without.
func dataDir(t testing.TB, name string) string {
	dir := os.Getenv("AKIDB_DATA")
	if dir == "" {
		t.Skip("set AKIDB_DATA to a folder of data sets to run")
	}
	return dir + "/" + name
}

// Goal: a prefix as long as what is kept of long strings selects all that begin with
// it, whatever the hash of the rest. Method: so many that some hashes begin with 0xff.
func TestPrefixOfLongStrings(t *testing.T) {
	x := open(t, Config{Dimension: 1, Metric: distance.L2}, &memory{})
	const n = 1000
	prefix := strings.Repeat("a", longString)
	for i := range n {
		x.Append(Slot(i), []float32{1}, fmt.Appendf(nil, `{"s":"%s%d"}`, prefix, i))
	}
	for _, p := range []string{prefix, prefix[1:], ""} {
		if got, err := x.Count(t.Context(), &Filter{Must: []Condition{{Key: "s", Prefix: &p}}}, all); err != nil || got != n {
			t.Errorf("%d begin with %d bytes of it, %v; want %d", got, len(p), err, n)
		}
	}
	above := prefix[1:] + "b"
	if got, err := x.Count(t.Context(), &Filter{Must: []Condition{{Key: "s", Prefix: &above}}}, all); err != nil || got != 0 {
		t.Errorf("%d begin with another prefix, %v", got, err)
	}
}

// Goal: a field whose name has dots takes nothing away from one that has its path by
// nesting, in whatever order they come; of fields of one name the last one counts.
func TestFieldsOfOnePath(t *testing.T) {
	for _, c := range []struct {
		doc, key string
		want     []int64
	}{
		{`{"a":{"b":1},"a.b":2}`, "a.b", []int64{1, 2}},
		{`{"a.b":2,"a":{"b":1}}`, "a.b", []int64{1, 2}},
		{`{"a":{"b":{"c":1}},"a.b":2}`, "a.b.c", []int64{1}},
		{`{"a.b":1,"a":3,"a":2}`, "a.b", []int64{1}},
		{`{"a.b":1,"a":3,"a":2}`, "a", []int64{2}},
		{`{"a":{"b":1},"c":[3,4],"a":{"d":2},"c":5,"a":{"d":6}}`, "a.b", nil},
		{`{"a":{"b":1},"c":[3,4],"a":{"d":2},"c":5,"a":{"d":6}}`, "a.d", []int64{6}},
		{`{"a":{"b":1},"c":[3,4],"a":{"d":2},"c":5,"a":{"d":6}}`, "c", []int64{5}},
		{`{"a":[{"b":1},{"b":2,"b":3}]}`, "a.b", []int64{1, 3}},
	} {
		x := open(t, Config{Dimension: 1, Metric: distance.L2}, &memory{})
		x.Append(0, []float32{1}, []byte(c.doc))
		var got []int64
		for i := range int64(9) {
			n, err := x.Count(t.Context(), &Filter{Must: []Condition{{Key: c.key, Any: []Scalar{{Kind: KindInt, Int: i}}}}}, all)
			if err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %s is %d, want %d", c.doc, c.key, got, c.want)
		}
	}
}
