// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// TestConnBehavesAsNetConn runs the suite that the standard library's own
// connections are held to.
func TestConnBehavesAsNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		n := NewNetwork(rand.New(rand.NewPCG(1, 2)), Latency{})
		c1, c2, err = connect(n)
		return c1, c2, func() { c1.Close(); c2.Close() }, err
	})
}

func connect(n *Network) (a, b net.Conn, err error) {
	ln, err := n.Host("b").Listen("tcp", "b:1")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if a, err = n.Host("a").Dial(context.Background(), "tcp", "b:1"); err != nil {
		return nil, nil, err
	}
	b, err = ln.Accept()
	return a, b, err
}

// bubble runs f on a fake clock with two connected hosts, one second apart.
func bubble(t *testing.T, f func(t *testing.T, n *Network, a, b net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(rand.New(rand.NewPCG(1, 2)), Latency{Base: time.Second})
		a, b, err := connect(n)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		defer b.Close()
		f(t, n, a, b)
	})
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// receive reads exactly s and returns how long that took.
func receive(t *testing.T, c net.Conn, s string) time.Duration {
	t.Helper()
	start := time.Now()
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != s {
		t.Fatalf("read %q, want %q", got, s)
	}
	return time.Since(start)
}

func TestBytesTakeTheLatency(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Network, a, b net.Conn) {
		send(t, a, "one")
		send(t, a, "two")
		if d := receive(t, b, "onetwo"); d != time.Second {
			t.Errorf("arrived after %v of fake time, want 1s", d)
		}
	})
}

func TestCutLinkStallsAndDeliversAfterHeal(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("a", "b")
		send(t, a, "x")
		send(t, b, "y")
		receive(t, a, "y") // the other direction works
		b.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read over a cut link: %v", err)
		}
		b.SetReadDeadline(time.Time{})
		n.Heal()
		if d := receive(t, b, "x"); d != time.Second {
			t.Errorf("arrived %v after the heal, want 1s", d)
		}
	})
}

func TestDialWaitsForACutLinkUntilItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, _, _ net.Conn) {
		ln, err := n.Host("b").Listen("tcp", "b:2")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		n.Cut("b", "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := n.Host("a").Dial(ctx, "tcp", "b:2"); err == nil || time.Since(start) != time.Minute {
			t.Fatalf("dial over a cut link: %v after %v", err, time.Since(start))
		}
		go func() {
			time.Sleep(time.Minute)
			n.Heal()
		}()
		c, err := n.Host("a").Dial(t.Context(), "tcp", "b:2")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestKilledHostResetsItsConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Down("b", false)
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read from a killed host: %v, want a reset", err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("a killed host wrote")
		}
	})
}

// A power failure sends nothing: the peer finds out when the host is back.
func TestSilentlyLostHostResetsOnlyWhenBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Down("b", true)
		send(t, a, "into the void")
		a.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read from a dark host: %v, want a time-out", err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("a dark host wrote")
		}
		a.SetReadDeadline(time.Time{})
		n.Up("b")
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the host is back: %v, want a reset", err)
		}
	})
}

func TestCloseLetsWrittenBytesArrive(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Network, a, b net.Conn) {
		send(t, a, "last words")
		a.Close()
		receive(t, b, "last words")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read after close: %v, want EOF", err)
		}
	})
}

func TestWriterWaitsForTheReader(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Network, a, b net.Conn) {
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, 2*windowBytes))
		if n != windowBytes || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d bytes that nobody reads: %v", n, err)
		}
	})
}

func TestLossBreaksConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLoss("a", "b", 1000)
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write on a lossy link: %v, want a reset", err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
}

func TestRefusedWithoutListener(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, _, _ net.Conn) {
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:9"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v, want refused", err)
		}
	})
}
