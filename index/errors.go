// SPDX-License-Identifier: Apache-2.0

package index

import "errors"

// Errors of a query; nothing was changed.
var (
	// ErrBadQuery: wrong dimension, K out of range, or a vector that is not finite.
	ErrBadQuery = errors.New("index: bad query")
	// ErrBadFilter: an empty or contradictory condition; the text names its key.
	ErrBadFilter = errors.New("index: bad filter")
	// ErrViewTooOld: garbage of the view was collected while it was held; the
	// same query on a newer view works.
	ErrViewTooOld = errors.New("index: the view is older than the last collection of garbage")
)
