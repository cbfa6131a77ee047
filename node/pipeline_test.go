// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// stuckPipeline has no room and nobody who makes some.
type stuckPipeline struct {
	raft.AppendPipeline
	closed chan struct{}
}

func (p stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}

func (p stuckPipeline) Close() error {
	close(p.closed)
	return nil
}

// A sender must not wait for ever on a pipeline whose responses nobody reads.
func TestSenderLeavesAPipelineThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &trimmedPipeline{
			AppendPipeline: stuckPipeline{closed: make(chan struct{})},
			t:              &groupTransport{commitLimit: func() uint64 { return 0 }},
		}
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, nil); !errors.Is(err, raft.ErrPipelineShutdown) {
			t.Errorf("append: %v, want %v", err, raft.ErrPipelineShutdown)
		}
	})
}
