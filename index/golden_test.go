// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/index/distance"
)

// Goal: the same vectors give the same graph and the same results on every CPU.
// Method: hashes written down once; run it on others, too:
//
//	GOARCH=arm64 go test -exec qemu-aarch64-static -run Golden ./index
func TestGoldenGraphs(t *testing.T) {
	golden := map[string]string{
		"l2/rabitq":     "06cd4be88fc9f77a605ab105c7053566 ffd37df6716330fb",
		"dot/rabitq":    "82c7f8af4715481d69df3402c422ac0b a580b597a2f47d05",
		"cosine/rabitq": "d283f3105ab2c8d3762415209a8d1b77 b159ce5eb9e807d9",
		"cosine/none":   "aaf5f1d2046edaee11b3573e34632b23 b159ce5eb9e807d9",
		"cosine/sq8":    "d283f3105ab2c8d3762415209a8d1b77 b159ce5eb9e807d9",
		"dot/none":      "98ba02dee2742317fd97188a16b4f28b a580b597a2f47d05",
		"dot/sq8":       "82c7f8af4715481d69df3402c422ac0b a580b597a2f47d05",
		"l2/sq8/192":    "d79398bf6416d0056238980a4315979a c30b63eb99a2e7ae",
		"l2/sq8/64":     "ab47329fbcade8ac56df9afbf8ccf2d9 68d109f9997d493e",
		"l2/none":       "1a521b33e4720a6571e3d989d19d3ddf ffd37df6716330fb",
		"l2/sq8":        "06cd4be88fc9f77a605ab105c7053566 ffd37df6716330fb",
	}
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			checkGolden(t, golden, metricName(metric)+"/"+string(quantization), Config{Dimension: 24, Metric: metric, Quantization: quantization})
		}
	}
	// Codes without room for their terms.
	checkGolden(t, golden, "l2/sq8/64", Config{Dimension: 64, Metric: distance.L2, Quantization: QuantizationSQ8})
	// The same with terms elsewhere, and without.
	for _, rather := range []bool{false, true} {
		checkGolden(t, golden, "l2/sq8/192", Config{Dimension: 192, Metric: distance.L2, Quantization: QuantizationSQ8, rather: &rather})
	}
}

func checkGolden(t *testing.T, golden map[string]string, name string, cfg Config) {
	t.Run(name, func(t *testing.T) {
		// No function of package math: some are assembly on some CPUs.
		r := rand.New(rand.NewPCG(71, 1))
		vectors := make([][]float32, 2000)
		for i := range vectors {
			vectors[i] = make([]float32, cfg.Dimension)
			for d := range vectors[i] {
				vectors[i][d] = r.Float32() - 0.25 + float32(i%7)/8
			}
		}
		x := open(t, cfg, &memory{})
		for i, v := range vectors {
			x.Append(Slot(i), v, nil)
		}
		waitIdle(t, x)
		h := xxh3.New()
		for _, q := range vectors[:100] {
			rs, _ := search(t, x, Query{Vector: q, K: 10}, all)
			fmt.Fprintf(h, "%x", rs)
		}
		got := fmt.Sprintf("%s %016x", x.Status().GraphHash, h.Sum64())
		if want := golden[name]; got != want {
			t.Errorf("graph and results %q, want %q", got, want)
		}
	})
}
