// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The overlay moves the wall clock of a program and leaves its durations alone.
func TestClockOverlayMovesTheWallClock(t *testing.T) {
	if os.Getenv("JEPSEN_SLOW") == "" {
		t.Skip("compiles the standard library; set JEPSEN_SLOW=1")
	}
	dir := t.TempDir()
	overlay, err := clockOverlay(t.Context(), dir)
	must(t, err)
	prog := filepath.Join(dir, "main.go")
	must(t, os.WriteFile(prog, []byte(`package main
import ("fmt"; "time")
func main() { a := time.Now(); fmt.Println(a.Year(), time.Since(a) < time.Minute) }
`), 0o600))
	bin := filepath.Join(dir, "prog")
	if b, err := exec.Command("go", "build", "-overlay", overlay, "-o", bin, prog).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	clock := filepath.Join(dir, "clock")
	must(t, os.WriteFile(clock, []byte("-315360000000000000"), 0o600)) // ten years back
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "JEPSEN_CLOCK_FILE="+clock)
	b, err := cmd.Output()
	must(t, err)
	want := time.Now().Add(-315360000*time.Second).Format("2006") + " true"
	if got := strings.TrimSpace(string(b)); got != want {
		t.Errorf("the program says %q, want %q", got, want)
	}
}
