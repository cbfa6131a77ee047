// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"fmt"
	"io"

	"github.com/akidb/akidb/cmd/akidb/internal/hdf5"
)

// hdf5File reads one dataset of an ann-benchmarks file.
type hdf5File struct {
	path string
	f    *hdf5.File
	d    *hdf5.Dataset
	next int
}

func openHDF5(path, dataset string) (Reader, error) {
	if dataset == "" {
		dataset = "train"
	}
	f, err := hdf5.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadFile, err)
	}
	d, err := f.Dataset(dataset)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrBadFile, path, err)
	}
	return &hdf5File{path: path, f: f, d: d}, nil
}

func (h *hdf5File) Next(row *Row) error {
	if h.next >= h.d.Rows {
		return io.EOF
	}
	*row = Row{Vector: make([]float32, h.d.Dim)}
	if err := h.d.Row(h.next, row.Vector); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBadFile, h.path, err)
	}
	h.next++
	return finite(h.path, h.next-1, row.Vector)
}

func (h *hdf5File) Skip(n int) error {
	if h.next+n > h.d.Rows {
		return badFile(h.path, "it has %d rows, cannot go on after row %d", h.d.Rows, h.next+n)
	}
	h.next += n
	return nil
}

func (h *hdf5File) Rows() int { return h.d.Rows }
func (h *hdf5File) Dim() int  { return h.d.Dim }

// Metric reads the attribute that ann-benchmarks sets.
func (h *hdf5File) Metric() string {
	switch h.f.Attribute("distance") {
	case "euclidean":
		return "l2"
	case "angular":
		return "cosine"
	case "ip", "dot":
		return "dot"
	}
	return ""
}

func (h *hdf5File) Close() error { return h.f.Close() }
