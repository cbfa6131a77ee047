// SPDX-License-Identifier: Apache-2.0

package index

import "golang.org/x/sys/unix"

// adviceDiscard lets the kernel take pages back when it wants them.
const adviceDiscard = unix.MADV_FREE

func machineMemory() uintptr {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return unknownMemory
	}
	return uintptr(n)
}

// adviseHuge: macOS chooses the size of its pages itself.
func adviseHuge([]byte) {}
