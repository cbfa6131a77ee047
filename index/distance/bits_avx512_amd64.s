// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Registers of the kernels on bits: one row at a time. Eight rows are asked for
// before anything else, then the row eight ahead while one is worked on: rows
// are short, and memory takes as long for them as for long ones.
#define QUERY SI
#define OFF   AX
#define END   BX // byte length of the whole blocks of 8 words of a row
#define IDS   R8
#define LEFT  R9 // rows to do, this one included
#define OUT   R10
#define ROW   DI
#define NEXT  R11
#define BASE  R12
#define STRIDE R13 // in bytes
#define COUNT CX
#define AHEAD DX
#define LAST  R14 // offset of the last byte of a row

// LOAD_ARGS also sets END and K1, the words behind the last whole block, from
// the number of words of a row in DX.
#define LOAD_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ base_base+24(FP), BASE  \
	MOVQ stride+48(FP), STRIDE   \
	MOVQ ids_base+56(FP), IDS    \
	MOVQ ids_len+64(FP), LEFT    \
	MOVQ out_base+80(FP), OUT    \
	SHLQ $3, STRIDE              \
	LEAQ -1(DX*8), LAST          \
	MOVQ DX, CX                  \
	ANDQ $7, CX                  \
	SUBQ CX, DX                  \
	LEAQ (DX*8), END             \
	MOVQ $1, DX                  \
	SHLQ CX, DX                  \
	DECQ DX                      \
	KMOVW DX, K1

// PREFETCH_FIRST: for id in ids[:min(8, len(ids))] { prefetch the row }, if there
// are more than three rows; fewer gain nothing by it
#define PREFETCH_FIRST(row, line, start) \
	CMPQ    LEFT, $3            \
	JLE     start               \
	MOVQ    $8, COUNT           \
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
	CMPQ    OFF, LAST           \
	JLT     line                \
	PREFETCHT0 (NEXT)(LAST*1)   \
	ADDQ    $4, AHEAD           \
	DECQ    COUNT               \
	JNZ     row

// NEXT_ROW: ROW = BASE + ids[0]*STRIDE; if LEFT > 8 { NEXT = BASE + ids[8]*STRIDE } else { NEXT = ROW }
#define NEXT_ROW(last) \
	MOVL  (IDS), ROW    \
	IMULQ STRIDE, ROW   \
	ADDQ  BASE, ROW     \
	MOVQ  ROW, NEXT     \
	CMPQ  LEFT, $8      \
	JLE   last          \
	MOVL  32(IDS), NEXT \
	IMULQ STRIDE, NEXT  \
	ADDQ  BASE, NEXT

// STORE_SUM: out = the sum of the int64 lanes of Z0
#define STORE_SUM \
	VEXTRACTI64X4 $1, Z0, Y1 \
	VPADDQ Y1, Y0, Y0        \
	VEXTRACTI128 $1, Y0, X1  \
	VPADDQ X1, X0, X0        \
	VPSHUFD $0x4E, X0, X1    \
	VPADDQ X1, X0, X0        \
	VMOVD X0, (OUT)          \
	ADDQ $4, OUT             \
	ADDQ $4, IDS             \
	DECQ LEFT

// func hammingRowsAVX512(query, base []uint64, stride int, ids []uint32, out []int32)
TEXT ·hammingRowsAVX512(SB), NOSPLIT, $0-104
	MOVQ query_len+8(FP), DX
	LOAD_ARGS
	PREFETCH_FIRST(ahead, line, row)

row:
	NEXT_ROW(start)

start:
	VPXORQ Z0, Z0, Z0
	XORQ   OFF, OFF
	CMPQ   OFF, END
	JEQ    tail

block: // sum += OnesCount64(query[w] ^ row[w]), 8 words
	PREFETCHT0 (NEXT)(OFF*1)
	VMOVDQU64 (QUERY)(OFF*1), Z2
	VPXORQ    (ROW)(OFF*1), Z2, Z2
	VPOPCNTQ  Z2, Z2
	VPADDQ    Z2, Z0, Z0
	ADDQ      $64, OFF
	CMPQ      OFF, END
	JNE       block

tail: // the last 0 to 7 words
	PREFETCHT0 (NEXT)(OFF*1)
	PREFETCHT0 (NEXT)(LAST*1)
	VMOVDQU64.Z (QUERY)(OFF*1), K1, Z2
	VPXORQ.Z    (ROW)(OFF*1), Z2, K1, Z2
	VPOPCNTQ    Z2, Z2
	VPADDQ      Z2, Z0, Z0
	STORE_SUM
	JNZ  row
	VZEROUPPER
	RET

// func dotBits4RowsAVX512(query, base []uint64, stride int, ids []uint32, out []int32)
TEXT ·dotBits4RowsAVX512(SB), NOSPLIT, $0-104
	MOVQ query_len+8(FP), DX
	SHRQ $2, DX // words of a plane
	LOAD_ARGS
	PREFETCH_FIRST(ahead, line, planes)

planes:
	LEAQ 1(LAST), R15      // bytes of a plane
	LEAQ (R15)(R15*2), CX

row:
	NEXT_ROW(start)

start:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	MOVQ   QUERY, DX   // plane 0 at OFF
	XORQ   OFF, OFF
	CMPQ   OFF, END
	JEQ    tail

block: // sum[p] += OnesCount64(query[p*n+w] & row[w]), 8 words
	PREFETCHT0 (NEXT)(OFF*1)
	VMOVDQU64 (ROW)(OFF*1), Z4
	VPANDQ    (DX), Z4, Z5
	VPANDQ    (DX)(R15*1), Z4, Z6
	VPANDQ    (DX)(R15*2), Z4, Z7
	VPANDQ    (DX)(CX*1), Z4, Z4
	VPOPCNTQ  Z5, Z5
	VPOPCNTQ  Z6, Z6
	VPOPCNTQ  Z7, Z7
	VPOPCNTQ  Z4, Z4
	VPADDQ    Z5, Z0, Z0
	VPADDQ    Z6, Z1, Z1
	VPADDQ    Z7, Z2, Z2
	VPADDQ    Z4, Z3, Z3
	ADDQ      $64, DX
	ADDQ      $64, OFF
	CMPQ      OFF, END
	JNE       block

tail: // the last 0 to 7 words
	PREFETCHT0 (NEXT)(OFF*1)
	PREFETCHT0 (NEXT)(LAST*1)
	VMOVDQU64.Z (ROW)(OFF*1), K1, Z4
	VPANDQ.Z    (DX), Z4, K1, Z5
	VPANDQ.Z    (DX)(R15*1), Z4, K1, Z6
	VPANDQ.Z    (DX)(R15*2), Z4, K1, Z7
	VPANDQ.Z    (DX)(CX*1), Z4, K1, Z4
	VPOPCNTQ    Z5, Z5
	VPOPCNTQ    Z6, Z6
	VPOPCNTQ    Z7, Z7
	VPOPCNTQ    Z4, Z4
	VPADDQ      Z5, Z0, Z0
	VPADDQ      Z6, Z1, Z1
	VPADDQ      Z7, Z2, Z2
	VPADDQ      Z4, Z3, Z3
	VPADDQ      Z3, Z3, Z3 // ((sum[3]*2 + sum[2])*2 + sum[1])*2 + sum[0]
	VPADDQ      Z3, Z2, Z2
	VPADDQ      Z2, Z2, Z2
	VPADDQ      Z2, Z1, Z1
	VPADDQ      Z1, Z1, Z1
	VPADDQ      Z1, Z0, Z0
	STORE_SUM
	JNZ  row
	VZEROUPPER
	RET
