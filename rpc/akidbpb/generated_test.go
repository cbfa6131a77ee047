// SPDX-License-Identifier: Apache-2.0

package akidbpb_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	"github.com/akidb/akidb/rpc/akidbpb"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const regenerate = "run `go tool buf generate` at the root of the module"

// TestGeneratedCodeIsNotStale compiles the protos and compares the descriptors
// with those that the generated code carries.
func TestGeneratedCodeIsNotStale(t *testing.T) {
	root := filepath.Join("..", "..")
	for _, c := range []struct {
		dir       string
		generated protoreflect.FileDescriptor
	}{
		{"rpc/akidbpb", collectionv1.File_akidb_collection_v1_collection_proto},
		{"rpc/akidbpb", clusterv1.File_akidb_cluster_v1_cluster_proto},
		{"raftfsm/fsmpb", fsmv1.File_akidb_fsm_v1_command_proto},
	} {
		compiler := protocompile.Compiler{
			Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, c.dir)}}),
		}
		files, err := compiler.Compile(context.Background(), c.generated.Path())
		if err != nil {
			t.Fatal(err)
		}
		want, got := protodesc.ToFileDescriptorProto(files[0]), protodesc.ToFileDescriptorProto(c.generated)
		if !proto.Equal(want, got) {
			t.Errorf("the code of %s is stale: %s\n%s", c.generated.Path(), regenerate,
				firstDifference(prototext.Format(want), prototext.Format(got)))
		}
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if strings.TrimSpace(w[i]) != strings.TrimSpace(g[i]) {
			return "proto: " + w[i] + "\ncode:  " + g[i]
		}
	}
	return "one is longer than the other"
}

// TestEveryMethodHasItsRoute compares gateway.yaml with the generated gateway
// and the OpenAPI document, so that neither is stale.
func TestEveryMethodHasItsRoute(t *testing.T) {
	rules, err := os.ReadFile("gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, path := range []string{"akidb/collection/v1/collection.pb.gw.go", "akidb/cluster/v1/cluster.pb.gw.go"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	routed := map[string]bool{}
	rule := regexp.MustCompile(`selector: (\S+)\.(\w+)\n\s+(?:get|post|put|delete|patch): (\S+)`)
	for _, m := range rule.FindAllStringSubmatch(string(rules), -1) {
		service, method, path := m[1], m[2], m[3]
		routed[service+"."+method] = true
		if want := `"/` + service + "/" + method + `", runtime.WithHTTPPathPattern("` + path + `")`; !strings.Contains(code.String(), want) {
			t.Errorf("the gateway does not route %s.%s by %s: %s", service, method, path, regenerate)
		}
		if documented := regexp.MustCompile(`=\*\*}`).ReplaceAllString(path, "}"); !strings.Contains(string(akidbpb.OpenAPI()), `"`+documented+`"`) {
			t.Errorf("openapi.swagger.json does not have %s: %s", documented, regenerate)
		}
	}
	if len(routed) == 0 {
		t.Fatal("gateway.yaml holds no rule that this test can read")
	}
	for _, file := range []protoreflect.FileDescriptor{
		collectionv1.File_akidb_collection_v1_collection_proto, clusterv1.File_akidb_cluster_v1_cluster_proto} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				streams := m.IsStreamingClient() || m.IsStreamingServer()
				described := service.Name() == "CollectionService" && m.Name() == "Describe" // GetCollection's twin
				if !routed[string(m.FullName())] && !streams && !described {
					t.Errorf("%s has no route in gateway.yaml", m.FullName())
				}
			}
		}
	}
}
