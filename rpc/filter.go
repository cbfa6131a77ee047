// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/akidb/akidb/index"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// filterReader checks a filter of the API and makes the index's out of it.
type filterReader struct {
	tests, values int
}

// filterOf returns nil for no filter. field is where the filter stands in the
// request; a refusal names the condition from there on.
func filterOf(field string, f *collectionv1.Filter) (*index.Filter, error) {
	if f == nil {
		return nil, nil
	}
	var r filterReader
	return r.filter(field, f, 1)
}

func (r *filterReader) filter(field string, f *collectionv1.Filter, depth int) (*index.Filter, error) {
	if depth > maxFilterDepth {
		return nil, invalidf(field, "nested deeper than %d filters", maxFilterDepth)
	}
	if len(f.Must)+len(f.Should)+len(f.MustNot) == 0 {
		if depth > 1 {
			return nil, invalid(field, "an empty nested filter")
		}
		return nil, nil
	}
	out := &index.Filter{}
	for _, part := range []struct {
		name string
		from []*collectionv1.Condition
		to   *[]index.Condition
	}{{"must", f.Must, &out.Must}, {"should", f.Should, &out.Should}, {"must_not", f.MustNot, &out.MustNot}} {
		for i, c := range part.from {
			got, err := r.condition(at(field, part.name, i), c, depth)
			if err != nil {
				return nil, err
			}
			*part.to = append(*part.to, got)
		}
	}
	return out, nil
}

// at is the path of an element of a list below field.
func at(field, name string, i int) string {
	return join(field, name) + "[" + strconv.Itoa(i) + "]"
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func (r *filterReader) condition(field string, c *collectionv1.Condition, depth int) (index.Condition, error) {
	var out index.Condition
	if r.tests++; r.tests > maxFilterTests {
		return out, invalidf(field, "more than %d conditions", maxFilterTests)
	}
	set := make([]string, 0, 2)
	for _, t := range []struct {
		name string
		is   bool
	}{{"match", c.GetMatch() != nil}, {"range", c.GetRange() != nil}, {"geo_radius", c.GetGeoRadius() != nil},
		{"is_missing", c.GetIsMissing() || c != nil && c.IsMissing != nil}, {"filter", c.GetFilter() != nil}} {
		if t.is {
			set = append(set, t.name)
		}
	}
	switch len(set) {
	case 0:
		return out, invalid(field, "has no test; one of match, range, geo_radius, is_missing or filter is needed")
	case 1:
	default:
		return out, invalid(field, "has more than one test: "+strings.Join(set, ", "))
	}
	if c.Filter != nil {
		if c.Key != "" {
			return out, invalid(join(field, "key"), "must be empty beside a nested filter")
		}
		nested, err := r.filter(join(field, "filter"), c.Filter, depth+1)
		out.Nested = nested
		return out, err
	}
	if err := checkPath(join(field, "key"), c.Key); err != nil {
		return out, err
	}
	out.Key = c.Key
	switch {
	case c.Match != nil:
		return out, r.match(join(field, "match"), c.Match, &out)
	case c.Range != nil:
		return out, r.rangeOf(join(field, "range"), c.Range, &out)
	case c.GeoRadius != nil:
		return out, geoOf(join(field, "geo_radius"), c.GeoRadius, &out)
	}
	out.IsMissing = c.IsMissing
	return out, nil
}

// checkPath checks the path of a payload field.
func checkPath(field, key string) error {
	switch {
	case key == "":
		return invalid(field, "must name a payload field")
	case len(key) > maxPathBytes:
		return invalidf(field, "longer than %d bytes", maxPathBytes)
	case !utf8.ValidString(key):
		return invalid(field, "is not UTF-8")
	}
	for part := range strings.SplitSeq(key, ".") {
		if part == "" {
			return invalidf(field, "%q has an empty part between dots", key)
		}
	}
	return nil
}

func (r *filterReader) match(field string, m *collectionv1.Match, out *index.Condition) error {
	set := 0
	for _, is := range []bool{m.Value != nil, len(m.Any) > 0, len(m.Except) > 0, m.Prefix != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return invalid(field, "needs exactly one of value, any (not empty), except (not empty) or prefix")
	}
	var err error
	switch {
	case m.Value != nil:
		out.Any, err = r.scalars(join(field, "value"), []*collectionv1.Value{m.Value}, false)
	case len(m.Any) > 0:
		out.Any, err = r.scalars(join(field, "any"), m.Any, true)
	case len(m.Except) > 0:
		out.Except, err = r.scalars(join(field, "except"), m.Except, true)
	default:
		if !utf8.ValidString(*m.Prefix) {
			return invalid(join(field, "prefix"), "is not UTF-8")
		}
		if n := len(*m.Prefix); n > index.MaxPrefixBytes {
			return invalidf(join(field, "prefix"), "has %d bytes, more than %d", n, index.MaxPrefixBytes)
		}
		out.Prefix = m.Prefix
	}
	return err
}

func (r *filterReader) scalars(field string, values []*collectionv1.Value, list bool) ([]index.Scalar, error) {
	if r.values += len(values); r.values > maxFilterValues {
		return nil, invalidf(field, "more than %d values in the filter", maxFilterValues)
	}
	out := make([]index.Scalar, 0, len(values))
	for i, v := range values {
		s, problem := scalarOf(v)
		if problem != "" {
			if list {
				field = fmt.Sprintf("%s[%d]", field, i)
			}
			return nil, invalid(field, problem)
		}
		out = append(out, s)
	}
	return out, nil
}

func scalarOf(v *collectionv1.Value) (index.Scalar, string) {
	switch k := v.GetKind().(type) {
	case *collectionv1.Value_StringValue:
		if !utf8.ValidString(k.StringValue) {
			return index.Scalar{}, "is not UTF-8"
		}
		return index.Scalar{Kind: index.KindString, String: k.StringValue}, ""
	case *collectionv1.Value_IntValue:
		return index.Scalar{Kind: index.KindInt, Int: k.IntValue}, ""
	case *collectionv1.Value_DoubleValue:
		if math.IsNaN(k.DoubleValue) || math.IsInf(k.DoubleValue, 0) {
			return index.Scalar{}, "must be finite"
		}
		return index.Scalar{Kind: index.KindFloat, Float: k.DoubleValue}, ""
	case *collectionv1.Value_BoolValue:
		return index.Scalar{Kind: index.KindBool, Bool: k.BoolValue}, ""
	}
	return index.Scalar{}, "must be a string, a number, true or false"
}

func (r *filterReader) rangeOf(field string, rg *collectionv1.Range, out *index.Condition) error {
	rng := &index.Range{}
	var strs, nums int
	for _, b := range []struct {
		name string
		from *collectionv1.Value
		to   **index.Scalar
	}{{"gt", rg.Gt, &rng.Gt}, {"gte", rg.Gte, &rng.Gte}, {"lt", rg.Lt, &rng.Lt}, {"lte", rg.Lte, &rng.Lte}} {
		if b.from == nil {
			continue
		}
		s, problem := scalarOf(b.from)
		switch {
		case problem != "":
		case s.Kind == index.KindBool:
			problem = "must be a number or an RFC 3339 datetime"
		case s.Kind == index.KindString:
			strs++
			if _, err := time.Parse(time.RFC3339Nano, s.String); err != nil {
				problem = fmt.Sprintf("%q is not an RFC 3339 datetime", s.String)
			}
		default:
			nums++
		}
		if problem != "" {
			return invalid(join(field, b.name), problem)
		}
		*b.to = &s
	}
	switch {
	case strs+nums == 0:
		return invalid(field, "needs at least one of gt, gte, lt, lte")
	case strs > 0 && nums > 0:
		return invalid(field, "mixes numbers and datetimes")
	}
	out.Range = rng
	return nil
}

func geoOf(field string, g *collectionv1.GeoRadius, out *index.Condition) error {
	for _, c := range []struct {
		name      string
		v, lo, hi float64
	}{{"lat", g.Lat, -90, 90}, {"lon", g.Lon, -180, 180}, {"radius_m", g.RadiusM, 0, math.MaxFloat64}} {
		if !(c.v >= c.lo && c.v <= c.hi) { // catches NaN too
			return invalidf(join(field, c.name), "must be from %g to %g", c.lo, c.hi)
		}
	}
	out.Geo = &index.GeoRadius{Lat: g.Lat, Lon: g.Lon, RadiusM: g.RadiusM}
	return nil
}
