// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Config says how to reach a cluster; Open validates it.
type Config struct {
	// Endpoints are gRPC addresses ("host:port"), or "dns:///name:port", which
	// stands for every address the name resolves to.
	Endpoints []string
	TLS       *tls.Config // nil dials without TLS: only for tests
	// Timeout bounds a call with all its retries if its context has no
	// deadline; default 30 s.
	Timeout time.Duration
	// AttemptTimeout is how long one attempt may wait for its answer before the
	// call is tried elsewhere; it doubles with every attempt and grows with the
	// size of a write. Default 2.5 s.
	AttemptTimeout time.Duration
	// MaxAttempts bounds the attempts of one call; 0: only its deadline does.
	MaxAttempts int
	// Consistency of reads: "" is linearizable.
	Consistency  string
	MaxStaleness time.Duration
	// HedgeAfter sends a read to a second replica after this long; 0: never.
	HedgeAfter time.Duration
	// Pin keeps all calls on the first endpoint, whatever happens to it: for
	// tests and tools that ask one replica. No other endpoint is ever dialled.
	Pin    bool
	APIKey string
	// ConnsPerEndpoint spreads calls over several connections, since one
	// connection is read and written by one goroutine each; default 4.
	ConnsPerEndpoint int
	// Dial replaces the TCP dialler; for tests.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Client is safe for concurrent use.
type Client struct {
	core *core
	// The session whose token reads carry; every client has one to remember the
	// newest token, but only Session's clients (bound) ask for it by default.
	session *session
	bound   bool
}

// Open returns at once; connections are made as calls need them.
func Open(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	k := newCore(cfg)
	k.start()
	return &Client{core: k, session: new(session)}, nil
}

// withDefaults fills in what is not set and refuses what cannot work.
func (cfg Config) withDefaults() (Config, error) {
	if len(cfg.Endpoints) == 0 {
		return cfg, errors.New("no endpoint given")
	}
	for _, e := range cfg.Endpoints {
		if _, _, err := net.SplitHostPort(strings.TrimPrefix(e, dnsScheme)); err != nil {
			return cfg, fmt.Errorf("endpoint %q: want host:port or dns:///name:port", e)
		}
	}
	switch cfg.Consistency {
	case "", Linearizable, Session, Bounded, Eventual:
	default:
		return cfg, fmt.Errorf("unknown consistency %q", cfg.Consistency)
	}
	if cfg.Timeout < 0 || cfg.AttemptTimeout < 0 || cfg.HedgeAfter < 0 || cfg.MaxStaleness < 0 ||
		cfg.MaxAttempts < 0 || cfg.ConnsPerEndpoint < 0 {
		return cfg, errors.New("negative time-out or count")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.AttemptTimeout == 0 {
		cfg.AttemptTimeout = defaultAttemptTimeout
	}
	if cfg.ConnsPerEndpoint == 0 {
		cfg.ConnsPerEndpoint = defaultConnsPerEndpoint
	}
	if cfg.Pin {
		cfg.Endpoints = cfg.Endpoints[:1]
	}
	return cfg, nil
}

// Close stops the health checks and closes the connections, also those of all
// sessions of this client. Calls under way fail.
func (c *Client) Close() error { return c.core.close() }

// Session returns a client on the same connections with a session token of its
// own: its reads see its writes and never go back. Its reads are of consistency
// "session" unless Config or the request says otherwise.
func (c *Client) Session() *Client {
	return &Client{core: c.core, session: new(session), bound: true}
}

// Token is the newest session token seen.
func (c *Client) Token() string { return c.session.token() }

// Observe makes the session start no earlier than a token that another client
// handed over.
func (c *Client) Observe(token string) { c.session.observe(token) }

// The consistencies a read can ask for.
const (
	Linearizable = "linearizable"
	Session      = "session"
	Bounded      = "bounded"
	Eventual     = "eventual"
)
