// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Registers of the float32 kernels, as in the AVX-512 file.
#define QUERY SI
#define ROW   DI
#define NEXT  R9
#define IDS   R8
#define LEFT  R11
#define BASE  R12
#define STRIDE R10
#define OUT   R13
#define OFF   AX
#define END   BX
#define MASK  R15 // into tailMask: lane i of the mask at 32*j is set if 8*j+i < CX
#define TMP   DX
#define COUNT DI
#define AHEAD R14

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
	LEAQ tailMask<>+256(SB), MASK \
	LEAQ (CX*4), TMP             \
	SUBQ TMP, MASK

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

#define CLEAR \
	VXORPS Y0, Y0, Y0 \
	VXORPS Y1, Y1, Y1 \
	VXORPS Y2, Y2, Y2 \
	VXORPS Y3, Y3, Y3 \
	VXORPS Y4, Y4, Y4 \
	VXORPS Y5, Y5, Y5 \
	VXORPS Y6, Y6, Y6 \
	VXORPS Y7, Y7, Y7

// REDUCE: X0[0] = sum of the lanes Y0..Y7 by the tree of reduce
#define REDUCE \
	VADDPS Y2, Y0, Y0           \ // lanes 0..7:  (sum[i] + sum[i+16]) +
	VADDPS Y6, Y4, Y4           \ //              (sum[i+32] + sum[i+48])
	VADDPS Y4, Y0, Y0           \
	VADDPS Y3, Y1, Y1           \ // lanes 8..15: the same
	VADDPS Y7, Y5, Y5           \
	VADDPS Y5, Y1, Y1           \
	VADDPS Y1, Y0, Y0           \ // sum[i] += sum[i+8]
	VEXTRACTF128 $1, Y0, X1     \ // sum[i] += sum[i+4]
	VADDPS X1, X0, X0           \
	VPERMILPS $0x4E, X0, X1     \ // sum[i] += sum[i+2]
	VADDPS X1, X0, X0           \
	VPERMILPS $0x01, X0, X1     \ // sum[0] += sum[1]
	VADDSS X1, X0, X0

// L2(at, sum): d = query[i] - row[i]; sum[i%64] += d * d, eight elements
#define L2(at, tmp, sum) \
	VMOVUPS at(QUERY)(OFF*1), tmp     \
	VSUBPS  at(ROW)(OFF*1), tmp, tmp  \
	VMULPS  tmp, tmp, tmp             \
	VADDPS  tmp, sum, sum

// L2_TAIL is L2 with the elements behind the last taken for zero.
#define L2_TAIL(at, sum) \
	VMOVUPS    at(MASK), Y8                \
	VMASKMOVPS at(QUERY)(OFF*1), Y8, Y9    \
	VMASKMOVPS at(ROW)(OFF*1), Y8, Y10     \
	VSUBPS     Y10, Y9, Y9                 \
	VMULPS     Y9, Y9, Y9                  \
	VADDPS     Y9, sum, sum

// DOT(at, sum): sum[i%64] += query[i] * row[i], eight elements
#define DOT(at, tmp, sum) \
	VMOVUPS at(QUERY)(OFF*1), tmp     \
	VMULPS  at(ROW)(OFF*1), tmp, tmp  \
	VADDPS  tmp, sum, sum

#define DOT_TAIL(at, sum) \
	VMOVUPS    at(MASK), Y8                \
	VMASKMOVPS at(QUERY)(OFF*1), Y8, Y9    \
	VMASKMOVPS at(ROW)(OFF*1), Y8, Y10     \
	VMULPS     Y10, Y9, Y9                 \
	VADDPS     Y9, sum, sum

// func l2SquaredRowsAVX2(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·l2SquaredRowsAVX2(SB), NOSPLIT, $0-104
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
	PREFETCH_NEXT
	L2(0, Y8, Y0)
	L2(32, Y9, Y1)
	L2(64, Y10, Y2)
	L2(96, Y11, Y3)
	L2(128, Y12, Y4)
	L2(160, Y13, Y5)
	L2(192, Y14, Y6)
	L2(224, Y15, Y7)
	ADDQ $256, OFF
	CMPQ OFF, END
	JNE  block

tail:
	TESTQ CX, CX
	JZ    store
	PREFETCH_NEXT
	L2_TAIL(0, Y0)
	CMPQ CX, $8
	JLE  store
	L2_TAIL(32, Y1)
	CMPQ CX, $16
	JLE  store
	L2_TAIL(64, Y2)
	CMPQ CX, $24
	JLE  store
	L2_TAIL(96, Y3)
	CMPQ CX, $32
	JLE  store
	L2_TAIL(128, Y4)
	CMPQ CX, $40
	JLE  store
	L2_TAIL(160, Y5)
	CMPQ CX, $48
	JLE  store
	L2_TAIL(192, Y6)
	CMPQ CX, $56
	JLE  store
	L2_TAIL(224, Y7)

store:
	REDUCE
	VMOVSS X0, (OUT)
	ADDQ   $4, OUT
	ADDQ   $4, IDS
	DECQ   LEFT
	JNZ    row
	VZEROUPPER
	RET

// func innerProductRowsAVX2(query, base []float32, stride int, ids []uint32, out []float32)
TEXT ·innerProductRowsAVX2(SB), NOSPLIT, $0-104
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
	PREFETCH_NEXT
	DOT(0, Y8, Y0)
	DOT(32, Y9, Y1)
	DOT(64, Y10, Y2)
	DOT(96, Y11, Y3)
	DOT(128, Y12, Y4)
	DOT(160, Y13, Y5)
	DOT(192, Y14, Y6)
	DOT(224, Y15, Y7)
	ADDQ $256, OFF
	CMPQ OFF, END
	JNE  block

tail:
	TESTQ CX, CX
	JZ    store
	PREFETCH_NEXT
	DOT_TAIL(0, Y0)
	CMPQ CX, $8
	JLE  store
	DOT_TAIL(32, Y1)
	CMPQ CX, $16
	JLE  store
	DOT_TAIL(64, Y2)
	CMPQ CX, $24
	JLE  store
	DOT_TAIL(96, Y3)
	CMPQ CX, $32
	JLE  store
	DOT_TAIL(128, Y4)
	CMPQ CX, $40
	JLE  store
	DOT_TAIL(160, Y5)
	CMPQ CX, $48
	JLE  store
	DOT_TAIL(192, Y6)
	CMPQ CX, $56
	JLE  store
	DOT_TAIL(224, Y7)

store:
	REDUCE
	VMOVSS X0, (OUT)
	ADDQ   $4, OUT
	ADDQ   $4, IDS
	DECQ   LEFT
	JNZ    row
	VZEROUPPER
	RET

// tailMask is 64 set lanes, then 64 clear ones.
DATA tailMask<>+0x000(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x008(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x010(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x018(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x020(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x028(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x030(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x038(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x040(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x048(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x050(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x058(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x060(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x068(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x070(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x078(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x080(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x088(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x090(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x098(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0a0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0a8(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0b0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0b8(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0c0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0c8(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0d0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0d8(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0e0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0e8(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0f0(SB)/8, $0xffffffffffffffff
DATA tailMask<>+0x0f8(SB)/8, $0xffffffffffffffff
GLOBL tailMask<>(SB), RODATA|NOPTR, $512
