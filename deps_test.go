// SPDX-License-Identifier: Apache-2.0

package akidb_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/akidb/akidb"

// arrows says which of our packages a package (and what stands below it) may
// import beside itself. Arrows only go down: cmd → rpc → node → raftfsm →
// {index, internal/storage}; client, auth and the generated code stand beside.
var arrows = []struct {
	pkg    string
	allow  []string
	reason string
}{
	{"cmd", []string{"*"}, "the binary wires everything together"},
	{"sim", nil, "it is all tests; what those import is not production code"},
	{"jepsen", []string{"client", "rpc/akidbpb", "internal/localport"}, "the harness sees what a user sees; anything else would hide faults of the API"},
	{"client", []string{"rpc/akidbpb"}, "people import it; it must not drag Raft and storage into their programs"},
	{"rpc/akidbpb", nil, "the protocol is generated and depends on nothing of ours"},
	{"rpc", []string{"rpc/akidbpb", "node", "raftfsm", "index", "auth"}, "the API stands above the node and knows neither binary nor client"},
	{"auth", nil, "decides from what it is given, so that it can be tested alone"},
	{"node", []string{"raftfsm", "index", "internal/storage", "internal/mutants"}, "the member must not know the API above it"},
	{"raftfsm/fsmpb", nil, "commands outlive every binary; they depend on nothing of ours"},
	{"raftfsm", []string{"index", "internal/storage", "internal/mutants"}, "the state machine never learns who leads or who asks"},
	{"index/distance", nil, "kernels know nothing of graphs"},
	{"index", []string{"index/distance"}, "the index is derived from state it must not know the keeping of"},
	{"internal/storage", nil, "the keyspace knows nothing of documents"},
	{"internal/mutants", nil, "it names faults; what is broken is the business of the package that has it"},
	{"internal/localport", nil, "it finds ports and opens none"},
	{"", nil, "the root holds documentation and tests over the whole module"},
}

// owners says who may import a heavy library directly.
var owners = []struct {
	library string
	owner   []string
	reason  string
}{
	{"github.com/cockroachdb/pebble", []string{"internal/storage"}, "one keyspace, one owner: replacing the engine must touch one package"},
	{"github.com/hashicorp/raft", []string{"node", "raftfsm"}, "node runs Raft, raftfsm names its FSM types; nobody else may depend on the library"},
	{"github.com/hashicorp/raft-wal", []string{"node"}, "the log store is node's"},
	{"github.com/hashicorp/raft-boltdb", []string{"node"}, "the log store is node's"},
	{"go.etcd.io/bbolt", []string{"node"}, "the log store is node's"},
	{"github.com/hashicorp/raft-autopilot", []string{"node"}, "membership is node's"},
	{"github.com/hashicorp/memberlist", []string{"node"}, "gossip is node's"},
	{"google.golang.org/grpc", []string{"rpc", "client", "jepsen", "cmd"}, "the inside must not depend on the transport of the API"},
	{"github.com/grpc-ecosystem", []string{"rpc"}, "REST is rpc's"},
	{"github.com/golang-jwt/jwt", []string{"auth"}, "tokens are auth's"},
	{"github.com/spf13/cobra", []string{"cmd"}, "only the binary has flags"},
	{"github.com/spf13/pflag", []string{"cmd"}, "only the binary has flags"},
	{"github.com/knadh/koanf", []string{"cmd"}, "only the binary reads configuration"},
	{"github.com/anishathalye/porcupine", []string{"jepsen"}, "a checker belongs to the harness"},
	{"flag", []string{"cmd", "jepsen", "index/annbench"}, "only commands have flags"},
	{"expvar", nil, "metrics go to an injected registerer"},
	{"github.com/prometheus/client_golang/prometheus/promauto", nil, "it registers globally; metrics go to an injected registerer"},
	{"testing", nil, "test code in production binaries means flags and globals nobody asked for; packages named …test are exempt"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

// listPackages lists the module's packages with the imports of their production
// code.
func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// under reports whether path is tree or stands below it. Module versions in the
// path (/v2) are below too.
func under(path, tree string) bool {
	return path == tree || tree != "" && strings.HasPrefix(path, tree+"/")
}

func local(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func TestImportArrowsPointDown(t *testing.T) {
	for _, p := range listPackages(t) {
		name, ok := local(p.ImportPath)
		if !ok {
			continue
		}
		i := slices.IndexFunc(arrows, func(a struct {
			pkg    string
			allow  []string
			reason string
		}) bool {
			return under(name, a.pkg)
		})
		if i < 0 {
			t.Errorf("package %s has no place in the list of arrows: give it one", name)
			continue
		}
		rule := arrows[i]
		for _, imp := range p.Imports {
			to, ok := local(imp)
			if !ok || under(to, rule.pkg) || slices.Contains(rule.allow, "*") {
				continue
			}
			if !slices.ContainsFunc(rule.allow, func(a string) bool { return under(to, a) }) {
				t.Errorf("%s imports %s: %s", name, to, rule.reason)
			}
		}
	}
}

func TestHeavyLibrariesHaveOwners(t *testing.T) {
	for _, p := range listPackages(t) {
		name, ok := local(p.ImportPath)
		if !ok {
			continue
		}
		for _, imp := range p.Imports {
			for _, o := range owners {
				if !under(imp, o.library) || imp == "testing" && strings.HasSuffix(name, "test") {
					continue
				}
				if !slices.ContainsFunc(o.owner, func(a string) bool { return under(name, a) }) {
					t.Errorf("%s imports %s: %s", name, imp, o.reason)
				}
			}
		}
	}
}
