// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// func prefetchLines(row []byte)
TEXT ·prefetchLines(SB), NOSPLIT, $0-24
	MOVQ row_base+0(FP), AX
	MOVQ row_len+8(FP), BX
	ADDQ AX, BX
	ANDQ $~63, AX

line: // for p := first line; p < end; p += 64
	PREFETCHT0 (AX)
	ADDQ $64, AX
	CMPQ AX, BX
	JLO  line
	RET
