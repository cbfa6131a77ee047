// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// authority is a certificate authority of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(tmpl, nil)
	return a
}

func (a *authority) sign(tmpl *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// configs are mutual TLS for a node at 127.0.0.1.
func (a *authority) configs() (server, client *tls.Config) {
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	pair := []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: pair, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{MinVersion: tls.VersionTLS13, Certificates: pair, RootCAs: pool}
}

// A cluster under mutual TLS works, snapshots included; a stranger with
// another authority's certificate, or with none, gets no answer.
func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	c := startCluster(t, 3, func(cfg *Config) {
		cfg.ServerTLS, cfg.ClientTLS = ca.configs()
		cfg.TrailingLogs = 4
	})
	victim := c.follower().ID()
	c.stop(victim)
	for i := range 30 {
		c.put(c.leader(), fmt.Sprintf("d%d", i))
	}
	if _, _, err := c.leader().Snapshot(c.ctx()); err != nil {
		t.Fatal(err)
	}
	n := c.start(victim)
	if err := n.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.mem[victim].doc("d0"); !ok {
		t.Fatal("data missing after a snapshot over TLS")
	}
	_, foreign := newAuthority(t).configs()
	foreign.RootCAs, foreign.InsecureSkipVerify = nil, true
	for name, conf := range map[string]*tls.Config{"foreign": foreign, "none": {InsecureSkipVerify: true}, "plain": nil} {
		m, err := newMux(Net{}.withDefaults(), "127.0.0.1:0", nil, conf, n.log)
		if err != nil {
			t.Fatal(err)
		}
		rpc := newRPCClient(m.dialRPC)
		var r nodev1.HelloReply
		if err := rpc.call(c.ctx(), c.addrs[victim], laneControl, methodHello, &nodev1.HelloRequest{}, &r); err == nil {
			t.Errorf("a stranger with %s certificate was answered", name)
		}
		m.cut()
		rpc.close()
		m.wait()
	}
}

// Whom a node trusts when it dials may change while it runs.
func TestPeersAreTrustedByTheAuthorityOfNow(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	var trusted atomic.Pointer[authority]
	trusted.Store(first)
	server, client := first.configs()
	at, err := newMux(Net{}.withDefaults(), "127.0.0.1:0", server, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	at.handlers[streamRPC] = func(_ preamble, c net.Conn) { c.Close() }
	at.serve()
	from, err := newMux(Net{}.withDefaults(), "127.0.0.1:0", nil, client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	from.peerRoots = func() *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(trusted.Load().cert)
		return pool
	}
	defer func() {
		for _, m := range []*mux{at, from} {
			m.cut()
			m.wait()
		}
	}()
	dial := func() error {
		c, err := from.dialRPC(t.Context(), at.ln.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial(); err != nil {
		t.Error("the authority of the start:", err)
	}
	trusted.Store(second)
	if dial() == nil {
		t.Error("a peer of an authority that was taken out is trusted")
	}
	trusted.Store(first)
	if err := dial(); err != nil {
		t.Error("an authority that came back:", err)
	}
}

// Gossip under encryption sees who lives; keys are replaced while it runs.
func TestGossipKeysAreReplaced(t *testing.T) {
	oldKey, newKey := make([]byte, 32), make([]byte, 32)
	newKey[0] = 1
	addrs := map[string]string{}
	c := newCluster(t, []string{"n1", "n2"}, func(cfg *Config) {
		cfg.GossipAddr = addrs[cfg.NodeID]
		cfg.GossipKeys = [][]byte{oldKey}
	})
	for _, n := range c.names {
		addrs[n] = freeAddr(t)
		c.start(n)
	}
	// Ports differ on this one machine: the nodes tell each other where gossip is.
	health := func(at, of string) string {
		h, _ := c.nodes[at].gossip.health(of)
		return h
	}
	alive := func() bool { return health("n1", "n2") == "alive" && health("n2", "n1") == "alive" }
	c.wait("gossip to see both", alive)
	for _, keys := range [][][]byte{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for _, n := range c.names {
			if err := c.nodes[n].SetGossipKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.stop("n2")
	c.wait("gossip to notice that n2 is gone", func() bool {
		return health("n1", "n2") == "dead"
	})
}
