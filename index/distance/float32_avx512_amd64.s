// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Registers of the float32 kernels.
#define QUERY SI
#define ROW   DI  // the row at work
#define NEXT  R9  // the row three further on, being prefetched
#define IDS   R8
#define LEFT  R11 // rows to do, this one included
#define BASE  R12
#define STRIDE R10 // in bytes
#define OUT   R13
#define OFF   AX  // byte offset into the row
#define END   BX  // byte length of the whole blocks of 64 elements
#define TMP   DX
#define COUNT R14
#define AHEAD R15

// LOAD_ARGS also sets K1..K4 to the elements behind the last whole block, and
// CX to their number.
#define LOAD_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ query_len+8(FP), END    \
	MOVQ base_base+24(FP), BASE  \
	MOVQ stride+48(FP), STRIDE   \
	MOVQ ids_base+56(FP), IDS    \
	MOVQ ids_len+64(FP), LEFT    \
	MOVQ out_base+80(FP), OUT    \
	SHLQ $2, STRIDE              \
	MOVQ END, CX                 \
	ANDQ $63, CX                 \
	SUBQ CX, END                 \
	SHLQ $2, END                 \
	MOVQ $1, TMP                 \
	SHLQ CX, TMP                 \ // CX < 64
	DECQ TMP                     \ // one bit per element
	KMOVW TMP, K1                \
	SHRQ $16, TMP                \
	KMOVW TMP, K2                \
	SHRQ $16, TMP                \
	KMOVW TMP, K3                \
	SHRQ $16, TMP                \
	KMOVW TMP, K4

// PREFETCH_FIRST: for id in ids[:3] { prefetch the row }, if there are more rows
// than that; fewer gain nothing by it
#define PREFETCH_FIRST(row, line, start) \
	MOVQ    $3, COUNT            \
	CMPQ    LEFT, COUNT          \
	JLE     start                \
	MOVQ    IDS, AHEAD           \
row: \
	MOVL    (AHEAD), NEXT        \
	IMULQ   STRIDE, NEXT         \
	ADDQ    BASE, NEXT           \
	MOVQ    query_len+8(FP), TMP \
	LEAQ    (NEXT)(TMP*4), TMP   \
line: \
	PREFETCHT0 (NEXT)            \
	ADDQ    $64, NEXT            \
	CMPQ    NEXT, TMP            \
	JLO     line                 \
	ADDQ    $4, AHEAD            \
	DECQ    COUNT                \
	JNZ     row

// NEXT_ROW: ROW = BASE + ids[0]*STRIDE; NEXT = the row to prefetch, three further
// on, or one where there are no three, or ROW itself
#define NEXT_ROW(few, found, last) \
	MOVL  (IDS), ROW          \
	IMULQ STRIDE, ROW         \
	ADDQ  BASE, ROW           \
	MOVQ  ROW, NEXT           \
	CMPQ  LEFT, $3            \
	JLE   few                 \
	MOVL  12(IDS), NEXT       \
	JMP   found               \
few: \
	CMPQ  LEFT, $1            \
	JEQ   last                \
	MOVL  4(IDS), NEXT        \
found: \
	IMULQ STRIDE, NEXT        \
	ADDQ  BASE, NEXT

#define PREFETCH_NEXT \
	PREFETCHT0 (NEXT)(OFF*1)    \
	PREFETCHT0 64(NEXT)(OFF*1)  \
	PREFETCHT0 128(NEXT)(OFF*1) \
	PREFETCHT0 192(NEXT)(OFF*1)

// REDUCE: X0[0] = sum of the lanes Z0..Z3 by the tree of reduce
#define REDUCE \
	VADDPS Z1, Z0, Z0           \ // sum[i] = (sum[i] + sum[i+16]) +
	VADDPS Z3, Z2, Z2           \ //          (sum[i+32] + sum[i+48])
	VADDPS Z2, Z0, Z0           \
	VEXTRACTF64X4 $1, Z0, Y1    \ // sum[i] += sum[i+8]
	VADDPS Y1, Y0, Y0           \
	VEXTRACTF128 $1, Y0, X1     \ // sum[i] += sum[i+4]
	VADDPS X1, X0, X0           \
	VPERMILPS $0x4E, X0, X1     \ // sum[i] += sum[i+2]
	VADDPS X1, X0, X0           \
	VPERMILPS $0x01, X0, X1     \ // sum[0] += sum[1]
	VADDSS X1, X0, X0

#define CLEAR \
	VXORPS X0, X0, X0 \
	VXORPS X1, X1, X1 \
	VXORPS X2, X2, X2 \
	VXORPS X3, X3, X3

// func l2SquaredRowsAVX512(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·l2SquaredRowsAVX512(SB), NOSPLIT, $0-104
	LOAD_ARGS
	PREFETCH_FIRST(ahead, line, row)

row:
	NEXT_ROW(few, found, start)

start:
	CLEAR
	XORQ OFF, OFF
	CMPQ OFF, END
	JEQ  tail

block: // for ; off < end; off += 64
	VMOVUPS (QUERY)(OFF*1), Z4
	VMOVUPS 64(QUERY)(OFF*1), Z5
	VMOVUPS 128(QUERY)(OFF*1), Z6
	VMOVUPS 192(QUERY)(OFF*1), Z7
	VSUBPS  (ROW)(OFF*1), Z4, Z4      // d = query[i] - row[i]
	VSUBPS  64(ROW)(OFF*1), Z5, Z5
	VSUBPS  128(ROW)(OFF*1), Z6, Z6
	VSUBPS  192(ROW)(OFF*1), Z7, Z7
	PREFETCH_NEXT
	VMULPS  Z4, Z4, Z4                // d * d, rounded
	VMULPS  Z5, Z5, Z5
	VMULPS  Z6, Z6, Z6
	VMULPS  Z7, Z7, Z7
	VADDPS  Z4, Z0, Z0                // sum[i%64] += d * d
	VADDPS  Z5, Z1, Z1
	VADDPS  Z6, Z2, Z2
	VADDPS  Z7, Z3, Z3
	ADDQ    $256, OFF
	CMPQ    OFF, END
	JNE     block

tail: // the last elements, zeros behind them
	TESTQ CX, CX
	JZ    store
	VMOVUPS.Z (QUERY)(OFF*1), K1, Z4
	VMOVUPS.Z 64(QUERY)(OFF*1), K2, Z5
	VMOVUPS.Z 128(QUERY)(OFF*1), K3, Z6
	VMOVUPS.Z 192(QUERY)(OFF*1), K4, Z7
	VSUBPS.Z  (ROW)(OFF*1), Z4, K1, Z4
	VSUBPS.Z  64(ROW)(OFF*1), Z5, K2, Z5
	VSUBPS.Z  128(ROW)(OFF*1), Z6, K3, Z6
	VSUBPS.Z  192(ROW)(OFF*1), Z7, K4, Z7
	PREFETCH_NEXT
	VMULPS  Z4, Z4, Z4
	VMULPS  Z5, Z5, Z5
	VMULPS  Z6, Z6, Z6
	VMULPS  Z7, Z7, Z7
	VADDPS  Z4, Z0, Z0
	VADDPS  Z5, Z1, Z1
	VADDPS  Z6, Z2, Z2
	VADDPS  Z7, Z3, Z3

store:
	REDUCE
	VMOVSS X0, (OUT)
	ADDQ   $4, OUT
	ADDQ   $4, IDS
	DECQ   LEFT
	JNZ    row
	VZEROUPPER
	RET

// func innerProductRowsAVX512(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·innerProductRowsAVX512(SB), NOSPLIT, $0-104
	LOAD_ARGS
	PREFETCH_FIRST(ahead, line, row)

row:
	NEXT_ROW(few, found, start)

start:
	CLEAR
	XORQ OFF, OFF
	CMPQ OFF, END
	JEQ  tail

block: // for ; off < end; off += 64
	VMOVUPS (QUERY)(OFF*1), Z4
	VMOVUPS 64(QUERY)(OFF*1), Z5
	VMOVUPS 128(QUERY)(OFF*1), Z6
	VMOVUPS 192(QUERY)(OFF*1), Z7
	VMULPS  (ROW)(OFF*1), Z4, Z4      // query[i] * row[i], rounded
	VMULPS  64(ROW)(OFF*1), Z5, Z5
	VMULPS  128(ROW)(OFF*1), Z6, Z6
	VMULPS  192(ROW)(OFF*1), Z7, Z7
	PREFETCH_NEXT
	VADDPS  Z4, Z0, Z0                // sum[i%64] += query[i] * row[i]
	VADDPS  Z5, Z1, Z1
	VADDPS  Z6, Z2, Z2
	VADDPS  Z7, Z3, Z3
	ADDQ    $256, OFF
	CMPQ    OFF, END
	JNE     block

tail: // the last elements, zeros behind them
	TESTQ CX, CX
	JZ    store
	VMOVUPS.Z (QUERY)(OFF*1), K1, Z4
	VMOVUPS.Z 64(QUERY)(OFF*1), K2, Z5
	VMOVUPS.Z 128(QUERY)(OFF*1), K3, Z6
	VMOVUPS.Z 192(QUERY)(OFF*1), K4, Z7
	VMULPS.Z  (ROW)(OFF*1), Z4, K1, Z4
	VMULPS.Z  64(ROW)(OFF*1), Z5, K2, Z5
	VMULPS.Z  128(ROW)(OFF*1), Z6, K3, Z6
	VMULPS.Z  192(ROW)(OFF*1), Z7, K4, Z7
	PREFETCH_NEXT
	VADDPS  Z4, Z0, Z0
	VADDPS  Z5, Z1, Z1
	VADDPS  Z6, Z2, Z2
	VADDPS  Z7, Z3, Z3

store:
	REDUCE
	VMOVSS X0, (OUT)
	ADDQ   $4, OUT
	ADDQ   $4, IDS
	DECQ   LEFT
	JNZ    row
	VZEROUPPER
	RET
