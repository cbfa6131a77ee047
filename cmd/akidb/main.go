// SPDX-License-Identifier: Apache-2.0

// Command akidb is the one binary of AkiDB: the server, the tools of its
// operator, the demo and the benchmarks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		relaxTimers()
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process, so that tests can call it. Results go to
// stdout; everything for the eyes only goes to stderr.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The first signal asks for an orderly end, the second ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errSilent) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(stderr, "akidb:", line)
		}
	}
	return 1
}

// group makes cmd one that only has others: cobra answers an unknown one of them with
// help and status 0.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.DisableFlagsInUseLine = true
	return cmd
}

// exactArgs is cobra.ExactArgs, with what they are in the error.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// errSilent ends with status 1 what has already said why.
var errSilent = errors.New("failed")

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "akidb",
		Short: "A replicated vector database in one binary",
		Long: `akidb is a vector database whose nodes behave as one: writes go through a Raft
log, and every replica answers searches from its own memory.

  akidb demo                      three nodes, real data, a killed leader: two minutes
  akidb dev                       a local cluster to play with
  akidb serve --help              one node of a real one
  akidb import notes base.fvecs   fill a collection`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newConfig(), newDev(), newDemo(), newBench(), newImport(), newSearch(), newCollection(), newCluster(), newRaft(), newVersion())
	return root
}
