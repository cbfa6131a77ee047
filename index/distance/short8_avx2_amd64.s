// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Four rows at a time, at DI, R11, R13 and BX. Their sums are in Y0 to Y3, and the
// query, widened to 16 bits, is in Y8 to Y15.

#define QUERY  SI
#define STRIDE CX
#define TERM   DX
#define IDS    R8
#define LEFT   R9 // rows to do
#define OUT    R10
#define BASE   R12

#define ROWS4 \
	MOVL  (IDS), DI    \
	MOVL  4(IDS), R11  \
	MOVL  8(IDS), R13  \
	MOVL  12(IDS), BX  \
	IMULQ STRIDE, DI   \
	IMULQ STRIDE, R11  \
	IMULQ STRIDE, R13  \
	IMULQ STRIDE, BX   \
	ADDQ  BASE, DI     \
	ADDQ  BASE, R11    \
	ADDQ  BASE, R13    \
	ADDQ  BASE, BX

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

// SUMS: X0 = the sums of the four rows
#define SUMS \
	VPHADDD      Y1, Y0, Y0 \
	VPHADDD      Y3, Y2, Y2 \
	VPHADDD      Y2, Y0, Y0 \
	VEXTRACTI128 $1, Y0, X1 \
	VPADDD       X1, X0, X0

// DISTANCES: X0 = queryTerm + the rows' terms - 2 * X0
#define DISTANCES \
	VPADDD       X0, X0, X0                \
	VMOVD        (DI)(TERM*1), X4          \
	VPINSRD      $1, (R11)(TERM*1), X4, X4 \
	VPINSRD      $2, (R13)(TERM*1), X4, X4 \
	VPINSRD      $3, (BX)(TERM*1), X4, X4  \
	VPBROADCASTD queryTerm+24(FP), X5      \
	VPSUBD       X0, X4, X4                \
	VPADDD       X5, X4, X0

// NEXT4: out = X0, then the next rows. The last are done once more together with
// some before them, if they are less than four.
#define NEXT4(block, done) \
	VMOVDQU X0, (OUT) \
	ADDQ    $16, IDS  \
	ADDQ    $16, OUT  \
	SUBQ    $4, LEFT  \
	JEQ     done      \
	CMPQ    LEFT, $4  \
	JGE     block     \
	MOVQ    $4, AX    \
	SUBQ    LEFT, AX  \
	SHLQ    $2, AX    \
	SUBQ    AX, IDS   \
	SUBQ    AX, OUT   \
	MOVQ    $4, LEFT  \
	JMP     block

// WIDEN: Y8 to Y15 = the query of AX codes, then on to the block for as many
#define WIDEN(of32, of64, of96) \
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

// func l2U8TermRowsAVX2(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//
// query has 32, 64, 96 or 128 codes, and there are four ids at least.
TEXT ·l2U8TermRowsAVX2(SB), NOSPLIT, $0-120
	MOVQ query_base+0(FP), QUERY
	MOVQ query_len+8(FP), AX
	MOVQ base_base+32(FP), BASE
	MOVQ stride+56(FP), STRIDE
	MOVQ termAt+64(FP), TERM
	MOVQ ids_base+72(FP), IDS
	MOVQ ids_len+80(FP), LEFT
	MOVQ out_base+96(FP), OUT
	WIDEN(block32, block64, block96)

block128:
	PRODUCTS128
	SUMS
	DISTANCES
	NEXT4(block128, done)

block96:
	PRODUCTS96
	SUMS
	DISTANCES
	NEXT4(block96, done)

block64:
	PRODUCTS64
	SUMS
	DISTANCES
	NEXT4(block64, done)

block32:
	PRODUCTS32
	SUMS
	DISTANCES
	NEXT4(block32, done)

done:
	VZEROUPPER
	RET

// func dotU8S8ShortRowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)
//
// As above.
TEXT ·dotU8S8ShortRowsAVX2(SB), NOSPLIT, $0-104
	MOVQ query_base+0(FP), QUERY
	MOVQ query_len+8(FP), AX
	MOVQ base_base+24(FP), BASE
	MOVQ stride+48(FP), STRIDE
	MOVQ ids_base+56(FP), IDS
	MOVQ ids_len+64(FP), LEFT
	MOVQ out_base+80(FP), OUT
	WIDEN(block32, block64, block96)

block128:
	PRODUCTS128
	SUMS
	NEXT4(block128, done)

block96:
	PRODUCTS96
	SUMS
	NEXT4(block96, done)

block64:
	PRODUCTS64
	SUMS
	NEXT4(block64, done)

block32:
	PRODUCTS32
	SUMS
	NEXT4(block32, done)

done:
	VZEROUPPER
	RET
