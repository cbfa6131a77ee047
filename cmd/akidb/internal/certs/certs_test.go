// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	f, err := OpenFiles(cert, key, ca.Path, slog.New(slog.DiscardHandler))
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
	f.checked = time.Time{}
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
	if _, err := OpenFiles(junk, junk, junk, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("junk taken for a pair")
	}
}

// An authority is replaced in three steps, each on every node: trust both, take
// certificates of the new one, trust only that. Nothing is restarted.
func TestAChangedAuthorityIsUsed(t *testing.T) {
	oldDir, newDir := t.TempDir(), t.TempDir()
	a, b := open(t, oldDir, "n1"), open(t, oldDir, "n2")
	stranger := open(t, newDir, "n3") // has a certificate of the new authority
	ca := func(dir string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	oldCA, newCA := ca(oldDir), ca(newDir)
	trust := func(f *Files, text []byte) {
		t.Helper()
		if err := os.WriteFile(f.caPath, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f.checked = time.Time{}
	}
	// Both configurations are made once, as a node does.
	type sides struct{ server, client *tls.Config }
	of := map[*Files]sides{}
	for _, f := range []*Files{a, b, stranger} {
		s, c := f.Peers()
		of[f] = sides{s, c}
	}
	both := func(server, client *Files) (serverErr, clientErr error) {
		c := of[client].client.Clone()
		c.RootCAs = client.Roots()
		return handshake(of[server].server, c)
	}
	trust(stranger, append(oldCA, newCA...))
	if s, _ := both(a, stranger); s == nil {
		t.Fatal("a client of an authority that is not trusted yet was accepted")
	}
	if _, c := both(stranger, a); c == nil {
		t.Fatal("a server of an authority that is not trusted yet was accepted")
	}
	trust(a, append(oldCA, newCA...))
	b.checked = time.Time{} // it is the same file
	if s, c := both(a, stranger); s != nil || c != nil {
		t.Error("a client of the new authority:", s, c)
	}
	if s, c := both(stranger, a); s != nil || c != nil {
		t.Error("a server of the new authority:", s, c)
	}
	if s, c := both(a, b); s != nil || c != nil {
		t.Error("the old authority goes on:", s, c)
	}
	trust(stranger, newCA)
	if s, _ := both(stranger, a); s == nil {
		t.Error("a client of the authority that was taken out was accepted")
	}
	if _, c := both(a, stranger); c == nil {
		t.Error("a server of the authority that was taken out was accepted")
	}
}

// A file that is broken or half written leaves what there was, and the log says so,
// once and not at each look.
func TestABrokenAuthorityIsNotUsed(t *testing.T) {
	dir, log := t.TempDir(), new(bytes.Buffer)
	f := open(t, dir, "n1")
	f.log = slog.New(slog.NewTextHandler(log, nil))
	whole, err := os.ReadFile(f.caPath)
	if err != nil {
		t.Fatal(err)
	}
	before := f.Roots()
	two := append(bytes.Clone(whole), whole...)
	for name, text := range map[string][]byte{
		"empty": nil, "junk": []byte("x"), "half of the first": whole[:len(whole)/2], "half of the second": two[:len(two)*3/4],
	} {
		log.Reset()
		if err := os.WriteFile(f.caPath, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			f.checked = time.Time{}
			if f.Roots() != before {
				t.Errorf("%s: the authority was replaced", name)
			}
		}
		if n := strings.Count(log.String(), "authority of the other nodes stays as it was"); n != 1 || !strings.Contains(log.String(), f.caPath) {
			t.Errorf("%s: said %d times: %s", name, n, log)
		}
		if err := os.WriteFile(f.caPath, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		f.checked = time.Time{}
		f.Refresh()
	}
	if err := os.WriteFile(f.caPath, two, 0o600); err != nil {
		t.Fatal(err)
	}
	f.checked = time.Time{}
	if f.Roots() == before || !strings.Contains(log.String(), "authority of the other nodes changed") {
		t.Errorf("the whole file is not used: %s", log)
	}
}
