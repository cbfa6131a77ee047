// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// func unmarkedAsm(ids []uint32, marks []uint64, limit uint32, out []uint32) int
TEXT ·unmarkedAsm(SB), NOSPLIT, $0-88
	MOVQ ids_base+0(FP), SI
	MOVQ ids_len+8(FP), CX
	MOVQ marks_base+24(FP), DI
	MOVL limit+48(FP), R8
	MOVQ out_base+56(FP), R9
	XORQ AX, AX             // n
	LEAQ (SI)(CX*4), CX     // end of ids

next:
	MOVL (SI), DX           // id
	ADDQ $4, SI
	CMPL DX, R8
	JAE  outside
	MOVL DX, (R9)(AX*4)     // out[n] = id
	MOVL DX, BX
	SHRL $6, BX
	MOVQ (DI)(BX*8), R10
	BTSQ DX, R10            // carry: was it there?
	MOVQ R10, (DI)(BX*8)
	SBBQ $-1, AX            // n += 1 - carry
	CMPQ SI, CX
	JNE  next
	MOVQ AX, ret+80(FP)
	RET

outside:
	CMPL DX, $-1
	JEQ  done
	CMPQ SI, CX
	JNE  next

done:
	MOVQ AX, ret+80(FP)
	RET

// func prefetchRows(base []byte, stride, length int, ids []uint32)
TEXT ·prefetchRows(SB), NOSPLIT, $0-64
	MOVQ base_base+0(FP), SI
	MOVQ stride+24(FP), R8
	MOVQ length+32(FP), R9
	MOVQ ids_base+40(FP), DI
	MOVQ ids_len+48(FP), CX

row:
	MOVL  (DI), AX
	IMULQ R8, AX
	ADDQ  SI, AX
	LEAQ  (AX)(R9*1), BX

line: // for p := row; p < row + length; p += 64
	PREFETCHT0 (AX)
	ADDQ $64, AX
	CMPQ AX, BX
	JLO  line
	ADDQ $4, DI
	DECQ CX
	JNZ  row
	RET

// func insertSortedAVX512(items []uint64, x uint64) int
TEXT ·insertSortedAVX512(SB), NOSPLIT, $0-40
	MOVQ items_base+0(FP), DI
	MOVQ items_len+8(FP), CX
	VPBROADCASTQ x+24(FP), Z1
	DECQ CX                    // the last has no item yet
	LEAQ (DI)(CX*8), SI

eight: // the eight items before SI
	SUBQ $64, SI
	CMPQ SI, DI
	JLO  few
	VMOVDQU64 (SI), Z0
	VPCMPUQ   $6, Z1, Z0, K1   // which are above x
	VMOVDQU64 Z0, K1, 8(SI)    // move up
	KMOVB     K1, AX
	CMPL      AX, $0xff
	JEQ       eight
	POPCNTL   AX, AX
	SUBQ      DI, SI
	SHRQ      $3, SI
	ADDQ      $8, SI
	SUBQ      AX, SI
	MOVQ      x+24(FP), DX
	MOVQ      DX, (DI)(SI*8)
	MOVQ      SI, ret+32(FP)
	VZEROUPPER
	RET

few: // less than eight are left, at DI
	ADDQ      $64, SI
	SUBQ      DI, SI
	SHRQ      $3, SI
	MOVQ      SI, CX
	MOVL      $1, BX
	SHLL      CX, BX
	DECL      BX
	KMOVB     BX, K2
	VMOVDQU64.Z (DI), K2, Z0
	VPCMPUQ   $6, Z1, Z0, K2, K1
	VMOVDQU64 Z0, K1, 8(DI)
	KMOVB     K1, AX
	POPCNTL   AX, AX
	SUBQ      AX, SI
	MOVQ      x+24(FP), DX
	MOVQ      DX, (DI)(SI*8)
	MOVQ      SI, ret+32(FP)
	VZEROUPPER
	RET

DATA signs<>+0(SB)/8, $0x8000000000000000
GLOBL signs<>(SB), RODATA|NOPTR, $8

// func insertSortedAVX2(items []uint64, x uint64) int
TEXT ·insertSortedAVX2(SB), NOSPLIT, $0-40
	MOVQ items_base+0(FP), DI
	MOVQ items_len+8(FP), CX
	MOVQ x+24(FP), DX
	VPBROADCASTQ signs<>(SB), Y6 // comparisons are of signed numbers
	VPBROADCASTQ x+24(FP), Y7
	VPXOR Y6, Y7, Y7
	LEAQ -8(DI)(CX*8), SI        // the last has no item yet

eight: // the eight items before SI
	SUBQ $64, SI
	CMPQ SI, DI
	JLO  few
	VMOVDQU   (SI), Y0
	VMOVDQU   32(SI), Y1
	VPXOR     Y6, Y0, Y2
	VPXOR     Y6, Y1, Y3
	VPCMPGTQ  Y7, Y2, Y2         // which are above x
	VPCMPGTQ  Y7, Y3, Y3
	VMOVMSKPD Y2, AX
	VMOVMSKPD Y3, BX
	CMPL      AX, $0xf
	JNE       last
	VMOVDQU   Y1, 40(SI)         // move up
	VMOVDQU   Y0, 8(SI)
	JMP       eight

last: // not all of them: the others stay, but for one where x will be
	VMOVDQU   40(SI), Y4
	VBLENDVPD Y3, Y1, Y4, Y1
	VMOVDQU   8(SI), Y5
	VBLENDVPD Y2, Y0, Y5, Y0
	VMOVDQU   Y1, 40(SI)
	VMOVDQU   Y0, 8(SI)
	SHLL      $4, BX
	ORL       BX, AX
	POPCNTL   AX, AX
	SUBQ      DI, SI
	SHRQ      $3, SI
	ADDQ      $8, SI
	SUBQ      AX, SI
	MOVQ      DX, (DI)(SI*8)
	MOVQ      SI, ret+32(FP)
	VZEROUPPER
	RET

few: // less than eight are left, at DI
	VZEROUPPER
	ADDQ $56, SI                 // the last of them

one:
	CMPQ SI, DI
	JLO  found
	MOVQ (SI), AX
	CMPQ AX, DX
	JLS  found
	MOVQ AX, 8(SI)
	SUBQ $8, SI
	JMP  one

found:
	MOVQ DX, 8(SI)
	ADDQ $8, SI
	SUBQ DI, SI
	SHRQ $3, SI
	MOVQ SI, ret+32(FP)
	RET
