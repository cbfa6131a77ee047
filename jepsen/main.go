// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command jepsen runs AkiDB as real processes, breaks their machines and their
// network, and checks the histories that clients recorded.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  jepsen list
  jepsen run -workload W[,W]|all -nemesis N[,N] [-time 60s] [-seed S]   one run
  jepsen matrix [-workloads W,..] [-nemeses N,..] [-time 60s] [-budget 2h]
                                    all workloads together under each nemesis
  jepsen mutants [-only NAME]       broken builds that must be caught
  jepsen report DIR                 what a run showed
  jepsen check [-workload W] HISTORY|DIR   judge histories again

The exit status is 0 for valid, 1 for invalid, 2 for unknown or an error.
Run it in the root of the module. As root every node gets a network namespace.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	commands := map[string]func(context.Context, []string) (int, error){
		"list": list, "run": runOne, "matrix": matrix, "mutants": mutants, "report": show, "check": recheck,
	}
	f, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	status, err := f(ctx, os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "jepsen:", err)
		status = 2
	}
	stop()
	os.Exit(status)
}
