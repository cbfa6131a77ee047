// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/cmd/akidb/internal/settings"
)

func newConfig() *cobra.Command {
	cmd := group(&cobra.Command{Use: "config", Short: "Look at the configuration of a server"})
	check := &cobra.Command{
		Use:   "check [flags of serve]",
		Short: "Print the effective configuration with the source of each value, and say what is wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := settings.Load(cmd.Flags(), os.Environ())
			if cfg != nil {
				if err := cfg.Print(cmd.OutOrStdout()); err != nil {
					return err
				}
				for _, name := range cfg.UnknownEnv {
					fmt.Fprintf(cmd.ErrOrStderr(), "akidb: unknown variable %s\n", name)
				}
			}
			if err == nil && len(cfg.UnknownEnv) > 0 {
				return errSilent
			}
			return err
		},
	}
	settings.AddFlags(check.Flags())
	cmd.AddCommand(check)
	return cmd
}
