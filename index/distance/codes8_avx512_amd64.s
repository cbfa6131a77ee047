// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "sums_amd64.h"

// Registers of the kernels on codes. Four rows are worked on at a time, so that
// a block of the query is loaded once and four chains of sums overlap, while
// rows further on are prefetched: four ahead for the dot product, which is so
// short that the CPU itself runs far ahead; eight ahead for L2, which has too
// many instructions for that, and whose first eight rows are asked for before
// anything else.
#define QUERY SI
#define OFF   AX
#define END   BX // byte length of the query
#define IDS   R8
#define LEFT  R9 // rows to do
#define OUT   R10
#define ROW0  DI
#define ROW1  R11
#define ROW2  R12
#define ROW3  R13
#define NEXT0 CX
#define NEXT1 R14
#define NEXT2 R15
#define NEXT3 DX

#define LOAD_ARGS \
	MOVQ query_base+0(FP), QUERY \
	MOVQ query_len+8(FP), END    \
	MOVQ ids_base+56(FP), IDS    \
	MOVQ ids_len+64(FP), LEFT    \
	MOVQ out_base+80(FP), OUT

// ROW_AT(i, row): row = base + ids[i]*stride
#define ROW_AT(i, row) \
	MOVL  (i*4)(IDS), row          \
	IMULQ stride+48(FP), row       \
	ADDQ  base_base+24(FP), row

// REDUCE4: X0 = the sums of the int32 lanes of Z0, Z1, Z2, Z3
#define REDUCE4 \
	HALVES \
	SUMS

// REDUCE1: X0[0] = the sum of the int32 lanes of Z0
#define REDUCE1 \
	VEXTRACTI64X4 $1, Z0, Y1 \
	VPADDD  Y1, Y0, Y0       \
	VEXTRACTI128 $1, Y0, X1  \
	VPADDD  X1, X0, X0       \
	VPSHUFD $0x4E, X0, X1    \
	VPADDD  X1, X0, X0       \
	VPSHUFD $0x01, X0, X1    \
	VPADDD  X1, X0, X0

// L2(row, r, d, sum, sum2): x = query[i] - row[i]; sum, sum2 += x * x, 64 codes;
// query in Z16.
// |x| is the larger of the two saturated differences; it is widened to 16 bits
// since VPDPBUSD takes its second factor for signed.
#define L2(row, r, d, sum, sum2) \
	VMOVDQU8  (row)(OFF*1), r \
	VPSUBUSB  r, Z16, d       \
	VPSUBUSB  Z16, r, r       \
	VPORQ     r, d, d         \ // |x|
	VPUNPCKLBW Z31, d, r      \
	VPUNPCKHBW Z31, d, d      \
	VPDPWSSD  r, r, sum       \
	VPDPWSSD  d, d, sum2

// func l2U8RowsAVX512(query, base []byte, stride int, ids []uint32, out []int32)
TEXT ·l2U8RowsAVX512(SB), NOSPLIT, $0-104
	LOAD_ARGS
	VPXORQ Z31, Z31, Z31

	// for id in ids[:min(8, len(ids))] { prefetch the row }, unless there is only
	// one, which is being read at once
	CMPQ    LEFT, $1
	JEQ     one
	MOVQ    $8, CX
	CMPQ    LEFT, CX
	CMOVQLT LEFT, CX
	MOVQ    IDS, DX

ahead:
	MOVL  (DX), ROW0
	IMULQ stride+48(FP), ROW0
	ADDQ  base_base+24(FP), ROW0
	XORQ  OFF, OFF

line:
	PREFETCHT0 (ROW0)(OFF*1)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  line
	ADDQ $4, DX
	DECQ CX
	JNZ  ahead
	SUBQ $4, LEFT
	JLT  ones

fours: // LEFT is the number of rows behind these four
	ROW_AT(0, ROW0)
	ROW_AT(1, ROW1)
	ROW_AT(2, ROW2)
	ROW_AT(3, ROW3)
	MOVQ ROW0, NEXT0
	MOVQ ROW1, NEXT1
	MOVQ ROW2, NEXT2
	MOVQ ROW3, NEXT3
	CMPQ LEFT, $8
	JLT  few
	ROW_AT(8, NEXT0)
	ROW_AT(9, NEXT1)
	ROW_AT(10, NEXT2)
	ROW_AT(11, NEXT3)
	JMP  sums

few: // the NEXTs there are; the others cost nothing
	CMPQ LEFT, $4
	JLE  sums
	ROW_AT(8, NEXT0)
	CMPQ LEFT, $5
	JEQ  sums
	ROW_AT(9, NEXT1)
	CMPQ LEFT, $6
	JEQ  sums
	ROW_AT(10, NEXT2)

sums:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	XORQ   OFF, OFF

block4:
	VMOVDQU8   (QUERY)(OFF*1), Z16
	L2(ROW0, Z17, Z18, Z0, Z0)
	L2(ROW1, Z19, Z20, Z1, Z1)
	L2(ROW2, Z21, Z22, Z2, Z2)
	L2(ROW3, Z23, Z24, Z3, Z3)
	PREFETCHT0 (NEXT0)(OFF*1)
	PREFETCHT0 (NEXT1)(OFF*1)
	PREFETCHT0 (NEXT2)(OFF*1)
	PREFETCHT0 (NEXT3)(OFF*1)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block4
	REDUCE4
	VMOVDQU X0, (OUT)
	ADDQ $16, OUT
	ADDQ $16, IDS
	SUBQ $4, LEFT
	JGE  fours

ones:
	ADDQ $4, LEFT
	JZ   done

one:
	ROW_AT(0, ROW0)
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	XORQ   OFF, OFF

block1:
	VMOVDQU8   (QUERY)(OFF*1), Z16
	L2(ROW0, Z17, Z18, Z0, Z1)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block1
	VPADDD Z1, Z0, Z0
	REDUCE1
	VMOVD X0, (OUT)
	ADDQ $4, OUT
	ADDQ $4, IDS
	DECQ LEFT
	JNZ  one

done:
	VZEROUPPER
	RET

// func dotU8S8RowsAVX512(query []int8, base []byte, stride int, ids []uint32, out []int32)
TEXT ·dotU8S8RowsAVX512(SB), NOSPLIT, $0-104
	LOAD_ARGS
	SUBQ   $4, LEFT
	JLT    ones
	ROW_AT(0, NEXT0)
	ROW_AT(1, NEXT1)
	ROW_AT(2, NEXT2)
	ROW_AT(3, NEXT3)

fours: // LEFT is the number of rows behind these four
	MOVQ NEXT0, ROW0
	MOVQ NEXT1, ROW1
	MOVQ NEXT2, ROW2
	MOVQ NEXT3, ROW3
	CMPQ LEFT, $4
	JLT  few
	ROW_AT(4, NEXT0)
	ROW_AT(5, NEXT1)
	ROW_AT(6, NEXT2)
	ROW_AT(7, NEXT3)
	JMP  sums

few: // the NEXTs there are; the others stay where they were and cost nothing
	TESTQ LEFT, LEFT
	JZ    sums
	ROW_AT(4, NEXT0)
	CMPQ  LEFT, $1
	JEQ   sums
	ROW_AT(5, NEXT1)
	CMPQ  LEFT, $2
	JEQ   sums
	ROW_AT(6, NEXT2)

sums:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	XORQ   OFF, OFF

block4: // sum += row[i] * query[i], 64 codes of four rows
	VMOVDQU8   (QUERY)(OFF*1), Z16
	VMOVDQU8   (ROW0)(OFF*1), Z17
	VMOVDQU8   (ROW1)(OFF*1), Z18
	VMOVDQU8   (ROW2)(OFF*1), Z19
	VMOVDQU8   (ROW3)(OFF*1), Z20
	VPDPBUSD   Z16, Z17, Z0
	VPDPBUSD   Z16, Z18, Z1
	VPDPBUSD   Z16, Z19, Z2
	VPDPBUSD   Z16, Z20, Z3
	PREFETCHT0 (NEXT0)(OFF*1)
	PREFETCHT0 (NEXT1)(OFF*1)
	PREFETCHT0 (NEXT2)(OFF*1)
	PREFETCHT0 (NEXT3)(OFF*1)
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block4
	REDUCE4
	VMOVDQU X0, (OUT)
	ADDQ $16, OUT
	ADDQ $16, IDS
	SUBQ $4, LEFT
	JGE  fours

ones:
	ADDQ $4, LEFT
	JZ   done

one:
	ROW_AT(0, ROW0)
	VPXORQ Z0, Z0, Z0
	XORQ   OFF, OFF

block1:
	VMOVDQU8 (ROW0)(OFF*1), Z17
	VPDPBUSD (QUERY)(OFF*1), Z17, Z0
	ADDQ $64, OFF
	CMPQ OFF, END
	JNE  block1
	REDUCE1
	VMOVD X0, (OUT)
	ADDQ $4, OUT
	ADDQ $4, IDS
	DECQ LEFT
	JNZ  one

done:
	VZEROUPPER
	RET
