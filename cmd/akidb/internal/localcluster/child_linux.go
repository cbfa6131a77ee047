// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"os"
	"syscall"
)

// childAttr makes the kernel kill a node when this process dies, however it
// does, and keeps the terminal's Ctrl-C from the nodes: they are stopped by us.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

func stopSignal() os.Signal { return syscall.SIGTERM }

// dumpSignal ends a Go process with the stacks of its goroutines on stderr.
func dumpSignal() os.Signal { return syscall.SIGQUIT }

// Pause stops the process where it stands; Resume lets it go on.
func (n *Node) Pause() { n.signal(syscall.SIGSTOP) }

// Resume is described at Pause.
func (n *Node) Resume() { n.signal(syscall.SIGCONT) }
