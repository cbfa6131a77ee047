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
