// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// complete fills in what depends on other settings.
func (c *Serve) complete() {
	if c.NodeID == "" {
		c.NodeID, _ = os.Hostname()
		c.derived("node_id", c.NodeID, "host name")
	}
	if c.RESTAddr == "" {
		c.RESTAddr = net.JoinHostPort(c.Host, strconv.Itoa(c.RESTPort))
		c.derived("rest_addr", c.RESTAddr, "host, rest_port")
	}
	if c.GRPCAddr == "" {
		c.GRPCAddr = net.JoinHostPort(c.Host, strconv.Itoa(c.GRPCPort))
		c.derived("grpc_addr", c.GRPCAddr, "host, grpc_port")
	}
	if c.AdvertiseAddr == "" {
		c.AdvertiseAddr = c.RaftAddr
		c.derived("advertise_addr", c.AdvertiseAddr, "raft_addr")
	}
	if c.AdvertiseGRPCAddr == "" {
		c.AdvertiseGRPCAddr = advertise(c.GRPCAddr, c.AdvertiseAddr)
		c.derived("advertise_grpc_addr", c.AdvertiseGRPCAddr, "grpc_addr, advertise_addr")
	}
	if c.AdvertiseRESTAddr == "" {
		c.AdvertiseRESTAddr = advertise(c.RESTAddr, c.AdvertiseAddr)
		c.derived("advertise_rest_addr", c.AdvertiseRESTAddr, "rest_addr, advertise_addr")
	}
}

// advertise is addr, with the host of peer if addr listens on all addresses.
func advertise(addr, peer string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // validate says what is wrong with it
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if h, _, err := net.SplitHostPort(peer); err == nil {
			return net.JoinHostPort(h, port)
		}
	}
	return addr
}

func (c *Serve) derived(key, value, from string) {
	i := slices.IndexFunc(c.Origins, func(o Origin) bool { return o.Key == key })
	c.Origins[i] = Origin{key, value, "from " + from}
}

// validate says all that is wrong, in the spelling of flags.
func (c *Serve) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeID == "" {
		bad("--node-id is empty and the host has no name")
	}
	if c.DataDir == "" {
		bad("--data-dir is empty")
	}
	for _, a := range []struct {
		flag, addr string
		optional   bool
	}{{"rest-addr", c.RESTAddr, false}, {"grpc-addr", c.GRPCAddr, false}, {"metrics-addr", c.MetricsAddr, true},
		{"raft-addr", c.RaftAddr, false}, {"advertise-addr", c.AdvertiseAddr, false}, {"gossip-addr", c.GossipAddr, true},
		{"advertise-gossip-addr", c.AdvertiseGossipAddr, true}} {
		if a.addr == "" && a.optional {
			continue
		}
		if _, port, err := net.SplitHostPort(a.addr); err != nil || port == "" {
			bad("--%s %q: want host:port", a.flag, a.addr)
		}
	}
	if c.GRPCAddr == c.RESTAddr {
		bad("--grpc-addr and --rest-addr are the same: %s", c.GRPCAddr)
	}
	for _, p := range c.PeerList() {
		if _, _, err := net.SplitHostPort(p); err != nil {
			bad("--peers %q: want host:port", p)
		}
	}
	if c.BootstrapExpect < 0 {
		bad("--bootstrap-expect %d: want the number of founders, or 0 to found none", c.BootstrapExpect)
	}
	if c.BootstrapExpect > 1 && c.Peers == "" {
		bad("--bootstrap-expect %d needs --peers to find the other nodes", c.BootstrapExpect)
	}
	if c.LogStore != "wal" && c.LogStore != "bolt" {
		bad("--log-store %q: want wal or bolt", c.LogStore)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		bad("--log-level %q: want debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("--log-format %q: want text or json", c.LogFormat)
	}
	if c.MaxVoters < 1 {
		bad("--max-voters must be at least 1")
	}
	if c.ShutdownTimeout <= 0 {
		bad("--shutdown-timeout %v: want more than nothing", c.ShutdownTimeout)
	}
	errs = append(errs, c.validateCluster()...)
	errs = append(errs, c.validateSecurity()...)
	return errors.Join(errs...)
}

// validateCluster is about membership, gossip and the chores of a leader.
func (c *Serve) validateCluster() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		flag    string
		d, min  time.Duration
		off     bool // 0 turns it off
		because string
	}{
		{"heartbeat-timeout", c.HeartbeatTimeout, 50 * time.Millisecond, false, "the cluster would elect leaders all day"},
		{"election-timeout", c.ElectionTimeout, 50 * time.Millisecond, false, "the cluster would elect leaders all day"},
		{"election-timeout", c.ElectionTimeout, c.HeartbeatTimeout, false, "--heartbeat-timeout"},
		{"snapshot-interval", c.SnapshotInterval, 100 * time.Millisecond, false, "snapshots would be all it does"},
		{"stabilization-time", c.StabilizationTime, 100 * time.Millisecond, false, "nobody is known to be healthy so soon"},
		{"remove-dead-after", c.RemoveDeadAfter, 5 * time.Second, true, "a restart would cost a member its place"},
		{"state-check-interval", c.StateCheckInterval, 100 * time.Millisecond, true, "checks would be most of the log"},
		{"scrub-interval", c.ScrubInterval, time.Minute, true, "the disk would never rest"},
	} {
		switch {
		case d.off && d.d == 0 || d.d >= d.min:
		case strings.HasPrefix(d.because, "--"):
			bad("--%s %v is below %s %v", d.flag, d.d, d.because, d.min)
		default:
			bad("--%s %v is below %v: %s", d.flag, d.d, short(d.min), d.because)
		}
	}
	// The node takes 0 of these for its own default.
	for _, n := range []struct {
		flag string
		n    uint64
	}{{"max-apply-lag", c.MaxApplyLag}, {"snapshot-threshold", c.SnapshotThreshold}, {"trailing-logs", c.TrailingLogs}, {"trailing-log-bytes", uint64(c.TrailingLogBytes)}} {
		if n.n < 1 {
			bad("--%s must be at least 1", n.flag)
		}
	}
	for _, n := range []struct {
		flag string
		n    int
	}{{"index-workers", c.IndexWorkers}, {"max-index-backlog", c.MaxIndexBacklog}} {
		if n.n < 0 {
			bad("--%s %d is below 0", n.flag, n.n)
		}
	}
	if c.ReadReplica && c.Peers == "" {
		bad("--read-replica needs --peers: a read replica founds no cluster, it joins one")
	}
	if c.GossipKey != "" && c.GossipKeyFile != "" {
		bad("--gossip-key and --gossip-key-file: give one of them")
	} else if _, err := c.GossipKeys(); err != nil {
		errs = append(errs, err)
	}
	if c.GossipAddr == "" && c.GossipKey != "" {
		bad("--gossip-key without --gossip-addr: gossip is off")
	}
	return errs
}

// short is a duration without trailing zero units: "1m" instead of "1m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// validateSecurity refuses what would put data in front of strangers.
func (c *Serve) validateSecurity() []error {
	var errs []error
	set := 0
	for _, f := range []string{c.TLSCert, c.TLSKey, c.TLSCA} {
		if f != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		errs = append(errs, errors.New("--tls-cert, --tls-key and --tls-ca belong together: give all three"))
	}
	if set == 0 && !c.InsecureDev {
		errs = append(errs, errors.New("no certificate: give --tls-cert, --tls-key and --tls-ca (`akidb dev` makes its own), or --insecure-dev to serve without TLS"))
	}
	if c.InsecureDev {
		return errs
	}
	for _, a := range []struct{ flag, addr string }{{"rest-addr", c.RESTAddr}, {"grpc-addr", c.GRPCAddr}} {
		if !loopback(a.addr) {
			errs = append(errs, fmt.Errorf("--%s %s can be reached from other machines, and this version has no credentials: "+
				"anybody could read and write; listen on 127.0.0.1, or say --insecure-dev if the network is yours", a.flag, a.addr))
		}
	}
	if c.GossipAddr != "" && c.GossipKey == "" && c.GossipKeyFile == "" && !loopback(c.GossipAddr) {
		errs = append(errs, fmt.Errorf("--gossip-addr %s can be reached from other machines, and without a key gossip is not encrypted: "+
			"anybody could read it and say who lives; give --gossip-key-file, or say --insecure-dev if the network is yours", c.GossipAddr))
	}
	return errs
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // reported elsewhere
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// PeerList splits Peers.
func (c *Serve) PeerList() []string {
	var out []string
	for p := range strings.SplitSeq(c.Peers, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// GossipKeys decodes GossipKey, or reads GossipKeyFile: what it holds now, so
// that keys can be rotated while the node runs.
func (c *Serve) GossipKeys() ([][]byte, error) {
	switch {
	case c.GossipKey != "":
		return decodeKeys("--gossip-key", strings.Split(c.GossipKey, ","))
	case c.GossipKeyFile != "":
		text, err := os.ReadFile(c.GossipKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--gossip-key-file: %w", err)
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("--gossip-key-file: %s holds no key", c.GossipKeyFile)
		}
		return decodeKeys("--gossip-key-file", lines)
	}
	return nil, nil
}

func decodeKeys(flag string, texts []string) ([][]byte, error) {
	var out [][]byte
	for i, s := range texts {
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
			return nil, fmt.Errorf("%s: key %d is not 16, 24 or 32 bytes in base64", flag, i+1)
		}
		out = append(out, key)
	}
	return out, nil
}
