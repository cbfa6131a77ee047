// SPDX-License-Identifier: Apache-2.0

// Package sim runs whole clusters in one process on a fake clock, over a
// network and disks that fail on a schedule drawn from a seed, and checks what
// clients saw. It is all tests: nothing imports it. See docs/simulation.md.
package sim
