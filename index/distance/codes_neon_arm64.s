// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

#define LOAD64 \
	VLD1.P 64(QP), [V16.B16, V17.B16, V18.B16, V19.B16] \
	VLD1.P 64(RP), [V20.B16, V21.B16, V22.B16, V23.B16]

#define START_ROW \
	VEOR V0.B16, V0.B16, V0.B16 \
	VEOR V1.B16, V1.B16, V1.B16 \
	VEOR V2.B16, V2.B16, V2.B16 \
	VEOR V3.B16, V3.B16, V3.B16 \
	MOVD QUERY, QP               \
	MOVD ROW, RP                 \
	MOVD NEXT, NP                \
	MOVD BLOCKS, N

#define PREFETCH_NEXT \
	PRFM (NP), PLDL1KEEP \
	ADD  $64, NP

// REDUCE: F0 = the sum of the int32 lanes of V0..V3
#define REDUCE \
	VADD V1.S4, V0.S4, V0.S4 \
	VADD V3.S4, V2.S4, V2.S4 \
	VADD V2.S4, V0.S4, V0.S4 \
	ADDV4S(0, 0)

// |query[i] - row[i]| of 64 codes in V20..V23
#define ABSDIFF \
	UABD16B(20, 16, 20) \
	UABD16B(21, 17, 21) \
	UABD16B(22, 18, 22) \
	UABD16B(23, 19, 23)

// row[i] - 128, signed, of 64 codes in V20..V23; V31 is 16 times 0x80
#define RECENTRE \
	VEOR V31.B16, V20.B16, V20.B16 \
	VEOR V31.B16, V21.B16, V21.B16 \
	VEOR V31.B16, V22.B16, V22.B16 \
	VEOR V31.B16, V23.B16, V23.B16

// SQUARE(v): sums += v[i]*v[i], 16 unsigned bytes
#define SQUARE(v) \
	UMULL8H(v, v, 24)  \
	UMULL28H(v, v, 25) \
	UADALP4S(24, 0)    \
	UADALP4S(25, 1)

// MULADD(u, v, a, b): sums += u[i]*v[i], 16 signed bytes
#define MULADD(u, v, a, b) \
	SMULL8H(u, v, 24)  \
	SMULL28H(u, v, 25) \
	SADALP4S(24, a)    \
	SADALP4S(25, b)

// SUM_QUERY: V30.S[0] = 128 * sum(query), what DOT of recentred rows lacks
#define SUM_QUERY(loop) \
	VMOVI $1, V29.B16           \
	VMOVI $128, V31.B16         \
	VEOR  V0.B16, V0.B16, V0.B16 \
	VEOR  V1.B16, V1.B16, V1.B16 \
	MOVD  QUERY, QP              \
	MOVD  BLOCKS, N             \
loop: \
	VLD1.P 64(QP), [V16.B16, V17.B16, V18.B16, V19.B16] \
	MULADD(16, 29, 0, 1)        \
	MULADD(17, 29, 0, 1)        \
	MULADD(18, 29, 0, 1)        \
	MULADD(19, 29, 0, 1)        \
	SUB   $1, N                 \
	CBNZ  N, loop               \
	VADD  V1.S4, V0.S4, V0.S4   \
	ADDV4S(0, 30)               \
	VSHL  $7, V30.S4, V30.S4

// func l2U8RowsNEON(query, base []byte, stride int, ids []uint32, out []int32)
TEXT ·l2U8RowsNEON(SB), NOSPLIT, $0-104
	LOAD_ARGS(0)
	LSR $6, BLOCKS

row:
	NEXT_ROW(start)

start:
	START_ROW

block: // d = |query[i] - row[i]|; sum += d * d, 64 codes
	PREFETCH_NEXT
	LOAD64
	ABSDIFF
	SQUARE(20)
	SQUARE(21)
	SQUARE(22)
	SQUARE(23)
	SUB  $1, N
	CBNZ N, block
	REDUCE
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// func l2U8RowsDotprod(query, base []byte, stride int, ids []uint32, out []int32)
TEXT ·l2U8RowsDotprod(SB), NOSPLIT, $0-104
	LOAD_ARGS(0)
	LSR $6, BLOCKS

row:
	NEXT_ROW(start)

start:
	START_ROW

block: // d = |query[i] - row[i]|; sum += d * d, 64 codes
	PREFETCH_NEXT
	LOAD64
	ABSDIFF
	UDOT16B(20, 20, 0)
	UDOT16B(21, 21, 1)
	UDOT16B(22, 22, 2)
	UDOT16B(23, 23, 3)
	SUB  $1, N
	CBNZ N, block
	REDUCE
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// func dotU8S8RowsNEON(query []int8, base []byte, stride int, ids []uint32, out []int32)
TEXT ·dotU8S8RowsNEON(SB), NOSPLIT, $0-104
	LOAD_ARGS(0)
	LSR $6, BLOCKS
	SUM_QUERY(count)

row:
	NEXT_ROW(start)

start:
	START_ROW

block: // sum += query[i] * (row[i] - 128), 64 codes
	PREFETCH_NEXT
	LOAD64
	RECENTRE
	MULADD(20, 16, 0, 1)
	MULADD(21, 17, 2, 3)
	MULADD(22, 18, 0, 1)
	MULADD(23, 19, 2, 3)
	SUB  $1, N
	CBNZ N, block
	REDUCE
	VADD V30.S4, V0.S4, V0.S4 // + 128 * sum(query)
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// func dotU8S8RowsDotprod(query []int8, base []byte, stride int, ids []uint32, out []int32)
TEXT ·dotU8S8RowsDotprod(SB), NOSPLIT, $0-104
	LOAD_ARGS(0)
	LSR $6, BLOCKS
	SUM_QUERY(count)

row:
	NEXT_ROW(start)

start:
	START_ROW

block: // sum += query[i] * (row[i] - 128), 64 codes
	PREFETCH_NEXT
	LOAD64
	RECENTRE
	SDOT16B(20, 16, 0)
	SDOT16B(21, 17, 1)
	SDOT16B(22, 18, 2)
	SDOT16B(23, 19, 3)
	SUB  $1, N
	CBNZ N, block
	REDUCE
	VADD V30.S4, V0.S4, V0.S4 // + 128 * sum(query)
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET
