// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "go_asm.h"
#include "textflag.h"
#include "short8_amd64.h"

// Y20 is the bound, Y21 what puts ids and keys in turn, X22 the highest bits.
#define PICKING \
	VPBROADCASTQ bound+32(FP), Y20    \
	VMOVDQU64    ·inTurn(SB), Y21     \
	VPBROADCASTD ·highest+4(SB), X22

#define PICK(block) \
	VMOVDQU     (IDS), X4          \
	MOVL        $4, BX             \
	CMPQ        LEFT, BX           \
	CMOVQLT     LEFT, BX           \
	MOVL        $-1, AX            \
	BZHIL       BX, AX, AX         \
	KMOVB       AX, K1             \
	VPADDD      X4, X4, X4         \
	VMOVDQA64   Y21, Y5            \
	VPERMI2D    Y0, Y4, Y5         \
	VPCMPUQ     $1, Y20, Y5, K1, K1 \
	VPCOMPRESSQ.Z Y5, K1, Y5       \
	VMOVDQU     Y5, (OUT)          \
	KMOVB       K1, AX             \
	POPCNTL     AX, AX             \
	LEAQ        (OUT)(AX*8), OUT   \
	ADDQ        $16, IDS           \
	SUBQ        $4, LEFT           \
	JGT         block

#define PICK_SIGNED(block) \
	VPXORD X22, X0, X0 \
	PICK(block)

// MORE(at, q): sums += row[at:at+32] * q
#define MORE(at, q) \
	VMOVDQU  at(DI), Y4   \
	VMOVDQU  at(R11), Y5  \
	VMOVDQU  at(R13), Y6  \
	VMOVDQU  at(BX), Y7   \
	VPDPBUSD q, Y4, Y0    \
	VPDPBUSD q, Y5, Y1    \
	VPDPBUSD q, Y6, Y2    \
	VPDPBUSD q, Y7, Y3

// LOAD: Y8 to Y11 = the query
#define LOAD(of32, of64, of96) \
	VMOVDQU (QUERY), Y8    \
	CMPQ    AX, $64        \
	JLT     of32           \
	VMOVDQU 32(QUERY), Y9  \
	JEQ     of64           \
	VMOVDQU 64(QUERY), Y10 \
	CMPQ    AX, $128       \
	JLT     of96           \
	VMOVDQU 96(QUERY), Y11

#define PRODUCTS32 \
	ROWS4             \
	VPXOR Y0, Y0, Y0  \
	VPXOR Y1, Y1, Y1  \
	VPXOR Y2, Y2, Y2  \
	VPXOR Y3, Y3, Y3  \
	MORE(0, Y8)

#define PRODUCTS64 \
	PRODUCTS32   \
	MORE(32, Y9)

#define PRODUCTS96 \
	PRODUCTS64    \
	MORE(64, Y10)

#define PRODUCTS128 \
	PRODUCTS96    \
	MORE(96, Y11)

// FIRST_SQUARES: sums = (row[:32] - query[:32])^2
#define FIRST_SQUARES \
	VPMOVZXBW (DI), Z4    \
	VPMOVZXBW (R11), Z5   \
	VPMOVZXBW (R13), Z6   \
	VPMOVZXBW (BX), Z7    \
	VPSUBW    Z8, Z4, Z4  \
	VPSUBW    Z8, Z5, Z5  \
	VPSUBW    Z8, Z6, Z6  \
	VPSUBW    Z8, Z7, Z7  \
	VPMADDWD  Z4, Z4, Z0  \
	VPMADDWD  Z5, Z5, Z1  \
	VPMADDWD  Z6, Z6, Z2  \
	VPMADDWD  Z7, Z7, Z3

// MORE_SQUARES(at, q): sums += (row[at:at+32] - q)^2
#define MORE_SQUARES(at, q) \
	VPMOVZXBW at(DI), Z4   \
	VPMOVZXBW at(R11), Z5  \
	VPMOVZXBW at(R13), Z6  \
	VPMOVZXBW at(BX), Z7   \
	VPSUBW    q, Z4, Z4    \
	VPSUBW    q, Z5, Z5    \
	VPSUBW    q, Z6, Z6    \
	VPSUBW    q, Z7, Z7    \
	VPDPWSSD  Z4, Z4, Z0   \
	VPDPWSSD  Z5, Z5, Z1   \
	VPDPWSSD  Z6, Z6, Z2   \
	VPDPWSSD  Z7, Z7, Z3

// LOAD_CODES: Z8 to Z11 = the codes, 64 or 128 of them, widened to 16 bits
#define LOAD_CODES(length, of64) \
	VPMOVZXBW (QUERY), Z8    \
	VPMOVZXBW 32(QUERY), Z9  \
	CMPQ      length, $64    \
	JEQ       of64           \
	VPMOVZXBW 64(QUERY), Z10 \
	VPMOVZXBW 96(QUERY), Z11

#define SQUARES64 \
	ROWS4                \
	FIRST_SQUARES        \
	MORE_SQUARES(32, Z9) \
	HALVES

#define SQUARES128 \
	ROWS4                 \
	FIRST_SQUARES         \
	MORE_SQUARES(32, Z9)  \
	MORE_SQUARES(64, Z10) \
	MORE_SQUARES(96, Z11) \
	HALVES

// Longer rows, with the query in memory. The four rows behind these, or these, are at
// CX, DX, R12 and R14, and asked for meanwhile.

// ROWS8: where four rows and those behind them are, if there are ids for so many
#define ROWS8(least, stride, base) \
	LEAQ    16(IDS), AX                \
	CMPQ    LEFT, $least               \
	CMOVQLT IDS, AX                    \
	MOVL    (IDS), DI                  \
	MOVL    4(IDS), R11                \
	MOVL    8(IDS), R13                \
	MOVL    12(IDS), BX                \
	MOVL    (AX), CX                   \
	MOVL    4(AX), DX                  \
	MOVL    8(AX), R12                 \
	MOVL    12(AX), R14                \
	MOVQ    stride, AX                 \
	IMULQ   AX, DI                     \
	IMULQ   AX, R11                    \
	IMULQ   AX, R13                    \
	IMULQ   AX, BX                     \
	IMULQ   AX, CX                     \
	IMULQ   AX, DX                     \
	IMULQ   AX, R12                    \
	IMULQ   AX, R14                    \
	MOVQ    base, AX                   \
	ADDQ    AX, DI                     \
	ADDQ    AX, R11                    \
	ADDQ    AX, R13                    \
	ADDQ    AX, BX                     \
	ADDQ    AX, CX                     \
	ADDQ    AX, DX                     \
	ADDQ    AX, R12                    \
	ADDQ    AX, R14                    \
	XORL    AX, AX                     \
	VPXOR   Y0, Y0, Y0                 \
	VPXOR   Y1, Y1, Y1                 \
	VPXOR   Y2, Y2, Y2                 \
	VPXOR   Y3, Y3, Y3

// AHEAD: the same place in the four rows behind is asked for
#define AHEAD \
	PREFETCHT0 (CX)(AX*1)   \
	PREFETCHT0 (DX)(AX*1)   \
	PREFETCHT0 (R12)(AX*1)  \
	PREFETCHT0 (R14)(AX*1)

// PRODUCTS_WIDE: Y0 to Y3 = the products of four rows and the query
#define PRODUCTS_WIDE(next, least, stride, base, length) \
	ROWS8(least, stride, base)    \
next: \
	VMOVDQU8 (QUERY)(AX*1), Z8    \
	VMOVDQU8 (DI)(AX*1), Z4       \
	VMOVDQU8 (R11)(AX*1), Z5      \
	VMOVDQU8 (R13)(AX*1), Z6      \
	VMOVDQU8 (BX)(AX*1), Z7       \
	VPDPBUSD Z8, Z4, Z0           \
	VPDPBUSD Z8, Z5, Z1           \
	VPDPBUSD Z8, Z6, Z2           \
	VPDPBUSD Z8, Z7, Z3           \
	AHEAD                         \
	ADDQ     $64, AX              \
	CMPQ     AX, length           \
	JNE      next                 \
	HALVES

// STEPS_WIDE: the same in an Expansion's kernel, whose ids have some behind them
#define STEPS_WIDE(next) \
	PRODUCTS_WIDE(next, 5, Expansion_stride(R15), Expansion_base(R15), Expansion_query+8(R15))

// func l2U8TermRowsAVX512(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//
// query has 32, 64, 96 or 128 codes, and there are four ids at least.
TEXT ·l2U8TermRowsAVX512(SB), NOSPLIT, $0-120
	L2_TERM_ARGS
	ROWS_OF(SUMS_AND_TERMS)

// func dotU8S8ShortRowsAVX512(query []int8, base []byte, stride int, ids []uint32, out []int32)
//
// As above.
TEXT ·dotU8S8ShortRowsAVX512(SB), NOSPLIT, $0-104
	ROWS_ARGS
	ROWS_OF(SUMS)

// func l2U8TermWideRowsAVX512(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//
// There are four ids at least.
TEXT ·l2U8TermWideRowsAVX512(SB), NOSPLIT, $0-120
	MOVQ query_base+0(FP), QUERY
	MOVQ ids_base+72(FP), IDS
	MOVQ ids_len+80(FP), LEFT
	MOVQ out_base+96(FP), OUT

block:
	PRODUCTS_WIDE(next, 8, stride+56(FP), base_base+32(FP), query_len+8(FP))
	SUMS_AND_TERMS_WIDE
	NEXT4(block, done)

done:
	VZEROUPPER
	RET

// func expandL2AVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandL2AVX512(SB), NOSPLIT, $0-56
	EXPAND(KEEP_L2)

// func expandDotAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandDotAVX512(SB), NOSPLIT, $0-56
	EXPAND(KEEP_DOT)

// func expandSquaresAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
//
// The query is the codes themselves, 64 or 128 of them.
TEXT ·expandSquaresAVX512(SB), NOSPLIT, $0-56
	EXPAND_SQUARES

// func expandWideL2AVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandWideL2AVX512(SB), NOSPLIT, $0-56
	UNMARKED_WIDE

block:
	STEPS_WIDE(codes)
	MOVQ Expansion_termAt(R15), TERM
	KEEP_L2(block)
	FOUND

// func expandWideApartAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandWideApartAVX512(SB), NOSPLIT, $0-56
	UNMARKED_WIDE

block:
	STEPS_WIDE(codes)
	KEEP_APART(block)
	FOUND

// func expandWideDotAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandWideDotAVX512(SB), NOSPLIT, $0-56
	UNMARKED_WIDE

block:
	STEPS_WIDE(codes)
	KEEP_DOT(block)
	FOUND

// func expandWideSquaresAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)
TEXT ·expandWideSquaresAVX512(SB), NOSPLIT, $0-56
	UNMARKED_WIDE
	MOVQ Expansion_codes(R15), QUERY

block:
	ROWS8(5, Expansion_stride(R15), Expansion_base(R15))
	VPXORQ Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17
	VPXORQ Z18, Z18, Z18
	VPXORQ Z19, Z19, Z19

codes: // two sums for each row, of the lower and the higher halves of 64 codes
	VPMOVZXBW (QUERY)(AX*1), Z8
	VPMOVZXBW 32(QUERY)(AX*1), Z9
	VPMOVZXBW (DI)(AX*1), Z4
	VPMOVZXBW (R11)(AX*1), Z5
	VPMOVZXBW (R13)(AX*1), Z6
	VPMOVZXBW (BX)(AX*1), Z7
	VPMOVZXBW 32(DI)(AX*1), Z12
	VPMOVZXBW 32(R11)(AX*1), Z13
	VPMOVZXBW 32(R13)(AX*1), Z14
	VPMOVZXBW 32(BX)(AX*1), Z15
	VPSUBW    Z8, Z4, Z4
	VPSUBW    Z8, Z5, Z5
	VPSUBW    Z8, Z6, Z6
	VPSUBW    Z8, Z7, Z7
	VPSUBW    Z9, Z12, Z12
	VPSUBW    Z9, Z13, Z13
	VPSUBW    Z9, Z14, Z14
	VPSUBW    Z9, Z15, Z15
	VPDPWSSD  Z4, Z4, Z0
	VPDPWSSD  Z5, Z5, Z1
	VPDPWSSD  Z6, Z6, Z2
	VPDPWSSD  Z7, Z7, Z3
	VPDPWSSD  Z12, Z12, Z16
	VPDPWSSD  Z13, Z13, Z17
	VPDPWSSD  Z14, Z14, Z18
	VPDPWSSD  Z15, Z15, Z19
	AHEAD
	ADDQ      $64, AX
	CMPQ      AX, Expansion_codes+8(R15)
	JNE       codes
	VPADDD    Z16, Z0, Z0
	VPADDD    Z17, Z1, Z1
	VPADDD    Z18, Z2, Z2
	VPADDD    Z19, Z3, Z3
	HALVES
	KEEP_SQUARES(block)
	FOUND

DATA ·inTurn+0(SB)/8, $0x0000000800000000
DATA ·inTurn+8(SB)/8, $0x0000000900000001
DATA ·inTurn+16(SB)/8, $0x0000000a00000002
DATA ·inTurn+24(SB)/8, $0x0000000b00000003
GLOBL ·inTurn(SB), RODATA|NOPTR, $32
