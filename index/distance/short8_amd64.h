// SPDX-License-Identifier: Apache-2.0

// What kernels that compare a query with some rows of 8-bit codes share, whatever the
// instructions they multiply by. Those define
//
//   LOAD(of32, of64, of96)  the query of AX codes into registers, then on to block128 or
//                           the block for as many
//   PRODUCTS32 to 128       Y0 to Y3 = the products with the next four rows, at DI, R11,
//                           R13 and BX; the registers from Y8 on have the query
//   LOAD_CODES(length, of64), SQUARES64 and 128
//                           the same for a query of codes and squares of differences
//   PICKING                 what PICK wants in registers
//   PICK(block)             out = those of X0<<32 | ids<<1 that are below bound, of the LEFT
//                           that there are at most, then the next rows
//   PICK_SIGNED(block)      the same with the highest bit of X0 flipped

#include "sums_amd64.h"

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

// DISTANCES: X0 = queryTerm + the rows' terms - 2 * X0
#define DISTANCES(queryTerm) \
	VPADDD       X0, X0, X0                \
	VMOVD        (DI)(TERM*1), X4          \
	VPINSRD      $1, (R11)(TERM*1), X4, X4 \
	VPINSRD      $2, (R13)(TERM*1), X4, X4 \
	VPINSRD      $3, (BX)(TERM*1), X4, X4  \
	VPBROADCASTD queryTerm, X5             \
	VPSUBD       X0, X4, X4                \
	VPADDD       X5, X4, X0

// DISTANCES_APART: the same with the terms of the rows that IDS has
#define DISTANCES_APART \
	VPADDD       X0, X0, X0                   \
	MOVQ         Expansion_apart(R15), TERM   \
	MOVL         (IDS), DI                    \
	MOVL         4(IDS), R11                  \
	MOVL         8(IDS), R13                  \
	MOVL         12(IDS), BX                  \
	VMOVD        4(TERM)(DI*8), X4            \
	VPINSRD      $1, 4(TERM)(R11*8), X4, X4   \
	VPINSRD      $2, 4(TERM)(R13*8), X4, X4   \
	VPINSRD      $3, 4(TERM)(BX*8), X4, X4    \
	VPBROADCASTD Expansion_term(R15), X5      \
	VPSUBD       X0, X4, X4                   \
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

// ROWS_OF(FINISH): the blocks of a kernel for all ids, FINISH making keys of sums
#define ROWS_OF(FINISH) \
	LOAD(block32, block64, block96) \
block128: \
	PRODUCTS128                     \
	FINISH                          \
	NEXT4(block128, done)           \
block96: \
	PRODUCTS96                      \
	FINISH                          \
	NEXT4(block96, done)            \
block64: \
	PRODUCTS64                      \
	FINISH                          \
	NEXT4(block64, done)            \
block32: \
	PRODUCTS32                      \
	FINISH                          \
	NEXT4(block32, done)            \
done: \
	VZEROUPPER                      \
	RET

#define SUMS_AND_TERMS \
	SUMS                           \
	DISTANCES(queryTerm+24(FP))

// SUMS_AND_TERMS_WIDE is for kernels in which TERM had another use meanwhile.
#define SUMS_AND_TERMS_WIDE \
	MOVQ termAt+64(FP), TERM \
	SUMS_AND_TERMS

// L2_TERM_ARGS begins
// func(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
#define L2_TERM_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ query_len+8(FP), AX     \
	MOVQ base_base+32(FP), BASE  \
	MOVQ stride+56(FP), STRIDE   \
	MOVQ termAt+64(FP), TERM     \
	MOVQ ids_base+72(FP), IDS    \
	MOVQ ids_len+80(FP), LEFT    \
	MOVQ out_base+96(FP), OUT

// ROWS_ARGS begins func(query []int8, base []byte, stride int, ids []uint32, out []int32)
#define ROWS_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ query_len+8(FP), AX     \
	MOVQ base_base+24(FP), BASE  \
	MOVQ stride+48(FP), STRIDE   \
	MOVQ ids_base+56(FP), IDS    \
	MOVQ ids_len+64(FP), LEFT    \
	MOVQ out_base+80(FP), OUT

// An Expansion's kernels: the links that are new, as unmarkedAsm finds them, then
// their keys, then those below the bound. R15 is the Expansion.

// ENDS: the first and the last line of the row of DX are asked for. BASE is where rows
// are, R13 the end of the first, R11 the stride.
#define ENDS \
	MOVQ  DX, R10            \
	IMULQ R11, R10           \
	PREFETCHT0 (BASE)(R10*1) \
	PREFETCHT0 (R13)(R10*1)

// LINES: all lines of the first rows of the AX ids at R9 are asked for
#define LINES(row, line, done) \
	MOVQ    Expansion_ahead(R15), CX \
	CMPQ    AX, CX                   \
	CMOVQLT AX, CX                   \
	TESTQ   CX, CX                   \
	JEQ     done                     \
	MOVQ    R9, SI                   \
row: \
	MOVL    (SI), DI                 \
	IMULQ   R11, DI                  \
	ADDQ    BASE, DI                 \
	LEAQ    (DI)(R11*1), BX          \
line: \
	PREFETCHT0 (DI)                  \
	ADDQ    $64, DI                  \
	CMPQ    DI, BX                   \
	JLO     line                     \
	ADDQ    $4, SI                   \
	DECQ    CX                       \
	JNZ     row

#define NOTHING

// UNMARKED: ids = those of links that are below limit and new, AX of them. Their rows
// are asked for by EACH or by ALL. Without links the ids that are given are there
// already. The last four are filled up with the first.
#define UNMARKED(EACH, ALL, next, outside, all, done, some) \
	MOVQ  e+0(FP), R15                  \
	MOVQ  links_base+8(FP), SI          \
	MOVQ  links_len+16(FP), CX          \
	MOVQ  Expansion_ids(R15), R9        \
	MOVQ  Expansion_base(R15), BASE     \
	MOVQ  Expansion_stride(R15), R11    \
	MOVQ  Expansion_given(R15), AX      \
	TESTQ CX, CX                        \
	JEQ   done                          \
	LEAQ  (SI)(CX*4), CX                \
	MOVQ  Expansion_marks(R15), DI      \
	MOVL  Expansion_limit(R15), R8      \
	MOVL  Expansion_shift(R15), R14     \
	LEAQ  -1(BASE)(R11*1), R13          \
	XORL  AX, AX                        \
next: \
	MOVL  (SI), DX                      \
	ADDQ  $4, SI                        \
	CMPL  DX, R8                        \
	JAE   outside                       \
	MOVL  DX, (R9)(AX*4)                \
	EACH                                \
	SHRXL R14, DX, BX                   \
	MOVQ  (DI)(BX*8), R10               \
	BTSQ  DX, R10                       \
	MOVQ  R10, (DI)(BX*8)               \
	SBBQ  $-1, AX                       \
	CMPQ  SI, CX                        \
	JNE   next                          \
	JMP   all                           \
outside: \
	CMPL  DX, $-1                       \
	JEQ   all                           \
	CMPQ  SI, CX                        \
	JNE   next                          \
all: \
	ALL                                 \
done: \
	MOVQ  AX, seen+40(FP)               \
	TESTQ AX, AX                        \
	JNZ   some                          \
	MOVQ  AX, found+48(FP)              \
	RET                                 \
some: \
	MOVL  (R9), DX                      \
	MOVL  DX, (R9)(AX*4)                \
	MOVL  DX, 4(R9)(AX*4)               \
	MOVL  DX, 8(R9)(AX*4)               \
	MOVQ  R9, IDS                       \
	MOVQ  AX, LEFT                      \
	MOVQ  R11, STRIDE                   \
	MOVQ  Expansion_termAt(R15), TERM   \
	MOVQ  Expansion_out(R15), OUT       \
	MOVQ  Expansion_query(R15), QUERY   \
	MOVQ  Expansion_query+8(R15), AX

#define FOUND \
	SUBQ Expansion_out(R15), OUT \
	SHRQ $3, OUT                 \
	MOVQ OUT, found+48(FP)       \
	VZEROUPPER                   \
	RET

#define KEEP_L2(block) \
	SUMS                            \
	DISTANCES(Expansion_term(R15))  \
	PICK(block)

#define KEEP_APART(block) \
	SUMS                            \
	DISTANCES_APART                 \
	PICK(block)

#define KEEP_SQUARES(block) \
	SUMS                           \
	PICK(block)

#define KEEP_DOT(block) \
	SUMS                 \
	VPXOR  X4, X4, X4    \
	VPSUBD X0, X4, X0    \
	PICK_SIGNED(block)

// EXPAND(KEEP) is the body of func(e *Expansion, links []uint32, bound uint64) (seen, found int)
#define EXPAND(KEEP) \
	UNMARKED(ENDS, NOTHING, next, outside, all, done, some) \
	PICKING                             \
	LOAD(block32, block64, block96)     \
block128: \
	PRODUCTS128                         \
	KEEP(block128)                      \
	FOUND                               \
block96: \
	PRODUCTS96                          \
	KEEP(block96)                       \
	FOUND                               \
block64: \
	PRODUCTS64                          \
	KEEP(block64)                       \
	FOUND                               \
block32: \
	PRODUCTS32                          \
	KEEP(block32)                       \
	FOUND

// EXPAND_SQUARES is the same for squares of differences.
#define EXPAND_SQUARES \
	UNMARKED(ENDS, NOTHING, next, outside, all, done, some) \
	PICKING                                       \
	MOVQ Expansion_codes(R15), QUERY              \
	LOAD_CODES(Expansion_codes+8(R15), block64)   \
block128: \
	SQUARES128                                    \
	KEEP_SQUARES(block128)                        \
	FOUND                           \
block64: \
	SQUARES64                                     \
	KEEP_SQUARES(block64)                         \
	FOUND

// UNMARKED_WIDE is UNMARKED for long rows.
#define UNMARKED_WIDE \
	UNMARKED(NOTHING, LINES(row, line, done), next, outside, all, done, some) \
	PICKING
