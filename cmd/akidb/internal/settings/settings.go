// SPDX-License-Identifier: Apache-2.0

// Package settings reads the configuration of a server: flags over environment
// over config.toml over defaults, and remembers where each value came from.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// setting is one row of the table below: its key in config.toml, which with
// dashes is its flag and with AKIDB_ in front, in capitals, its variable.
type setting struct {
	key   string
	def   any
	usage string
	// old spellings: environment variables and config.toml keys of the
	// single-node AkiDB
	oldEnv, oldKey string
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) env() string  { return "AKIDB_" + strings.ToUpper(s.key) }

// table is every setting of a server, in the order in which it is shown.
func table() []setting {
	return []setting{
		{key: "node_id", def: "", usage: "name of this node, stable for ever (default: the host name)"},
		{key: "data_dir", def: "akidb-data", usage: "where this node keeps everything"},
		{key: "host", def: "127.0.0.1", usage: "host of rest-addr and grpc-addr where these are not given", oldKey: "server.host"},
		{key: "rest_port", def: 8443, usage: "port of rest-addr where it is not given", oldKey: "server.rest_port"},
		{key: "grpc_port", def: 9443, usage: "port of grpc-addr where it is not given", oldKey: "server.grpc_port"},
		{key: "rest_addr", def: "", usage: "REST address (default host:rest-port)"},
		{key: "grpc_addr", def: "", usage: "gRPC address (default host:grpc-port)"},
		{key: "metrics_addr", def: "127.0.0.1:9090", usage: "address of /metrics, /livez and /readyz in plain HTTP; empty: off"},
		{key: "raft_addr", def: "127.0.0.1:9444", usage: "address for the other nodes"},
		{key: "advertise_addr", def: "", usage: "raft address that the others dial, best a DNS name (default raft-addr)"},
		{key: "advertise_grpc_addr", def: "", usage: "gRPC address told to clients (default grpc-addr)"},
		{key: "advertise_rest_addr", def: "", usage: "REST address told to clients (default rest-addr)"},
		{key: "gossip_addr", def: "", usage: "gossip address, UDP and TCP; empty: no gossip"},
		{key: "advertise_gossip_addr", def: "", usage: "gossip address that the others dial (default gossip-addr)"},
		{key: "gossip_key", def: "", usage: "gossip keys in base64, 16, 24 or 32 bytes each, comma between; the first encrypts"},
		{key: "gossip_key_file", def: "", usage: "file with gossip keys in base64, one a line, the first encrypts; read again when it changes"},
		{key: "peers", def: "", usage: "raft addresses of the nodes that found the cluster, comma between, or one DNS name:port of all"},
		{key: "bootstrap_expect", def: 0, usage: "found a cluster once so many nodes see each other; 0: with peers found none and wait for one to join, without peers found one alone"},
		{key: "zone", def: "", usage: "failure zone of this node; voters are spread over zones"},
		{key: "read_replica", def: false, usage: "never give this node a vote: it answers reads and forwards writes"},
		{key: "tls_cert", def: "", usage: "certificate of this node in PEM, for the API and for the other nodes", oldEnv: "AKIDB_TLS_CERT_PATH"},
		{key: "tls_key", def: "", usage: "its key in PEM", oldEnv: "AKIDB_TLS_KEY_PATH"},
		{key: "tls_ca", def: "", usage: "authority in PEM that the other nodes' certificates must come from", oldEnv: "AKIDB_TLS_CLIENT_CA_PATH"},
		{key: "log_store", def: "wal", usage: "Raft log store: wal or bolt"},
		{key: "heartbeat_timeout", def: 250 * time.Millisecond, usage: "silence after which a follower doubts its leader"},
		{key: "election_timeout", def: 250 * time.Millisecond, usage: "how long a candidate waits for votes"},
		{key: "snapshot_interval", def: 30 * time.Second, usage: "how often a snapshot is considered"},
		{key: "snapshot_threshold", def: 16384, usage: "log entries since the last snapshot that make one worth it"},
		{key: "trailing_logs", def: 65536, usage: "log entries kept behind a snapshot for slow followers"},
		{key: "trailing_log_bytes", def: Bytes(256 << 20), usage: "log bytes kept behind a snapshot for slow followers"},
		{key: "leave_on_stop", def: false, usage: "leave the cluster at a graceful stop, for members that come and go; started again, it joins again"},
		{key: "max_voters", def: 5, usage: "members that vote; further ones are read replicas"},
		{key: "stabilization_time", def: 2 * time.Second, usage: "how long a new member must be healthy before it is given a vote"},
		{key: "remove_dead_after", def: 24 * time.Hour, usage: "take a member out of the cluster after so long without a sign of life, if a majority remains; 0: never"},
		{key: "state_check_interval", def: 5 * time.Second, usage: "how often the leader lets all replicas compare their state hash with its own; 0: never"},
		{key: "scrub_interval", def: 24 * time.Hour, usage: "how often a node reads all it has stored and compares checksums; 0: never"},
		{key: "max_memory", def: Bytes(0), usage: "refuse writes above this much memory; 0: no budget"},
		{key: "min_free_disk", def: Bytes(256 << 20), usage: "refuse writes below this much free disk; 0: no budget"},
		{key: "max_apply_lag", def: 16384, usage: "refuse writes while more committed log entries than this wait to be applied"},
		{key: "max_index_backlog", def: 0, usage: "refuse writes while more vectors than this wait for the graph; 0: the default"},
		{key: "index_workers", def: 0, usage: "goroutines of graph construction; 0: one per core"},
		{key: "shutdown_timeout", def: 20 * time.Second, usage: "how long a graceful stop may take"},
		{key: "log_level", def: "info", usage: "debug, info, warn or error", oldKey: "logging.level"},
		{key: "log_format", def: "text", usage: "text or json", oldKey: "logging.format"},
		{key: "insecure_dev", def: false, usage: "serve without credentials on any address, and without TLS if no certificate is given: never in production"},
	}
}

// Serve is the configuration of a server.
type Serve struct {
	NodeID              string        `koanf:"node_id"`
	DataDir             string        `koanf:"data_dir"`
	Host                string        `koanf:"host"`
	RESTPort            int           `koanf:"rest_port"`
	GRPCPort            int           `koanf:"grpc_port"`
	RESTAddr            string        `koanf:"rest_addr"`
	GRPCAddr            string        `koanf:"grpc_addr"`
	MetricsAddr         string        `koanf:"metrics_addr"`
	RaftAddr            string        `koanf:"raft_addr"`
	AdvertiseAddr       string        `koanf:"advertise_addr"`
	AdvertiseGRPCAddr   string        `koanf:"advertise_grpc_addr"`
	AdvertiseRESTAddr   string        `koanf:"advertise_rest_addr"`
	GossipAddr          string        `koanf:"gossip_addr"`
	AdvertiseGossipAddr string        `koanf:"advertise_gossip_addr"`
	GossipKey           string        `koanf:"gossip_key"`
	GossipKeyFile       string        `koanf:"gossip_key_file"`
	Peers               string        `koanf:"peers"`
	BootstrapExpect     int           `koanf:"bootstrap_expect"`
	Zone                string        `koanf:"zone"`
	ReadReplica         bool          `koanf:"read_replica"`
	TLSCert             string        `koanf:"tls_cert"`
	TLSKey              string        `koanf:"tls_key"`
	TLSCA               string        `koanf:"tls_ca"`
	LogStore            string        `koanf:"log_store"`
	HeartbeatTimeout    time.Duration `koanf:"heartbeat_timeout"`
	ElectionTimeout     time.Duration `koanf:"election_timeout"`
	SnapshotInterval    time.Duration `koanf:"snapshot_interval"`
	SnapshotThreshold   uint64        `koanf:"snapshot_threshold"`
	TrailingLogs        uint64        `koanf:"trailing_logs"`
	TrailingLogBytes    Bytes         `koanf:"trailing_log_bytes"`
	LeaveOnStop         bool          `koanf:"leave_on_stop"`
	MaxVoters           int           `koanf:"max_voters"`
	StabilizationTime   time.Duration `koanf:"stabilization_time"`
	RemoveDeadAfter     time.Duration `koanf:"remove_dead_after"`
	StateCheckInterval  time.Duration `koanf:"state_check_interval"`
	ScrubInterval       time.Duration `koanf:"scrub_interval"`
	MaxMemory           Bytes         `koanf:"max_memory"`
	MinFreeDisk         Bytes         `koanf:"min_free_disk"`
	MaxApplyLag         uint64        `koanf:"max_apply_lag"`
	MaxIndexBacklog     int           `koanf:"max_index_backlog"`
	IndexWorkers        int           `koanf:"index_workers"`
	ShutdownTimeout     time.Duration `koanf:"shutdown_timeout"`
	LogLevel            string        `koanf:"log_level"`
	LogFormat           string        `koanf:"log_format"`
	InsecureDev         bool          `koanf:"insecure_dev"`

	// Origins says where each key's value came from, in the order of the table.
	Origins []Origin `koanf:"-"`
	// UnknownEnv are AKIDB_ variables that mean nothing.
	UnknownEnv []string `koanf:"-"`
}

// Origin is one effective value and its source.
type Origin struct {
	Key, Value, Source string
}

// AddFlags defines a flag for each setting, and --config.
func AddFlags(fs *pflag.FlagSet) {
	fs.String("config", "", "configuration file (default config.toml if it is there; AKIDB_CONFIG)")
	for _, s := range table() {
		usage := s.usage + " [" + s.env() + "]"
		switch def := s.def.(type) {
		case string:
			fs.String(s.flag(), def, usage)
		case bool:
			fs.Bool(s.flag(), def, usage)
		case int:
			fs.Int(s.flag(), def, usage)
		case time.Duration:
			fs.Duration(s.flag(), def, usage)
		case Bytes:
			b := def
			fs.Var(&b, s.flag(), usage)
		default:
			panic(fmt.Sprintf("settings: %s has a default of type %T", s.key, s.def))
		}
	}
}

// layer is one source of values.
type layer struct {
	name string
	k    *koanf.Koanf
}

// Load reads all sources; environ is os.Environ(). The error says all that is
// wrong, each with its key and where it stands; the configuration is then only
// good for being shown.
func Load(flags *pflag.FlagSet, environ []string) (*Serve, error) {
	var errs []error
	fileLayer, err := fromFile(flags, environ)
	errs = append(errs, err)
	envLayer, unknown, err := fromEnv(environ)
	errs = append(errs, err)
	flagLayer, err := fromFlags(flags)
	errs = append(errs, err)
	merged := koanf.New("/")
	cfg := &Serve{UnknownEnv: unknown}
	for _, s := range table() {
		value, source := s.def, "default"
		for _, l := range []layer{fileLayer, envLayer, flagLayer} {
			if l.k != nil && l.k.Exists(s.key) {
				value, source = l.k.Get(s.key), l.name
			}
		}
		errs = append(errs, merged.Set(s.key, value), cfg.take(merged, s, source))
	}
	cfg.complete()
	return cfg, errors.Join(append(errs, cfg.validate())...)
}

// take decodes one key, so that an error can say whose it is. A value that is
// refused leaves the default, about which there is nothing to say.
func (c *Serve) take(merged *koanf.Koanf, s setting, source string) error {
	value := merged.Get(s.key)
	c.Origins = append(c.Origins, Origin{s.key, fmt.Sprint(value), source})
	if fits(s.def, value) && c.decode(s.key, value) == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s from %s: %q is not %s", s.key, source, fmt.Sprint(value), wants(s.def)), c.decode(s.key, s.def))
}

// fits refuses values of a file that the decoder would bend: a fraction or a truth to
// a whole number or a text, a number to nanoseconds, a size below zero. Text is left to the
// decoder.
func fits(def, value any) bool {
	switch v := value.(type) {
	case string:
		return true
	case int64:
		switch def.(type) {
		case bool:
			return false
		case time.Duration:
			return v == 0
		case Bytes:
			return v >= 0
		}
		return true
	case float64:
		return false
	}
	return reflect.TypeOf(value) == reflect.TypeOf(def)
}

func (c *Serve) decode(key string, value any) error {
	one := koanf.New("/")
	if err := one.Set(key, value); err != nil {
		return err
	}
	return one.UnmarshalWithConf("", c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: c, WeaklyTypedInput: true, TagName: "koanf",
		DecodeHook: mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc()),
	}})
}

func wants(def any) string {
	switch def.(type) {
	case int:
		return "a whole number"
	case bool:
		return "true or false"
	case time.Duration:
		return "a duration like 250ms or 2m"
	case Bytes:
		return "a size like 512MiB or 4GiB"
	}
	return "text"
}

func fromFile(flags *pflag.FlagSet, environ []string) (layer, error) {
	path, _ := flags.GetString("config")
	explicit := path != ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, "AKIDB_CONFIG="); ok && !explicit && v != "" {
			path, explicit = v, true
		}
	}
	if path == "" {
		path = "config.toml"
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !explicit {
		return layer{}, nil
	}
	raw := koanf.New("/")
	if err := raw.Load(file.Provider(path), toml.Parser()); err != nil {
		return layer{}, fmt.Errorf("%s: %w", path, err)
	}
	out := koanf.New("/")
	var errs []error
	for _, key := range raw.Keys() {
		s, ok := find(func(s setting) bool {
			return s.key == key || s.oldKey != "" && strings.ReplaceAll(s.oldKey, ".", "/") == key
		})
		if !ok {
			errs = append(errs, fmt.Errorf("%s: unknown key %q%s", path, strings.ReplaceAll(key, "/", "."), suggest(key)))
			continue
		}
		errs = append(errs, out.Set(s.key, raw.Get(key)))
	}
	return layer{path, out}, errors.Join(errs...)
}

func fromEnv(environ []string) (layer, []string, error) {
	var unknown []string
	k := koanf.New("/")
	err := k.Load(env.Provider("/", env.Opt{Prefix: "AKIDB_", EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			s, ok := find(func(s setting) bool { return s.env() == name || s.oldEnv == name })
			if !ok {
				if !foreign(name) {
					unknown = append(unknown, name)
				}
				return "", nil
			}
			return s.key, value
		}}), nil)
	slices.Sort(unknown)
	return layer{"environment", k}, unknown, err
}

// foreign variables are read by other commands and tests, or set by Kubernetes
// for a Service whose name begins with akidb.
func foreign(name string) bool {
	switch name {
	case "AKIDB_CONFIG", "AKIDB_DATA", "AKIDB_ENDPOINTS", "AKIDB_CA_CERT", "AKIDB_API_KEY", "AKIDB_SEED":
		return true
	}
	return strings.HasPrefix(name, "AKIDB_TEST_") || strings.Contains(name, "_SERVICE_") || strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}

// fromFlags takes the flags that were given.
func fromFlags(flags *pflag.FlagSet) (layer, error) {
	k := koanf.New("/")
	err := k.Load(posflag.ProviderWithFlag(flags, "/", nil, func(f *pflag.Flag) (string, any) {
		s, ok := find(func(s setting) bool { return s.flag() == f.Name })
		if !ok || !f.Changed {
			return "", nil
		}
		return s.key, f.Value.String()
	}), nil)
	return layer{"flag", k}, err
}

func find(match func(setting) bool) (setting, bool) {
	t := table()
	if i := slices.IndexFunc(t, match); i >= 0 {
		return t[i], true
	}
	return setting{}, false
}

// suggest names the key that was probably meant.
func suggest(key string) string {
	squeeze := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", "/", "", ".", "").Replace(strings.ToLower(s))
	}
	for _, s := range table() {
		if a, b := squeeze(s.key), squeeze(key); a == b || strings.HasPrefix(a, b) || strings.HasSuffix(b, a) || distance(a, b) <= 2 {
			return fmt.Sprintf("; did you mean %q?", s.key)
		}
	}
	return ""
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Print shows each key with its effective value and source.
func (c *Serve) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KEY\tVALUE\tSOURCE")
	for _, o := range c.Origins {
		value := o.Value
		if o.Key == "gossip_key" && value != "" {
			value = "(set)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", o.Key, value, o.Source)
	}
	return tw.Flush()
}
