// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets hashicorp's libraries log through slog. Their "info" is about
// their own inner workings and becomes debug.
func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})
	l.RegisterSink(slogSink{log})
	return l
}

type slogSink struct{ log *slog.Logger }

func (s slogSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	lvl := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		lvl = slog.LevelWarn
	case level == hclog.Warn:
		lvl = slog.LevelInfo
	}
	if !s.log.Enabled(context.Background(), lvl) {
		return
	}
	s.log.Log(context.Background(), lvl, "raft: "+msg, args...)
}

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }
