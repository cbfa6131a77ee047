// SPDX-License-Identifier: Apache-2.0

package akidbpb_test

import (
	"context"
	"io/fs"
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
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	_ "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	"github.com/akidb/akidb/rpc/akidbpb"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const regenerate = "run `go tool buf generate` at the root of the module"

// TestGeneratedCodeIsNotStale compiles every proto of the module and compares
// the descriptors with those that the generated code carries.
func TestGeneratedCodeIsNotStale(t *testing.T) {
	root := filepath.Join("..", "..")
	config, err := os.ReadFile(filepath.Join(root, "buf.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	modules := regexp.MustCompile(`- path: (\S+)`).FindAllStringSubmatch(string(config), -1)
	if len(modules) == 0 {
		t.Fatal("buf.yaml holds no module that this test can read")
	}
	for _, m := range modules {
		dir := filepath.Join(root, m[1])
		compiler := protocompile.Compiler{
			Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".proto" {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			compareGenerated(t, &compiler, filepath.ToSlash(name))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func compareGenerated(t *testing.T, compiler *protocompile.Compiler, name string) {
	t.Helper()
	generated, err := protoregistry.GlobalFiles.FindFileByPath(name)
	if err != nil {
		t.Errorf("%s: no generated code in this test: %s and import the package here", name, regenerate)
		return
	}
	files, err := compiler.Compile(context.Background(), name)
	if err != nil {
		t.Error(err)
		return
	}
	want, got := protodesc.ToFileDescriptorProto(files[0]), protodesc.ToFileDescriptorProto(generated)
	if !proto.Equal(want, got) {
		t.Errorf("the code of %s is stale: %s\n%s", name, regenerate, firstDifference(prototext.Format(want), prototext.Format(got)))
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
