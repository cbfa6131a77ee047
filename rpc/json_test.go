// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// seeded prints the seed of a random test and how to replay it.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := testSeed(t); s != 0 {
		seed = s
	}
	t.Logf("seed %d; replay: AKIDB_SEED=%d go test ./rpc -run '^%s$'", seed, seed, t.Name())
	return rand.New(rand.NewPCG(seed, 0))
}

func TestDecodeFilterAsTheDataSetsWriteIt(t *testing.T) {
	const text = `{"must":[{"key":"label","match":{"value":7}},{"key":"subject","match":{"any":["a",1.5,true]}},
		{"key":"x","range":{"gte":1,"lt":2}},{"key":"y","is_missing":true}],
		"must_not":[{"key":"z","match":{"prefix":"p"}}],
		"should":[{"filter":{"must":[{"key":"w","geo_radius":{"lat":1,"lon":-2.5,"radius_m":10}}]}}]}`
	var f collectionv1.Filter
	if err := decodeJSON([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if got := f.Must[0].Match.Value.GetIntValue(); got != 7 {
		t.Errorf("match.value = %d, want the integer 7", got)
	}
	if got := f.Must[1].Match.Any[1].GetDoubleValue(); got != 1.5 {
		t.Errorf("any[1] = %v, want the double 1.5", got)
	}
	got, err := filterOf("filter", &f)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Must) != 4 || len(got.MustNot) != 1 || got.Should[0].Nested.Must[0].Geo.Lon != -2.5 {
		t.Errorf("filter came out as %+v", got)
	}
	back := string(appendJSON(nil, f.ProtoReflect()))
	var again collectionv1.Filter
	if err := decodeJSON([]byte(back), &again); err != nil || !proto.Equal(&f, &again) {
		t.Errorf("written and read again: %v\n%s", err, back)
	}
}

func TestDecodeRefusesWithPathOrOffset(t *testing.T) {
	for _, c := range []struct{ text, field, say string }{
		{`{"query_vector":[1,2],"top_k":5,"limit":3}`, "limit", "unknown field"},
		{`{"filter":{"must":[{"key":"a"},{"kye":"b"}]}}`, "filter.must[1].kye", "unknown field"},
		{`{"top_k":5,"top_k":6}`, "top_k", "given twice"},
		{`{"top_k":"five"}`, "top_k", "must be an integer"},
		{`{"top_k":1.5}`, "top_k", "must be an integer"},
		{`{"top_k":3000000000}`, "top_k", "must be an integer from"},
		{`{"query_vector":[1,"2"]}`, "query_vector[1]", "must be a number"},
		{`{"query_vector":[1,NaN]}`, "query_vector[1]", "must be a finite number, not NaN"},
		{`{"query_vector":[1,2,-Infinity]}`, "query_vector[2]", "must be a finite number"},
		{`{"query_vector":[1e39]}`, "query_vector[0]", "range of float32"},
		{`{"query_vector":{"a":1}}`, "query_vector", "must be an array"},
		{`{"filter":[]}`, "filter", "must be an object"},
		{`{"filter":{"must":[{"key":"a","match":{"value":[1]}}]}}`, "filter.must[0].match.value", "must be a string, a number"},
		{`{"include_vector":1}`, "include_vector", "must be true or false"},
		{`[]`, "", "must be an object"},
		{`{"top_k":5`, "", "offset 10: expected ','"},
		{`{"top_k":5,}`, "", "offset 11: expected a name"},
		{`{"top_k":5} x`, "", "offset 12: unexpected text"},
		{`{"query_vector":[1,]}`, "query_vector", "offset 19"},
		{`{"query_vector":[01]}`, "query_vector", "leading zero"},
		{`{"query_vector":[1.]}`, "query_vector", "expected a digit"},
		{`{"query_vector":[1 2]}`, "query_vector", "expected ',' or ']'"},
		{`{"query_vector":[-]}`, "query_vector", "expected a digit"},
		{`{"session_token":"\ud800"}`, "session_token", "surrogate"},
		{`{"session_token":"\x"}`, "session_token", "unknown escape"},
		{"{\"session_token\":\"\xff\"}", "session_token", "not UTF-8"},
		{"{\"session_token\":\"a\nb\"}", "session_token", "control character"},
		{`{"filter":{"must":` + strings.Repeat(`[{"filter":{"must":`, 60), "", "nested deeper"},
	} {
		err := decodeJSON([]byte(c.text), &collectionv1.QueryRequest{})
		var iv *invalidError
		if !errors.As(err, &iv) {
			t.Errorf("%s: %v, want a refusal", c.text, err)
			continue
		}
		if got := iv.violations[0]; !strings.Contains(got.description, c.say) ||
			!iv.hasOffset && c.field != "" && got.field != c.field {
			t.Errorf("%.60s: refused %q: %q, want %q: %q", c.text, got.field, got.description, c.field, c.say)
		}
	}
}

func TestDecodeTakesOneOpOfABatch(t *testing.T) {
	err := decodeJSON([]byte(`{"ops":[{"insert":{"doc_id":"a"},"delete":{"doc_id":"a"}}]}`), &collectionv1.BatchRequest{})
	if err == nil || !strings.Contains(err.Error(), "ops[0].delete: not together with insert") {
		t.Errorf("two ops in one: %v", err)
	}
}

func TestDecodeNumbersAndNulls(t *testing.T) {
	var r collectionv1.UpsertRequest
	text := `{"doc_id":"a\u00e9\ud83d\ude00\n","external_id":null,"vector":[],"if_version":"18446744073709551615",
		"metadata":{"big":12345678901234567890.000100, "s":"\u0041"}}`
	if err := decodeJSON([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.DocId != "aé😀\n" || r.ExternalId != nil || r.GetIfVersion() != math.MaxUint64 {
		t.Errorf("read %v", &r)
	}
	if got := string(r.Metadata.Raw); got != `{"big":12345678901234567890.000100, "s":"\u0041"}` {
		t.Errorf("payload came out as %s; every digit is to be kept", got)
	}
	if err := decodeJSON([]byte(`{"if_version":7.0}`), &r); err == nil {
		var again collectionv1.UpsertRequest
		if err := decodeJSON([]byte(`{"if_version":7e0}`), &again); err != nil || again.GetIfVersion() != 7 {
			t.Errorf("7e0: %v %v", &again, err)
		}
	} else {
		t.Error(err)
	}
	if err := decodeJSON([]byte("  \n"), &r); !errors.Is(err, io.EOF) {
		t.Errorf("empty body: %v, want io.EOF", err)
	}
}

func TestEncodeKeepsTheShapesOfTheOriginal(t *testing.T) {
	for _, c := range []struct {
		m    proto.Message
		want string
	}{
		{&collectionv1.GetResponse{AppliedIndex: 1 << 60}, `{"document":null,"applied_index":1152921504606846976,"session_token":"","served_by":"","consistency":""}`},
		{&collectionv1.VectorMatch{DocId: "a\"<", Distance: 0.1}, `{"doc_id":"a\"<","external_id":null,"distance":0.1,"version":0}`},
		{&collectionv1.QueryResponse{}, `{"matches":[],"latency_ms":0,"applied_index":0,"session_token":"","served_by":"","consistency":""}`},
		{&collectionv1.VectorMatch{Distance: 4770894, Vector: []float32{1, -0.5, 1e-9}, Metadata: &collectionv1.Json{Raw: []byte(`{"a":1.0}`)}},
			`{"doc_id":"","external_id":null,"distance":4770894,"metadata":{"a":1.0},"vector":[1,-0.5,1e-09],"version":0}`},
	} {
		if got := string(appendJSON(nil, c.m.ProtoReflect())); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestEveryFloatListIsKnown fails when a message gets a vector that floatField
// does not know, which would work, but slowly.
func TestEveryFloatListIsKnown(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{
		collectionv1.File_akidb_collection_v1_collection_proto, clusterv1.File_akidb_cluster_v1_cluster_proto} {
		for i := range file.Messages().Len() {
			md := file.Messages().Get(i)
			if md.Fields().Len() > 64 {
				t.Errorf("%s has more than the 64 fields that the decoder can tell apart", md.FullName())
			}
			for j := range md.Fields().Len() {
				fd := md.Fields().Get(j)
				if !fd.IsList() || fd.Kind() != protoreflect.FloatKind {
					continue
				}
				typ, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
				if err != nil {
					t.Fatal(err)
				}
				m := typ.New()
				p := floatField(m)
				if p == nil {
					t.Errorf("floatField does not know %s", fd.FullName())
					continue
				}
				*p = []float32{1, 2}
				if m.Get(fd).List().Len() != 2 {
					t.Errorf("floatField names another field than %s", fd.FullName())
				}
			}
		}
	}
}

// TestFloat32TokenIsCorrectlyRounded compares with strconv: printed floats,
// halves between two floats and their neighbours, and random digits.
func TestFloat32TokenIsCorrectlyRounded(t *testing.T) {
	rng := seeded(t)
	check := func(text string) {
		t.Helper()
		want, err := strconv.ParseFloat(text, 32)
		d := &jsonDecoder{buf: []byte(text)}
		got, gotErr := d.float32Token()
		if (err != nil) != (gotErr != nil) || err == nil && math.Float32bits(got) != math.Float32bits(float32(want)) {
			t.Fatalf("%s: got %v %v, want %v %v", text, got, gotErr, float32(want), err)
		}
		if gotErr == nil && d.pos != len(text) {
			t.Fatalf("%s: read %d of %d bytes", text, d.pos, len(text))
		}
	}
	for _, text := range []string{"0", "-0", "0.0", "-0.0", "1", "3.4028235e38", "3.4028236e38", "1e-45", "1e-46", "1e-400",
		"0.00000000000000000000001", "16777217", "16777219", "9999999999999999999", "99999999999999999999", "0.1", "1.17549435e-38",
		"8589973000", "0.000000000000000000000000000000000000001", "340282350000000000000000000000000000000"} {
		check(text)
	}
	for range 300_000 {
		f := math.Float32frombits(rng.Uint32() &^ (1 << 31))
		if f != f || math.IsInf(float64(f), 0) {
			continue
		}
		if rng.IntN(2) == 0 { // the range of embeddings
			f = (rng.Float32() - 0.5) * float32(math.Pow(10, float64(rng.IntN(6)-3)))
		}
		switch rng.IntN(4) {
		case 0:
			check(strconv.FormatFloat(float64(f), 'f', -1, 32))
		case 1:
			check(strconv.FormatFloat(float64(f), 'f', -1, 64)) // as Python prints a float32
		case 2:
			half := (float64(f) + float64(math.Nextafter32(f, 2*f+1))) / 2
			check(strconv.FormatFloat(half, 'f', rng.IntN(25), 64))
			check(strconv.FormatFloat(half, 'g', -1, 64))
		default:
			digits := strconv.FormatUint(rng.Uint64()>>rng.IntN(63), 10)
			cut := rng.IntN(len(digits)) + 1
			text := digits[:cut]
			if cut < len(digits) {
				text += "." + digits[cut:]
			}
			check("-" + text)
		}
	}
}

// TestRandomMessagesSurviveJSON writes random messages and reads them back.
func TestRandomMessagesSurviveJSON(t *testing.T) {
	rng := seeded(t)
	for range 3000 {
		for _, m := range []proto.Message{&collectionv1.QueryRequest{}, &collectionv1.BatchRequest{}, &collectionv1.ScrollResponse{},
			&collectionv1.DescribeResponse{}, &clusterv1.StatusResponse{}, &collectionv1.CreateCollectionRequest{}} {
			fill(rng, m.ProtoReflect(), 0)
			text := appendJSON(nil, m.ProtoReflect())
			if !json.Valid(text) {
				t.Fatalf("not JSON: %s", text)
			}
			back := m.ProtoReflect().New().Interface()
			if err := decodeJSON(text, back); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if !proto.Equal(m, back) {
				t.Fatalf("came back as another message\n%s\n%s", text, appendJSON(nil, back.ProtoReflect()))
			}
		}
	}
}

// fill sets random fields of m to random values.
func fill(rng *rand.Rand, m protoreflect.Message, depth int) {
	switch v := m.Interface().(type) {
	case *collectionv1.Json:
		v.Raw = []byte([]string{`{"a":[1,2,{"b":null}]}`, `{}`, `{"x":1.50}`}[rng.IntN(3)])
		return
	case *collectionv1.Value:
		switch rng.IntN(4) {
		case 0:
			v.Kind = &collectionv1.Value_StringValue{StringValue: randomText(rng)}
		case 1:
			v.Kind = &collectionv1.Value_IntValue{IntValue: int64(rng.Uint64())}
		case 2:
			v.Kind = &collectionv1.Value_DoubleValue{DoubleValue: rng.NormFloat64()}
		default:
			v.Kind = &collectionv1.Value_BoolValue{BoolValue: rng.IntN(2) == 0}
		}
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() && m.WhichOneof(o) != nil {
			continue
		}
		switch {
		case rng.IntN(3) == 0 || depth > 5 && fd.Kind() == protoreflect.MessageKind:
		case fd.IsList():
			l := m.Mutable(fd).List()
			for range rng.IntN(3) {
				if fd.Kind() == protoreflect.MessageKind {
					fill(rng, l.AppendMutable().Message(), depth+1)
				} else {
					l.Append(randomScalar(rng, fd.Kind()))
				}
			}
		case fd.Kind() == protoreflect.MessageKind:
			fill(rng, m.Mutable(fd).Message(), depth+1)
		default:
			m.Set(fd, randomScalar(rng, fd.Kind()))
		}
	}
}

func randomScalar(rng *rand.Rand, k protoreflect.Kind) protoreflect.Value {
	switch k {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(randomText(rng))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rng.IntN(2) == 0)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(rng.Uint32()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rng.Uint32())
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(rng.Uint64()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rng.Uint64())
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(rng.NormFloat64()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rng.NormFloat64() * 1e9)
	}
	panic(fmt.Sprintf("no random %v", k))
}

func randomText(rng *rand.Rand) string {
	runes := []rune("ab\"\\\n\t\x00\x1fé😀/<>\u2028")
	var b strings.Builder
	for range rng.IntN(8) {
		b.WriteRune(runes[rng.IntN(len(runes))])
	}
	return b.String()
}

// FuzzDecodeJSON: what is accepted is JSON by the standard library too, and is
// the same message when it is written and read again.
func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"query_vector":[1,-2.5e-3],"top_k":10,"filter":{"must":[{"key":"a","match":{"value":"x"}}]}}`))
	f.Add([]byte(`{"query_vector":[0.1, 1E2],"score_threshold":0.5,"metadata_fields":["a\u00e9"],"rescore":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m collectionv1.QueryRequest
		if decodeJSON(text, &m) != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("accepted what is not JSON: %q", text)
		}
		out := appendJSON(nil, m.ProtoReflect())
		var again collectionv1.QueryRequest
		if err := decodeJSON(out, &again); err != nil || !proto.Equal(&m, &again) {
			t.Fatalf("%q was written as %q: %v", text, out, err)
		}
	})
}

func BenchmarkDecodeQuery(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := []byte(`{"top_k":10,"query_vector":[`)
	for i := range 768 {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendFloat(text, rng.NormFloat64()/20, 'f', -1, 64)
	}
	text = append(text, ']', '}')
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var m collectionv1.QueryRequest
		if err := decodeJSON(text, &m); err != nil {
			b.Fatal(err)
		}
	}
}

// nameSet agrees with a map, below and beyond the names it keeps in place.
func TestNameSetFindsWhatComesTwice(t *testing.T) {
	rng := seeded(t)
	for range 300 {
		var set nameSet
		seen := map[string]bool{}
		for range rng.IntN(60) {
			name := strconv.Itoa(rng.IntN(200))
			if got := set.add(name); got == seen[name] {
				t.Fatalf("%s is new: %v, after %v", name, got, seen)
			}
			if seen[name] {
				break
			}
			seen[name] = true
		}
	}
}

// A request of few bytes cannot make messages without end: an empty one takes two
// or three bytes, and a hundred times that in memory.
func TestObjectsOfARequestAreBounded(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	inner := `{"filter":{"must":[{}` + strings.Repeat(",{}", 1<<16) + `]}},`
	r := b.do("POST", "/api/v1/collections/c/query_batch", `{"queries":[`+strings.Repeat(inner, 17)+`{}]}`)
	if r.status != 400 || !strings.Contains(r.text, "more than 1048576 objects") || r.at("error", "details", "violations", 0, "field") == "queries" {
		t.Errorf("REST: %d %.300s", r.status, r.text)
	}
	for _, n := range []int{maxObjects, maxObjects + 1} {
		q := append([]byte{0x0a, 1, 'c'}, bytes.Repeat([]byte{0x12, 0}, n)...)
		err := b.conn.Invoke(t.Context(), collectionv1.CollectionService_QueryBatch_FullMethodName, &rawMessage{q}, &rawMessage{}, grpc.ForceCodec(rawCodec{}))
		want := "queries: must have 1 to 1000 elements"
		if n > maxObjects {
			want = "more than 1048576 messages"
		}
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("gRPC with %d: %v", n, err)
		}
	}
}
