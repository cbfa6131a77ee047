// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"

	"github.com/zeebo/xxh3"
)

// A delta is what has changed since the checkpoint before: the rows of new
// vertices and those that got other links. It names the checksum of the file
// before it, so that it counts only behind that one, and says of the graph all
// that a whole checkpoint says; the hash of the graph covers the outcome. The
// layout is in docs/formats/graph-checkpoint.md.
const (
	deltaMagic   = "AkiDBgrd"
	deltaVersion = 1
	// maxDeltas bounds the files of a checkpoint.
	maxDeltas = 64
)

func deltaPath(dir string, generation uint64, number int) string {
	return filepath.Join(dir, fmt.Sprintf("generation-%d-%04d%s", generation, number, checkpointSuffix))
}

// rowChanges are the rows to be written.
type rowChanges struct{ links, upper []uint32 }

func (c rowChanges) none() bool { return len(c.links)+len(c.upper) == 0 }

// bytes is about how large their delta is.
func (c rowChanges) bytes(g *graph) int64 {
	return int64(len(c.links))*int64(4+4*g.m0) + int64(len(c.upper))*int64(4+4*g.m)
}

// changes lists the rows changed since the last checkpoint.
func (g *graph) changes(vertices uint32) (c rowChanges) {
	for v := range vertices {
		if *g.closedByte(v)&rowChanged != 0 {
			c.links = append(c.links, v)
		}
	}
	for i := range g.uppers.Load() {
		if *(*uint8)(g.changed.row(i)) != 0 {
			c.upper = append(c.upper, i)
		}
	}
	return c
}

// encodeDelta writes changes behind the file with checksum before.
func encodeDelta(ctx context.Context, w io.Writer, g *generation, before xxh3.Uint128, changes rowChanges) error {
	head, err := encodeHead(g)
	if err != nil {
		return err
	}
	buf := binary.LittleEndian.AppendUint32([]byte(deltaMagic), deltaVersion)
	buf = append(appendSum(buf, before), head...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(changes.links)))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(changes.upper)))
	if _, err := w.Write(buf); err != nil {
		return err
	}
	for _, part := range []struct {
		rows  *arena
		which []uint32
		width int
	}{{g.graph.links, changes.links, g.graph.m0}, {g.graph.upper, changes.upper, g.graph.m}} {
		for n, i := range part.which {
			if n%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			buf = appendRow(binary.LittleEndian.AppendUint32(buf[:0], i), part.rows, i, part.width)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply brings c to where a delta ends. It changes nothing if it fails.
func (c *checkpoint) apply(body []byte, cfg *Config) error {
	next := *c
	rest, err := next.decodeHead(body, cfg)
	if err != nil {
		return err
	}
	if next.Generation != c.Generation || next.Graphed < c.Graphed || next.Uppers < c.Uppers || len(rest) < 8 {
		return fmt.Errorf("%w: %d vertices behind %d", errDamaged, next.Graphed, c.Graphed)
	}
	links, upper := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
	rest = rest[8:]
	width := uint64(cfg.M) * 4
	at := uint64(links) * (4 + 2*width)
	if want := at + uint64(upper)*(4+width); uint64(len(rest)) != want {
		return fmt.Errorf("%w: %d bytes of rows, want %d", errDamaged, len(rest), want)
	}
	if !rowsBelow(rest[:at], 4+2*width, next.Graphed) || !rowsBelow(rest[at:], 4+width, next.Uppers) {
		return fmt.Errorf("%w: a row that is not there", errDamaged)
	}
	next.links = putRows(c.links, rest[:at], 2*width, next.Graphed)
	next.upper = putRows(c.upper, rest[at:], width, next.Uppers)
	*c = next
	return nil
}

// rowsBelow reports whether all numbers of rows are below n.
func rowsBelow(rows []byte, size uint64, n uint32) bool {
	for ; len(rows) > 0; rows = rows[size:] {
		if binary.LittleEndian.Uint32(rows) >= n {
			return false
		}
	}
	return true
}

// putRows overwrites the numbered rows of what becomes n rows of width bytes.
func putRows(old, rows []byte, width uint64, n uint32) []byte {
	if grown := uint64(n) * width; grown > uint64(cap(old)) {
		old = append(make([]byte, 0, grown+grown/8), old...)
	}
	old = old[:uint64(n)*width]
	for ; len(rows) > 0; rows = rows[4+width:] {
		copy(old[uint64(binary.LittleEndian.Uint32(rows))*width:], rows[4:4+width])
	}
	return old
}
