// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/internal/localport"
)

// Node is one process of the cluster.
type Node struct {
	ID      string `json:"id"`
	REST    string `json:"rest"`
	GRPC    string `json:"grpc"`
	Raft    string `json:"raft"`
	Gossip  string `json:"gossip"`
	Metrics string `json:"metrics"`

	cluster *Cluster
	flags   []string // of this node alone
	binary  string   // if it is not the cluster's

	mu   sync.Mutex // guards the field below
	proc *process   // nil while it does not run
}

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	began time.Time
	asked atomic.Bool   // to end
	done  chan struct{} // closed when it has ended
	err   error         // set before done is closed
}

func (n *Node) home() string { return filepath.Join(n.cluster.opt.Dir, n.ID) }

// DataDir is where the node keeps its data.
func (n *Node) DataDir() string { return filepath.Join(n.home(), "data") }

// LogPath is where its log goes.
func (n *Node) LogPath() string { return filepath.Join(n.home(), "node.log") }

// PID is 0 while the node does not run.
func (n *Node) PID() int {
	if p := n.running(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

func (n *Node) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// Start starts the node's process; it must not run.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil {
		return fmt.Errorf("%s runs already", n.ID)
	}
	c := n.cluster
	args := []string{"serve", "--node-id", n.ID, "--data-dir", n.DataDir(),
		"--rest-addr", n.REST, "--grpc-addr", n.GRPC, "--raft-addr", n.Raft, "--metrics-addr", n.Metrics,
		"--gossip-addr", n.Gossip,
		// The nodes share this machine's cores, so each builds with its share.
		"--index-workers", fmt.Sprint(max(1, runtime.NumCPU()/len(c.Nodes))),
		"--peers", c.peers(), "--bootstrap-expect", fmt.Sprint(c.founders())}
	if c.opt.Plaintext {
		args = append(args, "--insecure-dev")
	} else {
		args = append(args, "--tls-cert", filepath.Join(n.home(), n.ID+".crt"), "--tls-key", filepath.Join(n.home(), n.ID+".key"), "--tls-ca", c.CACert)
	}
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	binary := c.opt.Binary
	if n.binary != "" {
		binary = n.binary
	}
	cmd := exec.Command(binary, append(append(args, c.opt.Flags...), n.flags...)...)
	cmd.Dir = n.home() // a config.toml of the caller's directory is not the node's
	// A secret on the command line would be there for every user to read.
	cmd.Env = append(childEnv(os.Environ()), "AKIDB_GOSSIP_KEY="+c.layout.GossipKey)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	if err := c.spawner.start(cmd); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", n.ID, err), log.Close())
	}
	p := &process{cmd: cmd, log: log, began: time.Now(), done: make(chan struct{})}
	n.proc = p
	go func() { // ends with the process, which wait and Close see to
		p.err = cmd.Wait()
		p.log.Close()
		n.mu.Lock()
		n.proc = nil
		n.mu.Unlock()
		close(p.done)
		if c.opt.Ended != nil && !p.asked.Load() {
			c.opt.Ended(Ending{Node: n, PID: cmd.Process.Pid, Err: p.err})
		}
	}()
	return nil
}

// childEnv leaves out the caller's AKIDB_ settings, which are not the node's.
func childEnv(environ []string) []string {
	var out []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "AKIDB_") {
			out = append(out, kv)
		}
	}
	return out
}

// SetFlags gives a node flags of its own, and SetBinary another binary, from its
// next start on.
func (n *Node) SetFlags(flags ...string) { n.flags = flags }

// SetBinary is described at SetFlags.
func (n *Node) SetBinary(path string) { n.binary = path }

// Readdress gives a node that does not run other addresses.
func (n *Node) Readdress() error {
	r, err := localport.Reserve(5)
	if err != nil {
		return err
	}
	n.cluster.ports = append(n.cluster.ports, r)
	n.REST, n.GRPC, n.Raft, n.Gossip, n.Metrics = r.Addr(0), r.Addr(1), r.Addr(2), r.Addr(3), r.Addr(4)
	return nil
}

// Wipe removes the data of a node that does not run, as a lost disk does.
func (n *Node) Wipe() error {
	names, err := os.ReadDir(n.DataDir()) // not the directory, which may be a mount
	for _, f := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(n.DataDir(), f.Name())))
	}
	return err
}

// Kill ends the process with SIGKILL and waits for its end.
func (n *Node) Kill() {
	if p := n.running(); p != nil {
		p.asked.Store(true)
		_ = p.cmd.Process.Kill() // it may have ended by itself
		<-p.done
	}
}

// Stop asks the process to end gracefully and waits; SIGKILL when ctx ends.
func (n *Node) Stop(ctx context.Context) error {
	n.signal(stopSignal())
	return n.wait(ctx)
}

func (n *Node) signal(s os.Signal) {
	if p := n.running(); p != nil {
		if s == stopSignal() {
			p.asked.Store(true)
		}
		_ = p.cmd.Process.Signal(s) // it may have ended by itself
	}
}

func (n *Node) wait(ctx context.Context) error {
	p := n.running()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.end()
		return fmt.Errorf("%s did not stop in time and was killed; what held it up is at the end of its log %s", n.ID, n.LogPath())
	}
	return p.err
}

// dumpPatience is how long a process may take to write down its goroutines.
const dumpPatience = 10 * time.Second

// end kills the process after it has said, where it can, what its goroutines do.
func (p *process) end() {
	if s := dumpSignal(); s != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended by itself
		t := time.NewTimer(dumpPatience)
		defer t.Stop()
		select {
		case <-p.done:
			return
		case <-t.C:
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stacks ends a process that hangs and returns what its goroutines did, as far
// as it says so, which is the end of its log.
func (n *Node) Stacks() string {
	p := n.running()
	if p == nil {
		return n.ID + " does not run"
	}
	from, err := os.Stat(n.LogPath())
	if err != nil {
		return err.Error()
	}
	p.asked.Store(true)
	p.end()
	text, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(text[min(int64(len(text)), from.Size()):])
}

// WaitReady waits until the node says that it is ready.
func (n *Node) WaitReady(ctx context.Context) error {
	cl, err := n.cluster.Client(n)
	if err != nil {
		return err
	}
	defer cl.Close()
	return n.waitReady(ctx, cl)
}

func (n *Node) waitReady(ctx context.Context, cl *client.Client) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("%s ended; the end of its log:\n%s", n.ID, n.logTail())
	}
	var last string
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		st, err := cl.Status(attempt, n.GRPC)
		cancel()
		select {
		case <-p.done: // whoever answered, it was not this process
			return fmt.Errorf("%s ended; the end of its log:\n%s", n.ID, n.logTail())
		default:
		}
		switch {
		case err != nil:
			last = err.Error()
		case st.NodeId != n.ID || time.Duration(st.UptimeSeconds)*time.Second > time.Since(p.began):
			last = fmt.Sprintf("another process, node %s, up for %d s, answers at %s", st.NodeId, st.UptimeSeconds, n.GRPC)
		case st.Ready:
			return nil
		default:
			last = st.NotReadyReason
		}
		if pause(ctx, readyPoll) != nil {
			return fmt.Errorf("%s is not ready: %s; the end of its log:\n%s", n.ID, last, n.logTail())
		}
	}
}

// logTail is the end of the node's log.
func (n *Node) logTail() string {
	text, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-12):], []byte("\n")))
}
