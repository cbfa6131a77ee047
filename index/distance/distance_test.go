// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

type kernelVariant struct {
	name    string
	usable  bool
	use     func()
	restore func()
}

// eachVariant runs one test body on every variant this machine has. Bodies must
// not be parallel: the dispatch variables are the package's.
func eachVariant(t *testing.T, body func(t *testing.T)) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			if !v.usable {
				t.Skip("this CPU lacks " + v.name)
			}
			v.use()
			defer v.restore()
			if got := Variant(); got != v.name {
				t.Fatalf("dispatch chose %s, want %s", got, v.name)
			}
			body(t)
		})
	}
}

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes the clock")

// random prints the seed, and the line that replays it if the test fails.
func random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay: go test ./index/distance -run '%s' -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 14))
}

// lengths are all up to two blocks of 64 and odd sizes beyond.
func lengths() []int {
	var ns []int
	for n := range 131 {
		ns = append(ns, n)
	}
	return append(ns, 191, 192, 193, 255, 257, 384, 511, 767, 768, 784, 1023, 1536, 2049)
}

// guarded returns n elements, offset elements off their natural alignment,
// between guard bands filled with guard. check fails if a band was written;
// reading one spoils the result if guard is poisonous.
func guarded[T comparable](n, offset int, guard T) (v []T, check func() error) {
	const band = 80
	all := make([]T, band+offset+n+band)
	for i := range all {
		all[i] = guard
	}
	lo, hi := band+offset, band+offset+n
	return all[lo:hi:hi], func() error {
		for i, x := range all {
			if (i < lo || i >= hi) && x != guard {
				return fmt.Errorf("element %d outside [0,%d) overwritten with %v", i-lo, n, x)
			}
		}
		return nil
	}
}

// sameBits is equality of bits, any NaN being as good as another.
func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}
