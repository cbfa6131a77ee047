// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"os/exec"
	"runtime"
	"sync"
)

// spawner starts processes from one OS thread that lives as long as they do:
// Linux sends a child its parent-death signal when the thread that made it
// ends, not the process.
type spawner struct {
	requests chan spawnRequest
	once     sync.Once
	done     chan struct{}
}

type spawnRequest struct {
	cmd   *exec.Cmd
	reply chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	defer close(s.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for r := range s.requests {
		r.reply <- r.cmd.Start()
	}
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd, make(chan error, 1)}
	s.requests <- r
	return <-r.reply
}

// close is called when all processes have ended.
func (s *spawner) close() {
	s.once.Do(func() { close(s.requests) })
	<-s.done
}
