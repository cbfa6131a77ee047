// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/cmd/akidb/internal/settings"
	"github.com/akidb/akidb/node"
)

// Goal: whatever can be set of a node can be set by its user. Method: a file that
// sets everything must leave no field of node.Config at its zero value.
func TestEveryKnobOfANodeIsASetting(t *testing.T) {
	notSettings := map[string]string{"Net": "the real network", "FS": "the disk", "Pace": "slow motion is for simulations"}
	text := `
node_id = "n1"
data_dir = "d"
raft_addr = "127.0.0.1:1"
advertise_addr = "a:1"
advertise_grpc_addr = "a:2"
advertise_rest_addr = "a:3"
gossip_addr = "127.0.0.1:4"
advertise_gossip_addr = "a:4"
gossip_key = "` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `"
peers = "a:1,b:1"
bootstrap_expect = 3
zone = "z"
read_replica = true
max_voters = 7
log_store = "bolt"
heartbeat_timeout = "300ms"
election_timeout = "400ms"
snapshot_interval = "7s"
snapshot_threshold = 17
trailing_logs = 27
trailing_log_bytes = "1MiB"
max_memory = "2GiB"
min_free_disk = "3MiB"
max_index_backlog = 37
max_apply_lag = 47
index_workers = 2
stabilization_time = "9s"
remove_dead_after = "2h"
state_check_interval = "11s"
scrub_interval = "3h"
insecure_dev = true
`
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := loadSettings(t, "--config", path)
	got := nodeConfig(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), testCerts(t))
	v := reflect.ValueOf(got)
	for f := range reflect.TypeFor[node.Config]().Fields() {
		if f.IsExported() && v.FieldByIndex(f.Index).IsZero() && notSettings[f.Name] == "" {
			t.Errorf("node.Config.%s cannot be set", f.Name)
		}
	}
	if got.MaxApplyLag != 47 || got.RemoveDeadAfter != 2*time.Hour || got.StabilizationTime != 9*time.Second ||
		got.StateCheckInterval != 11*time.Second || got.ScrubInterval != 3*time.Hour || !got.ReadReplica {
		t.Errorf("%+v", got)
	}
}

func testCerts(t *testing.T) *certs.Files {
	t.Helper()
	dir := t.TempDir()
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	files, err := certs.OpenFiles(cert, key, ca.Path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// 0 turns off, where the manual says so; node reads 0 as its default.
func TestZeroTurnsOff(t *testing.T) {
	cfg := loadSettings(t, "--insecure-dev", "--remove-dead-after", "0", "--state-check-interval", "0", "--scrub-interval", "0", "--min-free-disk", "0")
	got := nodeConfig(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nil)
	if got.RemoveDeadAfter >= 0 || got.StateCheckInterval >= 0 || got.ScrubInterval >= 0 || got.MinFreeDisk >= 0 {
		t.Fatalf("%+v", got)
	}
}

func loadSettings(t *testing.T, args ...string) *settings.Serve {
	t.Helper()
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	settings.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	cfg, err := settings.Load(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Each setting is named in the manual.
func TestEverySettingIsInTheManual(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	settings.AddFlags(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(string(manual), "`--"+f.Name+"`") && !strings.Contains(string(manual), "`"+strings.ReplaceAll(f.Name, "-", "_")+"`") {
			t.Errorf("docs/cli.md does not name --%s", f.Name)
		}
	})
}
