// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size that reads and writes as "256MiB"; plain numbers are bytes.
type Bytes int64

type unit struct {
	suffix string
	factor int64
}

func units() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}}
}

func (b Bytes) String() string {
	for _, u := range units()[:4] {
		if b != 0 && int64(b)%u.factor == 0 {
			return strconv.FormatInt(int64(b)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set is pflag.Value's.
func (b *Bytes) Set(s string) error { return b.UnmarshalText([]byte(s)) }

// Type is pflag.Value's.
func (b *Bytes) Type() string { return "size" }

// UnmarshalText reads "4GiB", "512Mi", "1.5GB" or "1024".
func (b *Bytes) UnmarshalText(text []byte) error {
	s, factor := strings.TrimSpace(string(text)), int64(1)
	for _, u := range units() {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if v *= float64(factor); err != nil || v < 0 || v > math.MaxInt64/2 || v != math.Trunc(v) {
		return fmt.Errorf("%q is not a size like 512MiB or 4GiB", text)
	}
	*b = Bytes(v)
	return nil
}
