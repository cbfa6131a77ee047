// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package distance

import "testing"

func benchArena[T any](_ *testing.B, n int) []T { return make([]T, n) }
