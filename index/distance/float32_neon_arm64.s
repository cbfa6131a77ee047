// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// The sums of the 64 lanes are V0..V15, lanes 4*j to 4*j+3 in Vj.
#define REM   R14 // elements behind the last whole block
#define QTAIL R15 // those of the query, zeros behind them
#define PTAIL R16 // those of the row, zeros behind them
#define SRC   R17
#define DST   R19
#define K     R20

// SPLIT: BLOCKS, REM = len/64, len%64; the tail buffers are cleared and QTAIL filled
#define SPLIT \
	MOVD $qtail-512(SP), QTAIL \
	MOVD $ptail-256(SP), PTAIL \
	AND  $63, BLOCKS, REM      \
	LSR  $6, BLOCKS            \
	CBZ  REM, row              \
	VEOR V0.B16, V0.B16, V0.B16 \
	VEOR V1.B16, V1.B16, V1.B16 \
	VEOR V2.B16, V2.B16, V2.B16 \
	VEOR V3.B16, V3.B16, V3.B16 \
	MOVD QTAIL, DST            \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \ // PTAIL follows QTAIL
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST) \
	ADD  BLOCKS<<8, QUERY, SRC \
	MOVD QTAIL, DST            \
	MOVD REM, K

// COPY: for ; k > 0; k-- { *dst++ = *src++ }, four elements at a time
#define COPY(four, one, done) \
four: \
	CMP  $4, K                 \
	BLT  one                   \
	VLD1.P 16(SRC), [V16.S4]   \
	VST1.P [V16.S4], 16(DST)   \
	SUB  $4, K                 \
	B    four                  \
one: \
	CBZ  K, done               \
	MOVWU.P 4(SRC), TMP        \
	MOVW.P TMP, 4(DST)         \
	SUB  $1, K                 \
	B    one

#define CLEAR \
	VEOR V0.B16, V0.B16, V0.B16    \
	VEOR V1.B16, V1.B16, V1.B16    \
	VEOR V2.B16, V2.B16, V2.B16    \
	VEOR V3.B16, V3.B16, V3.B16    \
	VEOR V4.B16, V4.B16, V4.B16    \
	VEOR V5.B16, V5.B16, V5.B16    \
	VEOR V6.B16, V6.B16, V6.B16    \
	VEOR V7.B16, V7.B16, V7.B16    \
	VEOR V8.B16, V8.B16, V8.B16    \
	VEOR V9.B16, V9.B16, V9.B16    \
	VEOR V10.B16, V10.B16, V10.B16 \
	VEOR V11.B16, V11.B16, V11.B16 \
	VEOR V12.B16, V12.B16, V12.B16 \
	VEOR V13.B16, V13.B16, V13.B16 \
	VEOR V14.B16, V14.B16, V14.B16 \
	VEOR V15.B16, V15.B16, V15.B16

// REDUCE: V0.S[0] = sum of the lanes by the tree of reduce
#define REDUCE \
	FADD4S(4, 0, 0)    \ // sum[i] = (sum[i] + sum[i+16]) +
	FADD4S(5, 1, 1)    \ //          (sum[i+32] + sum[i+48])
	FADD4S(6, 2, 2)    \
	FADD4S(7, 3, 3)    \
	FADD4S(12, 8, 8)   \
	FADD4S(13, 9, 9)   \
	FADD4S(14, 10, 10) \
	FADD4S(15, 11, 11) \
	FADD4S(8, 0, 0)    \
	FADD4S(9, 1, 1)    \
	FADD4S(10, 2, 2)   \
	FADD4S(11, 3, 3)   \
	FADD4S(2, 0, 0)    \ // sum[i] += sum[i+8]
	FADD4S(3, 1, 1)    \
	FADD4S(1, 0, 0)    \ // sum[i] += sum[i+4]
	VEXT $8, V0.B16, V0.B16, V1.B16 \ // sum[i] += sum[i+2]
	FADD4S(1, 0, 0)    \
	VEXT $4, V0.B16, V0.B16, V1.B16 \ // sum[0] += sum[1]
	FADD4S(1, 0, 0)

#define LOAD16 \
	VLD1.P 64(QP), [V16.S4, V17.S4, V18.S4, V19.S4] \
	VLD1.P 64(RP), [V20.S4, V21.S4, V22.S4, V23.S4]

// L2(a, b, c, d): x = query[i] - row[i]; sum[i%64] += x * x, 16 elements
#define L2(a, b, c, d) \
	LOAD16              \
	FSUB4S(20, 16, 16)  \
	FSUB4S(21, 17, 17)  \
	FSUB4S(22, 18, 18)  \
	FSUB4S(23, 19, 19)  \
	FMUL4S(16, 16, 16)  \
	FMUL4S(17, 17, 17)  \
	FMUL4S(18, 18, 18)  \
	FMUL4S(19, 19, 19)  \
	FADD4S(16, a, a)    \
	FADD4S(17, b, b)    \
	FADD4S(18, c, c)    \
	FADD4S(19, d, d)

// DOT(a, b, c, d): sum[i%64] += query[i] * row[i], 16 elements
#define DOT(a, b, c, d) \
	LOAD16              \
	FMUL4S(20, 16, 16)  \
	FMUL4S(21, 17, 17)  \
	FMUL4S(22, 18, 18)  \
	FMUL4S(23, 19, 19)  \
	FADD4S(16, a, a)    \
	FADD4S(17, b, b)    \
	FADD4S(18, c, c)    \
	FADD4S(19, d, d)

#define PREFETCH_NEXT \
	PRFM (NP), PLDL1KEEP    \
	PRFM 64(NP), PLDL1KEEP  \
	PRFM 128(NP), PLDL1KEEP \
	PRFM 192(NP), PLDL1KEEP \
	ADD  $256, NP

// func l2SquaredRowsNEON(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·l2SquaredRowsNEON(SB), NOSPLIT, $512-104
	LOAD_ARGS(2)
	SPLIT
	COPY(qfour, qone, row)

row:
	NEXT_ROW(start)

start:
	CLEAR
	MOVD QUERY, QP
	MOVD ROW, RP
	MOVD NEXT, NP
	MOVD BLOCKS, N
	CBZ  N, tail

block:
	PREFETCH_NEXT
	L2(0, 1, 2, 3)
	L2(4, 5, 6, 7)
	L2(8, 9, 10, 11)
	L2(12, 13, 14, 15)
	SUB  $1, N
	CBNZ N, block

tail: // the last elements, zeros behind them
	CBZ  REM, store
	MOVD RP, SRC
	MOVD PTAIL, DST
	MOVD REM, K
	COPY(pfour, pone, filled)

filled:
	MOVD QTAIL, QP
	MOVD PTAIL, RP
	L2(0, 1, 2, 3)
	L2(4, 5, 6, 7)
	L2(8, 9, 10, 11)
	L2(12, 13, 14, 15)

store:
	REDUCE
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// func innerProductRowsNEON(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·innerProductRowsNEON(SB), NOSPLIT, $512-104
	LOAD_ARGS(2)
	SPLIT
	COPY(qfour, qone, row)

row:
	NEXT_ROW(start)

start:
	CLEAR
	MOVD QUERY, QP
	MOVD ROW, RP
	MOVD NEXT, NP
	MOVD BLOCKS, N
	CBZ  N, tail

block:
	PREFETCH_NEXT
	DOT(0, 1, 2, 3)
	DOT(4, 5, 6, 7)
	DOT(8, 9, 10, 11)
	DOT(12, 13, 14, 15)
	SUB  $1, N
	CBNZ N, block

tail: // the last elements, zeros behind them
	CBZ  REM, store
	MOVD RP, SRC
	MOVD PTAIL, DST
	MOVD REM, K
	COPY(pfour, pone, filled)

filled:
	MOVD QTAIL, QP
	MOVD PTAIL, RP
	DOT(0, 1, 2, 3)
	DOT(4, 5, 6, 7)
	DOT(8, 9, 10, 11)
	DOT(12, 13, 14, 15)

store:
	REDUCE
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET
