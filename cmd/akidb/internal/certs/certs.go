// SPDX-License-Identifier: Apache-2.0

// Package certs makes a throw-away certificate authority for local clusters and
// reads certificates from files, again whenever they change.
package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// validFor: a local cluster kept with --dir is meant to be started again.
const validFor = 5 * 365 * 24 * time.Hour

// Authority signs the certificates of a local cluster.
type Authority struct {
	Path string // of its certificate in PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenAuthority reads the authority in dir, or makes one there.
func OpenAuthority(dir string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeAuthority(certPath, keyPath); err != nil {
			return nil, fmt.Errorf("certs: make authority in %s: %w", dir, err)
		}
		pair, err = tls.LoadX509KeyPair(certPath, keyPath)
	}
	if err != nil {
		return nil, fmt.Errorf("certs: authority in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("certs: %s is no ECDSA key", keyPath)
	}
	return &Authority{Path: certPath, cert: pair.Leaf, key: key}, nil
}

func makeAuthority(certPath, keyPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := template("AkiDB local authority")
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return writePair(certPath, keyPath, der, key)
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validFor)}
}

// loopbacks is how many addresses of 127.0.0.0/24 a certificate is valid for.
const loopbacks = 16

// Issue writes a certificate for name, valid as server and as client on localhost
// and the first loopback addresses, and returns its files. An existing one is kept.
func (a *Authority) Issue(dir, name string) (certPath, keyPath string, err error) {
	certPath, keyPath = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if _, err := tls.LoadX509KeyPair(certPath, keyPath); err == nil {
		return certPath, keyPath, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("certs: %w", err)
	}
	tmpl := template(name)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.DNSNames = []string{"localhost", name}
	tmpl.IPAddresses = []net.IP{net.IPv6loopback}
	for i := range loopbacks {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IPv4(127, 0, 0, byte(i+1)))
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err == nil {
		err = writePair(certPath, keyPath, der, key)
	}
	if err != nil {
		return "", "", fmt.Errorf("certs: issue %s: %w", name, err)
	}
	return certPath, keyPath, nil
}

func writePair(certPath, keyPath string, der []byte, key *ecdsa.PrivateKey) error {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// Pool reads an authority's certificates.
func Pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return poolOf(path, text)
}

func poolOf(path string, text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certs: %s holds no certificate in PEM", path)
	}
	// The authorities behind the place where a file breaks off would be left out
	// without a word.
	for block, rest := pem.Decode(text); ; block, rest = pem.Decode(rest) {
		if block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN ")) {
				return nil, fmt.Errorf("certs: %s breaks off within a certificate", path)
			}
			return pool, nil
		}
	}
}

// ClientTLS trusts the authority in path, or the system's if path is empty.
func ClientTLS(path string) (*tls.Config, error) {
	if path == "" {
		return &tls.Config{MinVersion: tls.VersionTLS13}, nil
	}
	pool, err := Pool(path)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// Files is a key pair in files and the authority of the other nodes. What is used
// is what was last read whole: a file that is missing, half written or does not go
// with the other leaves what there was, and the log says so once.
type Files struct {
	log                       *slog.Logger
	certPath, keyPath, caPath string
	pair                      atomic.Pointer[tls.Certificate]
	pool                      atomic.Pointer[x509.CertPool]

	looking            sync.Mutex // held while files are read; guards the fields below
	checked            time.Time
	pairText, caText   []byte // what pair and pool were read from
	pairFault, caFault string // what was last said of them
}

// recheck is how often the files are looked at; a handshake is rare enough.
const recheck = time.Second

// OpenFiles reads the pair and the authority once, so that errors show at start.
func OpenFiles(certPath, keyPath, caPath string, log *slog.Logger) (*Files, error) {
	f := &Files{log: log, certPath: certPath, keyPath: keyPath, caPath: caPath, checked: time.Now()}
	if _, err := f.readPool(); err != nil {
		return nil, err
	}
	if _, err := f.readPair(); err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return f, nil
}

// Refresh reads what has changed, a second after the last look at the soonest.
func (f *Files) Refresh() {
	// Who comes while another looks goes on with what there is: files may be on a
	// disk that does not answer.
	if !f.looking.TryLock() {
		return
	}
	defer f.looking.Unlock()
	if time.Since(f.checked) < recheck {
		return
	}
	f.checked = time.Now()
	changed, err := f.readPair()
	f.tell("certificate and key changed", "certificate and key stay as they were", &f.pairFault, changed, err)
	changed, err = f.readPool()
	f.tell("authority of the other nodes changed", "authority of the other nodes stays as it was", &f.caFault, changed, err)
}

func (f *Files) tell(good, bad string, said *string, changed bool, err error) {
	switch {
	case err != nil && err.Error() != *said:
		*said = err.Error()
		f.log.Error(bad, "err", err)
	case err == nil:
		*said = ""
	}
	if changed {
		f.log.Info(good)
	}
}

func (f *Files) readPair() (changed bool, err error) {
	cert, err := os.ReadFile(f.certPath)
	if err != nil {
		return false, err
	}
	key, err := os.ReadFile(f.keyPath)
	if err != nil {
		return false, err
	}
	text := slices.Concat(cert, key)
	if bytes.Equal(text, f.pairText) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("%s, %s: %w", f.certPath, f.keyPath, err)
	}
	f.pair.Store(&pair)
	f.pairText = text
	return true, nil
}

func (f *Files) readPool() (changed bool, err error) {
	text, err := os.ReadFile(f.caPath)
	if err != nil {
		return false, fmt.Errorf("certs: %w", err)
	}
	if bytes.Equal(text, f.caText) {
		return false, nil
	}
	pool, err := poolOf(f.caPath, text)
	if err != nil {
		return false, err
	}
	f.pool.Store(pool)
	f.caText = text
	return true, nil
}

// current is the pair of now.
func (f *Files) current() (*tls.Certificate, error) {
	f.Refresh()
	return f.pair.Load(), nil
}

// Roots are the authority's certificates of now.
func (f *Files) Roots() *x509.CertPool {
	f.Refresh()
	return f.pool.Load()
}

// API is the server side of the public API: TLS 1.3, no client certificate.
func (f *Files) API() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current() }}
}

// Peers is both sides of the port between nodes: each must show a certificate
// of the authority. The server trusts the authority of now. A tls.Config has no such
// thing for a client: who dials puts Roots in the place of its RootCAs.
func (f *Files) Peers() (server, client *tls.Config) {
	server = f.API()
	server.ClientCAs, server.ClientAuth = f.Roots(), tls.RequireAndVerifyClientCert
	// A ticket would outlive the authority that it was given under.
	server.SessionTicketsDisabled = true
	fixed := server.Clone()
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := fixed.Clone()
		c.ClientCAs = f.Roots()
		return c, nil
	}
	client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.Roots(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.current() }}
	return server, client
}
