// SPDX-License-Identifier: Apache-2.0

package index

import "golang.org/x/sys/unix"

// adviceDiscard takes pages back at once; they read as zero afterwards.
const adviceDiscard = unix.MADV_DONTNEED

func machineMemory() uintptr {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return unknownMemory
	}
	return uintptr(uint64(si.Totalram) * uint64(si.Unit))
}

func adviseHuge(part []byte) { _ = unix.Madvise(part, unix.MADV_HUGEPAGE) }
