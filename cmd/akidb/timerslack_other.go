// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "time"

// relaxTimers does nothing: only Linux has timer slack.
func relaxTimers() {}

func currentTimerSlack() time.Duration { return 0 }
