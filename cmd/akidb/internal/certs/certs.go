// SPDX-License-Identifier: Apache-2.0

// Package certs makes a throw-away certificate authority for local clusters and
// reads certificates from files, again whenever they change.
package certs

import (
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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
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
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certs: %s holds no certificate in PEM", path)
	}
	return pool, nil
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

// Files is a key pair in files and the authority of the other nodes.
type Files struct {
	certPath, keyPath string
	pool              *x509.CertPool

	mu       sync.Mutex // guards the fields below
	pair     *tls.Certificate
	modified time.Time
	checked  time.Time
}

// recheck is how often the files are looked at; a handshake is rare enough.
const recheck = time.Second

// OpenFiles reads the pair and the authority once, so that errors show at start.
func OpenFiles(certPath, keyPath, caPath string) (*Files, error) {
	pool, err := Pool(caPath)
	if err != nil {
		return nil, err
	}
	f := &Files{certPath: certPath, keyPath: keyPath, pool: pool}
	if _, err := f.current(); err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	return f, nil
}

// current is the pair of now. A pair that cannot be read (half of it replaced,
// say) leaves the one before in use.
func (f *Files) current() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair != nil && time.Since(f.checked) < recheck {
		return f.pair, nil
	}
	f.checked = time.Now()
	info, err := os.Stat(f.certPath)
	if err == nil && f.pair != nil && info.ModTime().Equal(f.modified) {
		return f.pair, nil
	}
	pair, perr := tls.LoadX509KeyPair(f.certPath, f.keyPath)
	if err = errors.Join(err, perr); err != nil {
		if f.pair != nil {
			return f.pair, nil
		}
		return nil, err
	}
	f.pair, f.modified = &pair, info.ModTime()
	return f.pair, nil
}

// API is the server side of the public API: TLS 1.3, no client certificate.
func (f *Files) API() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current() }}
}

// Peers is both sides of the port between nodes: each must show a certificate
// of the authority.
func (f *Files) Peers() (server, client *tls.Config) {
	server = f.API()
	server.ClientCAs, server.ClientAuth = f.pool, tls.RequireAndVerifyClientCert
	client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.current() }}
	return server, client
}
