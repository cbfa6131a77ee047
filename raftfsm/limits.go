// SPDX-License-Identifier: Apache-2.0

package raftfsm

// Limits of the replicated state. They are part of its definition: a replica
// with other limits would refuse what the others apply. Change one only
// together with a cluster version.
const (
	MaxDimension          = 16384
	MaxDocIDBytes         = 256
	MaxExternalIDBytes    = 1024
	MaxMetadataBytes      = 64 << 10
	MaxMetadataDepth      = 64
	MaxNameRunes          = 255
	MaxEmbeddingModel     = 256 // bytes
	MaxRequestIDBytes     = 128
	MaxBatchWrites        = 10_000
	MaxBatchBytes         = 32 << 20
	MaxPayloadIndexes     = 64
	MaxCollections        = 10_000
	MaxAlarms             = 1024
	MaxAlarmBytes         = 1024 // of kind, node id and message each
	MaxNodes              = 1024
	MaxNodeField          = 1024 // bytes of each text field of a node record
	MaxSlots              = 1<<32 - 2
	MaxPurgeSlots         = 100_000
	MaxPurgeKeys          = 1_000_000
	DefaultPurgeSlots     = 1024
	DefaultPurgeKeys      = 4096
	MinM                  = 4
	MaxM                  = 128
	MinEfConstruction     = 8
	MaxEfConstruction     = 1000
	MaxEf                 = 10_000
	DefaultMaxRequests    = 1 << 20
	DefaultRequestTTLms   = 15 * 60 * 1000
	MaxResultMessageBytes = 512

	// evictPerCommand bounds the request ids forgotten by one command. It must be
	// above 1, or the store of request ids could never shrink to its bound.
	evictPerCommand = 4
	// hashRing is how many recent state hashes a replica can be checked against.
	hashRing = 4096
	// purgeScanFactor bounds how many tombstones one PurgeSlots looks at for each
	// slot it may remove.
	purgeScanFactor = 16
	// maxPointerBytes bounds the CURRENT file and manifests when they are read.
	maxPointerBytes  = 4 << 10
	maxManifestBytes = 64 << 20
)
