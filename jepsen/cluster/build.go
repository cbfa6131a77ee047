// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildOptions choose one of the builds of the server.
type BuildOptions struct {
	// Tags of the build, such as "akidb_mutants".
	Tags string
	// Clock makes the process read an offset of its wall clock from the file
	// that JEPSEN_CLOCK_FILE names.
	Clock bool
	// Revision builds an older commit; empty: the working tree.
	Revision string
	Race     bool
}

// Build builds the server from the module in the current directory to out.
func Build(ctx context.Context, out string, o BuildOptions) error {
	args := []string{"build", "-o", out}
	if o.Tags != "" {
		args = append(args, "-tags", o.Tags)
	}
	if o.Race {
		args = append(args, "-race")
	}
	dir, err := os.MkdirTemp("", "jepsen-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src := ""
	if o.Revision != "" {
		src = filepath.Join(dir, "src")
		if err := checkout(ctx, o.Revision, src); err != nil {
			return err
		}
	}
	if o.Clock {
		overlay, err := clockOverlay(ctx, dir)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/akidb")...)
	cmd.Dir = src
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cluster: go %s: %w\n%s", strings.Join(args, " "), err, b)
	}
	return nil
}

// checkout unpacks a commit, without touching the repository's own state.
func checkout(ctx context.Context, revision, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tar, err := exec.CommandContext(ctx, "git", "archive", revision).Output()
	if err != nil {
		return fmt.Errorf("cluster: git archive %s: %w", revision, err)
	}
	cmd := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	cmd.Stdin = bytes.NewReader(tar)
	return cmd.Run()
}

// clockSource is added to package time of the standard library. A server is a
// static binary that reads the clock through the vDSO, out of reach of
// LD_PRELOAD, and a time namespace moves only the monotonic clock. So time.Now
// itself gets an offset, in this build alone: nothing of it is in the product.
// The monotonic reading, which timers and time-outs live by, stays as it is.
const clockSource = `package time

import (
	"sync/atomic"
	"syscall"
)

var jepsenOffset atomic.Int64

// The file is read by a goroutine: timers call Now on the system stack, where
// nothing may block.
func init() {
	if name, ok := syscall.Getenv("JEPSEN_CLOCK_FILE"); ok {
		jepsenReload(name)
		go func() {
			for {
				Sleep(5 * Millisecond)
				jepsenReload(name)
			}
		}()
	}
}

func jepsenNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if off := jepsenOffset.Load(); off != 0 {
		ns := int64(nsec) + off%1e9
		sec += off / 1e9
		if ns < 0 {
			ns += 1e9
			sec--
		} else if ns >= 1e9 {
			ns -= 1e9
			sec++
		}
		nsec = int32(ns)
	}
	return sec, nsec, mono
}

func jepsenReload(name string) {
	fd, err := open(name)
	if err != nil {
		return
	}
	defer closefd(fd)
	var buf [32]byte
	n, err := read(fd, buf[:])
	if err != nil {
		return
	}
	var off, sign int64 = 0, 1
	for _, c := range buf[:n] {
		switch {
		case c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			off = off*10 + int64(c-'0')
		}
	}
	jepsenOffset.Store(sign * off)
}
`

// clockOverlay writes the files of a build whose clock can be moved and returns
// the name of the overlay.
func clockOverlay(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("cluster: go env GOROOT: %w", err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	src, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return "", err
	}
	const call = "sec, nsec, mono := runtimeNow()"
	at := bytes.Index(src, []byte("func Now() Time {"))
	if at < 0 || !bytes.Contains(src[at:], []byte(call)) {
		return "", fmt.Errorf("cluster: time.Now of this Go has another shape; the clock cannot be moved")
	}
	patched := append(append([]byte(nil), src[:at]...), bytes.Replace(src[at:], []byte(call), []byte("sec, nsec, mono := jepsenNow()"), 1)...)
	files := map[string]string{}
	for name, content := range map[string][]byte{"time.go": patched, "jepsen.go": []byte(clockSource)} {
		tmp := filepath.Join(dir, name)
		if err := os.WriteFile(tmp, content, 0o644); err != nil {
			return "", err
		}
		files[filepath.Join(pkg, name)] = tmp
	}
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, overlay, 0o644)
}
