// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/prometheus/client_golang/prometheus"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// TestIndexTakesWhatIsValid: a definition that Apply accepts and the index
// refuses would stop every replica at the same log index, again and again.
func TestIndexTakesWhatIsValid(t *testing.T) {
	h := newHarness(t, Config{})
	n := 0
	for _, dim := range []uint32{1, MaxDimension} {
		for _, m := range []uint32{MinM, MaxM} {
			for _, ef := range []uint32{MinEfConstruction, MaxEfConstruction} {
				for _, q := range []string{"none", "sq8", "rabitq"} {
					c := createCmd(string(rune('a'+n)), string(rune('a'+n)), dim)
					c.GetCreateCollection().Index = &fsmv1.IndexParams{M: m, EfConstruction: ef, EfSearch: MaxEf * uint32(n%2), Quantization: q, VectorsOnDisk: n%3 == 0}
					c.GetCreateCollection().Metric = fsmv1.Metric(1 + n%3)
					for _, typ := range []string{"keyword", "integer", "float", "bool", "datetime", "geo"} {
						c.GetCreateCollection().PayloadIndexes = append(c.GetCreateCollection().PayloadIndexes, &fsmv1.PayloadIndex{Key: typ, Type: typ})
					}
					h.must(c)
					n++
				}
			}
		}
	}
	h.verify()
}

func TestValidateCreateNamesTheField(t *testing.T) {
	for field, spoil := range map[string]func(c *fsmv1.CreateCollection){
		"collection_id":           func(c *fsmv1.CreateCollection) { c.CollectionId = "" },
		"tenant":                  func(c *fsmv1.CreateCollection) { c.Tenant = "" },
		"database":                func(c *fsmv1.CreateCollection) { c.Database = "a/b" },
		"name is empty":           func(c *fsmv1.CreateCollection) { c.Name = "" },
		"control character":       func(c *fsmv1.CreateCollection) { c.Name = "a\u0085" },
		"..":                      func(c *fsmv1.CreateCollection) { c.Name = "a..b" },
		"'?'":                     func(c *fsmv1.CreateCollection) { c.Name = "a?" },
		"256 characters":          func(c *fsmv1.CreateCollection) { c.Name = strings.Repeat("é", 256) },
		"dimension":               func(c *fsmv1.CreateCollection) { c.Dimension = MaxDimension + 1 },
		"metric":                  func(c *fsmv1.CreateCollection) { c.Metric = 9 },
		"embedding_model":         func(c *fsmv1.CreateCollection) { c.EmbeddingModel = strings.Repeat("x", 300) },
		"index.m":                 func(c *fsmv1.CreateCollection) { c.Index.M = 3 },
		"index.ef_construction":   func(c *fsmv1.CreateCollection) { c.Index.EfConstruction = 1001 },
		"index.ef_search":         func(c *fsmv1.CreateCollection) { c.Index.EfSearch = MaxEf + 1 },
		"index.quantization":      func(c *fsmv1.CreateCollection) { c.Index.Quantization = "" },
		"payload_indexes[1].key":  func(c *fsmv1.CreateCollection) { c.PayloadIndexes[1].Key = "a" },
		"payload_indexes[0].type": func(c *fsmv1.CreateCollection) { c.PayloadIndexes[0].Type = "text" },
	} {
		good := createCmd("id", strings.Repeat("é", 255), 3).GetCreateCollection()
		good.PayloadIndexes = []*fsmv1.PayloadIndex{{Key: "a", Type: "bool"}, {Key: "b", Type: "geo"}}
		if err := ValidateCreate(good); err != nil {
			t.Fatal(err)
		}
		bad := proto.CloneOf(good)
		spoil(bad)
		if err := ValidateCreate(bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestValidateWriteNamesTheField(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for want, w := range map[string]*fsmv1.Write{
		"":                    upsert("a", `{"a":[1,{"b":null}]}`, 1, 2),
		"doc_id is empty":     upsert("", "", 1, 2),
		"257 bytes":           upsert(strings.Repeat("x", 257), "", 1, 2),
		"doc_id is not UTF-8": upsert("\xff", "", 1, 2),
		"dimension 2":         upsert("a", "", 1, 2, 3),
		"vector[1]":           upsert("a", "", 1, nan),
		"vector[0]":           upsert("a", "", inf, 1),
		"zero everywhere":     upsert("a", "", 0, float32(math.Copysign(0, -1))),
		"not a JSON object":   upsert("a", "[]", 1, 2),
		"after the object":    upsert("a", "{} x", 1, 2),
		"65537 bytes":         upsert("a", `{"a":"`+strings.Repeat("x", 65529)+`"}`, 1, 2),
		"nested deeper":       upsert("a", strings.Repeat(`{"a":`, 65)+"1"+strings.Repeat("}", 65), 1, 2),
		"patch is empty":      patch("a", ""),
		"a delete has":        {Kind: fsmv1.Write_KIND_DELETE, DocId: "a", Metadata: []byte("{}")},
		"skip_if_unmet":       skip(upsert("a", "", 1, 2)),
		"unknown kind":        {Kind: 7, DocId: "a"},
		"patch or delete":     {Kind: fsmv1.Write_KIND_DELETE, DocId: "a", Vector: []byte{1}},
	} {
		err := ValidateWrite(w, 2, fsmv1.Metric_METRIC_COSINE)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := ValidateVector("query_vector", []float32{1, nan}, 2, fsmv1.Metric_METRIC_L2); err == nil || !strings.Contains(err.Error(), "query_vector[1]") {
		t.Error(err)
	}
	if err := ValidateVector("query_vector", []float32{0, 0}, 2, fsmv1.Metric_METRIC_L2); err != nil {
		t.Error(err)
	}
}

func TestResultErrorKnowsEveryStatus(t *testing.T) {
	seen := map[error]bool{}
	for n, name := range fsmv1.Status_name {
		err := ResultError(&fsmv1.Result{Status: fsmv1.Status(n), Message: "what"})
		if (err == nil) != (n == 0) {
			t.Fatalf("%s: %v", name, err)
		}
		if n != 0 {
			if base := errors.Unwrap(err); base == nil || seen[base] {
				t.Fatalf("%s has no sentinel of its own: %v", name, err)
			} else {
				seen[base] = true
			}
		}
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	r := prometheus.NewRegistry()
	h := newHarness(t, Config{Registerer: r})
	h.must(createCmd("c1", "docs", 1))
	h.must(writeCmd("c1", insert("a", 1)))
	want := map[string]float64{"akidb_fsm_applied_index": 2, "akidb_fsm_documents": 1, "akidb_fsm_entries_total": 2, "akidb_fsm_diverged": 0}
	check := func() {
		t.Helper()
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, f := range families {
			if v, ok := want[f.GetName()]; ok {
				found++
				m := f.GetMetric()[0]
				if got := m.GetGauge().GetValue() + m.GetCounter().GetValue(); got != v {
					t.Errorf("%s is %g, want %g", f.GetName(), got, v)
				}
			}
		}
		if found != len(want) {
			t.Errorf("%d of %d metrics found", found, len(want))
		}
	}
	check()
	if _, err := Open(t.Context(), Config{Dir: "other", FS: h.cfg.FS, Registerer: r}); err == nil {
		t.Fatal("two state machines under the same names")
	}
	check()
	h.reopen()
	want["akidb_fsm_entries_total"] = 0
	check()
}
