// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft-wal/types"

	"github.com/akidb/akidb/internal/storage"
)

// Goal: zeros written ahead never touch an entry, and a segment opened again
// goes on behind its end. Method: random appends, beside a plain slice of bytes;
// what is behind the end must be zero as far as the next small append reaches.
func TestZerosStayBehindTheLog(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		const size = 4 << 20
		fs := walFS{fs: storage.NewMemFS(), segmentBytes: size}
		w, err := fs.Create("", "segment", size)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for len(want) < size-256<<10 { // zeros end with the segment
			b := make([]byte, 1+rng.IntN(8<<10))
			if rng.IntN(20) == 0 {
				b = make([]byte, maxZeroedAppend+rng.IntN(maxZeroedAppend))
			}
			for i := range b {
				b[i] = byte(1 + rng.IntN(255))
			}
			if n, err := w.WriteAt(b, int64(len(want))); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, b...)
			if err := w.Sync(); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(50) > 0 {
				continue
			}
			checkSegment(t, fs, want)
			// A crash: something of the next append is there, which recovery ignores.
			torn := bytes.Repeat([]byte{7}, rng.IntN(8<<10))
			f := w.(*walFile)
			if _, err := f.File.WriteAt(torn, int64(len(want))); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if w, err = fs.OpenWriter("", "segment"); err != nil {
				t.Fatal(err)
			}
			next := []byte{1}
			if _, err := w.WriteAt(next, int64(len(want))); err != nil {
				t.Fatal(err)
			}
			want = append(want, next...)
			checkSegment(t, fs, want)
		}
		checkSegment(t, fs, want)
	}
}

func checkSegment(t *testing.T, fs types.VFS, want []byte) {
	t.Helper()
	r, err := fs.OpenReader("", "segment")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, want) {
		t.Fatalf("the first %d bytes differ", len(want))
	}
	if tail := got[len(want):]; len(bytes.Trim(tail, "\x00")) > 0 {
		t.Fatalf("%d bytes behind the log of %d are not all zero", len(tail), len(want))
	}
}
