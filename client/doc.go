// SPDX-License-Identifier: Apache-2.0

// Package client talks to an AkiDB cluster: it finds the leader, fails over,
// sends a request id with every write so that a retry happens once, and carries
// a session token so that reads see the writes before them. It imports neither
// Raft nor storage.
//
//	c, err := client.Open(client.Config{
//		Endpoints: []string{"a:9443", "b:9443", "c:9443"}, // or "dns:///akidb:9443"
//		TLS:       &tls.Config{RootCAs: pool},
//	})
//	if err != nil { … }
//	defer c.Close()
//	_, err = c.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "notes", DocId: "1", Vector: v})
//	res, err := c.Query(ctx, &collectionv1.QueryRequest{CollectionId: "notes", QueryVector: q, TopK: 10})
//
// # Where a call goes
//
// Writes and operations of the cluster go to the leader when it is known, and
// to any healthy node otherwise: nodes forward. Reads go to a replica among the
// nearest healthy ones, the one with the fewest calls under way. A replica is
// healthy if its last health check (every second, and at once after a failure)
// said that it is ready. If none is, all are tried. The first operation of the
// cluster waits a moment for a node that is known to be ready.
//
// An attempt is given up before its time when a health check of its node gets no
// answer, or another node is found to lead instead, if the call may be repeated.
//
// # What happens on an error
//
// Every error of the server is of one of three classes, carried in its status
// as ErrorInfo; where a proxy dropped that, the status code decides. A call is
// tried again, with exponential backoff and jitter, until it succeeds or its
// deadline (Config.Timeout if the context has none) has passed.
//
//	what happened                         class        write                read
//	------------------------------------  -----------  -------------------  ----------------------
//	connection refused, never sent        not applied  another node         another replica
//	connection lost while waiting         unknown      retry, same id       another replica
//	no answer within the attempt's time   unknown      retry, same id       another replica
//	NOT_LEADER, with or without a hint    not applied  the leader           another replica
//	NO_LEADER                             not applied  retry after backoff  retry after backoff
//	UNKNOWN_OUTCOME                       unknown      retry, same id       another replica
//	OVERLOADED, TOO_MANY_REQUESTS         not applied  after RetryInfo      after RetryInfo
//	FENCED, CORRUPT, SHUTTING_DOWN        not applied  another node         another replica
//	TOO_STALE                             not applied  -                    another replica
//	STALE_PROPOSAL, ENTRY_CONFLICT        not applied  retry                -
//	DEADLINE_EXCEEDED on the server       unknown      retry, same id       another replica
//	INTERNAL, PANIC, a bare code UNKNOWN  unknown      at most 3 attempts   at most 3 attempts
//	INVALID_ARGUMENT, NOT_FOUND,          permanent    returned             returned
//	  ALREADY_EXISTS, VERSION_MISMATCH,
//	  bad token, permission, unknown rpc
//	the same, carried out before on a     unknown      returned             -
//	  collection that is gone
//	the caller's context ends             as so far    returned             returned
//
// A write keeps its request id through all attempts and the servers remember
// outcomes by it, so "retry, same id" applies it once. What a write returns in
// the end is of class unknown if any of its attempts may have been applied and
// the last did not settle it: IsUnknown tells, and Error.RequestID lets the
// caller go on later with the same id. Operations of the cluster have no request
// id. Those that change nothing more when repeated (AddMember, RemoveMember,
// PromoteMember, ClearAlarm, TransferLeader to a node) are tried again as a write
// is; TransferLeader to any node, only when not applied. RemoveMember succeeds if an
// attempt that may have been applied is followed by one that finds no such member.
//
// A read never changes anything, so its errors are never of class unknown.
package client
