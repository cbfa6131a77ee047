// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/akidb/akidb/internal/storage"
)

// Of a raft-wal segment (segment/format.go, version 0): frames follow a header. Those
// of one append end with a commit, which holds a sum of what is between it and the
// commit before, of the first with the header.
const (
	walHeaderBytes = 32
	walFrameBytes  = 8
)

// walFrame is one frame of a segment; next is 0 if there is none at the offset.
type walFrame struct {
	typ  uint8
	sum  uint32
	next int64
}

func walFrameAt(b []byte, at int64) walFrame {
	if at+walFrameBytes > int64(len(b)) {
		return walFrame{}
	}
	n := binary.LittleEndian.Uint32(b[at+4:])
	switch typ := b[at]; typ {
	case segment.FrameEntry, segment.FrameIndex:
		return walFrame{typ, 0, at + walFrameBytes + (int64(n)+walFrameBytes-1)&^(walFrameBytes-1)}
	case segment.FrameCommit:
		return walFrame{typ, n, at + walFrameBytes}
	}
	return walFrame{}
}

// walAppend reads one append from start on, whose sum begins at summed. It returns where
// the append ends, or where the first frame is that makes no sense or has the wrong sum.
func walAppend(b []byte, start, summed int64) (end int64, ok bool) {
	for at := start; ; {
		f := walFrameAt(b, at)
		switch {
		case f.next == 0 || f.next > int64(len(b)):
			return at, false
		case f.typ != segment.FrameCommit:
			at = f.next
		case at == start || crc32.Checksum(b[summed:at], crc32.MakeTable(crc32.Castagnoli)) != f.sum:
			return at, false
		default:
			return f.next, true
		}
	}
}

var errTailDamaged = errors.New("entries of the log are damaged")

// walTail finds the last whole append of a segment that is being written to: where it
// begins and ends. raft-wal (0.4) takes the first frame that makes no sense for the torn
// end of the newest append, and forgets all that follows. Each append is flushed before
// the next begins, so what follows a torn one is no whole append: where one is found, the
// log lost entries that it had.
func walTail(b []byte) (start, end int64, err error) {
	stop, ok := walAppend(b, walHeaderBytes, 0)
	for ok {
		start, end = end, stop
		stop, ok = walAppend(b, end, end)
	}
	for at := max(end, walHeaderBytes); at+walFrameBytes <= int64(len(b)); at += walFrameBytes {
		// Behind a commit, or what makes no sense and may have been one.
		behind := at + walFrameBytes
		if at != stop && (b[at] != segment.FrameCommit || b[at+1]|b[at+2]|b[at+3] != 0) {
			continue
		}
		if _, ok := walAppend(b, behind, behind); ok {
			return 0, 0, fmt.Errorf("%w between offset %d and %d, for a whole append follows", errTailDamaged, end, behind)
		}
	}
	return start, end, nil
}

// settle makes a segment that is being written to, and its name, durable, if there is
// one. A sync before may have failed, and what it did not write may be in memory only
// and not be tried again (Linux gives it up and lets the next sync succeed). It was of
// the last append, since a log takes no other after it: that is written anew. What is
// left behind it of a torn one becomes zero, as behind every append: raft-wal takes
// frames for what they look like, and a segment for sealed that is not, or sealed
// elsewhere.
func (r *rotation) settle(tail types.SegmentInfo) error {
	path := r.fs.PathJoin(r.dir, segment.FileName(tail))
	if _, err := r.fs.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := r.fs.OpenReadWrite(path, "raft-log")
	if err != nil {
		return err
	}
	if err := errors.Join(r.settleFile(f), f.Close()); err != nil {
		return fmt.Errorf("segment %s: %w", path, err)
	}
	return storage.SyncDir(r.fs, r.dir)
}

func (r *rotation) settleFile(f storage.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	start, end, err := walTail(b)
	if err != nil {
		return err
	}
	b = bytes.TrimRight(b, "\x00")
	clear(b[min(end, int64(len(b))):])
	b = append(b, make([]byte, max(0, end-int64(len(b))))...) // the last append may end with zeros
	if _, err := f.WriteAt(b[start:], start); err != nil {
		return err
	}
	return f.Sync()
}
