// SPDX-License-Identifier: Apache-2.0

// Package storage keeps an ordered keyspace on disk with atomic batches,
// snapshots and checkpoints. It is the only importer of Pebble and knows
// nothing of what the keys mean.
package storage
