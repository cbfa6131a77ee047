// SPDX-License-Identifier: Apache-2.0

// Package distance computes distances between vectors, the same bits on every
// CPU: float32 kernels keep sixteen lanes and one reduction tree and never fuse
// a multiply with an add.
package distance

// Metric says what distance means. Smaller is nearer under each.
type Metric uint8

// The metrics. Cosine works on vectors normalised by Normalize, for which it is
// 1 minus the inner product; Dot is the negated inner product; L2 is squared.
const (
	Cosine Metric = iota + 1
	Dot
	L2
)
