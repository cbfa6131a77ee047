// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Of a bbolt file (go.etcd.io/bbolt, page.go and db.go, version 2): the first two
// pages are headers in turn, each with the number of pages in use when it was
// written, and the one of the newer transaction counts.
const (
	boltMagic      = 0xED0CDAED
	boltHeaderEnd  = 80
	boltMagicAt    = 16
	boltPageSizeAt = 24
	boltPagesAt    = 56
	boltTxAt       = 64
	boltSumAt      = 72 // FNV-1a of what is before, from boltMagicAt on
)

var (
	errFileCut    = errors.New("the file was cut: it is shorter than the pages in use")
	errBoltHeader = errors.New("a header of the file is damaged, what was written last may be missing")
)

// boltWhole refuses a bbolt file that has lost its end or one of its headers. bbolt
// maps the file and does not look at its size: it would die of SIGBUS where the
// pages were. Without the newer header it would go back to the transaction before
// and say nothing; no crash damages one, since it fits a sector of a disk. A file that
// is not there, or has no header yet, is bbolt's own business.
func boltWhole(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	first, err := readBoltHeader(f, 0)
	if err != nil {
		return err
	}
	pageSize := first.pageSize
	if pageSize == 0 {
		pageSize = uint64(os.Getpagesize()) // where bbolt looks, too
	}
	second, err := readBoltHeader(f, int64(pageSize))
	if err != nil {
		return err
	}
	newest, other := second, first
	if first.tx > second.tx {
		newest, other = first, second
	}
	if need := newest.pageSize * newest.pages; uint64(st.Size()) < need {
		return fmt.Errorf("%w: %d bytes of %d", errFileCut, st.Size(), need)
	}
	// A new file has transactions 0 and 1, and nothing in it that could be missing.
	if newest.tx > 1 && other.pageSize == 0 {
		return errBoltHeader
	}
	return nil
}

// boltHeader is zero where there is none or it is damaged: bbolt takes the other
// then, or says that neither is sound.
type boltHeader struct{ tx, pageSize, pages uint64 }

func readBoltHeader(f *os.File, at int64) (boltHeader, error) {
	b := make([]byte, boltHeaderEnd)
	if _, err := f.ReadAt(b, at); err == io.EOF {
		return boltHeader{}, nil
	} else if err != nil {
		return boltHeader{}, err
	}
	sum := fnv.New64a()
	sum.Write(b[boltMagicAt:boltSumAt]) // never fails
	if binary.LittleEndian.Uint32(b[boltMagicAt:]) != boltMagic || binary.LittleEndian.Uint64(b[boltSumAt:]) != sum.Sum64() {
		return boltHeader{}, nil
	}
	return boltHeader{
		tx:       binary.LittleEndian.Uint64(b[boltTxAt:]),
		pageSize: uint64(binary.LittleEndian.Uint32(b[boltPageSizeAt:])),
		pages:    binary.LittleEndian.Uint64(b[boltPagesAt:]),
	}, nil
}
