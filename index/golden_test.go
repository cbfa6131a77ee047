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
		"l2/rabitq":     "36e10c00c85237266c3f44d72b4510f6 ffd37df6716330fb",
		"dot/rabitq":    "dd9d73a799137c9780170348d7062a3a a580b597a2f47d05",
		"cosine/rabitq": "27dd4a787472952010d6bdcca2657006 b159ce5eb9e807d9",
		"cosine/none":   "7823fdefdc2716c6f180055c14ad4a9b b159ce5eb9e807d9",
		"cosine/sq8":    "27dd4a787472952010d6bdcca2657006 b159ce5eb9e807d9",
		"dot/none":      "b3a59758ce6792b25cfb24630a4edbe1 a580b597a2f47d05",
		"dot/sq8":       "dd9d73a799137c9780170348d7062a3a a580b597a2f47d05",
		"l2/sq8/64":     "2aa112b56288571d2e159f0f04fb378b 68d109f9997d493e",
		"l2/none":       "29e4de3ce09544a55ad1c2cdbed16c73 ffd37df6716330fb",
		"l2/sq8":        "36e10c00c85237266c3f44d72b4510f6 ffd37df6716330fb",
	}
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			checkGolden(t, golden, metricName(metric)+"/"+string(quantization), metric, quantization, 24)
		}
	}
	// Codes without room for their terms.
	checkGolden(t, golden, "l2/sq8/64", distance.L2, QuantizationSQ8, 64)
}

func checkGolden(t *testing.T, golden map[string]string, name string, metric distance.Metric, quantization Quantization, dim int) {
	t.Run(name, func(t *testing.T) {
		// No function of package math: some are assembly on some CPUs.
		r := rand.New(rand.NewPCG(71, 1))
		vectors := make([][]float32, 2000)
		for i := range vectors {
			vectors[i] = make([]float32, dim)
			for d := range vectors[i] {
				vectors[i][d] = r.Float32() - 0.25 + float32(i%7)/8
			}
		}
		x := open(t, Config{Dimension: dim, Metric: metric, Quantization: quantization}, &memory{})
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
