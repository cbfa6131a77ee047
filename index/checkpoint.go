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
