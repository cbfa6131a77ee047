// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// timerSlack is how late the kernel may wake a thread of a node that sleeps.
	timerSlack = time.Millisecond
	// kernelTimerSlack is what a process has to which nobody gave another.
	kernelTimerSlack = 50 * time.Microsecond
	// relaxedEnv holds the id of the process that execs itself.
	relaxedEnv = "AKIDB_RELAXED"
)

// relaxTimers gives all threads of this process a timer slack (prctl(2),
// PR_SET_TIMERSLACK) of a millisecond, unless it was started with one of its own.
// Go's runtime has a thread that sleeps for 20 µs again and again while anything
// runs; how often it wakes up depends on the slack (ADR 0099). A thread has the
// slack of the one that made it, and that thread is there before main: so the
// process executes itself, and keeps its id, its files and its arguments. It goes
// on as it is where that is not possible.
func relaxTimers() {
	self := strconv.Itoa(os.Getpid())
	if os.Getenv(relaxedEnv) == self {
		_ = os.Unsetenv(relaxedEnv) // of a valid name: cannot fail
		return
	}
	if currentTimerSlack() != kernelTimerSlack {
		return
	}
	path, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread() // exec keeps the slack of the thread that calls it
	defer runtime.UnlockOSThread()
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(path, os.Args, append(os.Environ(), relaxedEnv+"="+self))
	// 0 sets what the thread began with.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
}

// currentTimerSlack is the slack of the thread that asks; 0 if it is not known, or
// if its timers have none since it has a real-time priority.
func currentTimerSlack() time.Duration {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}
