// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Inside, smaller is nearer under every metric and the word is distance. Only
// this file knows the scores of the API: cosine similarity and inner product,
// where higher is closer, and the squared Euclidean distance, where lower is.

// scoreOf turns a distance into the score of the API, which is always a number.
func scoreOf(m fsmv1.Metric, distance float32) float32 {
	distance = finiteDistance(distance)
	switch m {
	case fsmv1.Metric_METRIC_COSINE:
		return 1 - distance
	case fsmv1.Metric_METRIC_DOT:
		return 0 - distance // not -distance: that makes -0 of 0
	}
	return distance
}

// finiteDistance is the largest float32 there is, with its sign, for a distance
// beyond it: finite vectors may be so far apart. What is no number, since parts
// of an inner product beyond float32 took each other back, is as far as can be.
func finiteDistance(d float32) float32 {
	switch f := float64(d); {
	case math.IsInf(f, -1):
		return -math.MaxFloat32
	case math.IsInf(f, 1), math.IsNaN(f):
		return math.MaxFloat32
	}
	return d
}

// distanceBound is a distance that no document within the score threshold
// exceeds. It is rounded outwards; reachesScore then decides exactly.
func distanceBound(m fsmv1.Metric, threshold float32) float32 {
	d := threshold
	switch m {
	case fsmv1.Metric_METRIC_COSINE:
		// A distance of codes has digits that its score has no room for, so that one
		// somewhat beyond 1 - threshold may still come to the threshold.
		t := float64(threshold)
		d = float32(1 - t + 0x1p-23*max(1, math.Abs(t)))
	case fsmv1.Metric_METRIC_DOT:
		d = -threshold
	}
	return math.Nextafter32(d, float32(math.Inf(1)))
}

// reachesScore reports whether a score is at least as close as the threshold.
func reachesScore(m fsmv1.Metric, score, threshold float32) bool {
	if m == fsmv1.Metric_METRIC_L2 {
		return score <= threshold
	}
	return score >= threshold
}

// metricOf reads a metric's name, in any case; false if there is none such.
func metricOf(name string) (fsmv1.Metric, bool) {
	switch strings.ToLower(name) {
	case "cosine":
		return fsmv1.Metric_METRIC_COSINE, true
	case "dot":
		return fsmv1.Metric_METRIC_DOT, true
	case "l2":
		return fsmv1.Metric_METRIC_L2, true
	}
	return fsmv1.Metric_METRIC_UNSPECIFIED, false
}

func metricName(m fsmv1.Metric) string {
	switch m {
	case fsmv1.Metric_METRIC_COSINE:
		return "cosine"
	case fsmv1.Metric_METRIC_DOT:
		return "dot"
	case fsmv1.Metric_METRIC_L2:
		return "l2"
	}
	return ""
}

// timeText is a proposer's clock as the API shows it.
func timeText(unixMs uint64) string {
	return time.UnixMilli(int64(unixMs)).UTC().Format("2006-01-02T15:04:05.000Z")
}

// appendVector appends a vector as commands carry it.
func appendVector(dst []byte, v []float32) []byte {
	for _, f := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
	}
	return dst
}

func indexParams(p *fsmv1.IndexParams) *collectionv1.IndexParams {
	inRAM := !p.GetVectorsOnDisk()
	return &collectionv1.IndexParams{
		M: p.GetM(), EfConstruction: p.GetEfConstruction(), EfSearch: p.GetEfSearch(),
		Quantization: p.GetQuantization(), VectorsInRam: &inRAM,
	}
}

func indexStatus(s index.Status) *collectionv1.IndexStatus {
	m := s.Memory
	return &collectionv1.IndexStatus{
		Graphed: uint64(s.Graphed), Total: uint64(s.Total), Garbage: uint64(s.Garbage),
		GraphHash:   s.GraphHash,
		MemoryBytes: uint64(m.Vectors + m.Codes + m.Graph + m.Payload + m.Slots),
	}
}

func payloadIndexes(list []*fsmv1.PayloadIndex) []*collectionv1.PayloadIndex {
	out := make([]*collectionv1.PayloadIndex, 0, len(list))
	for _, p := range list {
		out = append(out, &collectionv1.PayloadIndex{Key: p.GetKey(), Type: p.GetType()})
	}
	return out
}

func collectionInfo(c *raftfsm.Collection) *collectionv1.CollectionInfo {
	r := c.Record()
	return &collectionv1.CollectionInfo{
		CollectionId: r.GetCollectionId(), Name: r.GetName(), Dimension: r.GetDimension(),
		Metric: metricName(r.GetMetric()), DocumentCount: uint64(c.Len()),
		CreatedAt: timeText(r.GetCreatedAtMs()), Index: indexParams(r.GetIndex()),
		IndexStatus:    indexStatus(c.IndexStatus()),
		PayloadIndexes: payloadIndexes(r.GetPayloadIndexes()),
		EmbeddingModel: r.GetEmbeddingModel(),
	}
}

func vectorDocument(d *raftfsm.Document) *collectionv1.VectorDocument {
	return &collectionv1.VectorDocument{
		DocId: d.ID, ExternalId: d.ExternalID, Vector: d.Vector, Metadata: jsonOf(d.Metadata),
		Version: d.Version, InsertedAt: timeText(d.InsertedAtMs), UpdatedAt: timeText(d.UpdatedAtMs),
	}
}

// jsonOf is nil for a document without payload.
func jsonOf(raw []byte) *collectionv1.Json {
	if len(raw) == 0 {
		return nil
	}
	return &collectionv1.Json{Raw: raw}
}

// projectJSON keeps the named top-level fields of a stored payload, in the order
// in which they are stored.
func projectJSON(raw []byte, fields map[string]bool) []byte {
	if len(raw) == 0 {
		return nil
	}
	d := &jsonDecoder{buf: raw}
	out := []byte{'{'}
	if d.expect('{') != nil {
		return raw
	}
	for d.peek() == '"' {
		from := d.pos
		name, err := d.stringToken()
		if err != nil || d.expect(':') != nil || d.skip() != nil {
			return raw
		}
		if fields[name] {
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, raw[from:d.pos]...)
		}
		if d.peek() == ',' {
			d.pos++
		}
	}
	return append(out, '}')
}
