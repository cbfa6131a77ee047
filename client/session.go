// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strconv"
	"strings"
	"sync/atomic"
)

// session remembers the newest token. Tokens are "<cluster>.<log index>"; the
// client compares their indexes and treats the rest as opaque.
type session struct {
	newest atomic.Pointer[sessionToken]
}

type sessionToken struct {
	text    string
	cluster string
	index   uint64
}

func (s *session) token() string {
	if t := s.newest.Load(); t != nil {
		return t.text
	}
	return ""
}

// observe keeps the token if it is newer, or of another cluster than the one
// known, which then was replaced. A malformed token is not kept.
func (s *session) observe(text string) {
	if text == "" {
		return
	}
	old := s.newest.Load()
	if old != nil && old.text == text {
		return
	}
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 {
		return
	}
	index, err := strconv.ParseUint(text[dot+1:], 10, 64)
	if err != nil {
		return
	}
	// The cluster's part is compared where it is, so that the many replies with
	// an older or equal token cost no allocation.
	for old == nil || old.cluster != text[:dot] || old.index < index {
		next := &sessionToken{text: text, cluster: text[:dot], index: index}
		if s.newest.CompareAndSwap(old, next) {
			return
		}
		old = s.newest.Load()
	}
}
