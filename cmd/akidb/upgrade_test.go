// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
)

// Goal: an upgrade is a matter of restarts. Method: nodes of the previous commit's
// binary (AKIDB_TEST_UPGRADE_FROM names another commit) are upgraded one by one
// under load, the first of them there and back again, to a binary that knows one
// cluster version more. No write fails; the cluster version is raised when the
// last node knows the new one, and not before; from then on a binary that does not
// know it refuses to start.
func TestRollingUpgrade(t *testing.T) {
	from := os.Getenv("AKIDB_TEST_UPGRADE_FROM")
	if from == "" {
		from = "HEAD~1"
	}
	dir := t.TempDir()
	older, revision := buildRevision(t, dir, from)
	newer, version := buildNextVersion(t, dir)
	c, cleanup, err := startLocal(t.Context(), localcluster.Options{Binary: older, Dir: filepath.Join(dir, "cluster"), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cleanup(); err != nil {
			t.Error(err)
		}
	})
	cl, err := c.Client(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	x := watch(t, c, cl, 4)
	replace := func(n *localcluster.Node, binary string) {
		t.Helper()
		x.more(50)
		x.must(n.Stop(x.ctx()))
		n.SetBinary(binary)
		x.restart(n)
		x.more(50)
	}
	for i, n := range c.Nodes {
		if st := x.status(x.leader()); st.ClusterVersion >= version {
			t.Fatalf("cluster version %d while %d of 3 nodes know it", st.ClusterVersion, i)
		}
		replace(n, newer)
		if i == 0 {
			replace(n, older)
			replace(n, newer)
		}
	}
	for _, n := range c.Nodes {
		x.wait("the new cluster version on "+n.ID, func() (bool, string) {
			st := x.status(n)
			return st != nil && st.ClusterVersion == version && st.MaxClusterVersion == version, fmt.Sprint(st)
		})
	}
	x.more(50)
	x.finish()

	// No way back now, and the binary says so.
	n := x.follower()
	x.must(n.Stop(x.ctx()))
	n.SetBinary(akidbBinary(dir))
	x.must(n.Start())
	x.wait("the old binary to give up", func() (bool, string) { return n.PID() == 0, "" })
	text, err := os.ReadFile(n.LogPath())
	x.must(err)
	if want := fmt.Sprintf("the cluster is at version %d and this binary knows %d", version, version-1); !strings.Contains(string(text), want) {
		t.Errorf("no %q in its log", want)
	}
	n.SetBinary(newer)
	x.restart(n)
	t.Logf("from %s", revision)
}

// command runs a tool in dir and returns what it printed.
func command(t *testing.T, dir string, name string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return out, err
}

// buildRevision builds akidb as it was at a commit.
func buildRevision(t *testing.T, dir, commit string) (binary, revision string) {
	t.Helper()
	full, err := command(t, ".", "git", "rev-parse", "--verify", "--quiet", commit+"^{commit}")
	if err != nil {
		t.Skipf("needs the history of the source, to build the binary of %s: %v", commit, err)
	}
	revision = string(bytes.TrimSpace(full))
	root, err := command(t, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		t.Fatal(err)
	}
	archive, source := filepath.Join(dir, "old.tar"), filepath.Join(dir, "old")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{string(bytes.TrimSpace(root)), "git", "archive", "--output", archive, revision},
		{source, "tar", "-xf", archive},
		{source, "go", "build", "-o", filepath.Join(dir, "akidb-old"), "./cmd/akidb"},
	} {
		if _, err := command(t, c[0], c[1], c[2:]...); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "akidb-old"), revision
}

// buildNextVersion builds akidb as it is, but for the cluster version that it
// knows, which is one more.
func buildNextVersion(t *testing.T, dir string) (binary string, version uint32) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "node", "config.go"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^const maxClusterVersion = (\d+)$`)
	m := line.FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s does not say maxClusterVersion", path)
	}
	if _, err := fmt.Sscan(string(m[1]), &version); err != nil {
		t.Fatal(err)
	}
	version++
	changed := filepath.Join(dir, "config.go")
	if err := os.WriteFile(changed, line.ReplaceAll(text, fmt.Appendf(nil, "const maxClusterVersion = %d", version)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "akidb-new")
	if _, err := command(t, ".", "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "."); err != nil {
		t.Fatal(err)
	}
	return binary, version
}
