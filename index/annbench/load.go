// SPDX-License-Identifier: Apache-2.0

package annbench

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/akidb/akidb/index/distance"
)

// LoadDir reads a folder of base, query and groundtruth files in the fvecs,
// bvecs and ivecs layouts, with a meta.json that names the metric (l2, cosine,
// ip); without it the end of the folder's name does.
func LoadDir(dir string) (*Dataset, error) {
	ds := &Dataset{Name: filepath.Base(dir)}
	metric := ds.Name[strings.LastIndexByte(ds.Name, '-')+1:]
	if raw, err := os.ReadFile(filepath.Join(dir, "meta.json")); err == nil {
		var meta struct{ Metric string }
		if err := json.Unmarshal(raw, &meta); err != nil {
			return nil, fmt.Errorf("annbench: %s: %w", filepath.Join(dir, "meta.json"), err)
		}
		metric = meta.Metric
	}
	var err error
	if ds.Metric, err = ParseMetric(metric); err != nil {
		return nil, fmt.Errorf("annbench: %s: %w", dir, err)
	}
	if ds.Vectors, ds.Dim, err = loadEither(dir, "base"); err != nil {
		return nil, err
	}
	var dim int
	if ds.Queries, dim, err = loadEither(dir, "query"); err != nil {
		return nil, err
	}
	if dim != ds.Dim {
		return nil, fmt.Errorf("annbench: %s: queries have %d dimensions, base vectors %d", dir, dim, ds.Dim)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "groundtruth.ivecs")); err == nil {
		if ds.Truth, err = ivecs(raw); err != nil {
			return nil, fmt.Errorf("annbench: %s: %w", filepath.Join(dir, "groundtruth.ivecs"), err)
		}
	}
	return ds, nil
}

// ParseMetric reads the names data sets give to metrics.
func ParseMetric(name string) (distance.Metric, error) {
	switch strings.ToLower(name) {
	case "l2", "euclidean":
		return distance.L2, nil
	case "cosine", "angular":
		return distance.Cosine, nil
	case "ip", "dot", "inner-product":
		return distance.Dot, nil
	}
	return 0, fmt.Errorf("unknown metric %q", name)
}

func loadEither(dir, name string) ([]float32, int, error) {
	for _, ext := range []string{".fvecs", ".bvecs"} {
		path := filepath.Join(dir, name+ext)
		raw, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		vs, dim, err := vecs(raw, ext == ".bvecs")
		if err != nil {
			return nil, 0, fmt.Errorf("annbench: %s: %w", path, err)
		}
		return vs, dim, nil
	}
	return nil, 0, fmt.Errorf("annbench: %s: neither %s.fvecs nor %s.bvecs", dir, name, name)
}

// vecs reads rows of a little-endian dimension and so many floats or bytes.
func vecs(raw []byte, isBytes bool) ([]float32, int, error) {
	if len(raw) < 4 {
		return nil, 0, fmt.Errorf("file of %d bytes", len(raw))
	}
	dim := int(binary.LittleEndian.Uint32(raw))
	size := 4
	if isBytes {
		size = 1
	}
	row := 4 + dim*size
	if dim < 1 || dim > 1<<20 || len(raw)%row != 0 {
		return nil, 0, fmt.Errorf("%d bytes are no whole number of rows of dimension %d", len(raw), dim)
	}
	out := make([]float32, 0, len(raw)/row*dim)
	for at := 0; at < len(raw); at += row {
		if int(binary.LittleEndian.Uint32(raw[at:])) != dim {
			return nil, 0, fmt.Errorf("row at byte %d has another dimension", at)
		}
		for i := range dim {
			if isBytes {
				out = append(out, float32(raw[at+4+i]))
			} else {
				out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(raw[at+4+4*i:])))
			}
		}
	}
	return out, dim, nil
}

func ivecs(raw []byte) ([][]int32, error) {
	var out [][]int32
	for at := 0; at < len(raw); {
		if at+4 > len(raw) {
			return nil, fmt.Errorf("cut off at byte %d", at)
		}
		n := int(binary.LittleEndian.Uint32(raw[at:]))
		at += 4
		if n < 0 || n > (len(raw)-at)/4 {
			return nil, fmt.Errorf("row of %d at byte %d does not fit", n, at)
		}
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(binary.LittleEndian.Uint32(raw[at+4*i:]))
		}
		out = append(out, row)
		at += 4 * n
	}
	return out, nil
}
