// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "go_asm.h"
#include "textflag.h"
#include "short8_amd64.h"

// CANDIDATES: Y5 = X0<<32 | ids<<1
#define CANDIDATES \
	VMOVDQU     (IDS), X4       \
	VPADDD      X4, X4, X4      \
	VPUNPCKLDQ  X0, X4, X5      \
	VPUNPCKHDQ  X0, X4, X6      \
	VINSERTI128 $1, X6, Y5, Y5

// BELOW: AX = which of the first LEFT of Y5 are below Y7
#define BELOW \
	VPCMPGTQ  Y5, Y7, Y6  \
	VMOVMSKPD Y6, AX      \
	MOVL      $4, BX      \
	CMPQ      LEFT, BX    \
	CMOVQLT   LEFT, BX    \
	BZHIL     BX, AX, AX

// KEEP: out = those of Y5 that AX tells, then the next rows
#define KEEP(block) \
	MOVQ    AX, BX            \
	SHLQ    $5, BX            \
	VMOVDQU (R14)(BX*1), Y6   \
	POPCNTL AX, AX            \
	VPERMD  Y5, Y6, Y5        \
	VMOVDQU Y5, (OUT)         \
	LEAQ    (OUT)(AX*8), OUT  \
	ADDQ    $16, IDS          \
	SUBQ    $4, LEFT          \
	JGT     block

// R14 is the table of places.
#define PICKING \
	LEAQ ·places(SB), R14

#define PICK(block) \
	CANDIDATES                      \
	VPBROADCASTQ bound+32(FP), Y7   \
	BELOW                           \
	KEEP(block)

// PICK_SIGNED wants the bound flipped, too.
#define PICK_SIGNED(block) \
	CANDIDATES                           \
	VPBROADCASTQ bound+32(FP), Y7        \
	BELOW                                \
	VPBROADCASTQ ·highest(SB), Y6        \
	VPXOR        Y6, Y5, Y5              \
	KEEP(block)

// FIRST: sums = row[:16] * query[:16]
#define FIRST \
	VPMOVZXBW (DI), Y0    \
	VPMOVZXBW (R11), Y1   \
	VPMOVZXBW (R13), Y2   \
	VPMOVZXBW (BX), Y3    \
	VPMADDWD  Y8, Y0, Y0  \
	VPMADDWD  Y8, Y1, Y1  \
	VPMADDWD  Y8, Y2, Y2  \
	VPMADDWD  Y8, Y3, Y3

// MORE(at, q): sums += row[at:at+16] * q
#define MORE(at, q) \
	VPMOVZXBW at(DI), Y4   \
	VPMOVZXBW at(R11), Y5  \
	VPMOVZXBW at(R13), Y6  \
	VPMOVZXBW at(BX), Y7   \
	VPMADDWD  q, Y4, Y4    \
	VPMADDWD  q, Y5, Y5    \
	VPMADDWD  q, Y6, Y6    \
	VPMADDWD  q, Y7, Y7    \
	VPADDD    Y4, Y0, Y0   \
	VPADDD    Y5, Y1, Y1   \
	VPADDD    Y6, Y2, Y2   \
	VPADDD    Y7, Y3, Y3

// LOAD: Y8 to Y15 = the query, widened to 16 bits
#define LOAD(of32, of64, of96) \
	VPMOVSXBW (QUERY), Y8     \
	VPMOVSXBW 16(QUERY), Y9   \
	CMPQ      AX, $64         \
	JLT       of32            \
	VPMOVSXBW 32(QUERY), Y10  \
	VPMOVSXBW 48(QUERY), Y11  \
	JEQ       of64            \
	VPMOVSXBW 64(QUERY), Y12  \
	VPMOVSXBW 80(QUERY), Y13  \
	CMPQ      AX, $128        \
	JLT       of96            \
	VPMOVSXBW 96(QUERY), Y14  \
	VPMOVSXBW 112(QUERY), Y15

#define PRODUCTS32 \
	ROWS4       \
	FIRST       \
	MORE(16, Y9)

#define PRODUCTS64 \
	PRODUCTS32    \
	MORE(32, Y10) \
	MORE(48, Y11)

#define PRODUCTS96 \
	PRODUCTS64    \
	MORE(64, Y12) \
	MORE(80, Y13)

#define PRODUCTS128 \
	PRODUCTS96    \
	MORE(96, Y14) \
	MORE(112, Y15)

// FIRST_SQUARES: sums = (row[:16] - query[:16])^2
#define FIRST_SQUARES \
	VPMOVZXBW (DI), Y0    \
	VPMOVZXBW (R11), Y1   \
	VPMOVZXBW (R13), Y2   \
	VPMOVZXBW (BX), Y3    \
	VPSUBW    Y8, Y0, Y0  \
	VPSUBW    Y8, Y1, Y1  \
	VPSUBW    Y8, Y2, Y2  \
	VPSUBW    Y8, Y3, Y3  \
	VPMADDWD  Y0, Y0, Y0  \
	VPMADDWD  Y1, Y1, Y1  \
	VPMADDWD  Y2, Y2, Y2  \
	VPMADDWD  Y3, Y3, Y3

// MORE_SQUARES(at, q): sums += (row[at:at+16] - q)^2
#define MORE_SQUARES(at, q) \
	VPMOVZXBW at(DI), Y4   \
	VPMOVZXBW at(R11), Y5  \
	VPMOVZXBW at(R13), Y6  \
	VPMOVZXBW at(BX), Y7   \
	VPSUBW    q, Y4, Y4    \
	VPSUBW    q, Y5, Y5    \
	VPSUBW    q, Y6, Y6    \
	VPSUBW    q, Y7, Y7    \
	VPMADDWD  Y4, Y4, Y4   \
	VPMADDWD  Y5, Y5, Y5   \
	VPMADDWD  Y6, Y6, Y6   \
	VPMADDWD  Y7, Y7, Y7   \
	VPADDD    Y4, Y0, Y0   \
	VPADDD    Y5, Y1, Y1   \
	VPADDD    Y6, Y2, Y2   \
	VPADDD    Y7, Y3, Y3

// LOAD_CODES: Y8 to Y15 = the codes, 64 or 128 of them, widened to 16 bits
#define LOAD_CODES(length, of64) \
	VPMOVZXBW (QUERY), Y8     \
	VPMOVZXBW 16(QUERY), Y9   \
	VPMOVZXBW 32(QUERY), Y10  \
	VPMOVZXBW 48(QUERY), Y11  \
	CMPQ      length, $64     \
	JEQ       of64            \
	VPMOVZXBW 64(QUERY), Y12  \
	VPMOVZXBW 80(QUERY), Y13  \
	VPMOVZXBW 96(QUERY), Y14  \
	VPMOVZXBW 112(QUERY), Y15

#define SQUARES64 \
	ROWS4                 \
	FIRST_SQUARES         \
	MORE_SQUARES(16, Y9)  \
	MORE_SQUARES(32, Y10) \
	MORE_SQUARES(48, Y11)

#define SQUARES128 \
	SQUARES64              \
	MORE_SQUARES(64, Y12)  \
	MORE_SQUARES(80, Y13)  \
	MORE_SQUARES(96, Y14)  \
	MORE_SQUARES(112, Y15)

// Longer rows one after the other, with the query, widened to 16 bits, in memory. Both are
// widened by unpacking, 32 codes at a time, which takes less than VPMOVZXBW and puts
// codes 0 to 7 and 16 to 23 before the others. Y15 is zero.

#define QUERY_WIDE \
	MOVQ Expansion_base(R15), BASE     \
	MOVQ Expansion_stride(R15), STRIDE \
	MOVQ Expansion_wide(R15), QUERY    \
	VPXOR Y15, Y15, Y15

// ROW64: Y8 to Y11 = row[AX:AX+64], widened
#define ROW64(row) \
	VMOVDQU    (row)(AX*1), Y8    \
	VMOVDQU    32(row)(AX*1), Y10 \
	VPUNPCKHBW Y15, Y8, Y9        \
	VPUNPCKLBW Y15, Y8, Y8        \
	VPUNPCKHBW Y15, Y10, Y11      \
	VPUNPCKLBW Y15, Y10, Y10

// CODES32, SIGNED32: two registers behind dst = query[at:at+32], widened
#define CODES32(at, dst) \
	VMOVDQU    at(QUERY)(AX*1), Y0     \
	VPUNPCKLBW Y15, Y0, Y1             \
	VPUNPCKHBW Y15, Y0, Y2             \
	VMOVDQU    Y1, (2*at)(dst)(AX*2)   \
	VMOVDQU    Y2, (2*at+32)(dst)(AX*2)

#define SIGNED32(at, dst) \
	VMOVDQU    at(QUERY)(AX*1), Y0     \
	VPCMPGTB   Y0, Y15, Y3             \
	VPUNPCKLBW Y3, Y0, Y1              \
	VPUNPCKHBW Y3, Y0, Y2              \
	VMOVDQU    Y1, (2*at)(dst)(AX*2)   \
	VMOVDQU    Y2, (2*at+32)(dst)(AX*2)

// WITH64: Y8 to Y11 = them and query[AX:AX+64], by the instruction
#define WITH64(by) \
	by (QUERY)(AX*2), Y8, Y8      \
	by 32(QUERY)(AX*2), Y9, Y9    \
	by 64(QUERY)(AX*2), Y10, Y10  \
	by 96(QUERY)(AX*2), Y11, Y11

// ADD64: sum and Y5 += Y8 to Y11
#define ADD64(sum) \
	VPADDD Y8, sum, sum  \
	VPADDD Y9, Y5, Y5    \
	VPADDD Y10, sum, sum \
	VPADDD Y11, Y5, Y5

// PRODUCTS_WIDE: sum and Y5 += row[AX:AX+64] * query[AX:AX+64]
#define PRODUCTS_WIDE(row, sum) \
	ROW64(row)        \
	WITH64(VPMADDWD)  \
	ADD64(sum)

// SQUARES_WIDE: sum and Y5 += (row[AX:AX+64] - query[AX:AX+64])^2
#define SQUARES_WIDE(row, sum) \
	ROW64(row)               \
	WITH64(VPSUBW)           \
	VPMADDWD Y8, Y8, Y8      \
	VPMADDWD Y9, Y9, Y9      \
	VPMADDWD Y10, Y10, Y10   \
	VPMADDWD Y11, Y11, Y11   \
	ADD64(sum)

// ROW: sum = STEP over row k of the four. It is the last if there are no more. The row
// four behind it, DX, or itself, is asked for meanwhile.
#define ROW(STEP, length, k, row, sum, begin, last) \
	CMPQ  LEFT, $k                       \
	JLE   last                           \
	XORL  AX, AX                         \
	VPXOR sum, sum, sum                  \
	VPXOR Y5, Y5, Y5                     \
	MOVQ  row, DX                        \
	CMPQ  LEFT, $(k+4)                   \
	JLE   begin                          \
	MOVL  (4*k+16)(IDS), DX              \
	IMULQ STRIDE, DX                     \
	ADDQ  BASE, DX                       \
begin: \
	PREFETCHT0 (DX)(AX*1)                \
	STEP(row, sum)                       \
	ADDQ   $64, AX                       \
	CMPQ   AX, length                    \
	JNE    begin                         \
	VPADDD Y5, sum, sum

// FOUR: the sums of the next four rows, or fewer, in Y0 to Y3
#define FOUR(STEP, length, begin0, begin1, begin2, begin3, last) \
	ROWS4                                       \
	ROW(STEP, length, 0, DI, Y0, begin0, last)  \
	ROW(STEP, length, 1, R11, Y1, begin1, last) \
	ROW(STEP, length, 2, R13, Y2, begin2, last) \
	ROW(STEP, length, 3, BX, Y3, begin3, last)  \
last:

// WIDE_ROWS: a kernel for all ids, four at least, with AX codes of the query, which are
// widened to the frame of 8,224 bytes, from where it is aligned; meanwhile the first
// four rows are asked for. FINISH makes keys of sums.
#define WIDE_ROWS(widen, STEP, FINISH) \
	MOVQ  AX, R15            \
	VPXOR Y15, Y15, Y15      \
	LEAQ  wide-8224(SP), R14 \
	ADDQ  $31, R14           \
	ANDQ  $~31, R14          \
	ROWS4                    \
	XORL  AX, AX             \
widening: \
	PREFETCHT0 (DI)(AX*1)      \
	PREFETCHT0 (R11)(AX*1)     \
	PREFETCHT0 (R13)(AX*1)     \
	PREFETCHT0 (BX)(AX*1)      \
	widen(0, R14)              \
	widen(32, R14)             \
	ADDQ  $64, AX              \
	CMPQ  AX, R15              \
	JNE   widening             \
	MOVQ  R14, QUERY           \
block: \
	FOUR(STEP, R15, begin0, begin1, begin2, begin3, keys) \
	FINISH                   \
	NEXT4(block, done)       \
done: \
	VZEROUPPER               \
	RET

// WIDEN_ALL: dst = src, 32 codes at a time
#define WIDEN_ALL(widen, block) \
	MOVQ  dst_base+0(FP), DI     \
	MOVQ  src_base+24(FP), QUERY \
	MOVQ  src_len+32(FP), CX     \
	VPXOR Y15, Y15, Y15          \
	XORL  AX, AX                 \
block: \
	widen(0, DI)                 \
	ADDQ  $32, AX                \
	CMPQ  AX, CX                 \
	JNE   block                  \
	VZEROUPPER                   \
	RET

// func l2U8TermRowsAVX2(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//
// query has 32, 64, 96 or 128 codes, and there are four ids at least.
TEXT ·l2U8TermRowsAVX2(SB), NOSPLIT, $0-120
	L2_TERM_ARGS
	ROWS_OF(SUMS_AND_TERMS)

// func dotU8S8ShortRowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)
//
// As above.
TEXT ·dotU8S8ShortRowsAVX2(SB), NOSPLIT, $0-104
	ROWS_ARGS
	ROWS_OF(SUMS)

// func l2U8TermWideRowsAVX2(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//
// query has up to 4,096 codes, and there are four ids at least.
TEXT ·l2U8TermWideRowsAVX2(SB), 0, $8224-120
	L2_TERM_ARGS
	WIDE_ROWS(SIGNED32, PRODUCTS_WIDE, SUMS_AND_TERMS_WIDE)

// func dotU8S8WideRowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)
//
// As above.
TEXT ·dotU8S8WideRowsAVX2(SB), 0, $8224-104
	ROWS_ARGS
	WIDE_ROWS(SIGNED32, PRODUCTS_WIDE, SUMS)

// func l2U8WideRowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)
//
// As above.
TEXT ·l2U8WideRowsAVX2(SB), 0, $8224-104
	ROWS_ARGS
	WIDE_ROWS(CODES32, SQUARES_WIDE, SUMS)

// func l2U8ShortRowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)
//
// query has 64 or 128 codes, and there are four ids at least.
TEXT ·l2U8ShortRowsAVX2(SB), NOSPLIT, $0-104
	ROWS_ARGS
	LOAD_CODES(AX, block64)

block128:
	SQUARES128
	SUMS
	NEXT4(block128, done)

block64:
	SQUARES64
	SUMS
	NEXT4(block64, done)

done:
	VZEROUPPER
	RET

// func expandL2AVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// bound is below 1<<63.
TEXT ·expandL2AVX2(SB), NOSPLIT, $0-56
	EXPAND(KEEP_L2)

// func expandDotAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// The highest bit of bound is flipped.
TEXT ·expandDotAVX2(SB), NOSPLIT, $0-56
	EXPAND(KEEP_DOT)

// func expandSquaresAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// The query is the codes themselves, 64 or 128 of them, and bound is below 1<<63.
TEXT ·expandSquaresAVX2(SB), NOSPLIT, $0-56
	EXPAND_SQUARES

// func expandWideL2AVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// bound is below 1<<63.
TEXT ·expandWideL2AVX2(SB), NOSPLIT, $0-56
	UNMARKED_WIDE
	QUERY_WIDE

block:
	FOUR(PRODUCTS_WIDE, Expansion_wide+8(R15), begin0, begin1, begin2, begin3, keep)
	MOVQ Expansion_termAt(R15), TERM
	KEEP_L2(block)
	FOUND

// func expandWideDotAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// The highest bit of bound is flipped.
TEXT ·expandWideDotAVX2(SB), NOSPLIT, $0-56
	UNMARKED_WIDE
	QUERY_WIDE

block:
	FOUR(PRODUCTS_WIDE, Expansion_wide+8(R15), begin0, begin1, begin2, begin3, keep)
	KEEP_DOT(block)
	FOUND

// func expandWideSquaresAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// bound is below 1<<63.
TEXT ·expandWideSquaresAVX2(SB), NOSPLIT, $0-56
	UNMARKED_WIDE
	QUERY_WIDE

block:
	FOUR(SQUARES_WIDE, Expansion_wide+8(R15), begin0, begin1, begin2, begin3, keep)
	KEEP_SQUARES(block)
	FOUND

// func widenSignedAVX2(dst []int16, src []int8)
TEXT ·widenSignedAVX2(SB), NOSPLIT, $0-48
	WIDEN_ALL(SIGNED32, block)

// func widenAVX2(dst []int16, src []byte)
TEXT ·widenAVX2(SB), NOSPLIT, $0-48
	WIDEN_ALL(CODES32, block)

DATA ·highest+0(SB)/8, $0x8000000000000000
GLOBL ·highest(SB), RODATA|NOPTR, $8

// places are, for each set of four words of 64 bits, their halves in order.
DATA ·places+0x000(SB)/8, $0x0000000100000000
DATA ·places+0x008(SB)/8, $0x0000000300000002
DATA ·places+0x010(SB)/8, $0x0000000500000004
DATA ·places+0x018(SB)/8, $0x0000000700000006
DATA ·places+0x020(SB)/8, $0x0000000100000000
DATA ·places+0x028(SB)/8, $0x0000000300000002
DATA ·places+0x030(SB)/8, $0x0000000500000004
DATA ·places+0x038(SB)/8, $0x0000000700000006
DATA ·places+0x040(SB)/8, $0x0000000300000002
DATA ·places+0x048(SB)/8, $0x0000000100000000
DATA ·places+0x050(SB)/8, $0x0000000500000004
DATA ·places+0x058(SB)/8, $0x0000000700000006
DATA ·places+0x060(SB)/8, $0x0000000100000000
DATA ·places+0x068(SB)/8, $0x0000000300000002
DATA ·places+0x070(SB)/8, $0x0000000500000004
DATA ·places+0x078(SB)/8, $0x0000000700000006
DATA ·places+0x080(SB)/8, $0x0000000500000004
DATA ·places+0x088(SB)/8, $0x0000000100000000
DATA ·places+0x090(SB)/8, $0x0000000300000002
DATA ·places+0x098(SB)/8, $0x0000000700000006
DATA ·places+0x0a0(SB)/8, $0x0000000100000000
DATA ·places+0x0a8(SB)/8, $0x0000000500000004
DATA ·places+0x0b0(SB)/8, $0x0000000300000002
DATA ·places+0x0b8(SB)/8, $0x0000000700000006
DATA ·places+0x0c0(SB)/8, $0x0000000300000002
DATA ·places+0x0c8(SB)/8, $0x0000000500000004
DATA ·places+0x0d0(SB)/8, $0x0000000100000000
DATA ·places+0x0d8(SB)/8, $0x0000000700000006
DATA ·places+0x0e0(SB)/8, $0x0000000100000000
DATA ·places+0x0e8(SB)/8, $0x0000000300000002
DATA ·places+0x0f0(SB)/8, $0x0000000500000004
DATA ·places+0x0f8(SB)/8, $0x0000000700000006
DATA ·places+0x100(SB)/8, $0x0000000700000006
DATA ·places+0x108(SB)/8, $0x0000000100000000
DATA ·places+0x110(SB)/8, $0x0000000300000002
DATA ·places+0x118(SB)/8, $0x0000000500000004
DATA ·places+0x120(SB)/8, $0x0000000100000000
DATA ·places+0x128(SB)/8, $0x0000000700000006
DATA ·places+0x130(SB)/8, $0x0000000300000002
DATA ·places+0x138(SB)/8, $0x0000000500000004
DATA ·places+0x140(SB)/8, $0x0000000300000002
DATA ·places+0x148(SB)/8, $0x0000000700000006
DATA ·places+0x150(SB)/8, $0x0000000100000000
DATA ·places+0x158(SB)/8, $0x0000000500000004
DATA ·places+0x160(SB)/8, $0x0000000100000000
DATA ·places+0x168(SB)/8, $0x0000000300000002
DATA ·places+0x170(SB)/8, $0x0000000700000006
DATA ·places+0x178(SB)/8, $0x0000000500000004
DATA ·places+0x180(SB)/8, $0x0000000500000004
DATA ·places+0x188(SB)/8, $0x0000000700000006
DATA ·places+0x190(SB)/8, $0x0000000100000000
DATA ·places+0x198(SB)/8, $0x0000000300000002
DATA ·places+0x1a0(SB)/8, $0x0000000100000000
DATA ·places+0x1a8(SB)/8, $0x0000000500000004
DATA ·places+0x1b0(SB)/8, $0x0000000700000006
DATA ·places+0x1b8(SB)/8, $0x0000000300000002
DATA ·places+0x1c0(SB)/8, $0x0000000300000002
DATA ·places+0x1c8(SB)/8, $0x0000000500000004
DATA ·places+0x1d0(SB)/8, $0x0000000700000006
DATA ·places+0x1d8(SB)/8, $0x0000000100000000
DATA ·places+0x1e0(SB)/8, $0x0000000100000000
DATA ·places+0x1e8(SB)/8, $0x0000000300000002
DATA ·places+0x1f0(SB)/8, $0x0000000500000004
DATA ·places+0x1f8(SB)/8, $0x0000000700000006
GLOBL ·places(SB), RODATA|NOPTR, $512
