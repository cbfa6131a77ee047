// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// story prints the steps of the demo for a person.
type story struct {
	w      io.Writer
	colour bool
}

func newStory(w io.Writer) *story {
	f, ok := w.(*os.File)
	return &story{w: w, colour: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

func (s *story) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// A line that cannot be written is no reason to stop: the exit status counts.
func (s *story) printf(format string, args ...any) { fmt.Fprintf(s.w, format, args...) }

func (s *story) title(text string) { s.printf("%s\n\n", s.paint("1", text)) }

// begin shows what is going on, on a terminal only.
func (s *story) begin(name string) {
	if s.colour {
		s.printf("  … %s\r", name)
	}
}

func (s *story) done(name, text string, took time.Duration) {
	s.printf("%s %-9s %s %s\n", s.paint("32", "  ✓"), s.paint("1", fmt.Sprintf("%-9s", name)), text, s.paint("2", fmt.Sprintf("(%.1f s)", took.Seconds())))
}

func (s *story) failed(name string, err error) {
	s.printf("%s %-9s %v\n", s.paint("31", "  ✗"), name, err)
}

// line is a detail of the step under way.
func (s *story) line(format string, args ...any) {
	s.printf("      %s\n", fmt.Sprintf(format, args...))
}

func (s *story) end(text string) { s.printf("\n%s\n", s.paint("1;32", text)) }

// question shows a search and its best results.
func (s *story) question(text, node string, reply *collectionv1.QueryResponse) {
	s.printf("\n      %s %s\n", s.paint("36", fmt.Sprintf("%q", text)), s.paint("2", fmt.Sprintf("on %s, %.1f ms", node, reply.LatencyMs)))
	for _, m := range reply.Matches {
		var p struct{ Doc string }
		_ = json.Unmarshal(m.GetMetadata().GetRaw(), &p) // a payload of another shape is shown as it is
		if p.Doc == "" {
			p.Doc = string(m.GetMetadata().GetRaw())
		}
		s.printf("        %.3f  %-34s %s\n", m.Distance, shorten(m.DocId, 34), s.paint("2", shorten(p.Doc, 76)))
	}
}

// thousands writes 12204 as 12,204.
func thousands(n int) string {
	s := fmt.Sprint(n)
	var parts []string
	for len(s) > 3 {
		parts = append([]string{s[len(s)-3:]}, parts...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, parts...), ",")
}
