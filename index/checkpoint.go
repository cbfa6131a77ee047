// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
)

// A checkpoint is the graph of a generation as of a batch boundary, in a file and
// others that say what has changed since (checkpoint_delta.go). It holds no
// vectors: those come from the replicated state, and a hash over slots and
// vectors says whether they are the ones the graph was built of. The layout is in
// docs/formats/graph-checkpoint.md. All numbers are little-endian.
//
// A checkpoint is only a way to save time, so whatever is wrong with one, it is
// reported and the graph is built anew.
const (
	checkpointMagic = "AkiDBgrf"
	// checkpointVersion is of the layout and of the rules by which graphs are built:
	// one built by other rules would not be what other replicas have.
	checkpointVersion = 7
	checkpointSuffix  = ".graph"
)

// errDamaged: the file is not what Checkpoint wrote.
var errDamaged = errors.New("index: damaged checkpoint")

// errForeign: a sound checkpoint of another configuration or other vectors.
var errForeign = errors.New("index: checkpoint of another history")

// checkpointHeader stands behind magic and version.
type checkpointHeader struct {
	Generation, SealedAt uint64
	Dimension, M, Ef     uint32
	Metric               uint8
	Coded                uint8
	_                    [2]uint8
	Graphed, Uppers      uint32
	Entry                uint64
	VectorsHi, VectorsLo uint64
	GraphHi, GraphLo     uint64
	Radius               uint32
	// The codec, zeros without one.
	Trained, Checked            uint32
	Scale, Inverse, CodecRadius float32
}

func checkpointPath(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("generation-%d%s", generation, checkpointSuffix))
}

// checkpointRequest asks the builder, who alone may look at a graph at rest.
type checkpointRequest struct {
	ctx   context.Context
	reply chan error
}

// Checkpoint writes the graph to Config.Dir, beside appends and searches. Only
// construction of the graph waits meanwhile.
func (x *Index) Checkpoint(ctx context.Context) error {
	if x.cfg.Dir == "" {
		return nil
	}
	req := checkpointRequest{ctx: ctx, reply: make(chan error, 1)}
	select {
	case x.checkpoints <- req:
	case <-x.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-req.reply:
		return err
	case <-x.stop:
		return errClosed
	}
}

// chain is the checkpoint of a generation on disk: a whole one and what has
// changed since, a file for each time it was written.
type chain struct {
	g      *generation
	last   xxh3.Uint128 // checksum of the last file, which the next one names
	deltas int
	// Bytes of the whole one and of all that follow it.
	whole, since int64
	graphed      uint32 // of the last file
}

// paths are the files of the chain, in order.
func (c *chain) paths(dir string) []string {
	out := []string{checkpointPath(dir, c.g.id)}
	for i := range c.deltas {
		out = append(out, deltaPath(dir, c.g.id, i+1))
	}
	return out
}

// goesOn reports whether the chain can be added to: whether it is of this graph,
// still there, and not so long that a whole one is better.
func (c *chain) goesOn(g *generation, dir string, more int64) bool {
	if c == nil || c.g != g || c.deltas >= maxDeltas || 2*(c.since+more) > c.whole {
		return false
	}
	for _, path := range c.paths(dir) {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}

// writeCheckpoint is Checkpoint on the builder's goroutine.
func (x *Index) writeCheckpoint(ctx context.Context, g *generation) error {
	if x.discarded(g) {
		return nil
	}
	if err := os.MkdirAll(x.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("index: checkpoint: %w", err)
	}
	next := &chain{g: g, graphed: g.graphed.Load()}
	path := checkpointPath(x.cfg.Dir, g.id)
	encode := encodeCheckpoint
	if changes := g.graph.changes(next.graphed); x.chain.goesOn(g, x.cfg.Dir, changes.bytes(g.graph)) {
		if changes.none() && x.chain.graphed == next.graphed {
			return nil
		}
		last := x.chain.last
		next.deltas, next.whole, next.since = x.chain.deltas+1, x.chain.whole, x.chain.since
		path = deltaPath(x.cfg.Dir, g.id, next.deltas)
		encode = func(ctx context.Context, w io.Writer, g *generation) error {
			return encodeDelta(ctx, w, g, last, changes)
		}
	}
	// Until this one is safe, it is not known what is on disk.
	x.chain = nil
	sum, size, err := writeWhole(ctx, x.cfg.Dir, path, g, encode)
	if err != nil {
		return fmt.Errorf("index: checkpoint %s: %w", path, err)
	}
	next.last = sum
	if next.deltas == 0 {
		next.whole = size
	} else {
		next.since += size
	}
	g.graph.forgetChanges(next.graphed)
	x.chain = next
	return x.removeOthers(next.paths(x.cfg.Dir))
}

// writeWhole makes a file that is either not there or complete.
func writeWhole(ctx context.Context, dir, path string, g *generation,
	encode func(context.Context, io.Writer, *generation) error) (sum xxh3.Uint128, size int64, err error) {
	f, err := os.CreateTemp(dir, "writing-*")
	if err != nil {
		return sum, 0, err
	}
	hash := xxh3.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
	err = errors.Join(encode(ctx, w, g), w.Flush())
	sum = hash.Sum128()
	if err == nil {
		_, err = f.Write(appendSum(nil, sum))
	}
	if info, statErr := f.Stat(); statErr == nil {
		size = info.Size()
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		err = errors.Join(err, removeIfThere(f.Name()))
	}
	return sum, size, err
}

func appendSum(b []byte, sum xxh3.Uint128) []byte {
	b = binary.LittleEndian.AppendUint64(b, sum.Hi)
	return binary.LittleEndian.AppendUint64(b, sum.Lo)
}

// removeOthers removes checkpoints other than these and torn ones.
func (x *Index) removeOthers(paths []string) error {
	entries, err := os.ReadDir(x.cfg.Dir)
	if err != nil {
		return fmt.Errorf("index: checkpoint: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(x.cfg.Dir, e.Name())
		if !slices.Contains(paths, name) && (strings.HasSuffix(name, checkpointSuffix) || strings.HasPrefix(e.Name(), "writing-")) {
			err = errors.Join(err, removeIfThere(name))
		}
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// encodeHead is what files of both kinds say of the graph, with its codec.
func encodeHead(g *generation) ([]byte, error) {
	graph := g.graph
	hash := g.graphHash.Load()
	h := checkpointHeader{
		Generation: g.id, SealedAt: g.sealedAt,
		Dimension: uint32(g.cfg.Dimension), M: uint32(g.cfg.M), Ef: uint32(g.cfg.EfConstruction), Metric: uint8(g.cfg.Metric),
		Graphed: g.graphed.Load(), Uppers: graph.uppers.Load(), Entry: graph.entry.Load(),
		VectorsHi: g.vectorsHash.hi, VectorsLo: g.vectorsHash.lo, GraphHi: hash.hi, GraphLo: hash.lo,
		Radius: g.radius.Load(),
	}
	codes := g.codes.Load()
	if codes != nil {
		h.Coded, h.Trained, h.Checked = 1, codes.trained, codes.checked
		h.Scale, h.Inverse, h.CodecRadius = codes.scale, codes.inverse, codes.radius
	}
	buf, err := binary.Append(nil, binary.LittleEndian, &h)
	if codes != nil {
		for _, o := range codes.offset {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(o))
		}
	}
	return buf, err
}

// encodeCheckpoint writes a generation's graph, but for the checksum.
func encodeCheckpoint(ctx context.Context, w io.Writer, g *generation) error {
	head, err := encodeHead(g)
	if err != nil {
		return err
	}
	buf := binary.LittleEndian.AppendUint32([]byte(checkpointMagic), checkpointVersion)
	if _, err := w.Write(append(buf, head...)); err != nil {
		return err
	}
	graph := g.graph
	for _, part := range []struct {
		rows  *arena
		n     uint32
		width int
	}{{graph.links, g.graphed.Load(), graph.m0}, {graph.upper, graph.uppers.Load(), graph.m}} {
		for i := range part.n {
			if i%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			buf = appendRow(buf[:0], part.rows, i, part.width)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendRow(buf []byte, rows *arena, i uint32, width int) []byte {
	for _, u := range u32At(rows.row(i), width) {
		buf = binary.LittleEndian.AppendUint32(buf, u)
	}
	return buf
}

// checkpoint is one read from its files, their checksums verified.
type checkpoint struct {
	checkpointHeader
	offset []float32
	links  []byte
	upper  []byte
	chain  chain // of the files it was read from; g is for who uses it
}

// readCheckpoint reads and verifies the file of a whole checkpoint, and what has
// changed since as far as that is sound; os.ErrNotExist if there is none. An error
// beside a checkpoint says why it does not go further.
func readCheckpoint(dir string, generation uint64, cfg *Config) (*checkpoint, error) {
	path := checkpointPath(dir, generation)
	body, sum, err := readSummed(path, checkpointMagic, checkpointVersion)
	if err != nil {
		return nil, err
	}
	info := chain{last: sum, whole: int64(len(body)) + checksumBytes}
	c := &checkpoint{}
	rest, err := c.decodeHead(body, cfg)
	if err != nil {
		return nil, err
	}
	rowBytes := uint64(cfg.M) * 4
	if want := uint64(c.Graphed)*2*rowBytes + uint64(c.Uppers)*rowBytes; uint64(len(rest)) != want {
		return nil, fmt.Errorf("%w: %d bytes of content, want %d", errDamaged, len(rest), want)
	}
	at := uint64(c.Graphed) * 2 * rowBytes
	c.links, c.upper = slices.Clip(rest[:at]), slices.Clip(rest[at:])
	for info.deltas < maxDeltas {
		path := deltaPath(dir, generation, info.deltas+1)
		body, sum, err := readSummed(path, deltaMagic, deltaVersion)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err == nil {
			if string(body[:min(len(body), checksumBytes)]) != string(appendSum(nil, info.last)) {
				break // left over from a checkpoint before this one
			}
			err = c.apply(body[checksumBytes:], cfg)
		}
		if err != nil {
			c.chain, c.chain.graphed = info, c.Graphed
			return c, fmt.Errorf("%s: %w", path, err)
		}
		info.last, info.deltas, info.since = sum, info.deltas+1, info.since+int64(len(body))
	}
	c.chain, c.chain.graphed = info, c.Graphed
	return c, nil
}

const checksumBytes = 16

// readSummed reads a file of ours and returns what stands between its format and
// its checksum, and that.
func readSummed(path, magic string, version uint32) (body []byte, sum xxh3.Uint128, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, sum, err
	}
	head := len(magic) + 4
	if len(raw) < head+checksumBytes || string(raw[:len(magic)]) != magic {
		return nil, sum, fmt.Errorf("%w: %d bytes that do not begin as one", errDamaged, len(raw))
	}
	body, tail := raw[:len(raw)-checksumBytes], raw[len(raw)-checksumBytes:]
	sum = xxh3.Hash128(body)
	if string(tail) != string(appendSum(nil, sum)) {
		return nil, sum, fmt.Errorf("%w: checksum differs", errDamaged)
	}
	if v := binary.LittleEndian.Uint32(raw[len(magic):]); v != version {
		return nil, sum, fmt.Errorf("%w: format %d, this program reads %d", errForeign, v, version)
	}
	return body[head:], sum, nil
}

// decodeHead reads what encodeHead wrote and returns what follows.
func (c *checkpoint) decodeHead(body []byte, cfg *Config) (rest []byte, err error) {
	var h checkpointHeader
	n, err := binary.Decode(body, binary.LittleEndian, &h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if h.Dimension != uint32(cfg.Dimension) || h.M != uint32(cfg.M) || h.Ef != uint32(cfg.EfConstruction) ||
		h.Metric != uint8(cfg.Metric) || h.Coded != 0 && cfg.Quantization == QuantizationNone {
		return nil, fmt.Errorf("%w: it has another configuration", errForeign)
	}
	rest = body[n:]
	var offset []float32
	if h.Coded != 0 {
		offsets := codecDim(cfg)
		if len(rest) < 4*offsets {
			return nil, fmt.Errorf("%w: %d bytes of a codec of %d dimensions", errDamaged, len(rest), offsets)
		}
		for i := range offsets {
			offset = append(offset, math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:])))
		}
		rest = rest[4*offsets:]
	}
	c.checkpointHeader, c.offset = h, offset
	return rest, nil
}
