// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// TestEveryRequestHasTheCommonFields walks the API: a client may attach its
// session token and the rest to all its calls.
func TestEveryRequestHasTheCommonFields(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{
		collectionv1.File_akidb_collection_v1_collection_proto, clusterv1.File_akidb_cluster_v1_cluster_proto} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				in := methods.Get(j).Input()
				for name, want := range map[protoreflect.Name]struct {
					number protoreflect.FieldNumber
					kind   protoreflect.Kind
				}{"consistency": {20, protoreflect.StringKind}, "session_token": {21, protoreflect.StringKind},
					"max_staleness_ms": {22, protoreflect.Uint32Kind}, "request_id": {23, protoreflect.StringKind}} {
					if fd := in.Fields().ByName(name); fd == nil || fd.Number() != want.number || fd.Kind() != want.kind {
						t.Errorf("%s: field %s is %v, want number %d of kind %v", in.FullName(), name, fd, want.number, want.kind)
					}
				}
			}
		}
	}
}

// TestEveryRouteTakesTheCommonFields sends the four fields by every route, in
// the body or the query, right and wrong.
func TestEveryRouteTakesTheCommonFields(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 2, "l2")
	b.create("victim", 2, "l2")
	token := b.must("POST", "/api/v1/collections/c/upsert", `{"doc_id":"d","vector":[1,2]}`).at("session_token").(string)
	// What a POST needs beside the four. Where a request would change the members
	// it stays incomplete: then 400 names another field than the four.
	bodies := map[string]string{
		"Query": `"query_vector":[1,2],"top_k":1`, "Insert": `"vector":[1,2]`, "Upsert": `"vector":[1,2]`,
		"PatchPayload": `"doc_id":"d","metadata":{"a":1}`, "Batch": `"ops":[{"upsert":{"vector":[1,2]}}]`,
		"DeleteMany": `"doc_ids":["nobody"]`, "QueryBatch": `"queries":[{"query_vector":[1,2],"top_k":1}]`,
		"Fetch": `"doc_ids":["d"]`, "Count": ``, "Scroll": ``, "CreateCollection": `"name":"new","dimension":2,"metric":"l2"`,
		"AddMember": ``, "PromoteMember": ``, "TransferLeader": `"node_id":"` + strings.Repeat("x", maxNodeIDBytes+1) + `"`, "Snapshot": ``, "ClearAlarm": ``,
		"Verify": ``,
	}
	rules, err := os.ReadFile(filepath.Join("akidbpb", "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`selector: \S+\.(\w+)\n\s+(get|post|delete): (\S+)`).FindAllStringSubmatch(string(rules), -1)
	if len(routes) < 20 {
		t.Fatalf("gateway.yaml holds only %d routes that this test can read", len(routes))
	}
	n := 0
	send := func(name, verb, path, consistency, token, stale string) reply {
		n++
		if name == "DeleteCollection" {
			path = strings.Replace(path, "{collection_id}", "victim", 1)
		}
		path = strings.NewReplacer("{collection_id}", "c", "{doc_id=**}", "d", "{node_id}", strings.Repeat("x", maxNodeIDBytes+1)).Replace(path)
		if verb != "post" {
			q := url.Values{"consistency": {consistency}, "session_token": {token}, "request_id": {fmt.Sprintf("r%d", n)}}
			if stale != "" {
				q.Set("max_staleness_ms", stale)
			}
			return b.do(strings.ToUpper(verb), path+"?"+q.Encode(), "")
		}
		body, ok := bodies[name]
		if !ok {
			t.Fatalf("what does a %s need? say it above", name)
		}
		if body != "" {
			body += ","
		}
		if stale != "" {
			body += `"max_staleness_ms":` + stale + `,`
		}
		return b.do("POST", path, fmt.Sprintf(`{%s"consistency":%q,"session_token":%q,"request_id":"r%d"}`, body, consistency, token, n))
	}
	for _, r := range routes {
		name, verb, path := r[1], r[2], r[3]
		got := send(name, verb, path, "bounded", token, "3600000")
		field, _ := got.at("error", "details", "violations", 0, "field").(string)
		if got.status == 400 && field != "node_id" && field != "kind" {
			t.Errorf("%s with all four: %d %s", name, got.status, got.text)
		}
		if id := got.header.Get("X-Akidb-Request-Id"); id != fmt.Sprintf("r%d", n) {
			t.Errorf("%s: the request id came back as %q", name, id)
		}
		if got = send(name, verb, path, "strong", token, ""); got.status != 400 || got.at("error", "details", "violations", 0, "field") != "consistency" {
			t.Errorf("%s with a wrong consistency: %d %s", name, got.status, got.text)
		}
		if got = send(name, verb, path, "session", "zzz.1", ""); got.status != 400 || got.at("error", "details", "reason") != "BAD_SESSION_TOKEN" ||
			!strings.Contains(got.text, "session_token") {
			t.Errorf("%s with a wrong token: %d %s", name, got.status, got.text)
		}
	}
	// What a write finds is decided by the log, and it says so.
	if got := send("Upsert", "post", "/api/v1/collections/{collection_id}/upsert", "eventual", token, ""); got.at("consistency") != "linearizable" {
		t.Errorf("an upsert that asked for eventual: %s", got.text)
	}
	if got := b.do("POST", "/api/v1/collections/c/batch", `{"ops":[{"upsert":{"vector":[1,2],"session_token":"`+token+`"}}]}`); got.status != 400 ||
		got.at("error", "details", "violations", 0, "field") != "ops[0].upsert.session_token" {
		t.Errorf("a token within a batch: %d %s", got.status, got.text)
	}
}
