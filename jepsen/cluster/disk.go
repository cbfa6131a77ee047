// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// smallDiskBytes is the size of a disk that is to be filled: room enough for the
// preallocated log of a node that does little.
const smallDiskBytes = 512 << 20

// prepareDisk makes the data directory on the disk that was asked for.
func (n *Node) prepareDisk() error {
	if err := os.MkdirAll(n.DataDir, 0o755); err != nil {
		return err
	}
	switch n.c.cfg.Disk {
	case DiskSmall:
		opts := fmt.Sprintf("size=%d", smallDiskBytes)
		if err := syscall.Mount("jepsen-"+n.c.cfg.Tag, n.DataDir, "tmpfs", 0, opts); err != nil {
			return fmt.Errorf("cluster: mount a small disk for %s: %w", n.ID, err)
		}
		n.mounted = true
	case DiskFuse:
		fs, err := mountForgetful("jepsen-"+n.c.cfg.Tag, filepath.Join(n.c.cfg.Dir, "backing", n.ID), n.DataDir)
		if err != nil {
			return fmt.Errorf("cluster: mount a forgetful disk for %s: %w", n.ID, err)
		}
		n.fuse = fs
	}
	return nil
}

// removeDisk unmounts what prepareDisk mounted, and keeps a copy of nothing.
func (n *Node) removeDisk() error {
	err := n.LimitMemory(0)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mounted {
		n.mounted = false
		err = errors.Join(err, syscall.Unmount(n.DataDir, syscall.MNT_DETACH))
	}
	if n.fuse != nil {
		err = errors.Join(err, n.fuse.unmount())
		n.fuse = nil
	}
	return err
}

// fillName is the file that fills a disk.
const fillName = "jepsen-fill"

// FillDisk writes to the small disk until no byte is left.
func (n *Node) FillDisk() error {
	if n.c.cfg.Disk != DiskSmall {
		return errors.New("cluster: only small disks are filled")
	}
	f, err := os.OpenFile(filepath.Join(n.DataDir, fillName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// FreeDisk takes the filling away.
func (n *Node) FreeDisk() error {
	err := os.Remove(filepath.Join(n.DataDir, fillName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// SlowDisk delays every sync by up to d; 0 makes it fast again.
func (n *Node) SlowDisk(d time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fuse == nil {
		return errors.New("cluster: only forgetful disks are slowed")
	}
	n.fuse.slow(d)
	return nil
}

// LosePower kills the process and takes back whatever it had not synced: the
// disk is then as after a power failure. What was lost is the number of writes
// taken back.
func (n *Node) LosePower(seed uint64) (lost int, err error) {
	if err := n.Kill(); err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fuse == nil {
		return 0, errors.New("cluster: only forgetful disks forget")
	}
	// Mounted anew, so that the kernel does not serve pages that are lost.
	old := n.fuse
	if err := old.unmount(); err != nil {
		return 0, err
	}
	n.fuse = nil
	if lost, err = old.losePower(seed); err != nil {
		return lost, err
	}
	n.fuse, err = mountForgetful("jepsen-"+n.c.cfg.Tag, old.backing, n.DataDir)
	return lost, err
}

// Sweep takes away what a harness that was killed left behind: namespaces,
// bridges and mounts with the tag. Its processes died with it.
func Sweep(tag string) []string {
	var swept []string
	entries, _ := os.ReadDir("/var/run/netns")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "akj"+tag+"-") && ip("netns del "+e.Name()) == nil {
			swept = append(swept, "namespace "+e.Name())
		}
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		mine := l.Name() == "akj"+tag || strings.HasPrefix(l.Name(), "akj"+tag+".")
		if mine && ip("link del "+l.Name()) == nil {
			swept = append(swept, "link "+l.Name())
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "jepsen-"+tag && syscall.Unmount(f[1], syscall.MNT_DETACH) == nil {
			swept = append(swept, "mount "+f[1])
		}
	}
	return swept
}
