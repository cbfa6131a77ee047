// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// handshake runs both ends over a pipe and returns what each says.
func handshake(server, client *tls.Config) (serverErr, clientErr error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	client = client.Clone()
	client.ServerName = "localhost"
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr == nil { // TLS 1.3: a refused client certificate shows at the first read
		_, clientErr = c.Read(make([]byte, 1))
	}
	b.Close()
	return <-done, clientErr
}

func open(t *testing.T, dir, name string) *Files {
	ca, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFiles(cert, key, ca.Path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNodesTrustTheirAuthorityOnly(t *testing.T) {
	dir := t.TempDir()
	server, _ := open(t, dir, "n1").Peers()
	_, client := open(t, dir, "n2").Peers()
	if s, c := handshake(server, client); s != nil || c != nil {
		t.Fatal(s, c)
	}
	_, stranger := open(t, t.TempDir(), "n2").Peers()
	stranger.RootCAs = client.RootCAs
	if s, _ := handshake(server, stranger); s == nil {
		t.Fatal("a stranger's certificate was accepted")
	}
	public, err := ClientTLS(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := handshake(server, public); s == nil {
		t.Fatal("no certificate was accepted")
	}
	if s, c := handshake(open(t, dir, "n1").API(), public); s != nil || c != nil {
		t.Fatal(s, c)
	}
}

func TestAChangedPairIsUsed(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, "n1")
	before, _ := f.current()
	ca, _ := OpenAuthority(dir)
	for _, file := range []string{f.certPath, f.keyPath} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	f.checked = time.Time{}
	if now, err := f.current(); err != nil || now != before {
		t.Fatal("a missing pair must leave the old one in use", err)
	}
	if _, _, err := ca.Issue(dir, "n1"); err != nil {
		t.Fatal(err)
	}
	f.checked, f.modified = time.Time{}, time.Time{}
	if now, err := f.current(); err != nil || now == before {
		t.Fatal("the new pair is not used", err)
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Pool(junk); err == nil {
		t.Fatal("junk taken for a certificate")
	}
	if _, err := OpenFiles(junk, junk, junk); err == nil {
		t.Fatal("junk taken for a pair")
	}
}
