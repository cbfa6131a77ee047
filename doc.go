// SPDX-License-Identifier: Apache-2.0

// Package akidb is a Raft-replicated vector database: writes go through one
// log, every replica answers searches from its own index in RAM. The binary is
// cmd/akidb; Go programs import client.
package akidb
