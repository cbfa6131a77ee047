// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// trace is what happened in a run: the schedule, and the nodes' logs. It is
// printed when a run fails.
type trace struct {
	mu     sync.Mutex // guards the fields below
	start  time.Time
	lines  []string
	faults map[string]int
}

// maxTraceLines bounds a trace; the newest lines stay.
const maxTraceLines = 20000

func newTrace() *trace { return &trace{start: time.Now(), faults: make(map[string]int)} }

// event records a step of the schedule.
func (t *trace) event(format string, args ...any) {
	t.add(fmt.Sprintf("%12v | ", time.Since(t.start)) + fmt.Sprintf(format, args...))
}

// Write takes log lines.
func (t *trace) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	if i := strings.Index(line, "level="); i > 0 {
		line = line[i:]
	}
	t.add(fmt.Sprintf("%12v   ", time.Since(t.start)) + line)
	return len(p), nil
}

func (t *trace) add(line string) {
	if os.Getenv("AKIDB_SIM_TRACE") != "" { // as it happens, for a run that hangs
		fmt.Fprintln(os.Stderr, line)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) >= maxTraceLines {
		t.lines = t.lines[maxTraceLines/4:]
	}
	t.lines = append(t.lines, line)
}

func (t *trace) count(fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[fault]++
}

// tail is the schedule and the newest n lines of the rest.
func (t *trace) tail(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	from := max(0, len(t.lines)-n)
	for i, l := range t.lines {
		if i >= from || strings.Contains(l, " | ") {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// logLevel is that of the nodes: AKIDB_SIM_LOG=debug or info.
func logLevel() slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(os.Getenv("AKIDB_SIM_LOG"))); err != nil {
		return slog.LevelWarn
	}
	return l
}
