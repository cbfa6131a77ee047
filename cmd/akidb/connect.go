// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/rpc"
)

// connection is the flags of every command that talks to a cluster.
type connection struct {
	endpoints   string
	caCert      string
	apiKey      string
	plaintext   bool
	timeout     time.Duration
	consistency string
}

// addFlags defines the flags; their variables are read when they are not given.
func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&c.endpoints, "endpoints", "", "gRPC addresses, comma between, or dns:///name:port [AKIDB_ENDPOINTS] (default 127.0.0.1:9443)")
	f.StringVar(&c.caCert, "ca-cert", "", "authority of the servers' certificates in PEM [AKIDB_CA_CERT] (default: the system's)")
	f.StringVar(&c.apiKey, "api-key", "", "API key [AKIDB_API_KEY]")
	f.BoolVar(&c.plaintext, "plaintext", false, "connect without TLS, to servers under --insecure-dev")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "time for one call with all its retries")
	f.StringVar(&c.consistency, "consistency", "", "of reads: linearizable, session, bounded or eventual (default linearizable)")
}

func orEnv(value, name, def string) string {
	if value != "" {
		return value
	}
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// given is true if the caller said which cluster is meant.
func (c *connection) given() bool { return orEnv(c.endpoints, "AKIDB_ENDPOINTS", "") != "" }

func (c *connection) config() (client.Config, error) {
	cfg := client.Config{Timeout: c.timeout, Consistency: c.consistency, APIKey: orEnv(c.apiKey, "AKIDB_API_KEY", "")}
	for e := range strings.SplitSeq(orEnv(c.endpoints, "AKIDB_ENDPOINTS", "127.0.0.1:9443"), ",") {
		cfg.Endpoints = append(cfg.Endpoints, strings.TrimSpace(e))
	}
	if c.plaintext {
		return cfg, nil
	}
	ca := orEnv(c.caCert, "AKIDB_CA_CERT", "")
	var err error
	cfg.TLS, err = certs.ClientTLS(ca)
	return cfg, err
}

func (c *connection) open() (*client.Client, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	return client.Open(cfg)
}

// with runs fn with an open client.
func (c *connection) with(fn func(*client.Client) error) error {
	cl, err := c.open()
	if err != nil {
		return err
	}
	defer cl.Close()
	return fn(cl)
}

// settle waits a moment for the first health checks, so that what they tell can
// be shown; it does not fail if they do not come.
func settle(ctx context.Context, cl *client.Client) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Second)
	for {
		known := 0
		eps := cl.Endpoints()
		for _, e := range eps {
			if e.NodeID != "" {
				known++
			}
		}
		if known == len(eps) && known > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// printJSON prints a reply as the REST API would.
func printJSON(w io.Writer, m proto.Message) error {
	_, err := fmt.Fprintf(w, "%s\n", rpc.EncodeJSON(m))
	return err
}
