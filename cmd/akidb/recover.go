// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newClusterRecover() *cobra.Command {
	return &cobra.Command{Use: "recover", Short: "Recover a permanently lost quorum, offline", Hidden: true,
		RunE: func(*cobra.Command, []string) error { return errors.New("recover: not built yet") }}
}
