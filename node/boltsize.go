// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
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
)

var errFileCut = errors.New("the file was cut: it is shorter than the pages in use")

// boltWhole refuses a bbolt file that has lost its end. bbolt maps the file and
// does not look at its size: it would die of SIGBUS where the pages were. A file
// that is not there, or has no header yet, is bbolt's own business.
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
	var newest, need uint64
	b := make([]byte, boltHeaderEnd)
	at := int64(0)
	for range 2 {
		if _, err := f.ReadAt(b, at); err != nil {
			if err == io.EOF {
				break
			}
			return err
		}
		if binary.LittleEndian.Uint32(b[boltMagicAt:]) != boltMagic {
			break
		}
		size := uint64(binary.LittleEndian.Uint32(b[boltPageSizeAt:]))
		if tx := binary.LittleEndian.Uint64(b[boltTxAt:]); tx >= newest {
			newest, need = tx, size*binary.LittleEndian.Uint64(b[boltPagesAt:])
		}
		at = int64(size)
	}
	if uint64(st.Size()) < need {
		return fmt.Errorf("%w: %d bytes of %d", errFileCut, st.Size(), need)
	}
	return nil
}
