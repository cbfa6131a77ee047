// SPDX-License-Identifier: Apache-2.0

// Package rpc is the API of a node: gRPC services and the REST gateway over one
// set of handlers. It checks requests completely, hands them to the node, and
// turns errors into statuses; it never decides what is committed or visible.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/akidb/akidb/node"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Config is fixed for the life of a server; NewServer validates it.
type Config struct {
	Node    *node.Node
	Version string
	// TLS serves both ports; nil serves without TLS, for tests and loopback.
	TLS    *tls.Config
	Logger *slog.Logger
	// Registerer takes the API's metrics, Gatherer is what /metrics shows.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
	// MaxInFlight bounds the requests answered at once; 0 is 4,096.
	MaxInFlight int
	// MemoryBudget is what /admin/health measures the indexes against; 0: none.
	MemoryBudget int64
	// UnaryInterceptors and StreamInterceptors run around every handler, within
	// metrics and recovery. Unary ones see REST calls too, with the gRPC method,
	// the message, the credentials as metadata (authorization, x-api-key) and the
	// peer: the place for authentication and authorisation.
	UnaryInterceptors  []grpc.UnaryServerInterceptor
	StreamInterceptors []grpc.StreamServerInterceptor
}

// Server serves the API of one node.
type Server struct {
	cfg      Config
	grpc     *grpc.Server
	http     *http.Server
	metrics  *metrics
	stopping chan struct{}
	stopOnce sync.Once
}

// NewServer builds the server; ServeGRPC and ServeREST make it answer.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Node == nil {
		return nil, errors.New("rpc: Config.Node is needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Gatherer == nil {
		cfg.Gatherer = prometheus.NewRegistry()
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultMaxInFlight
	}
	m, err := newMetrics(cfg.Registerer, cfg.Version, cfg.Node)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, metrics: m, stopping: make(chan struct{})}
	g := &guard{
		log: cfg.Logger, metrics: m, maxInFlight: int64(cfg.MaxInFlight), leader: cfg.Node.LeaderID, suspect: cfg.Node.Suspect,
		unary: cfg.UnaryInterceptors, stream: cfg.StreamInterceptors,
	}
	svc := &service{node: cfg.Node, metrics: m}
	ops := &cluster{s: svc, version: cfg.Version}
	s.grpc = newGRPC(cfg, g)
	collectionv1.RegisterCollectionServiceServer(s.grpc, svc)
	collectionv1.RegisterCollectionManagementServiceServer(s.grpc, svc)
	clusterv1.RegisterClusterServiceServer(s.grpc, ops)
	h := &health{ready: cfg.Node.Ready, services: map[string]bool{"": true}, stopping: s.stopping}
	for name := range s.grpc.GetServiceInfo() {
		h.services[name] = true
	}
	healthv1.RegisterHealthServer(s.grpc, h)
	reflection.Register(s.grpc)
	handler, err := newREST(cfg, g, svc, ops)
	if err != nil {
		return nil, err
	}
	s.http = newHTTP(cfg, handler)
	return s, nil
}

func newGRPC(cfg Config, g *guard) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnaryInterceptor(g.intercept),
		grpc.StreamInterceptor(g.interceptStream),
		grpc.MaxRecvMsgSize(maxFrameBytes),
		grpc.MaxSendMsgSize(maxSendBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		// Handlers mostly wait for the log, so that workers far beyond the cores keep
		// their grown stacks instead of growing new ones call by call.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.SharedWriteBuffer(true),
		// Of fixed size, since the estimate of a connection's product of bandwidth and
		// delay costs a ping and its answer for each lone message.
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg.TLS)))
	}
	return grpc.NewServer(opts...)
}

func newHTTP(cfg Config, handler http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	if cfg.TLS != nil {
		srv.TLSConfig = cfg.TLS.Clone()
	} else {
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	return srv
}

// ServeGRPC answers on lis until Stop; it then returns nil.
func (s *Server) ServeGRPC(lis net.Listener) error {
	err := s.grpc.Serve(lis)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// ServeREST answers on lis until Stop; it then returns nil.
func (s *Server) ServeREST(lis net.Listener) error {
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(lis, "", "")
	} else {
		err = s.http.Serve(lis)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Handler is the REST API, for a listener of the caller's own.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Stop turns health to NOT_SERVING, takes no new connections and waits for the
// requests in flight; those that outlive ctx are cut off. It may be called again.
// Stop it before the node, whose close ends what requests wait for.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) })
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	select {
	case <-drained:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
		s.grpc.Stop() // makes GracefulStop return
		<-drained
	}
	return err
}

// MetricsHandler shows what g gathers, for a port of its own.
func MetricsHandler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
