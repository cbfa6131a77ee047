// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func load(t *testing.T, file string, env []string, args ...string) (*Serve, error) {
	t.Helper()
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	AddFlags(fs)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return Load(fs, env)
}

func TestFlagsOverEnvironmentOverFileOverDefaults(t *testing.T) {
	file := "zone = \"file\"\nmax_voters = 7\nsnapshot_interval = \"9m\"\nmax_memory = \"2GiB\"\nlog_store = \"bolt\"\ninsecure_dev = true\n[server]\nrest_port = 7000\n"
	env := []string{"AKIDB_ZONE=env", "AKIDB_MAX_VOTERS=3", "AKIDB_GRPC_PORT=7001", "AKIDB_HOST=::1", "PATH=/bin",
		"AKIDB_SERVICE_HOST=10.0.0.1", "AKIDB_PORT_9443_TCP=tcp://x", "AKIDB_TYPO=1"}
	c, err := load(t, file, env, "--zone", "flag", "--node-id", "n1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone != "flag" || c.MaxVoters != 3 || c.SnapshotInterval != 9*time.Minute || c.MaxMemory != 2<<30 ||
		c.LogStore != "bolt" || c.RESTAddr != "[::1]:7000" || c.GRPCAddr != "[::1]:7001" || c.TrailingLogs != 65536 {
		t.Fatalf("got %+v", c)
	}
	if !reflect.DeepEqual(c.UnknownEnv, []string{"AKIDB_TYPO"}) {
		t.Fatalf("unknown %q", c.UnknownEnv)
	}
	sources := map[string]string{}
	for _, o := range c.Origins {
		sources[o.Key] = o.Source
	}
	if sources["zone"] != "flag" || sources["max_voters"] != "environment" || !strings.HasSuffix(sources["max_memory"], "config.toml") ||
		sources["max_index_backlog"] != "default" || sources["rest_addr"] != "from host, rest_port" {
		t.Fatalf("sources %v", sources)
	}
}

func TestErrorsNameTheKey(t *testing.T) {
	tls := slices.Clip([]string{"--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c"})
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct {
		file string
		env  []string
		args []string
		want string
	}{
		{file: "zoen = 1", want: `unknown key "zoen"; did you mean "zone"`},
		{file: "[raft]\nx = 1", want: `unknown key "raft.x"`},
		{file: "max_voters = \"many\"", want: "max_voters from"},
		{file: "zone = ", want: "config.toml"},
		{env: []string{"AKIDB_HEARTBEAT_TIMEOUT=soon"}, want: `heartbeat_timeout from environment: "soon" is not a duration`},
		{args: []string{"--max-memory", "lots"}, want: "max-memory"},
		{args: append(tls, "--rest-addr", "0.0.0.0:8443"), want: "--rest-addr 0.0.0.0:8443 can be reached from other machines"},
		{args: append(tls, "--grpc-addr", "db.example.org:9443"), want: "--grpc-addr db.example.org:9443 can be reached"},
		{args: []string{"--tls-cert", "a"}, want: "belong together"},
		{args: nil, want: "no certificate"},
		{args: append(tls, "--bootstrap-expect", "3"), want: "needs --peers"},
		{args: append(tls, "--raft-addr", "nowhere"), want: "--raft-addr"},
		{args: append(tls, "--log-store", "etcd"), want: "--log-store"},
		{args: append(tls, "--heartbeat-timeout", "1ms"), want: "--heartbeat-timeout"},
		{args: append(tls, "--gossip-key", "eA=="), want: "--gossip-key: key 1"},
		{args: append(tls, "--gossip-key", key, "--gossip-key-file", "keys"), want: "--gossip-key and --gossip-key-file"},
		{args: append(tls, "--gossip-key-file", "/nowhere/keys"), want: "--gossip-key-file: open /nowhere/keys"},
		{args: append(tls, "--gossip-key", key), want: "--gossip-key without --gossip-addr"},
		{args: append(tls, "--read-replica"), want: "--read-replica needs --peers"},
		{args: append(tls, "--remove-dead-after", "1s"), want: "--remove-dead-after 1s is below 5s"},
		{args: append(tls, "--stabilization-time", "-1s"), want: "--stabilization-time -1s"},
		{args: append(tls, "--state-check-interval", "1ms"), want: "--state-check-interval 1ms is below 100ms"},
		{args: append(tls, "--scrub-interval", "1s"), want: "--scrub-interval 1s is below 1m"},
		{args: append(tls, "--snapshot-interval", "0s"), want: "--snapshot-interval 0s"},
		{args: append(tls, "--max-apply-lag", "0"), want: "--max-apply-lag must be at least 1"},
		{args: append(tls, "--max-apply-lag", "-4"), want: "max_apply_lag from flag"},
		{args: append(tls, "--election-timeout", "100ms"), want: "--election-timeout 100ms is below --heartbeat-timeout"},
		{args: append(tls, "--shutdown-timeout", "0s"), want: "--shutdown-timeout"},
		{file: "shutdown_timeout = 20", args: tls, want: `shutdown_timeout from`},
		{file: "max_voters = 2.7", args: tls, want: `"2.7" is not a whole number`},
		{file: "max_voters = true", args: tls, want: `"true" is not a whole number`},
		{file: "max_memory = -1", args: tls, want: `"-1" is not a size`},
		{file: "max_memory = 1.5", args: tls, want: `"1.5" is not a size`},
		{file: "insecure_dev = 7", args: tls, want: `"7" is not true or false`},
		{file: "zone = 1.10", args: tls, want: `is not text`},
		{file: "node_id = true", args: tls, want: `"true" is not text`},
		{args: append(tls, "--trailing-logs", "0"), want: "--trailing-logs"},
		{args: append(tls, "--trailing-log-bytes", "0"), want: "--trailing-log-bytes"},
		{args: append(tls, "--snapshot-threshold", "0"), want: "--snapshot-threshold"},
		{args: append(tls, "--index-workers", "-1"), want: "--index-workers"},
		{args: append(tls, "--max-index-backlog", "-1"), want: "--max-index-backlog"},
		{args: append(tls, "--gossip-addr", "0.0.0.0:7946"), want: "--gossip-addr 0.0.0.0:7946 can be reached from other machines"},
	} {
		if _, err := load(t, tc.file, tc.env, tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q %q %q: got %v, want %q", tc.file, tc.env, tc.args, err, tc.want)
		}
	}
}

// All that is wrong is said at once, whatever kind it is, and the values that
// were given are still shown.
func TestAllErrorsAtOnce(t *testing.T) {
	c, err := load(t, "zoen = 1\nlog_lvel = 2\nmax_voters = \"many\"\nlog_store = \"etcd\"\n", []string{"AKIDB_HEARTBEAT_TIMEOUT=soon"}, "--raft-addr", "nowhere")
	if err == nil || c == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, want := range []string{`unknown key "zoen"`, `unknown key "log_lvel"`, "max_voters from", "heartbeat_timeout from environment", "--log-store", "--raft-addr", "no certificate"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	for _, spurious := range []string{"--max-voters", "--heartbeat-timeout", "--election-timeout"} {
		if strings.Contains(err.Error(), spurious) {
			t.Errorf("%q says more than is wrong: %v", spurious, err)
		}
	}
	if i := slices.IndexFunc(c.Origins, func(o Origin) bool { return o.Key == "max_voters" }); i < 0 || c.Origins[i].Value != "many" {
		t.Errorf("max_voters is shown as %v", c.Origins)
	}
}

// What a file may say without quotes: 0 turns off what takes a duration, sizes are
// bytes, and a number is a text too.
func TestNumbersInAFile(t *testing.T) {
	c, err := load(t, "insecure_dev = true\nscrub_interval = 0\nmax_memory = 1024\nmax_voters = 3\nzone = 5\nleave_on_stop = \"true\"\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.ScrubInterval != 0 || c.MaxMemory != 1024 || c.MaxVoters != 3 || c.Zone != "5" || !c.LeaveOnStop {
		t.Fatalf("%+v", c)
	}
}

// Every row of the table has its field, and every field its row.
func TestTableAndStructAgree(t *testing.T) {
	fields := map[string]bool{}
	for f := range reflect.TypeFor[Serve]().Fields() {
		if tag := f.Tag.Get("koanf"); tag != "-" {
			fields[tag] = true
		}
	}
	for _, s := range table() {
		if !fields[s.key] {
			t.Errorf("%s has no field", s.key)
		}
		delete(fields, s.key)
	}
	if len(fields) > 0 {
		t.Errorf("not in the table: %v", fields)
	}
}

func TestBytesRoundTrip(t *testing.T) {
	for in, want := range map[string]Bytes{"0": 0, "1024": 1024, "4GiB": 4 << 30, "512Mi": 512 << 20, "1.5GB": 15e8, "7B": 7} {
		var b, again Bytes
		if err := b.Set(in); err != nil || b != want {
			t.Errorf("%q: %d, %v", in, b, err)
		}
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q → %q → %d, %v", in, b.String(), again, err)
		}
	}
	for _, in := range []string{"", "x", "-1", "1.5B", "NaN", "1e40"} {
		if err := new(Bytes).Set(in); err == nil {
			t.Errorf("%q accepted", in)
		}
	}
}

// Keys in a file are for rotation: a line each, the first encrypts.
func TestGossipKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two := make([]byte, 16), make([]byte, 32)
	two[0] = 7
	write("# new\n" + base64.StdEncoding.EncodeToString(two) + "\n\n  " + base64.StdEncoding.EncodeToString(one) + "\n")
	c, err := load(t, "", nil, "--insecure-dev", "--gossip-addr", "127.0.0.1:7946", "--gossip-key-file", path)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := c.GossipKeys(); err != nil || !reflect.DeepEqual(keys, [][]byte{two, one}) {
		t.Fatalf("%v, %v", keys, err)
	}
	for text, want := range map[string]string{"": "holds no key", "eA==\n": "key 1 is not 16, 24 or 32 bytes"} {
		write(text)
		if _, err := c.GossipKeys(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
