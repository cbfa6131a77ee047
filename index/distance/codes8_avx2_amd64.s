// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Registers of the kernels on codes: one row at a time. Four rows are asked for
// before anything else, then the row four ahead while one is worked on, since a
// row takes less time than memory.
#define QUERY SI
#define OFF   AX
#define END   BX // byte length of the query
#define IDS   R8
#define LEFT  R9 // rows to do, this one included
#define OUT   R10
#define ROW   DI
#define NEXT  R11
#define BASE  R12
#define STRIDE R13
#define COUNT CX
#define AHEAD DX

#define LOAD_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ query_len+8(FP), END    \
	MOVQ base_base+24(FP), BASE  \
	MOVQ stride+48(FP), STRIDE   \
	MOVQ ids_base+56(FP), IDS    \
	MOVQ ids_len+64(FP), LEFT    \
	MOVQ out_base+80(FP), OUT

// PREFETCH_FIRST: for id in ids[:min(4, len(ids))] { prefetch the row }, unless
// there is only one, which is being read at once
#define PREFETCH_FIRST(row, line, start) \
	MOVQ    $4, COUNT           \
	CMPQ    LEFT, $1            \
	JEQ     start               \
	CMPQ    LEFT, COUNT         \
	CMOVQLT LEFT, COUNT         \
	MOVQ    IDS, AHEAD          \
row: \
	MOVL    (AHEAD), NEXT       \
	IMULQ   STRIDE, NEXT        \
	ADDQ    BASE, NEXT          \
	XORQ    OFF, OFF            \
line: \
	PREFETCHT0 (NEXT)(OFF*1)    \
	ADDQ    $64, OFF            \
	CMPQ    OFF, END            \
	JNE     line                \
	ADDQ    $4, AHEAD           \
	DECQ    COUNT               \
	JNZ     row

// NEXT_ROW: ROW = BASE + ids[0]*STRIDE; if LEFT > 4 { NEXT = BASE + ids[4]*STRIDE } else { NEXT = ROW }
#define NEXT_ROW(last) \
	MOVL  (IDS), ROW    \
	IMULQ STRIDE, ROW   \
	ADDQ  BASE, ROW     \
	MOVQ  ROW, NEXT     \
	CMPQ  LEFT, $4      \
	JLE   last          \
	MOVL  16(IDS), NEXT \
	IMULQ STRIDE, NEXT  \
	ADDQ  BASE, NEXT

// REDUCE: X0[0] = the sum of the int32 lanes of Y0..Y3
#define REDUCE \
	VPADDD  Y1, Y0, Y0       \
	VPADDD  Y3, Y2, Y2       \
	VPADDD  Y2, Y0, Y0       \
	VEXTRACTI128 $1, Y0, X1  \
	VPADDD  X1, X0, X0       \
	VPSHUFD $0x4E, X0, X1    \
	VPADDD  X1, X0, X0       \
	VPSHUFD $0x01, X0, X1    \
	VPADDD  X1, X0, X0

#define CLEAR \
	VPXOR Y0, Y0, Y0 \
	VPXOR Y1, Y1, Y1 \
	VPXOR Y2, Y2, Y2 \
	VPXOR Y3, Y3, Y3

// L2(at, s, t): d = query[i] - row[i]; s, t += d * d, 32 codes. Widened to 16
// bits, since VPMADDUBSW would take the second d for signed and saturate.
#define L2(at, q, r, s, t) \
	VMOVDQU   at(QUERY)(OFF*1), q \
	VMOVDQU   at(ROW)(OFF*1), r   \
	VPSUBUSB  r, q, Y14           \
	VPSUBUSB  q, r, r             \
	VPOR      r, Y14, r           \ // |d|
	VPUNPCKLBW Y15, r, q          \
	VPUNPCKHBW Y15, r, r          \
	VPMADDWD  q, q, q             \
	VPMADDWD  r, r, r             \
	VPADDD    q, s, s             \
	VPADDD    r, t, t

// func l2U8RowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)
TEXT ·l2U8RowsAVX2(SB), NOSPLIT, $0-104
	LOAD_ARGS
	VPXOR Y15, Y15, Y15
	PREFETCH_FIRST(ahead, line, row)

row:
	NEXT_ROW(start)

start:
	CLEAR
	XORQ OFF, OFF

block: // for ; off < end; off += 64
	PREFETCHT0 (NEXT)(OFF*1)
	L2(0, Y4, Y5, Y0, Y1)
	L2(32, Y6, Y7, Y2, Y3)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block
	REDUCE
	VMOVD X0, (OUT)
	ADDQ  $4, OUT
	ADDQ  $4, IDS
	DECQ  LEFT
	JNZ   row
	VZEROUPPER
	RET

// DOT(at, s): s += row[i] * query[i], 16 codes. Widened to 16 bits, since the
// pairs VPMADDUBSW sums saturate.
#define DOT(at, q, r, s) \
	VPMOVSXBW at(QUERY)(OFF*1), q \
	VPMOVZXBW at(ROW)(OFF*1), r   \
	VPMADDWD  q, r, r             \
	VPADDD    r, s, s

// func dotU8S8RowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)
TEXT ·dotU8S8RowsAVX2(SB), NOSPLIT, $0-104
	LOAD_ARGS
	PREFETCH_FIRST(ahead, line, row)

row:
	NEXT_ROW(start)

start:
	CLEAR
	XORQ OFF, OFF

block: // for ; off < end; off += 64
	PREFETCHT0 (NEXT)(OFF*1)
	DOT(0, Y4, Y5, Y0)
	DOT(16, Y6, Y7, Y1)
	DOT(32, Y8, Y9, Y2)
	DOT(48, Y10, Y11, Y3)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block
	REDUCE
	VMOVD X0, (OUT)
	ADDQ  $4, OUT
	ADDQ  $4, IDS
	DECQ  LEFT
	JNZ   row
	VZEROUPPER
	RET
