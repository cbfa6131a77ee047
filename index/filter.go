// SPDX-License-Identifier: Apache-2.0

package index

// Filter selects slots by payload: all of Must, none of MustNot and, if Should
// is not empty, at least one of it.
type Filter struct {
	Must, Should, MustNot []Condition
}

// MaxPrefixBytes bounds Condition.Prefix: no more of a string is kept as it is.
const MaxPrefixBytes = longString

// Condition is a nested filter or one test of the field Key, a path with dots.
// A test of a missing field is false, except IsMissing. An array field matches
// if any element does. Exactly one test is set.
type Condition struct {
	Key       string
	Any       []Scalar // equal to one of them
	Except    []Scalar // present and equal to none of them
	Prefix    *string  // up to MaxPrefixBytes
	Range     *Range
	Geo       *GeoRadius
	IsMissing *bool
	Nested    *Filter
}

// Scalar is a JSON scalar.
type Scalar struct {
	Kind   ScalarKind
	String string
	Int    int64
	Float  float64
	Bool   bool
}

// ScalarKind says which field of a Scalar counts.
type ScalarKind uint8

// The kinds of scalars. Int and Float compare by value.
const (
	KindString ScalarKind = iota + 1
	KindInt
	KindFloat
	KindBool
)

// Range bounds numbers, or datetimes if the bounds are strings. Nil is open.
type Range struct {
	Gt, Gte, Lt, Lte *Scalar
}

// GeoRadius is a circle on the sphere.
type GeoRadius struct {
	Lat, Lon, RadiusM float64
}
