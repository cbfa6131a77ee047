// SPDX-License-Identifier: Apache-2.0

// Package vecfile reads vectors, one row at a time, from the file formats that
// they are published in: fvecs, bvecs, ivecs, npy, jsonl and ann-benchmarks
// HDF5.
package vecfile

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
)

// maxDim is the largest dimension a collection can have.
const maxDim = 16384

// Row is one document of a file.
type Row struct {
	ID      string // empty if the format has none
	Vector  []float32
	Payload []byte // a JSON object, or nil
}

// Reader walks the rows of a file in order.
type Reader interface {
	// Next fills row; its slices are new. io.EOF ends the file.
	Next(row *Row) error
	// Skip passes over n rows.
	Skip(n int) error
	// Rows is their number, -1 if only reading to the end tells.
	Rows() int
	// Dim is the dimension, 0 if it is not known before the first row.
	Dim() int
	// Metric is what the file says of itself: "cosine", "dot", "l2" or "".
	Metric() string
	Close() error
}

// Options choose within a file.
type Options struct {
	Format  string // "" goes by the file's extension
	Dataset string // of HDF5; default "train"
	// Fields of jsonl.
	IDField, VectorField string
}

// ErrBadFile marks a file whose content is wrong; the text names row or offset.
var ErrBadFile = errors.New("bad file")

func badFile(path, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrBadFile, path, fmt.Sprintf(format, args...))
}

// Open opens a file of vectors.
func Open(path string, o Options) (Reader, error) {
	format := o.Format
	if format == "" {
		format = strings.TrimPrefix(strings.ToLower(filepath.Ext(path)), ".")
	}
	switch format {
	case "fvecs", "bvecs", "ivecs":
		return openVecs(path, format)
	case "npy":
		return openNpy(path)
	case "jsonl", "ndjson":
		return openJSONL(path, o)
	case "hdf5", "h5":
		return openHDF5(path, o.Dataset)
	}
	return nil, fmt.Errorf("%s: unknown format %q: want fvecs, bvecs, npy, jsonl or hdf5 (--format)", path, format)
}

// finite returns an error naming the first value that is no number.
func finite(path string, row int, v []float32) error {
	for i, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return badFile(path, "row %d: value %d is %v", row, i, x)
		}
	}
	return nil
}

// All reads a whole file; for query files and ground truth.
func All(path string, o Options) ([][]float32, error) {
	r, err := Open(path, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out [][]float32
	for {
		var row Row
		err := r.Next(&row)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, row.Vector)
	}
}
