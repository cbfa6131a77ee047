// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// The Validate functions are pure. A proposer calls them before anything is
// proposed; Apply calls them again, because a log may hold what an older or a
// broken proposer let through, and answers STATUS_INVALID. Each error wraps
// ErrInvalid and names the field.

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// ValidateName checks the name of a collection, database or tenant; field is how
// the error calls it.
func ValidateName(field, name string) error {
	if name == "" {
		return invalid("%s is empty", field)
	}
	if !utf8.ValidString(name) {
		return invalid("%s is not UTF-8", field)
	}
	if n := utf8.RuneCountInString(name); n > MaxNameRunes {
		return invalid("%s has %d characters, at most %d are allowed", field, n, MaxNameRunes)
	}
	if strings.Contains(name, "..") {
		return invalid("%s contains \"..\"", field)
	}
	for _, r := range name {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return invalid("%s contains the control character U+%04X", field, r)
		}
		if strings.ContainsRune("<>:\"|?*/\\", r) {
			return invalid("%s contains the character %q", field, r)
		}
	}
	return nil
}

// ValidateDocID checks a document id.
func ValidateDocID(id string) error {
	if id == "" {
		return invalid("doc_id is empty")
	}
	if len(id) > MaxDocIDBytes {
		return invalid("doc_id has %d bytes, at most %d are allowed", len(id), MaxDocIDBytes)
	}
	if !utf8.ValidString(id) {
		return invalid("doc_id is not UTF-8")
	}
	return nil
}

// ValidateExternalID checks an external id.
func ValidateExternalID(id string) error {
	if len(id) > MaxExternalIDBytes {
		return invalid("external_id has %d bytes, at most %d are allowed", len(id), MaxExternalIDBytes)
	}
	if !utf8.ValidString(id) {
		return invalid("external_id is not UTF-8")
	}
	return nil
}

// ValidateRequestID checks a request id; none is fine.
func ValidateRequestID(id string) error {
	if len(id) > MaxRequestIDBytes {
		return invalid("request_id has %d bytes, at most %d are allowed", len(id), MaxRequestIDBytes)
	}
	if !utf8.ValidString(id) {
		return invalid("request_id is not UTF-8")
	}
	return nil
}

// ValidateVector checks the values of a document's or query's vector.
func ValidateVector(field string, v []float32, dimension uint32, metric fsmv1.Metric) error {
	if len(v) != int(dimension) {
		return invalid("%s has %d values, the collection has dimension %d", field, len(v), dimension)
	}
	zero := true
	for i, x := range v {
		bits := math.Float32bits(x)
		if bits>>23&0xff == 0xff {
			return invalid("%s[%d] is not a finite number", field, i)
		}
		zero = zero && bits<<1 == 0
	}
	if zero && metric == fsmv1.Metric_METRIC_COSINE {
		return invalid("%s is zero everywhere, which has no direction under cosine", field)
	}
	return nil
}

// validateVectorBytes is ValidateVector of the encoded values.
func validateVectorBytes(b []byte, dimension uint32, metric fsmv1.Metric) error {
	if len(b) != 4*int(dimension) {
		return invalid("vector has %d bytes, the collection has dimension %d of 4 bytes each", len(b), dimension)
	}
	zero := true
	for i := 0; i < len(b); i += 4 {
		bits := binary.LittleEndian.Uint32(b[i:])
		if bits>>23&0xff == 0xff {
			return invalid("vector[%d] is not a finite number", i/4)
		}
		zero = zero && bits<<1 == 0
	}
	if zero && metric == fsmv1.Metric_METRIC_COSINE {
		return invalid("vector is zero everywhere, which has no direction under cosine")
	}
	return nil
}

// EncodeVector encodes a vector as Write.vector has it.
func EncodeVector(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decodeVector(dst []float32, b []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

// ValidateMetadata checks a payload: nothing or a JSON object.
func ValidateMetadata(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > MaxMetadataBytes {
		return invalid("metadata has %d bytes, at most %d are allowed", len(b), MaxMetadataBytes)
	}
	if err := checkObject(b); err != nil {
		return invalid("metadata: %v", err)
	}
	return nil
}

// ValidateWrite checks a write for a collection of the given dimension and
// metric, apart from the state.
func ValidateWrite(w *fsmv1.Write, dimension uint32, metric fsmv1.Metric) error {
	if err := ValidateDocID(w.GetDocId()); err != nil {
		return err
	}
	stores := false
	switch w.GetKind() {
	case fsmv1.Write_KIND_INSERT, fsmv1.Write_KIND_UPSERT:
		stores = true
		if err := validateVectorBytes(w.GetVector(), dimension, metric); err != nil {
			return err
		}
	case fsmv1.Write_KIND_PATCH:
		if len(w.GetMetadata()) == 0 {
			return invalid("metadata of a patch is empty")
		}
	case fsmv1.Write_KIND_DELETE:
		if len(w.GetMetadata()) != 0 {
			return invalid("a delete has metadata")
		}
	default:
		return invalid("unknown kind of write %d", w.GetKind())
	}
	if !stores && (len(w.GetVector()) != 0 || w.ExternalId != nil) {
		return invalid("a patch or delete has a vector or an external_id")
	}
	if w.GetSkipIfUnmet() && w.GetKind() != fsmv1.Write_KIND_DELETE {
		return invalid("skip_if_unmet is for deletes only")
	}
	if w.ExternalId != nil {
		if err := ValidateExternalID(*w.ExternalId); err != nil {
			return err
		}
	}
	return ValidateMetadata(w.GetMetadata())
}

// ValidateCreate checks the definition of a collection.
func ValidateCreate(c *fsmv1.CreateCollection) error {
	if n := len(c.GetCollectionId()); n == 0 || n > 64 {
		return invalid("collection_id has %d bytes, 1 to 64 are allowed", n)
	}
	for _, f := range []struct{ field, name string }{
		{"tenant", c.GetTenant()}, {"database", c.GetDatabase()}, {"name", c.GetName()},
	} {
		if err := ValidateName(f.field, f.name); err != nil {
			return err
		}
	}
	if d := c.GetDimension(); d == 0 || d > MaxDimension {
		return invalid("dimension is %d, 1 to %d are allowed", d, MaxDimension)
	}
	switch c.GetMetric() {
	case fsmv1.Metric_METRIC_COSINE, fsmv1.Metric_METRIC_DOT, fsmv1.Metric_METRIC_L2:
	default:
		return invalid("unknown metric %d", c.GetMetric())
	}
	if len(c.GetEmbeddingModel()) > MaxEmbeddingModel || !utf8.ValidString(c.GetEmbeddingModel()) {
		return invalid("embedding_model is not UTF-8 or has more than %d bytes", MaxEmbeddingModel)
	}
	if err := validateIndexParams(c.GetIndex()); err != nil {
		return err
	}
	return validatePayloadIndexes(c.GetPayloadIndexes())
}

func validateIndexParams(p *fsmv1.IndexParams) error {
	if m := p.GetM(); m < MinM || m > MaxM {
		return invalid("index.m is %d, %d to %d are allowed", m, MinM, MaxM)
	}
	if ef := p.GetEfConstruction(); ef < MinEfConstruction || ef > MaxEfConstruction {
		return invalid("index.ef_construction is %d, %d to %d are allowed", ef, MinEfConstruction, MaxEfConstruction)
	}
	if ef := p.GetEfSearch(); ef > MaxEf {
		return invalid("index.ef_search is %d, at most %d is allowed", ef, MaxEf)
	}
	switch p.GetQuantization() {
	case "none", "sq8", "rabitq":
		return nil
	}
	return invalid("index.quantization %q is not one of none, sq8, rabitq", p.GetQuantization())
}

func validatePayloadIndexes(ps []*fsmv1.PayloadIndex) error {
	if len(ps) > MaxPayloadIndexes {
		return invalid("%d payload_indexes, at most %d are allowed", len(ps), MaxPayloadIndexes)
	}
	seen := make(map[string]bool, len(ps))
	for i, p := range ps {
		if k := p.GetKey(); k == "" || len(k) > 256 || !utf8.ValidString(k) || seen[k] {
			return invalid("payload_indexes[%d].key is empty, too long, no UTF-8 or there twice", i)
		}
		seen[p.GetKey()] = true
		switch p.GetType() {
		case "keyword", "integer", "float", "bool", "datetime", "geo":
		default:
			return invalid("payload_indexes[%d].type %q is not one of keyword, integer, float, bool, datetime, geo", i, p.GetType())
		}
	}
	return nil
}
