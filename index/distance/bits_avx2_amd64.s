// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

#define QUERY SI
#define BASE  R12
#define STRIDE R13 // in bytes
#define IDS   R8
#define LEFT  R9 // rows to do, this one included
#define OUT   R10
#define ROW   DI
#define NEXT  R11
#define OFF   AX
#define END   BX // byte length of the whole blocks of 4 words of a row
#define WORDS DX // byte length of a row

// COUNT(at, reg): reg = OnesCount64(query[at] ^ row[at])
#define COUNT(at, reg) \
	MOVQ    at(QUERY)(OFF*1), reg \
	XORQ    at(ROW)(OFF*1), reg   \
	POPCNTQ reg, reg

// func hammingRowsAVX2(query, base []uint64, stride int, ids []uint32, out []int32)
//
// Words are counted one by one, which for the few dozen of a row is as fast as
// counting by shuffles. The row eight ahead is asked for meanwhile.
TEXT ·hammingRowsAVX2(SB), NOSPLIT, $0-104
	MOVQ query_base+0(FP), QUERY
	MOVQ query_len+8(FP), WORDS
	MOVQ base_base+24(FP), BASE
	MOVQ stride+48(FP), STRIDE
	MOVQ ids_base+56(FP), IDS
	MOVQ ids_len+64(FP), LEFT
	MOVQ out_base+80(FP), OUT
	SHLQ $3, STRIDE
	SHLQ $3, WORDS
	MOVQ WORDS, END
	ANDQ $-32, END

row:
	MOVL  (IDS), ROW
	IMULQ STRIDE, ROW
	ADDQ  BASE, ROW
	CMPQ  LEFT, $8
	JLE   start
	MOVL  32(IDS), NEXT
	IMULQ STRIDE, NEXT
	ADDQ  BASE, NEXT
	PREFETCHT0 (NEXT)
	PREFETCHT0 -1(NEXT)(WORDS*1)

start:
	XORQ CX, CX
	XORQ R15, R15
	XORQ OFF, OFF
	CMPQ OFF, END
	JEQ  tail

block: // 4 words
	COUNT(0, R14)
	ADDQ R14, CX
	COUNT(8, R14)
	ADDQ R14, R15
	COUNT(16, R14)
	ADDQ R14, CX
	COUNT(24, R14)
	ADDQ R14, R15
	ADDQ $32, OFF
	CMPQ OFF, END
	JNE  block

tail: // the last 0 to 3 words
	CMPQ OFF, WORDS
	JEQ  store
	COUNT(0, R14)
	ADDQ R14, CX
	ADDQ $8, OFF
	JMP  tail

store:
	ADDQ R15, CX
	MOVL CX, (OUT)
	ADDQ $4, OUT
	ADDQ $4, IDS
	DECQ LEFT
	JNZ  row
	RET
