// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package localcluster

import (
	"os"
	"syscall"
)

// childAttr is empty: without parent-death signals a node outlives a parent
// that is killed, and has to be stopped by hand.
func childAttr() *syscall.SysProcAttr { return nil }

func stopSignal() os.Signal { return os.Interrupt }

func dumpSignal() os.Signal { return nil }
