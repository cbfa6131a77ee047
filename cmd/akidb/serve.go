// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/cmd/akidb/internal/settings"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/rpc"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one node",
		Long: `serve runs one node of a cluster until SIGINT or SIGTERM, then hands leadership
over and stops. A flag beats its variable, which beats config.toml, which beats
the default; "akidb config check" shows what comes out. docs/cli.md has examples.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := settings.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr())
		},
	}
	settings.AddFlags(cmd.Flags())
	return cmd
}

// serve runs a node until ctx ends. What is started first is stopped last.
func serve(ctx context.Context, cfg *settings.Serve, logTo io.Writer) (err error) {
	base := newLogger(cfg, logTo) // the node adds its id itself
	log := base.With("node", cfg.NodeID)
	for _, name := range cfg.UnknownEnv {
		log.Warn("unknown variable in the environment", "name", name)
	}
	if cfg.InsecureDev {
		log.Warn("--insecure-dev: anybody who can reach this node can read and write everything")
	}
	files, err := openCerts(cfg, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// Listen before storage is opened: a port that is taken shows at once, and
	// connections made meanwhile wait instead of being refused.
	lis, err := listenAll(cfg)
	if err != nil {
		return err
	}
	defer lis.close()

	n, err := openNode(ctx, nodeConfig(cfg, base, registry, files), cfg.ShutdownTimeout)
	if err != nil {
		return err
	}
	// The node is closed last: requests in flight still wait for it.
	var stop *stopping
	defer func() {
		if stop == nil {
			stop = beginStop(cfg.ShutdownTimeout)
		}
		err = errors.Join(err, stop.step(nodePart, "the node", n.Close))
	}()

	var apiTLS *tls.Config
	if files != nil {
		apiTLS = files.API()
	}
	api, err := rpc.NewServer(rpc.Config{Node: n, Version: release, TLS: apiTLS, Logger: log.With("part", "api"),
		Registerer: registry, Gatherer: registry, MemoryBudget: int64(cfg.MaxMemory)})
	if err != nil {
		return err
	}
	serving, ended := errgroup.WithContext(ctx)
	serving.Go(func() error { return api.ServeGRPC(lis.grpc) })
	serving.Go(func() error { return api.ServeREST(lis.rest) })
	metrics := &http.Server{Handler: metricsHandler(api, registry), ReadHeaderTimeout: 5 * time.Second}
	if lis.metrics != nil {
		serving.Go(func() error { return ignoreClosed(metrics.Serve(lis.metrics)) })
	}
	serving.Go(func() error { return sayReady(ended, n, cfg, log) })
	serving.Go(func() error { return followGossipKeys(ended, n, cfg, log) })
	serving.Go(func() error { return followCerts(ended, files) })

	// From here on the node serves, until it is told to stop or a listener fails.
	<-ended.Done()
	log.Info("stopping", "reason", context.Cause(ended))
	stop = beginStop(cfg.ShutdownTimeout)
	// 1. Leadership goes while this node still answers: writes that are under
	//    way are forwarded to the new leader instead of failing.
	err = stop.step(requestsPart, "handing leadership over", func(ctx context.Context) error {
		handOver(ctx, n, log)
		return nil
	})
	// 2. The API says NOT_SERVING, takes no new requests and finishes the others.
	err = errors.Join(err, stop.step(requestsPart, "requests", api.Stop))
	// 3. Metrics stay until the last request is counted.
	err = errors.Join(err, stop.step(requestsPart, "metrics", metrics.Shutdown),
		stop.step(requestsPart, "serving", func(context.Context) error { return serving.Wait() }))
	// 4. Nobody asks this node any more, so it can go for good.
	if cfg.LeaveOnStop {
		err = errors.Join(err, stop.step(leavePart, "leaving the cluster", func(ctx context.Context) error {
			leave(ctx, n, log)
			return nil
		}))
	}
	// 5. The node: deferred above.
	return err
}

// openCerts reads the certificates; nil under --insecure-dev without any.
func openCerts(cfg *settings.Serve, log *slog.Logger) (*certs.Files, error) {
	if cfg.TLSCert == "" {
		return nil, nil
	}
	return certs.OpenFiles(cfg.TLSCert, cfg.TLSKey, cfg.TLSCA, log)
}

func newLogger(cfg *settings.Serve, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // validated
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func nodeConfig(cfg *settings.Serve, log *slog.Logger, reg prometheus.Registerer, files *certs.Files) node.Config {
	keys, _ := cfg.GossipKeys() // validated
	c := node.Config{
		NodeID: cfg.NodeID, DataDir: cfg.DataDir,
		RaftAddr: cfg.RaftAddr, AdvertiseAddr: cfg.AdvertiseAddr,
		GossipAddr: cfg.GossipAddr, AdvertiseGossipAddr: cfg.AdvertiseGossipAddr, GossipKeys: keys,
		GRPCAddr: cfg.AdvertiseGRPCAddr, RESTAddr: cfg.AdvertiseRESTAddr,
		Zone: cfg.Zone, Version: release, ReadReplica: cfg.ReadReplica,
		Peers: cfg.PeerList(), BootstrapExpect: cfg.BootstrapExpect, MaxVoters: cfg.MaxVoters,
		LogStore: cfg.LogStore, HeartbeatTimeout: cfg.HeartbeatTimeout, ElectionTimeout: cfg.ElectionTimeout,
		SnapshotInterval: cfg.SnapshotInterval, SnapshotThreshold: cfg.SnapshotThreshold,
		TrailingLogs: cfg.TrailingLogs, TrailingLogBytes: int64(cfg.TrailingLogBytes),
		MaxMemoryBytes: int64(cfg.MaxMemory), MinFreeDisk: orOff(int64(cfg.MinFreeDisk)), MaxApplyLag: cfg.MaxApplyLag,
		MaxIndexBacklog: cfg.MaxIndexBacklog, IndexWorkers: cfg.IndexWorkers,
		StabilizationTime: cfg.StabilizationTime, RemoveDeadAfter: orOff(cfg.RemoveDeadAfter),
		StateCheckInterval: orOff(cfg.StateCheckInterval), ScrubInterval: orOff(cfg.ScrubInterval),
		Logger: log, Registerer: reg,
	}
	if files != nil {
		c.ServerTLS, c.ClientTLS = files.Peers()
		c.PeerRoots = files.Roots
	}
	return c
}

// orOff turns the 0 of a setting, which means off, into what node takes for that.
func orOff[T int64 | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

// followCerts looks at the certificates, so that the log tells of a change, or of a file
// that is broken, before the next connection needs it.
func followCerts(ctx context.Context, files *certs.Files) error {
	if files == nil {
		return nil
	}
	poll(ctx, files.Refresh)
	return nil
}

// filesPoll is how often files that may be replaced while this node runs are looked at.
const filesPoll = time.Second

// poll calls look every filesPoll until ctx ends.
func poll(ctx context.Context, look func()) {
	tick := time.NewTicker(filesPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look()
		}
	}
}

// followGossipKeys gives the node the keys of the file whenever they change. What
// cannot be read leaves the keys before in use.
func followGossipKeys(ctx context.Context, n *node.Node, cfg *settings.Serve, log *slog.Logger) error {
	if cfg.GossipKeyFile == "" || cfg.GossipAddr == "" {
		return nil
	}
	used, _ := cfg.GossipKeys() // validated
	var complained string
	poll(ctx, func() {
		keys, err := cfg.GossipKeys()
		if err == nil && slices.EqualFunc(keys, used, bytes.Equal) {
			return
		}
		if err == nil {
			err = n.SetGossipKeys(keys)
		}
		if err != nil {
			if err.Error() != complained {
				complained = err.Error()
				log.Error("gossip keys stay as they were", "err", err)
			}
			return
		}
		used, complained = keys, ""
		log.Info("gossip keys changed", "keys", len(keys))
	})
	return nil
}

// listeners are the ports of the API; metrics is nil if it is off.
type listeners struct{ grpc, rest, metrics net.Listener }

func listenAll(cfg *settings.Serve) (*listeners, error) {
	l := &listeners{}
	for _, a := range []struct {
		flag, addr string
		to         *net.Listener
	}{{"grpc-addr", cfg.GRPCAddr, &l.grpc}, {"rest-addr", cfg.RESTAddr, &l.rest}, {"metrics-addr", cfg.MetricsAddr, &l.metrics}} {
		if a.addr == "" {
			continue
		}
		lis, err := net.Listen("tcp", a.addr)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("--%s: %w", a.flag, err)
		}
		*a.to = lis
	}
	return l, nil
}

// close is for the listeners that nobody serves yet; closing twice does no harm.
func (l *listeners) close() {
	for _, lis := range []net.Listener{l.grpc, l.rest, l.metrics} {
		if lis != nil {
			_ = lis.Close()
		}
	}
}

// metricsHandler is the plain-text port: metrics and the two probes, no data.
func metricsHandler(api *rpc.Server, g prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", rpc.MetricsHandler(g))
	mux.Handle("GET /livez", api.Handler())
	mux.Handle("GET /readyz", api.Handler())
	return mux
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// readyPoll is how often a starting node is asked whether it can serve.
const readyPoll = 20 * time.Millisecond

// sayReady logs "serving" at once and "ready" when this replica can serve.
func sayReady(ctx context.Context, n *node.Node, cfg *settings.Serve, log *slog.Logger) error {
	began := time.Now()
	log.Info("serving", "rest", cfg.RESTAddr, "grpc", cfg.GRPCAddr, "raft", cfg.RaftAddr, "metrics", cfg.MetricsAddr, "data", cfg.DataDir, "timer_slack", currentTimerSlack(), "version", release)
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for n.Ready() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	log.Info("ready", "after", time.Since(began).Round(time.Millisecond))
	return nil
}

// handOver gives leadership to another voter, if this node has it and there is one.
func handOver(ctx context.Context, n *node.Node, log *slog.Logger) {
	if l, err := n.Leader(); err != nil || l.NodeID != n.ID() || lastVoter(n) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	if err := n.TransferLeader(ctx, ""); err != nil {
		log.Warn("leadership was not handed over; the others will elect", "error", err)
	}
}

// lastVoter is true if no other member votes.
func lastVoter(n *node.Node) bool {
	for _, m := range n.Members() {
		if m.Voter && m.NodeID != n.ID() {
			return false
		}
	}
	return true
}

// leave takes this node out of the cluster, unless that would be its end.
func leave(ctx context.Context, n *node.Node, log *slog.Logger) {
	if lastVoter(n) {
		log.Warn("--leave-on-stop: nobody else votes, so this node stays a member")
		return
	}
	if err := n.Leave(ctx); err != nil {
		log.Error("still a member: take it out with akidb cluster remove", "err", err)
	}
}

// handOverTimeout: beyond it an election by time-out is the faster way.
const handOverTimeout = 3 * time.Second

// openNode is node.Open, given up if it goes on for longer than limit once ctx has
// ended: a disk that hangs is no reason not to stop.
func openNode(ctx context.Context, c node.Config, limit time.Duration) (*node.Node, error) {
	type opened struct {
		n   *node.Node
		err error
	}
	done := make(chan opened, 1)
	go func() {
		n, err := node.Open(ctx, c)
		done <- opened{n, err}
	}()
	select {
	case o := <-done:
		return o.n, o.err
	case <-ctx.Done():
	}
	var o opened
	err := beginStop(limit).step(nodePart, "opening the data directory", func(context.Context) error {
		o = <-done
		return o.err
	})
	if err != nil {
		return nil, err
	}
	return o.n, nil
}
