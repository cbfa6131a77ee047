// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// TestOriginalRequests sends what clients of the single-node AkiDB send and
// looks for what they look for.
func TestOriginalRequests(t *testing.T) {
	b := newBench(t, nil)
	r := b.do("POST", "/api/v1/collections", `{"name":"docs","dimension":3,"metric":"COSINE","embedding_model":"none"}`)
	id, _ := r.at("collection_id").(string)
	if r.status != 201 || r.at("name") != "docs" || r.at("dimension") != "3" || r.at("metric") != "cosine" {
		t.Fatalf("create: %d %s", r.status, r.text)
	}
	if u, err := uuid.Parse(id); err != nil || u.Version() != 7 {
		t.Errorf("collection_id %q is no UUIDv7", id)
	}
	path := "/api/v1/collections/" + id
	r = b.must("GET", path, "")
	if r.at("collection", "collection_id") != id || r.at("collection", "document_count") != "0" || r.at("collection", "created_at") == nil {
		t.Errorf("get: %s", r.text)
	}
	r = b.must("GET", "/api/v1/collections", "")
	if r.at("collections", 0, "name") != "docs" {
		t.Errorf("list: %s", r.text)
	}
	const doc = "01890a5d-ac96-774b-bcce-b302099a8057"
	r = b.do("POST", path+"/insert", `{"doc_id":"`+doc+`","external_id":"ext","vector":[0.5,0.25,-0.125]}`)
	if r.status != 200 || r.at("doc_id") != doc || r.at("latency_ms") == nil {
		t.Errorf("insert: %d %s", r.status, r.text)
	}
	b.must("POST", path+"/insert", `{"doc_id":"01890a5d-ac96-774b-bcce-b302099a8058","vector":[-1,0,0]}`)
	r = b.do("POST", path+"/query", `{"query_vector":[0.5,0.25,-0.125],"top_k":2}`)
	if r.status != 200 || r.at("matches", 0, "doc_id") != doc || r.at("matches", 0, "external_id") != "ext" ||
		!strings.Contains(r.text, `"external_id":null`) || r.at("latency_ms") == nil {
		t.Errorf("query: %d %s", r.status, r.text)
	}
	score, err := r.at("matches", 0, "distance").(string), error(nil)
	var f float64
	if err = json.Unmarshal([]byte(score), &f); err != nil || math.Abs(f-1) > 1e-6 {
		t.Errorf("similarity of a vector with itself is %s", score)
	}
	r = b.do("GET", path+"/docs/"+doc, "")
	if r.status != 200 || r.at("document", "doc_id") != doc || r.at("document", "external_id") != "ext" ||
		!strings.Contains(r.text, `"vector":[0.5,0.25,-0.125]`) || r.at("document", "inserted_at") == nil {
		t.Errorf("get document: %d %s", r.status, r.text)
	}
	r = b.do("GET", path+"/docs/01890a5d-ac96-774b-bcce-000000000000", "")
	if r.status != 200 || !strings.Contains(r.text, `"document":null`) {
		t.Errorf("missing document: %d %s", r.status, r.text)
	}
	r = b.do("DELETE", path+"/docs/"+doc, "")
	if r.status != 200 || r.at("latency_ms") == nil {
		t.Errorf("delete document: %d %s", r.status, r.text)
	}
	if r = b.do("DELETE", path+"/docs/"+doc, ""); r.status != 404 {
		t.Errorf("delete a document that is not there: %d %s", r.status, r.text)
	}
	if r = b.do("DELETE", path, ""); r.status != 204 || r.text != "" {
		t.Errorf("delete collection: %d %q", r.status, r.text)
	}
	if r = b.do("GET", path, ""); r.status != 404 {
		t.Errorf("get a dropped collection: %d %s", r.status, r.text)
	}
	r = b.do("GET", "/health", "")
	if r.status != 200 || r.text != `{"message":"Service is alive and operational","status":"healthy"}`+"\n" {
		t.Errorf("health: %d %s", r.status, r.text)
	}
	if r = b.do("GET", "/ready", ""); r.status != 200 || r.at("status") != "ready" {
		t.Errorf("ready: %d %s", r.status, r.text)
	}
	r = b.do("GET", "/admin/health", "")
	if r.status != 200 || r.at("status") != "healthy" || r.at("version") != "test" || r.at("uptime_seconds") == nil {
		t.Errorf("admin health: %d %s", r.status, r.text)
	}
	for _, c := range []string{"database", "storage", "memory", "raft", "cluster"} {
		if r.at("components", c, "status") != "healthy" {
			t.Errorf("admin health: component %s: %s", c, r.text)
		}
	}
	// An alarm of another node shows here too, and degrades the cluster alone.
	_, err = b.node.Propose(t.Context(), &fsmv1.Command{Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{Kind: "TEST", NodeId: "n9", Message: "made up"}}})
	if err != nil {
		t.Fatal(err)
	}
	r = b.do("GET", "/admin/health", "")
	if r.status != 200 || r.at("status") != "degraded" || r.at("components", "cluster", "status") != "degraded" || r.at("components", "storage", "status") != "healthy" ||
		r.at("components", "cluster", "message") != "TEST on n9: made up" || r.at("components", "cluster", "details", "alarms", 0, "node_id") != "n9" {
		t.Errorf("admin health with an alarm: %d %s", r.status, r.text)
	}
	if r = b.do("GET", "/metrics", ""); r.status != 200 || !strings.Contains(r.text, `akidb_build_info{version="test"} 1`) ||
		!strings.Contains(r.text, `akidb_http_requests_total{method="DELETE",path="/api/v1/collections/{collection_id}",status_code="204"} 1`) {
		t.Errorf("metrics: %d %.2000s", r.status, r.text)
	}
	for _, gone := range [][2]string{{"POST", "/admin/collections/x/dlq/retry"}, {"POST", "/admin/circuit-breaker/reset"},
		{"GET", "/api/v1/collections/x/tier"}, {"POST", "/api/v1/collections/x/tier"}, {"GET", "/api/v1/metrics/tiers"}, {"POST", "/api/v1/embed"}} {
		if r := b.do(gone[0], gone[1], ""); r.status != 501 || r.at("error", "details", "reason") != "NOT_SUPPORTED" {
			t.Errorf("%v: %d %s", gone, r.status, r.text)
		}
	}
}

// TestBadInput sends every kind of wrong input and expects the code, the field,
// and that nothing was written.
func TestBadInput(t *testing.T) {
	b := newBench(t, nil)
	b.create("l2", 3, "l2")
	b.create("cos", 2, "cosine")
	b.must("POST", "/api/v1/collections/l2/insert", `{"doc_id":"taken","vector":[1,2,3]}`)
	big := strings.Repeat("x", 65<<10)
	ops := func(n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, `,{"delete":{"doc_id":"d%d"}}`, i)
		}
		return `{"ops":[` + s.String()[1:] + `]}`
	}
	before := b.must("POST", "/api/v1/collections/l2/count", "{}")
	hash := b.must("GET", "/admin/cluster/status", "").at("state_hash")
	const c, l, co = "/api/v1/collections", "/api/v1/collections/l2", "/api/v1/collections/cos"
	for _, k := range []struct {
		name, path, body string
		status           int
		reason, field    string
	}{
		{"wrong dimension", l + "/insert", `{"doc_id":"a","vector":[1,2]}`, 400, "INVALID_ARGUMENT", "vector"},
		{"no vector", l + "/insert", `{"doc_id":"a"}`, 400, "INVALID_ARGUMENT", "vector"},
		{"NaN", l + "/insert", `{"doc_id":"a","vector":[1,NaN,3]}`, 400, "INVALID_ARGUMENT", "vector[1]"},
		{"infinity", l + "/upsert", `{"doc_id":"a","vector":[1,2,Infinity]}`, 400, "INVALID_ARGUMENT", "vector[2]"},
		{"beyond float32", l + "/upsert", `{"doc_id":"a","vector":[1,2,1e40]}`, 400, "INVALID_ARGUMENT", "vector[2]"},
		{"zero under cosine", co + "/upsert", `{"doc_id":"a","vector":[0,-0.0]}`, 400, "INVALID_ARGUMENT", "vector"},
		{"zero query under cosine", co + "/query", `{"query_vector":[0,0],"top_k":1}`, 400, "INVALID_ARGUMENT", "query_vector"},
		{"duplicate insert", l + "/insert", `{"doc_id":"taken","vector":[1,2,3]}`, 409, "DOCUMENT_EXISTS", ""},
		{"long id", l + "/insert", `{"doc_id":"` + strings.Repeat("x", 257) + `","vector":[1,2,3]}`, 400, "INVALID_ARGUMENT", "doc_id"},
		{"metadata no object", l + "/insert", `{"doc_id":"a","vector":[1,2,3],"metadata":[1]}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"metadata too large", l + "/insert", `{"doc_id":"a","vector":[1,2,3],"metadata":{"a":"` + big + `"}}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"metadata too deep", l + "/insert", `{"doc_id":"a","vector":[1,2,3],"metadata":` + strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat(`}`, 64) + `}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"metadata with a name twice", l + "/insert", `{"doc_id":"a","vector":[1,2,3],"metadata":{"a":1,"\u0061":2}}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"deep metadata with a name twice", l + "/upsert", `{"doc_id":"a","vector":[1,2,3],"metadata":{"x":[{"a":1,"b":2,"a":2}]}}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"patch with a name twice", l + "/patch", `{"doc_id":"taken","metadata":{"a":1,"a":1}}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"batch with a name twice", l + "/batch", `{"ops":[{"upsert":{"doc_id":"a","vector":[1,2,3],"metadata":{"a":1,"a":1}}}]}`, 400, "INVALID_ARGUMENT", "ops[0].upsert.metadata"},
		{"name like an id", c, `{"name":"0190A0B1-0000-7000-8000-00000000000A","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"geo without lat", l + "/count", `{"filter":{"must":[{"key":"a","geo_radius":{"lon":0,"radius_m":1}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].geo_radius.lat"},
		{"geo with lon null", l + "/count", `{"filter":{"must":[{"key":"a","geo_radius":{"lat":0,"lon":null,"radius_m":1}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].geo_radius.lon"},
		{"geo without radius_m", l + "/count", `{"filter":{"must":[{"key":"a","geo_radius":{"lat":0,"lon":0}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].geo_radius.radius_m"},
		{"delete by an empty filter", l + "/delete", `{"filter":{}}`, 400, "INVALID_ARGUMENT", "filter"},
		{"delete by empty lists", l + "/delete", `{"filter":{"must":[],"should":[]}}`, 400, "INVALID_ARGUMENT", "filter"},
		{"name with slash", c, `{"name":"a/b","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"name with dots", c, `{"name":"a..b","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"name that is a step of a path", c, `{"name":".","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"name with control character", c, `{"name":"a\u0007","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"no name", c, `{"dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"long name", c, `{"name":"` + strings.Repeat("é", 256) + `","dimension":3,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "name"},
		{"duplicate name", c, `{"name":"l2","dimension":3,"metric":"l2"}`, 409, "COLLECTION_EXISTS", ""},
		{"dimension 0", c, `{"name":"n","metric":"l2"}`, 400, "INVALID_ARGUMENT", "dimension"},
		{"dimension too large", c, `{"name":"n","dimension":16385,"metric":"l2"}`, 400, "INVALID_ARGUMENT", "dimension"},
		{"unknown metric", c, `{"name":"n","dimension":3,"metric":"hamming"}`, 400, "INVALID_ARGUMENT", "metric"},
		{"index.m", c, `{"name":"n","dimension":3,"metric":"l2","index":{"m":3}}`, 400, "INVALID_ARGUMENT", "index.m"},
		{"quantization", c, `{"name":"n","dimension":3,"metric":"l2","index":{"quantization":"pq"}}`, 400, "INVALID_ARGUMENT", "index.quantization"},
		{"none on disk", c, `{"name":"n","dimension":3,"metric":"l2","index":{"quantization":"none","vectors_in_ram":false}}`, 400, "INVALID_ARGUMENT", "index.vectors_in_ram"},
		{"payload index", c, `{"name":"n","dimension":3,"metric":"l2","payload_indexes":[{"key":"a","type":"text"}]}`, 400, "INVALID_ARGUMENT", "payload_indexes[0].type"},
		{"empty batch", l + "/batch", `{"ops":[]}`, 400, "INVALID_ARGUMENT", "ops"},
		{"oversize batch", l + "/batch", ops(10_001), 400, "INVALID_ARGUMENT", "ops"},
		{"bad op deep in a batch", l + "/batch", `{"ops":[{"insert":{"doc_id":"a","vector":[1,2,3]}},{"delete":{"doc_id":""}}]}`, 400, "INVALID_ARGUMENT", "ops[1].delete.doc_id"},
		{"NaN deep in a batch", l + "/batch", `{"ops":[{"insert":{"doc_id":"a","vector":[1,2,3]}},{"upsert":{"doc_id":"b","vector":[1,2,NaN]}}]}`, 400, "INVALID_ARGUMENT", "ops[1].upsert.vector[2]"},
		{"op of nothing", l + "/batch", `{"ops":[{}]}`, 400, "INVALID_ARGUMENT", "ops[0]"},
		{"document twice", l + "/batch", `{"ops":[{"insert":{"doc_id":"a","vector":[1,2,3]}},{"delete":{"doc_id":"a"}}]}`, 400, "INVALID_ARGUMENT", "ops[1].delete.doc_id"},
		{"collection inside a batch", l + "/batch", `{"ops":[{"insert":{"collection_id":"cos","doc_id":"a","vector":[1,2,3]}}]}`, 400, "INVALID_ARGUMENT", "ops[0].insert.collection_id"},
		{"duplicate in a batch", l + "/batch", `{"ops":[{"insert":{"doc_id":"a","vector":[1,2,3]}},{"insert":{"doc_id":"taken","vector":[1,2,3]}}]}`, 409, "DOCUMENT_EXISTS", ""},
		{"version mismatch", l + "/upsert", `{"doc_id":"taken","vector":[1,2,3],"if_version":1}`, 412, "VERSION_MISMATCH", ""},
		{"must not exist", l + "/upsert", `{"doc_id":"taken","vector":[1,2,3],"if_version":0}`, 412, "VERSION_MISMATCH", ""},
		{"patch of nothing", l + "/patch", `{"doc_id":"nobody","metadata":{"a":1}}`, 404, "DOCUMENT_NOT_FOUND", ""},
		{"patch without metadata", l + "/patch", `{"doc_id":"taken"}`, 400, "INVALID_ARGUMENT", "metadata"},
		{"unknown collection", c + "/nobody/insert", `{"doc_id":"a","vector":[1,2,3]}`, 404, "COLLECTION_NOT_FOUND", ""},
		{"unknown collection to query", c + "/nobody/query", `{"query_vector":[1],"top_k":1}`, 404, "COLLECTION_NOT_FOUND", ""},
		{"unknown field", l + "/insert", `{"doc_id":"a","vector":[1,2,3],"metadta":{}}`, 400, "INVALID_ARGUMENT", "metadta"},
		{"unknown filter field", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"filter":{"must":[{"key":"a","mtach":{"value":1}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].mtach"},
		{"unknown filter operator", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"filter":{"must":[{"key":"a","range":{"above":1}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].range.above"},
		{"condition without test", l + "/count", `{"filter":{"should":[{"key":"a"}]}}`, 400, "INVALID_ARGUMENT", "filter.should[0]"},
		{"two tests", l + "/count", `{"filter":{"must":[{"key":"a","match":{"value":1},"is_missing":false}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0]"},
		{"mixed range", l + "/count", `{"filter":{"must":[{"key":"a","range":{"gt":1,"lt":"2026-01-01T00:00:00Z"}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].range"},
		{"no datetime", l + "/count", `{"filter":{"must":[{"key":"a","range":{"gt":"yesterday"}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].range.gt"},
		{"off the globe", l + "/count", `{"filter":{"must":[{"key":"a","geo_radius":{"lat":91,"lon":0,"radius_m":1}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].geo_radius.lat"},
		{"key with empty part", l + "/count", `{"filter":{"must_not":[{"key":"a..b","is_missing":true}]}}`, 400, "INVALID_ARGUMENT", "filter.must_not[0].key"},
		{"long prefix", l + "/count", `{"filter":{"must":[{"key":"a","match":{"prefix":"` + strings.Repeat("x", 257) + `"}}]}}`, 400, "INVALID_ARGUMENT", "filter.must[0].match.prefix"},
		{"top_k 0", l + "/query", `{"query_vector":[1,2,3]}`, 400, "INVALID_ARGUMENT", "top_k"},
		{"top_k too large", l + "/query", `{"query_vector":[1,2,3],"top_k":10001}`, 400, "INVALID_ARGUMENT", "top_k"},
		{"empty query", l + "/query", `{"query_vector":[],"top_k":1}`, 400, "INVALID_ARGUMENT", "query_vector"},
		{"query of wrong dimension", l + "/query", `{"query_vector":[1],"top_k":1}`, 400, "INVALID_ARGUMENT", "query_vector"},
		{"ef", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"ef":10001}`, 400, "INVALID_ARGUMENT", "ef"},
		{"recall target", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"recall_target":"0.5"}`, 400, "INVALID_ARGUMENT", "recall_target"},
		{"in a batch of queries", l + "/query_batch", `{"queries":[{"query_vector":[1,2,3],"top_k":1},{"query_vector":[1,2,3],"top_k":-1}]}`, 400, "INVALID_ARGUMENT", "queries[1].top_k"},
		{"unknown consistency", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"consistency":"strong"}`, 400, "INVALID_ARGUMENT", "consistency"},
		{"bounded without bound", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"consistency":"bounded"}`, 400, "INVALID_ARGUMENT", "max_staleness_ms"},
		{"foreign token", l + "/query", `{"query_vector":[1,2,3],"top_k":1,"session_token":"zzz.1"}`, 400, "BAD_SESSION_TOKEN", "session_token"},
		{"scroll limit", l + "/scroll", `{"limit":10001}`, 400, "INVALID_ARGUMENT", "limit"},
		{"cursor", l + "/scroll", `{"cursor":"!"}`, 400, "INVALID_ARGUMENT", "cursor"},
		{"fetch nothing", l + "/fetch", `{}`, 400, "INVALID_ARGUMENT", "doc_ids"},
		{"fetch an empty id", l + "/fetch", `{"doc_ids":["a",""]}`, 400, "INVALID_ARGUMENT", "doc_ids[1]"},
		{"delete nothing", l + "/delete", `{}`, 400, "INVALID_ARGUMENT", "doc_ids"},
		{"delete both ways", l + "/delete", `{"doc_ids":["a"],"filter":{"must":[{"key":"a","is_missing":true}]}}`, 400, "INVALID_ARGUMENT", "filter"},
		{"long request id", l + "/upsert", `{"doc_id":"a","vector":[1,2,3],"request_id":"` + strings.Repeat("x", 101) + `"}`, 400, "INVALID_ARGUMENT", "request_id"},
		{"malformed JSON", l + "/insert", `{"doc_id":"a","vector":[1,2,3]`, 400, "MALFORMED_JSON", ""},
		{"no JSON at all", l + "/insert", `hello`, 400, "MALFORMED_JSON", ""},
		{"no address", "/admin/cluster/members", `{"node_id":"n9"}`, 400, "INVALID_ARGUMENT", "raft_addr"},
		{"address without port", "/admin/cluster/members", `{"node_id":"n9","raft_addr":"localhost"}`, 400, "INVALID_ARGUMENT", "raft_addr"},
		{"address without host", "/admin/cluster/members", `{"node_id":"n9","raft_addr":":9444"}`, 400, "INVALID_ARGUMENT", "raft_addr"},
		{"address with a word for a port", "/admin/cluster/members", `{"node_id":"n9","raft_addr":"localhost:raft"}`, 400, "INVALID_ARGUMENT", "raft_addr"},
		{"node that no node can be", "/admin/cluster/members", `{"node_id":"n 9","raft_addr":"localhost:9444"}`, 400, "INVALID_ARGUMENT", "node_id"},
		{"node with a control character", "/admin/cluster/members", `{"node_id":"n9\u0000","raft_addr":"localhost:9444"}`, 400, "INVALID_ARGUMENT", "node_id"},
		{"node with a long id", "/admin/cluster/members", `{"node_id":"` + strings.Repeat("n", 129) + `","raft_addr":"localhost:9444"}`, 400, "INVALID_ARGUMENT", "node_id"},
		{"lead by a stranger", "/admin/cluster/transfer-leader", `{"node_id":"n9"}`, 400, "INVALID_ARGUMENT", "node_id"},
		{"unknown kind of alarm", "/admin/cluster/alarms/clear", `{"kind":"nospace"}`, 400, "INVALID_ARGUMENT", "kind"},
		{"promote a stranger", "/admin/cluster/members/n9/promote", `{}`, 404, "MEMBER_NOT_FOUND", ""},
		{"collection of body and path", l + "/upsert", `{"collection_id":"cos","doc_id":"a","vector":[1,2,3]}`, 400, "INVALID_ARGUMENT", "collection_id"},
		{"node of body and path", "/admin/cluster/members/n1/promote", `{"node_id":"n2"}`, 400, "INVALID_ARGUMENT", "node_id"},
		{"parameter of a POST", l + "/count?consistency=eventual", `{}`, 400, "INVALID_ARGUMENT", "consistency"},
	} {
		t.Run(k.name, func(t *testing.T) {
			r := b.do("POST", k.path, k.body)
			if r.status != k.status || r.at("error", "details", "reason") != k.reason {
				t.Fatalf("%d %s, want %d %s", r.status, r.text, k.status, k.reason)
			}
			if got := r.at("error", "details", "violations", 0, "field"); k.field != "" && got != k.field {
				t.Errorf("names field %v, want %s: %s", got, k.field, r.text)
			}
			if k.reason == "MALFORMED_JSON" && r.at("error", "details", "offset") == nil {
				t.Errorf("no offset: %s", r.text)
			}
		})
	}
	for _, k := range []struct {
		method, path  string
		status        int
		reason, field string
	}{
		{"GET", l + "/docs/a?consistncy=eventual", 400, "INVALID_ARGUMENT", "consistncy"},
		{"GET", l + "/docs/a?max_staleness_ms=x", 400, "INVALID_ARGUMENT", "max_staleness_ms"},
		{"GET", l + "/docs/a?consistency=eventual&consistency=session", 400, "INVALID_ARGUMENT", "consistency"},
		{"GET", l + "/docs/a?consistency=linear", 400, "INVALID_ARGUMENT", "consistency"},
		{"GET", l + "/docs/" + strings.Repeat("x", 257), 400, "INVALID_ARGUMENT", "doc_id"},
		{"GET", l + "/docs/%FF", 400, "INVALID_ARGUMENT", "doc_id"},
		{"DELETE", l + "/docs/taken?if_version=1", 412, "VERSION_MISMATCH", ""},
		{"GET", "/api/v1/nothing", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", l + "/docs", 404, "ROUTE_NOT_FOUND", ""},
		{"DELETE", "/admin/cluster/members/n9", 404, "MEMBER_NOT_FOUND", ""},
		{"DELETE", l + "/docs/taken?doc_id=other", 400, "INVALID_ARGUMENT", "doc_id"},
		{"GET", l + "/docs/taken?collection_id=cos", 400, "INVALID_ARGUMENT", "collection_id"},
		{"GET", l + "/docs/taken?collection_id=l2&doc_id=taken", 200, "", ""},
		{"PUT", l, 405, "METHOD_NOT_ALLOWED", ""},
		{"POST", "/livez", 405, "METHOD_NOT_ALLOWED", ""},
		{"DELETE", c + "/nobody", 404, "COLLECTION_NOT_FOUND", ""},
	} {
		r := b.do(k.method, k.path, "")
		if r.status != k.status || k.reason != "" && r.at("error", "details", "reason") != k.reason {
			t.Errorf("%s %s: %d %s, want %d %s", k.method, k.path, r.status, r.text, k.status, k.reason)
		}
		if got := r.at("error", "details", "violations", 0, "field"); k.field != "" && got != k.field {
			t.Errorf("%s %s: names field %v, want %s", k.method, k.path, got, k.field)
		}
		if k.status != 200 && (r.at("error", "code") == nil || r.at("error", "message") == nil || r.at("error", "details") == nil) {
			t.Errorf("%s %s: not the shape of an error: %s", k.method, k.path, r.text)
		}
	}
	if r := b.do("POST", l+"/insert", `{"doc_id":"`+strings.Repeat("x", maxMessageBytes)+`"}`); r.status != 413 ||
		r.at("error", "details", "reason") != "REQUEST_TOO_LARGE" {
		t.Errorf("body of 40 MiB: %d %.300s", r.status, r.text)
	}
	after := b.must("POST", l+"/count", "{}")
	if before.at("count") != after.at("count") {
		t.Errorf("count was %v and is %v: something was half written", before.at("count"), after.at("count"))
	}
	// Refusals by the state are in the log, so only the documents may not change.
	if r := b.must("POST", l+"/scroll", `{"include_vector":true}`); r.at("documents", 0, "doc_id") != "taken" || r.at("documents", 1) != nil {
		t.Errorf("documents changed: %s (hash before %v)", r.text, hash)
	}
}

func TestDocumentIDsInPaths(t *testing.T) {
	b := newBench(t, nil)
	b.create("c d", 1, "dot")
	for _, k := range []struct{ id, path string }{
		{"a/b", "a%2Fb"}, {"a/b/c", "a/b/c"}, {"x%2Fy", "x%252Fy"}, {"100%", "100%25"}, {"ü ö", "%C3%BC%20%C3%B6"},
		{"q?x=1#f", "q%3Fx=1%23f"}, {"a:b", "a:b"}, {"a+b", "a+b"}, {"docs", "docs"}, {"..", "%2E%2E"}, {"/lead", "%2Flead"}, {"trail/", "trail%2F"},
		{"a//b", "a%2F%2fb"},
	} {
		body, err := json.Marshal(map[string]any{"doc_id": k.id, "vector": []float32{1}})
		if err != nil {
			t.Fatal(err)
		}
		b.must("POST", "/api/v1/collections/c%20d/upsert", string(body))
		if r := b.do("GET", "/api/v1/collections/c%20d/docs/"+k.path, ""); r.status != 200 || r.at("document", "doc_id") != k.id {
			t.Errorf("GET of %q by %s: %d %s", k.id, k.path, r.status, r.text)
		}
		if r := b.do("DELETE", "/api/v1/collections/c%20d/docs/"+k.path, ""); r.status != 200 {
			t.Errorf("DELETE of %q by %s: %d %s", k.id, k.path, r.status, r.text)
		}
	}
}

func TestRepliesSayHowTheyCameAbout(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	r := b.must("POST", "/api/v1/collections/c/upsert", `{"doc_id":"a","vector":[1],"metadata":{"n":1.50}}`)
	if r.at("created") != true || r.at("version") != r.at("applied_index") || r.at("consistency") != "linearizable" || r.at("served_by") != "n1" {
		t.Errorf("upsert: %s", r.text)
	}
	token, _ := r.at("session_token").(string)
	for _, k := range []struct{ method, path, body, consistency string }{
		{"GET", "/api/v1/collections/c/docs/a", "", "linearizable"},
		{"GET", "/api/v1/collections/c/docs/a?consistency=eventual", "", "eventual"},
		{"GET", "/api/v1/collections/c/docs/a?consistency=session&session_token=" + token, "", "session"},
		{"GET", "/api/v1/collections/c?consistency=bounded&max_staleness_ms=60000", "", "bounded"},
		{"POST", "/api/v1/collections/c/query", `{"query_vector":[1],"top_k":1,"consistency":"session","session_token":"` + token + `"}`, "session"},
		{"POST", "/api/v1/collections/c/query_batch", `{"queries":[{"query_vector":[1],"top_k":1}],"consistency":"bounded","max_staleness_ms":"60000"}`, "bounded"},
		{"POST", "/api/v1/collections/c/scroll", `{"consistency":"eventual"}`, "eventual"},
		{"POST", "/api/v1/collections/c/count", ``, "linearizable"},
		{"POST", "/api/v1/collections/c/fetch", `{"doc_ids":["a"]}`, "linearizable"},
	} {
		r := b.must(k.method, k.path, k.body)
		for header, field := range map[string]string{"X-Akidb-Applied-Index": "applied_index", "X-Akidb-Session-Token": "session_token",
			"X-Akidb-Served-By": "served_by", "X-Akidb-Consistency": "consistency"} {
			if v := r.at(field); v == nil || v == "" || v == "0" || r.header.Get(header) != v {
				t.Errorf("%s %s: %s is %v, header %q", k.method, k.path, field, v, r.header.Get(header))
			}
		}
		if r.at("consistency") != k.consistency {
			t.Errorf("%s %s had consistency %v", k.method, k.path, r.at("consistency"))
		}
	}
	if r := b.must("GET", "/api/v1/collections/c/docs/a", ""); !strings.Contains(r.text, `"metadata":{"n":1.50}`) {
		t.Errorf("payload lost its digits: %s", r.text)
	}
	if r := b.do("DELETE", "/api/v1/collections/c?request_id=r1", ""); r.status != 204 || r.header.Get("X-Akidb-Applied-Index") == "" {
		t.Errorf("drop: %d %v", r.status, r.header)
	}
	if r := b.do("DELETE", "/api/v1/collections/c?request_id=r1", ""); r.status != 204 {
		t.Errorf("the same drop again: %d %s", r.status, r.text)
	}
}

func TestOpenAPIDocumentIsServed(t *testing.T) {
	b := newBench(t, nil)
	r := b.must("GET", "/openapi.json", "")
	if r.at("swagger") != "2.0" || r.at("definitions", "v1QueryResponse", "properties", "applied_index", "type") != "integer" {
		t.Errorf("64-bit integers are not numbers: %.300s", r.text)
	}
	if r.at("definitions", "googleRpcStatus", "properties", "error", "properties", "code", "type") != "string" {
		t.Error("errors do not have our shape")
	}
	if strings.Contains(r.text, `"format":"int64","type":"string"`) || strings.Contains(r.text, `"format":"uint64","type":"string"`) {
		t.Error("some 64-bit integer is still a string")
	}
	if r := b.do("HEAD", "/readyz", ""); r.status != http.StatusOK {
		t.Errorf("HEAD /readyz: %d", r.status)
	}
}

func TestFloatsComeBackAsTheyWere(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 5, "l2")
	vector := []float32{0.1, -3.4028235e38, 1e-45, 16777217, 0.33333334}
	text := string(appendFloats(nil, (&collectionv1.InsertRequest{Vector: vector}).ProtoReflect(),
		(&collectionv1.InsertRequest{}).ProtoReflect().Descriptor().Fields().ByName("vector")))
	b.must("POST", "/api/v1/collections/c/insert", `{"doc_id":"a","vector":`+text+`}`)
	got, err := b.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range got.Document.Vector {
		if math.Float32bits(f) != math.Float32bits(vector[i]) {
			t.Errorf("element %d is %v, was %v", i, f, vector[i])
		}
	}
}

// A payload may have 63 levels, and what refuses more says so, wherever the text
// grows too deep.
func TestDepthOfPayloadsIsNamed(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	for _, levels := range []int{64, 99, 500} {
		r := b.do("POST", "/api/v1/collections/c/upsert", `{"doc_id":"a","vector":[1],"metadata":`+
			strings.Repeat(`{"a":`, levels)+`1`+strings.Repeat(`}`, levels)+`}`)
		if r.status != 400 || !strings.Contains(r.text, "nested deeper than 63 levels") || r.at("error", "details", "violations", 0, "field") != "metadata" {
			t.Errorf("%d levels: %d %s", levels, r.status, r.text)
		}
	}
}

// Finite vectors whose distance is beyond float32 still have a number for it.
func TestDistancesBeyondFloat32AreNumbers(t *testing.T) {
	b := newBench(t, nil)
	for _, k := range []struct{ metric, vector, query, want string }{
		{"l2", "[3e38,3e38]", "[-3e38,-3e38]", "340282346638528860000000000000000000000"},
		{"dot", "[3e38,3e38]", "[3e38,3e38]", "340282346638528860000000000000000000000"},
		{"dot", "[3e38,3e38]", "[-3e38,-3e38]", "-340282346638528860000000000000000000000"},
		{"dot", "[3e38,-3e38]", "[3e38,3e38]", "-340282346638528860000000000000000000000"},
	} {
		name := fmt.Sprintf("%s%s%s", k.metric, k.vector[1:4], k.query[1:4]) + k.vector[5:7]
		b.create(name, 2, k.metric)
		b.must("POST", "/api/v1/collections/"+name+"/upsert", `{"doc_id":"a","vector":`+k.vector+`}`)
		r := b.must("POST", "/api/v1/collections/"+name+"/query", `{"top_k":1,"query_vector":`+k.query+`}`)
		got, _ := strconv.ParseFloat(fmt.Sprint(r.at("matches", 0, "distance")), 32)
		want, _ := strconv.ParseFloat(k.want, 32)
		if float32(got) != float32(want) {
			t.Errorf("%+v: %s", k, r.text)
		}
	}
}

// An id is found in any spelling of a UUID, by reads, writes and drops.
func TestIDsInAnySpelling(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	id := b.must("GET", "/api/v1/collections/c", "").at("collection", "collection_id").(string)
	upper := "/api/v1/collections/" + strings.ToUpper(id)
	b.must("POST", upper+"/upsert", `{"doc_id":"a","vector":[1]}`)
	if r := b.must("POST", upper+"/count", `{}`); r.at("count") != "1" {
		t.Errorf("count: %s", r.text)
	}
	b.must("POST", upper+"/delete", `{"filter":{"must":[{"key":"x","is_missing":true}]}}`)
	b.must("DELETE", upper, "")
	if r := b.do("GET", "/api/v1/collections/c", ""); r.status != 404 {
		t.Errorf("dropped: %d %s", r.status, r.text)
	}
}

// A body takes memory as it comes, not as it is announced.
func TestAnnouncedBodiesTakeNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body := &restBody{ReadCloser: io.NopCloser(strings.NewReader("{")), length: maxMessageBytes}
	if got, err := body.readAll(); string(got) != "{" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("a body of one byte that was announced with %d took %d", maxMessageBytes, took)
	}
	text := strings.Repeat("0123456789", 100_000)
	for _, length := range []int64{-1, int64(len(text))} {
		body = &restBody{ReadCloser: io.NopCloser(strings.NewReader(text)), length: length}
		if got, err := body.readAll(); string(got) != text || err != nil {
			t.Errorf("%d bytes of %d with length %d: %v", len(got), len(text), length, err)
		}
	}
}

// The body of a DELETE is not lost in silence: it may say if_version.
func TestDeleteTakesNoBody(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	b.upsert("c", "a", []float32{1}, "")
	for _, path := range []string{"/api/v1/collections/c/docs/a", "/api/v1/collections/c"} {
		if r := b.do("DELETE", path, `{"if_version":1}`); r.status != 400 || r.at("error", "details", "reason") != "INVALID_ARGUMENT" {
			t.Errorf("DELETE %s: %d %s", path, r.status, r.text)
		}
	}
	if n := b.count("c"); n != 1 {
		t.Errorf("%d documents are left", n)
	}
	for _, body := range []string{"{}", " ", ""} {
		if r := b.do("DELETE", "/api/v1/collections/c/docs/nobody", body); r.status != 404 {
			t.Errorf("with body %q: %d %s", body, r.status, r.text)
		}
	}
}

// A page of another site cannot make a browser write to a node.
func TestPagesOfOtherSitesWriteNothing(t *testing.T) {
	b := newBench(t, nil)
	const body = `{"name":"c","dimension":1,"metric":"l2"}`
	for _, header := range []http.Header{
		{"Origin": {"http://elsewhere.example"}, "Content-Type": {"text/plain"}},
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {"null"}},
	} {
		if r := b.send("POST", "/api/v1/collections", body, header); r.status != 403 || r.at("error", "details", "reason") != "CROSS_ORIGIN" {
			t.Errorf("%v: %d %s", header, r.status, r.text)
		}
	}
	if r := b.do("GET", "/api/v1/collections/c", ""); r.status != 404 {
		t.Errorf("created all the same: %d %s", r.status, r.text)
	}
	for _, header := range []http.Header{{"Origin": {b.rest}}, {"Sec-Fetch-Site": {"same-origin"}}} {
		if r := b.send("DELETE", "/api/v1/collections/c", "", header); r.status != 404 {
			t.Errorf("of its own site, %v: %d %s", header, r.status, r.text)
		}
	}
	if r := b.send("GET", "/health", "", http.Header{"Sec-Fetch-Site": {"cross-site"}}); r.status != 200 {
		t.Errorf("health: %d %s", r.status, r.text)
	}
}
