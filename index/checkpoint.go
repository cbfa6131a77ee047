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
	"strings"

	"github.com/zeebo/xxh3"
)

// A checkpoint is the graph of a generation as of a batch boundary. It holds no
// vectors: those come from the replicated state, and a hash over slots and
// vectors says whether they are the ones the graph was built of. The layout is in
// docs/formats/graph-checkpoint.md. All numbers are little-endian.
//
// A checkpoint is only a way to save time, so whatever is wrong with one, it is
// reported and the graph is built anew.
const (
	checkpointMagic   = "AkiDBgrf"
	checkpointVersion = 1
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

// writeCheckpoint is Checkpoint on the builder's goroutine.
func (x *Index) writeCheckpoint(ctx context.Context, g *generation) error {
	if err := os.MkdirAll(x.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("index: checkpoint: %w", err)
	}
	path := checkpointPath(x.cfg.Dir, g.id)
	f, err := os.CreateTemp(x.cfg.Dir, "writing-*")
	if err != nil {
		return fmt.Errorf("index: checkpoint: %w", err)
	}
	err = errors.Join(encodeCheckpoint(ctx, f, g), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(x.cfg.Dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("index: checkpoint %s: %w", path, err), removeIfThere(f.Name()))
	}
	return x.removeOthers(path)
}

// removeOthers removes checkpoints of other generations and torn ones.
func (x *Index) removeOthers(path string) error {
	entries, err := os.ReadDir(x.cfg.Dir)
	if err != nil {
		return fmt.Errorf("index: checkpoint: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(x.cfg.Dir, e.Name())
		if name != path && (strings.HasSuffix(name, checkpointSuffix) || strings.HasPrefix(e.Name(), "writing-")) {
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

// encodeCheckpoint writes a generation's graph.
func encodeCheckpoint(ctx context.Context, f io.Writer, g *generation) error {
	sum := xxh3.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
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
	buf := append([]byte(checkpointMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(buf[len(checkpointMagic):], checkpointVersion)
	buf, err := binary.Append(buf, binary.LittleEndian, &h)
	if err != nil {
		return err
	}
	if codes != nil {
		for _, o := range codes.offset {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(o))
		}
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	for _, part := range []struct {
		rows  *arena
		n     uint32
		width int
	}{{graph.links, h.Graphed, graph.m0}, {graph.upper, h.Uppers, graph.m}} {
		for i := range part.n {
			if i%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			buf = buf[:0]
			for _, u := range u32At(part.rows.row(i), part.width) {
				buf = binary.LittleEndian.AppendUint32(buf, u)
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s := sum.Sum128()
	if err := binary.Write(f, binary.LittleEndian, [2]uint64{s.Hi, s.Lo}); err != nil {
		return err
	}
	return nil
}

// checkpoint is one read from a file, its checksum verified.
type checkpoint struct {
	checkpointHeader
	offset []float32
	links  []byte
	upper  []byte
}

// readCheckpoint reads and verifies a file; os.ErrNotExist if there is none.
func readCheckpoint(path string, cfg *Config) (*checkpoint, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	head := len(checkpointMagic) + 4
	c := &checkpoint{}
	size := binary.Size(&c.checkpointHeader)
	if len(raw) < head+size+16 || string(raw[:len(checkpointMagic)]) != checkpointMagic {
		return nil, fmt.Errorf("%w: %d bytes that do not begin as one", errDamaged, len(raw))
	}
	body, tail := raw[:len(raw)-16], raw[len(raw)-16:]
	sum := xxh3.Hash128(body)
	if sum.Hi != binary.LittleEndian.Uint64(tail) || sum.Lo != binary.LittleEndian.Uint64(tail[8:]) {
		return nil, fmt.Errorf("%w: checksum differs", errDamaged)
	}
	if v := binary.LittleEndian.Uint32(raw[len(checkpointMagic):]); v != checkpointVersion {
		return nil, fmt.Errorf("%w: format %d, this program reads %d", errForeign, v, checkpointVersion)
	}
	if _, err := binary.Decode(body[head:], binary.LittleEndian, &c.checkpointHeader); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if c.Dimension != uint32(cfg.Dimension) || c.M != uint32(cfg.M) || c.Ef != uint32(cfg.EfConstruction) ||
		c.Metric != uint8(cfg.Metric) || c.Coded != 0 && cfg.Quantization == QuantizationNone {
		return nil, fmt.Errorf("%w: it has another configuration", errForeign)
	}
	rest := body[head+size:]
	offsets := 0
	if c.Coded != 0 {
		offsets = codecDim(cfg)
	}
	want := uint64(offsets)*4 + uint64(c.Graphed)*uint64(cfg.M)*8 + uint64(c.Uppers)*uint64(cfg.M)*4
	if uint64(len(rest)) != want {
		return nil, fmt.Errorf("%w: %d bytes of content, want %d", errDamaged, len(rest), want)
	}
	for i := range offsets {
		c.offset = append(c.offset, math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:])))
	}
	rest = rest[4*offsets:]
	c.links, c.upper = rest[:int(c.Graphed)*cfg.M*8], rest[int(c.Graphed)*cfg.M*8:]
	return c, nil
}

// restore takes the graph of a checkpoint over if it is one of g's vectors. g
// holds all of them and has no graph yet.
func (b *builder) restore(c *checkpoint) error {
	g := b.g
	n := c.Graphed
	plain := c.Coded == 0 && g.coded()
	g.plain.Store(plain)
	if n > g.total.Load() || n != g.boundary(n) || c.Generation != g.id {
		return fmt.Errorf("%w: %d vertices of generation %d", errForeign, n, c.Generation)
	}
	if n == 0 {
		return nil
	}
	vectors := b.sum(n, func(v uint32) digest { return g.vectorHash(v) })
	if vectors != (digest{c.VectorsHi, c.VectorsLo}) {
		return fmt.Errorf("%w: it was built of other vectors", errForeign)
	}
	if err := b.restoreRows(c, n); err != nil {
		return err
	}
	graph := g.graph
	hash := b.sum(n, func(v uint32) (d digest) {
		for layer := 0; layer <= graph.level(v); layer++ {
			row := graph.row(v, layer)
			d.add(rowHash(v, layer, row[:rowLen(row)]))
		}
		return d
	})
	if hash != (digest{c.GraphHi, c.GraphLo}) || uint32(c.Entry) >= n {
		return fmt.Errorf("%w: the graph's hash differs", errDamaged)
	}
	if c.Coded != 0 {
		codec := newCodec(g.cfg)
		codec.trained, codec.offset, codec.radius = c.Trained, c.offset, c.CodecRadius
		codec.scale, codec.inverse = c.Scale, c.Inverse
		codes, err := newCodeset(codec, g.cfg)
		if err != nil {
			return err
		}
		codes.checked = c.Checked
		codes.grow(int(n))
		b.parallel(int(n), func(_ *buildWorker, i int) { codes.add(g, uint32(i)) })
		g.codes.Store(codes)
	}
	graph.entry.Store(c.Entry)
	g.vectorsHash = vectors
	g.radius.Store(c.Radius)
	g.graphHash.Store(&hash)
	g.graphed.Store(n)
	return nil
}

// restoreRows fills the rows of the graph and checks every link.
func (b *builder) restoreRows(c *checkpoint, n uint32) error {
	graph := b.g.graph
	graph.addVertices(0, n)
	if graph.uppers.Load() != c.Uppers {
		return fmt.Errorf("%w: %d rows of upper layers, want %d", errDamaged, c.Uppers, graph.uppers.Load())
	}
	fill := func(rows *arena, raw []byte, count uint32, width int) bool {
		for i := range count {
			row := u32At(rows.row(i), width)
			for j := range row {
				u := binary.LittleEndian.Uint32(raw[(int(i)*width+j)*4:])
				if u != none && u >= n {
					return false
				}
				row[j] = u
			}
		}
		return true
	}
	if !fill(graph.links, c.links, n, graph.m0) || !fill(graph.upper, c.upper, c.Uppers, graph.m) {
		return fmt.Errorf("%w: a link leads nowhere", errDamaged)
	}
	return nil
}

// sum adds fn over the vertices below n, on all workers.
func (b *builder) sum(n uint32, fn func(v uint32) digest) digest {
	const block = 1024
	b.parallel(int((n+block-1)/block), func(w *buildWorker, i int) {
		for v := uint32(i) * block; v < min(n, uint32(i+1)*block); v++ {
			w.hash.add(fn(v))
		}
	})
	return b.takeHash()
}

// takeHash is the sum of what the workers have hashed.
func (b *builder) takeHash() (d digest) {
	for _, w := range b.workers {
		d.add(w.hash)
		w.hash = digest{}
	}
	return d
}
