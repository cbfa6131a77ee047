// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// For each of four elements the entries that have it, as the byte it comes from,
// then what is added to entries.
DATA signs<>+0x00(SB)/8, $0x0080008000800080
DATA signs<>+0x08(SB)/8, $0x0080008000800080
DATA signs<>+0x10(SB)/8, $0x0101808001018080
DATA signs<>+0x18(SB)/8, $0x0101808001018080
DATA signs<>+0x20(SB)/8, $0x0202020280808080
DATA signs<>+0x28(SB)/8, $0x0202020280808080
DATA signs<>+0x30(SB)/8, $0x8080808080808080
DATA signs<>+0x38(SB)/8, $0x0303030303030303
DATA signs<>+0x40(SB)/8, $0x1f3e3e5d3e5d5d7c
DATA signs<>+0x48(SB)/8, $0x001f1f3e1f3e3e5d
GLOBL signs<>(SB), RODATA|NOPTR, $80

// ENTRIES(at): the tables of the segments whose elements are the low words of both
// halves of Y0
#define ENTRIES(at) \
	VPSHUFB Y8, Y0, Y1         \
	VPSHUFB Y9, Y0, Y2         \
	VPSHUFB Y10, Y0, Y3        \
	VPSHUFB Y11, Y0, Y4        \
	VPADDB  Y2, Y1, Y1         \
	VPADDB  Y4, Y3, Y3         \
	VPADDB  Y12, Y1, Y1        \
	VPADDB  Y3, Y1, Y1         \
	VMOVDQU Y1, at(DI)

// func signTableAVX2(lut []byte, v []float32, inverse float32) (sum uint32)
TEXT ·signTableAVX2(SB), NOSPLIT, $0-60
	MOVQ lut_base+0(FP), DI
	MOVQ v_base+24(FP), SI
	MOVQ v_len+32(FP), CX
	VBROADCASTSS inverse+48(FP), Y13
	MOVL $0x41fc0000, AX // 31.5
	VMOVD AX, X14
	VPBROADCASTD X14, Y14
	VBROADCASTI128 signs<>+0x00(SB), Y8
	VBROADCASTI128 signs<>+0x10(SB), Y9
	VBROADCASTI128 signs<>+0x20(SB), Y10
	VBROADCASTI128 signs<>+0x30(SB), Y11
	VBROADCASTI128 signs<>+0x40(SB), Y12
	VPXOR Y15, Y15, Y15
	VPXOR Y7, Y7, Y7 // sums

block: // 16 elements
	VMULPS (SI), Y13, Y0
	VMULPS 32(SI), Y13, Y1
	VADDPS Y14, Y0, Y0
	VADDPS Y14, Y1, Y1
	VCVTTPS2DQ Y0, Y0
	VCVTTPS2DQ Y1, Y1
	VPACKSSDW Y1, Y0, Y0
	VPACKUSWB Y0, Y0, Y0 // of each half four of the first eight, four of the others, and again
	VPSADBW Y15, Y0, Y5
	VPADDD  Y5, Y7, Y7
	ENTRIES(0)
	VPSRLQ $32, Y0, Y0
	ENTRIES(32)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JNE  block
	VEXTRACTI128 $1, Y7, X0
	VPADDD X0, X7, X7
	VMOVD X7, AX
	MOVL AX, sum+56(FP)
	VZEROUPPER
	RET

// func largestAVX2(v []float32) uint32
TEXT ·largestAVX2(SB), NOSPLIT, $0-28
	MOVQ v_base+0(FP), SI
	MOVQ v_len+8(FP), CX
	MOVL $0x7fffffff, AX
	VMOVD AX, X1
	VPBROADCASTD X1, Y1
	VPXOR Y0, Y0, Y0

block:
	VPAND (SI), Y1, Y2
	VPMAXUD Y2, Y0, Y0
	ADDQ $32, SI
	SUBQ $8, CX
	JNE  block
	VEXTRACTI128 $1, Y0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0x4e, X0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0xb1, X0, X1
	VPMAXUD X1, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+24(FP)
	VZEROUPPER
	RET

// func centredAVX2(dst []float32, codes []byte, centre []float32) (squares uint32)
TEXT ·centredAVX2(SB), NOSPLIT, $0-76
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ codes_base+24(FP), SI
	MOVQ centre_base+48(FP), DX
	VPXOR Y2, Y2, Y2

block:
	VPMOVZXBD (SI), Y0
	VCVTDQ2PS Y0, Y0
	VSUBPS (DX), Y0, Y0
	VMOVUPS Y0, (DI)
	VCVTTPS2DQ Y0, Y1
	VPMULLD Y1, Y1, Y1
	VPADDD Y1, Y2, Y2
	ADDQ $8, SI
	ADDQ $32, DX
	ADDQ $32, DI
	SUBQ $8, CX
	JNE  block
	VEXTRACTI128 $1, Y2, X1
	VPADDD X1, X2, X2
	VPSHUFD $0x4e, X2, X1
	VPADDD X1, X2, X2
	VPSHUFD $0xb1, X2, X1
	VPADDD X1, X2, X2
	VMOVD X2, AX
	MOVL AX, squares+72(FP)
	VZEROUPPER
	RET

// func flipSignsAVX2(v []float32, flips []uint64)
TEXT ·flipSignsAVX2(SB), NOSPLIT, $0-48
	MOVQ v_base+0(FP), DI
	MOVQ v_len+8(FP), CX
	MOVQ flips_base+24(FP), SI

block:
	VMOVDQU (DI), Y0
	VPXOR (SI), Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNE  block
	VZEROUPPER
	RET

// func scaleAVX2(dst, src []float32, factor float64)
TEXT ·scaleAVX2(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ src_len+32(FP), CX
	VBROADCASTSD factor+48(FP), Y2

block:
	VCVTPS2PD (SI), Y0
	VCVTPS2PD 16(SI), Y1
	VMULPD Y2, Y0, Y0
	VMULPD Y2, Y1, Y1
	VCVTPD2PSY Y0, X0
	VCVTPD2PSY Y1, X1
	VMOVUPS X0, (DI)
	VMOVUPS X1, 16(DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNE  block
	VZEROUPPER
	RET

// func squaresAVX2(src []float32) (s0, s1, s2, s3 float64)
TEXT ·squaresAVX2(SB), NOSPLIT, $0-56
	MOVQ  src_base+0(FP), SI
	MOVQ  src_len+8(FP), CX
	VXORPD Y0, Y0, Y0

block:
	VCVTPS2PD (SI), Y1
	VMULPD    Y1, Y1, Y1
	VADDPD    Y1, Y0, Y0
	ADDQ      $16, SI
	SUBQ      $4, CX
	JNE       block
	VMOVUPD   Y0, s0+24(FP)
	VZEROUPPER
	RET
