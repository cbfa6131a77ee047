// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"runtime"

	"github.com/akidb/akidb/index/distance"
)

// Limits of a configuration and of a query.
const (
	maxDimension      = 16384
	minM, maxM        = 4, 128
	minEf, maxEfBuild = 8, 1000
	maxEf             = 10000
	maxK              = 10000
	// maxVertices: a candidate packs the vertex and a flag into 32 bits.
	maxVertices = 1 << 31
)

// withDefaults validates cfg and fills in what is left open.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Dimension < 1 || cfg.Dimension > maxDimension {
		return cfg, fmt.Errorf("index: dimension %d: want 1 to %d", cfg.Dimension, maxDimension)
	}
	switch cfg.Metric {
	case distance.Cosine, distance.Dot, distance.L2:
	default:
		return cfg, fmt.Errorf("index: unknown metric %d", cfg.Metric)
	}
	if cfg.M == 0 {
		cfg.M = 16
	}
	if cfg.M < minM || cfg.M > maxM {
		return cfg, fmt.Errorf("index: m %d: want %d to %d", cfg.M, minM, maxM)
	}
	if cfg.EfConstruction == 0 {
		cfg.EfConstruction = 200
	}
	if cfg.EfConstruction < minEf || cfg.EfConstruction > maxEfBuild {
		return cfg, fmt.Errorf("index: ef_construction %d: want %d to %d", cfg.EfConstruction, minEf, maxEfBuild)
	}
	if cfg.EfSearch < 0 || cfg.EfSearch > maxEf {
		return cfg, fmt.Errorf("index: ef_search %d: want 0 to %d", cfg.EfSearch, maxEf)
	}
	switch cfg.Quantization {
	case "":
		cfg.Quantization = DefaultQuantization
	case QuantizationNone, QuantizationSQ8, QuantizationRaBitQ:
	default:
		return cfg, fmt.Errorf("index: unknown quantization %q: want none, sq8 or rabitq", cfg.Quantization)
	}
	for _, f := range cfg.Fields {
		switch f.Type {
		case "keyword", "integer", "float", "bool", "datetime", "geo":
		default:
			return cfg, fmt.Errorf("index: payload field %q: unknown type %q", f.Key, f.Type)
		}
	}
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string, error) {}
	}
	return cfg, nil
}
