// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/akidb/akidb/internal/localport"
)

// Goal: every thread of a node may be woken a millisecond late, the runtime's own
// that sleeps 20 µs at a time too, unless the node was started with a slack of its
// own. Method: ask the kernel for each thread, and read what the node says.
func TestTimersOfANodeAreRelaxed(t *testing.T) {
	runtime.LockOSThread() // for good: a process gets the slack of the thread that starts it
	for own, want := range map[time.Duration]time.Duration{kernelTimerSlack: timerSlack, 2 * time.Millisecond: 2 * time.Millisecond} {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(own), 0, 0, 0); err != nil {
			t.Skip("this kernel has no timer slack:", err)
		}
		ports, err := localport.Reserve(5)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), startLimit)
		cmd := exec.CommandContext(ctx, akidbBinary(dir), "serve", "--insecure-dev", "--data-dir", filepath.Join(dir, "data"),
			"--rest-addr", ports.Addr(0), "--grpc-addr", ports.Addr(1), "--raft-addr", ports.Addr(2), "--metrics-addr", ports.Addr(3), "--gossip-addr", ports.Addr(4))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, said := bufio.NewScanner(log), ""
		for !strings.Contains(said, "msg=serving ") && lines.Scan() {
			said = lines.Text()
		}
		if !strings.Contains(said, fmt.Sprintf(" timer_slack=%v ", want)) {
			t.Errorf("started with a slack of %v, it says %s", own, said)
		}
		threadsHave(t, cmd.Process.Pid, want)
		_ = cmd.Process.Kill() // the test is over for it
		_ = cmd.Wait()
		cancel()
		ports.Close()
	}
}

// threadsHave compares the slack of each thread, which others may read who have
// CAP_SYS_NICE.
func threadsHave(t *testing.T, pid int, want time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads of the process that was started: %v, %v", threads, err)
	}
	for _, thread := range threads {
		got, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err != nil {
			t.Logf("thread %s: %v", filepath.Base(thread), err)
			continue
		}
		if s := strings.TrimSpace(string(got)); s != fmt.Sprint(want.Nanoseconds()) {
			t.Errorf("thread %s of a node that should have %v has %s ns", filepath.Base(thread), want, s)
		}
	}
}
