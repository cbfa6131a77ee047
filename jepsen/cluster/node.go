// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is one member with its process, if it runs.
type Node struct {
	ID  string
	Num int
	// Addresses; AdvertiseAddr is what peers dial.
	RESTAddr, GRPCAddr, MetricsAddr, RaftAddr, AdvertiseAddr, GossipAddr string
	DataDir                                                              string

	c *Cluster

	mu      sync.Mutex // guards the fields below
	bin     string
	proc    *process
	paused  bool
	crashed bool // the last process ended without being asked to
	mounted bool
	fuse    *forgetfulFS
	cgroup  string
	// Exits are the ends of processes that nobody had asked for.
	exits []Exit
}

// Exit is the end of a process that nobody had asked for.
type Exit struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	How  string    `json:"how"`
}

// process is a running process; done is closed after it ended.
type process struct {
	cmd     *exec.Cmd
	done    chan struct{}
	wanted  bool // its end was asked for; guarded by Node.mu
	started time.Time
}

func (n *Node) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return 0
	}
	return n.proc.cmd.Process.Pid
}

// Running says whether the node's process runs, paused or not.
func (n *Node) Running() bool { return n.pid() != 0 }

// Exits lists the ends of the node's processes that nobody had asked for.
func (n *Node) Exits() []Exit {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Exit(nil), n.exits...)
}

// ForgetExits makes the ends so far expected: a fault was meant to cause them.
func (n *Node) ForgetExits() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exits = nil
}

func (n *Node) args() []string {
	args := []string{
		"serve",
		"--node-id", n.ID,
		"--data-dir", n.DataDir,
		"--rest-addr", n.RESTAddr, "--grpc-addr", n.GRPCAddr, "--metrics-addr", n.MetricsAddr,
		"--raft-addr", n.RaftAddr, "--advertise-addr", n.AdvertiseAddr,
		"--peers", n.c.peers(),
		"--bootstrap-expect", strconv.Itoa(n.c.cfg.Nodes),
		"--tls-cert", n.c.certs.CertFile, "--tls-key", n.c.certs.KeyFile, "--tls-ca", n.c.certs.CAFile,
		"--gossip-addr", n.GossipAddr,
	}
	return append(args, n.c.cfg.Args...)
}

// Start starts the process; it does nothing if it runs.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.startLocked()
}

func (n *Node) startLocked() error {
	if n.proc != nil {
		return nil
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- jepsen: start %s\n", time.Now().Format(time.RFC3339Nano))
	cmd := n.c.net.command(n, n.bin, n.args())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), n.c.cfg.Env...), "JEPSEN_CLOCK_FILE="+n.ClockFile())
	// The kernel kills the process should the harness die without cleaning up; a
	// group of its own keeps the terminal's interrupt away from it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cluster: start %s: %w", n.ID, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{}), started: time.Now()}
	n.proc, n.paused = p, false
	go n.reap(p)
	return nil
}

// reap waits for the end of a process. It ends with the process, for which every
// method that ends it waits.
func (n *Node) reap(p *process) {
	_ = p.cmd.Wait()
	n.mu.Lock()
	n.crashed = !p.wanted
	if !p.wanted {
		n.exits = append(n.exits, Exit{n.ID, time.Now(), p.cmd.ProcessState.String()})
	}
	if n.proc == p {
		n.proc = nil
	}
	n.mu.Unlock()
	close(p.done)
}

// LogFile is where the process writes.
func (n *Node) LogFile() string { return filepath.Join(n.c.cfg.Dir, "logs", n.ID+".log") }

// ClockFile holds the offset of the node's clock, if its binary reads one.
func (n *Node) ClockFile() string { return filepath.Join(n.c.cfg.Dir, "logs", n.ID+".clock") }

// Supervise starts the process again if it ended without being asked to, as a
// service manager would, and says whether it did.
func (n *Node) Supervise() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil || !n.crashed {
		return false, nil
	}
	return true, n.startLocked()
}

// signal sends sig to the process, if there is one. After the last one, which is
// to end it, nobody starts it again but by Start.
func (n *Node) signal(sig syscall.Signal, last bool) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		n.crashed = n.crashed && !last
		return nil
	}
	n.proc.wanted = n.proc.wanted || last
	_ = n.proc.cmd.Process.Signal(sig) // it may just have ended
	return n.proc
}

// Kill ends the process at once, as a crash would, and waits for its end.
func (n *Node) Kill() error {
	p := n.signal(syscall.SIGKILL, true)
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("cluster: %s survives SIGKILL", n.ID)
	}
}

// Stop asks the process to end and waits; after patience it is killed, and the
// error says so.
func (n *Node) Stop(patience time.Duration) error {
	p := n.signal(syscall.SIGTERM, true)
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("cluster: %s did not end within %v of SIGTERM", n.ID, patience), n.Kill())
	}
}

// Pause stops the process with SIGSTOP; Resume lets it go on.
func (n *Node) Pause() {
	n.signal(syscall.SIGSTOP, false)
	n.mu.Lock()
	n.paused = true
	n.mu.Unlock()
}

// Resume continues a paused process.
func (n *Node) Resume() {
	n.signal(syscall.SIGCONT, false)
	n.mu.Lock()
	n.paused = false
	n.mu.Unlock()
}

// Upgrade makes the next start use the upgraded binary, or, if back, the first.
func (n *Node) Upgrade(back bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bin = n.c.cfg.Upgraded
	if back || n.bin == "" {
		n.bin = n.c.cfg.Binary
	}
}

// Wipe empties the data directory of a stopped node.
func (n *Node) Wipe() error {
	if n.Running() {
		return fmt.Errorf("cluster: %s runs, its data stays", n.ID)
	}
	entries, err := os.ReadDir(n.DataDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.DataDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Files lists the files of the data directory that are not empty, by path.
func (n *Node) Files() ([]string, error) {
	var files []string
	err := filepath.WalkDir(n.DataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > 0 {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// memoryCgroup is where version 1 of the memory controller is mounted.
const memoryCgroup = "/sys/fs/cgroup/memory"

// LimitMemory keeps the process within a few MiB more than it uses now, so that
// everything else it touches must be thrown out again. 0 takes the limit away.
func (n *Node) LimitMemory(extra int64) error {
	pid := n.pid()
	n.mu.Lock()
	defer n.mu.Unlock()
	if extra == 0 {
		if n.cgroup == "" {
			return nil
		}
		// Its processes go back to the root group, then it can be removed.
		procs, _ := os.ReadFile(filepath.Join(n.cgroup, "cgroup.procs"))
		for _, p := range strings.Fields(string(procs)) {
			_ = os.WriteFile(filepath.Join(memoryCgroup, "cgroup.procs"), []byte(p), 0o644)
		}
		err := os.Remove(n.cgroup)
		n.cgroup = ""
		return err
	}
	if pid == 0 {
		return fmt.Errorf("cluster: %s does not run, its memory cannot be limited", n.ID)
	}
	rss, err := residentBytes(pid)
	if err != nil {
		return err
	}
	dir := filepath.Join(memoryCgroup, "akj"+n.c.cfg.Tag+"-"+n.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	n.cgroup = dir
	limit := strconv.FormatInt(rss+extra, 10)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644),
		os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(limit), 0o644),
	)
}

// residentBytes is the memory that a process holds.
func residentBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("cluster: /proc/%d/statm: %q", pid, b)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
