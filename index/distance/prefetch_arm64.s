// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// func prefetchLines(row []byte)
TEXT ·prefetchLines(SB), NOSPLIT, $0-24
	MOVD row_base+0(FP), R0
	MOVD row_len+8(FP), R1
	ADD  R0, R1
	BIC  $63, R0

line: // for p := first line; p < end; p += 64
	PRFM (R0), PLDL1KEEP
	ADD  $64, R0
	CMP  R1, R0
	BLO  line
	RET
