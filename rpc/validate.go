// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Everything a request can be refused for without looking at documents is
// refused here, before anything is proposed, with the path of the field.

func checkRef(ref string) error {
	switch {
	case ref == "":
		return invalid("collection_id", "must be the id or the name of a collection")
	case len(ref) > maxNameBytes:
		return invalidf("collection_id", "longer than %d bytes", maxNameBytes)
	case !utf8.ValidString(ref):
		return invalid("collection_id", "is not UTF-8")
	}
	return nil
}

func checkName(name string) error {
	const field = "name"
	switch n := utf8.RuneCountInString(name); {
	case !utf8.ValidString(name):
		return invalid(field, "is not UTF-8")
	case n < 1 || n > maxNameRunes:
		return invalidf(field, "must have 1 to %d characters, not %d", maxNameRunes, n)
	case uuid.Validate(name) == nil:
		return invalid(field, "has the form of a UUID, as the ids of collections have; take another, since a reference like it is looked up as an id")
	case name == ".":
		return invalid(field, `must not be ".", which the path of a URL leaves out`)
	case strings.Contains(name, ".."):
		return invalid(field, `must not contain ".."`)
	}
	for i, r := range name {
		if unicode.IsControl(r) || strings.ContainsRune(`<>:"|?*/\`, r) {
			return invalidf(field, "illegal character %q at byte %d", r, i)
		}
	}
	return nil
}

func checkDocID(field, id string) error {
	switch {
	case id == "" || len(id) > maxDocIDBytes:
		return invalidf(field, "must have 1 to %d bytes, not %d", maxDocIDBytes, len(id))
	case !utf8.ValidString(id):
		return invalid(field, "is not UTF-8")
	}
	return nil
}

func checkExternalID(field string, id *string) error {
	switch {
	case id == nil:
		return nil
	case len(*id) > maxExternalID:
		return invalidf(field, "longer than %d bytes", maxExternalID)
	case !utf8.ValidString(*id):
		return invalid(field, "is not UTF-8")
	}
	return nil
}

func checkRequestID(field, id string) error {
	switch {
	case len(id) > maxRequestIDBytes:
		return invalidf(field, "longer than %d bytes", maxRequestIDBytes)
	case !utf8.ValidString(id):
		return invalid(field, "is not UTF-8")
	}
	return nil
}

// checkFinite refuses the first element that is NaN or infinite.
func checkFinite(field string, v []float32) error {
	if i := index.NotFinite(v); i >= 0 {
		return invalidf(fmt.Sprintf("%s[%d]", field, i), "must be a finite number, not %v", v[i])
	}
	return nil
}

// checkVector checks a vector against the collection it is for.
func checkVector(field string, v []float32, rec *fsmv1.CollectionRecord) error {
	if len(v) != int(rec.GetDimension()) {
		return invalidf(field, "has %d elements, but collection %q has dimension %d",
			len(v), rec.GetName(), rec.GetDimension())
	}
	if err := checkFinite(field, v); err != nil {
		return err
	}
	if rec.GetMetric() == fsmv1.Metric_METRIC_COSINE && isZero(v) {
		return invalid(field, "the zero vector has no direction, which metric cosine needs")
	}
	return nil
}

func isZero(v []float32) bool {
	for _, f := range v {
		if f != 0 {
			return false
		}
	}
	return true
}

// payloadOf checks a payload and makes it compact; nil if there is none.
func payloadOf(field string, j *collectionv1.Json) ([]byte, error) {
	raw := j.GetRaw()
	if len(raw) == 0 {
		return nil, nil
	}
	if len(raw) > 4*maxPayloadBytes { // white space cannot be all of it
		return nil, invalidf(field, "larger than %d bytes", maxPayloadBytes)
	}
	d := &jsonDecoder{buf: raw, unique: true}
	d.asPayload()
	switch c := d.peek(); {
	case c == 'n' && d.literal("null") && d.peek() == 0 && d.pos == len(raw):
		return nil, nil
	case c != '{':
		return nil, invalid(field, "must be a JSON object")
	}
	if err := d.skip(); err != nil {
		return nil, invalid(field, err.Error())
	}
	if d.peek() != 0 || d.pos != len(raw) {
		return nil, invalid(field, "has text after the JSON object")
	}
	out := raw
	if bytes.ContainsAny(raw, " \t\r\n") {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return nil, invalid(field, err.Error())
		}
		out = b.Bytes()
	}
	if len(out) > maxPayloadBytes {
		return nil, invalidf(field, "has %d bytes, more than %d", len(out), maxPayloadBytes)
	}
	return out, nil
}

// request is what every request has, so that a client may attach it to all its
// calls.
type request interface {
	GetConsistency() string
	GetSessionToken() string
	GetMaxStalenessMs() uint32
	GetRequestId() string
}

// checkInner refuses in one part of a batch what is given once, for all of it.
func checkInner(field string, r interface {
	request
	GetCollectionId() string
}) error {
	name := ""
	switch {
	case r.GetCollectionId() != "":
		name = "collection_id"
	case r.GetConsistency() != "":
		name = "consistency"
	case r.GetSessionToken() != "":
		name = "session_token"
	case r.GetMaxStalenessMs() != 0:
		name = "max_staleness_ms"
	case r.GetRequestId() != "":
		name = "request_id"
	default:
		return nil
	}
	return invalid(join(field, name), "must be empty; it is given once, for the whole batch")
}

// check checks what every request has, for handlers that it does not steer: a
// write is decided by the one log, after whatever a token stands for.
func (s *service) check(r request) error {
	_, err := s.readOptions(r)
	return err
}

// readOptions checks what every request has; the token is checked by the node,
// which knows its cluster.
func (s *service) readOptions(r request) (node.ReadOptions, error) {
	o := node.ReadOptions{Consistency: node.Consistency(r.GetConsistency())}
	if err := checkRequestID("request_id", r.GetRequestId()); err != nil {
		return o, err
	}
	stale := r.GetMaxStalenessMs()
	switch o.Consistency {
	case "":
		o.Consistency = node.Linearizable
	case node.Linearizable:
	case node.Session, node.Eventual:
		if stale != 0 {
			return o, invalid("max_staleness_ms", "only goes with consistency bounded")
		}
	case node.Bounded:
		if stale == 0 || time.Duration(stale)*time.Millisecond > maxStalenessCeiling {
			return o, invalidf("max_staleness_ms", "must be from 1 to %d with consistency bounded",
				maxStalenessCeiling.Milliseconds())
		}
		o.MaxStaleness = time.Duration(stale) * time.Millisecond
	default:
		return o, invalidf("consistency", "%q is none of linearizable, session, bounded, eventual", r.GetConsistency())
	}
	token := r.GetSessionToken()
	if token == "" {
		return o, nil
	}
	if len(token) > maxTokenBytes {
		return o, invalidf("session_token", "longer than %d bytes", maxTokenBytes)
	}
	logIndex, err := s.node.ParseToken(token)
	if err != nil {
		return o, &invalidError{reason: reasonBadToken, violations: []violation{{"session_token", err.Error()}}}
	}
	o.MinIndex = logIndex
	return o, nil
}

// createOf checks the definition of a new collection.
func createOf(r *collectionv1.CreateCollectionRequest) (*fsmv1.CreateCollection, error) {
	if err := checkName(r.GetName()); err != nil {
		return nil, err
	}
	if d := r.GetDimension(); d < 1 || d > maxDimension {
		return nil, invalidf("dimension", "must be from 1 to %d, not %d", maxDimension, d)
	}
	metric, ok := metricOf(r.GetMetric())
	if !ok {
		return nil, invalidf("metric", "%q is none of cosine, dot, l2", r.GetMetric())
	}
	model := r.GetEmbeddingModel()
	if r.EmbeddingModel != nil {
		if n := len(model); n < 1 || n > maxModelBytes || !utf8.ValidString(model) {
			return nil, invalidf("embedding_model", "must be UTF-8 of 1 to %d bytes", maxModelBytes)
		}
	}
	params, err := paramsOf(r.GetIndex())
	if err != nil {
		return nil, err
	}
	fields, err := payloadIndexesOf(r.GetPayloadIndexes())
	if err != nil {
		return nil, err
	}
	return &fsmv1.CreateCollection{
		Tenant: raftfsm.DefaultTenant, Database: raftfsm.DefaultDatabase,
		Name: r.GetName(), Dimension: r.GetDimension(), Metric: metric, EmbeddingModel: model,
		Index: params, PayloadIndexes: fields,
	}, nil
}

// Defaults of index parameters, resolved here so that the log says what counts.
const (
	defaultM              = 16
	defaultEfConstruction = 200
)

func paramsOf(p *collectionv1.IndexParams) (*fsmv1.IndexParams, error) {
	out := &fsmv1.IndexParams{
		M: p.GetM(), EfConstruction: p.GetEfConstruction(), EfSearch: p.GetEfSearch(),
		Quantization:  strings.ToLower(p.GetQuantization()),
		VectorsOnDisk: p != nil && p.VectorsInRam != nil && !*p.VectorsInRam,
	}
	if out.M == 0 {
		out.M = defaultM
	}
	if out.EfConstruction == 0 {
		out.EfConstruction = max(defaultEfConstruction, out.M)
	}
	if out.Quantization == "" {
		out.Quantization = string(index.DefaultQuantization)
	}
	switch {
	case out.M < 4 || out.M > 128:
		return nil, invalidf("index.m", "must be from 4 to 128, not %d", out.M)
	case out.EfConstruction < 8 || out.EfConstruction > 1000:
		return nil, invalidf("index.ef_construction", "must be from 8 to 1000, not %d", out.EfConstruction)
	case out.EfSearch > maxEf:
		return nil, invalidf("index.ef_search", "must be at most %d, not %d", maxEf, out.EfSearch)
	}
	switch out.Quantization {
	case "none":
		if out.VectorsOnDisk {
			return nil, invalidf("index.vectors_in_ram", "false needs codes to search by: a quantization other than none")
		}
		return out, nil
	case "sq8", "rabitq":
		return out, nil
	}
	return nil, invalidf("index.quantization", "%q is none of none, sq8, rabitq", p.GetQuantization())
}

func payloadIndexesOf(list []*collectionv1.PayloadIndex) ([]*fsmv1.PayloadIndex, error) {
	if len(list) > maxPayloadIndexes {
		return nil, invalidf("payload_indexes", "more than %d", maxPayloadIndexes)
	}
	seen := map[string]bool{}
	out := make([]*fsmv1.PayloadIndex, 0, len(list))
	for i, p := range list {
		field := at("", "payload_indexes", i)
		if err := checkPath(join(field, "key"), p.GetKey()); err != nil {
			return nil, err
		}
		if seen[p.GetKey()] {
			return nil, invalidf(join(field, "key"), "%q is there twice", p.GetKey())
		}
		seen[p.GetKey()] = true
		switch p.GetType() {
		case "keyword", "integer", "float", "bool", "datetime", "geo":
		default:
			return nil, invalidf(join(field, "type"), "%q is none of keyword, integer, float, bool, datetime, geo", p.GetType())
		}
		out = append(out, &fsmv1.PayloadIndex{Key: p.GetKey(), Type: p.GetType()})
	}
	return out, nil
}
