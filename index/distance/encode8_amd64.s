// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// func encode8AVX512(dst []byte, x, offset []float32, inverse float32) (lossy, far uint32)
TEXT ·encode8AVX512(SB), NOSPLIT, $0-88
	MOVQ dst_base+0(FP), DI
	MOVQ x_base+24(FP), SI
	MOVQ x_len+32(FP), CX
	MOVQ offset_base+48(FP), DX
	VBROADCASTSS inverse+72(FP), Z16
	MOVL $0x3f000000, AX // 0.5
	VPBROADCASTD AX, Z17
	MOVL $0x437f0000, AX // 255
	VPBROADCASTD AX, Z18
	MOVL $0x43820000, AX // 260
	VPBROADCASTD AX, Z19
	MOVL $0xc0800000, AX // -4
	VPBROADCASTD AX, Z20
	VPXORQ Z21, Z21, Z21
	KXORW  K2, K2, K2    // lossy
	KXORW  K3, K3, K3    // far
	MOVL   $0xffff, AX
	KMOVW  AX, K1

part:
	CMPQ CX, $16
	JGE  whole
	MOVL $1, AX          // the rest, less than 16
	SHLL CX, AX
	DECL AX
	KMOVW AX, K1

whole: // what the mask leaves out is zero in x and offset, and neither lossy nor far
	VMOVUPS.Z (SI), K1, Z0
	VMOVUPS.Z (DX), K1, Z1
	VSUBPS Z1, Z0, Z2        // f - offset
	VMULPS Z16, Z2, Z2
	VADDPS Z17, Z2, Z2       // t
	VCMPPS $0x1d, Z19, Z2, K4 // t >= 260
	KORW   K4, K3, K3
	VCMPPS $0x11, Z20, Z2, K4 // t < -4
	KORW   K4, K3, K3
	VMAXPS Z21, Z2, Z2       // 0 if t is no number
	VMINPS Z18, Z2, Z2
	VCVTTPS2DQ Z2, Z2
	VPMOVDB Z2, K1, (DI)
	VCVTDQ2PS Z2, Z2
	VADDPS Z1, Z2, Z2
	VCMPPS $0x04, Z0, Z2, K4 // code + offset != f
	KORW   K4, K2, K2
	ADDQ $64, SI
	ADDQ $64, DX
	ADDQ $16, DI
	SUBQ $16, CX
	JG   part
	KMOVW K2, AX
	MOVL AX, lossy+80(FP)
	KMOVW K3, AX
	MOVL AX, far+84(FP)
	VZEROUPPER
	RET

// func encode8AVX2(dst []byte, x, offset []float32, inverse float32) (lossy, far uint32)
//
// len(x) is a multiple of eight and not zero.
TEXT ·encode8AVX2(SB), NOSPLIT, $0-88
	MOVQ dst_base+0(FP), DI
	MOVQ x_base+24(FP), SI
	MOVQ x_len+32(FP), CX
	MOVQ offset_base+48(FP), DX
	VBROADCASTSS inverse+72(FP), Y6
	MOVL $0x3f000000, AX // 0.5
	VMOVD AX, X7
	VPBROADCASTD X7, Y7
	MOVL $0x437f0000, AX // 255
	VMOVD AX, X8
	VPBROADCASTD X8, Y8
	MOVL $0x43820000, AX // 260
	VMOVD AX, X9
	VPBROADCASTD X9, Y9
	MOVL $0xc0800000, AX // -4
	VMOVD AX, X10
	VPBROADCASTD X10, Y10
	VPXOR Y11, Y11, Y11
	VPXOR Y12, Y12, Y12  // lossy
	VPXOR Y13, Y13, Y13  // far

eight:
	VMOVUPS (SI), Y0
	VMOVUPS (DX), Y1
	VSUBPS  Y1, Y0, Y2        // f - offset
	VMULPS  Y6, Y2, Y2
	VADDPS  Y7, Y2, Y2        // t
	VCMPPS  $0x1d, Y9, Y2, Y3 // t >= 260
	VORPS   Y3, Y13, Y13
	VCMPPS  $0x11, Y10, Y2, Y3 // t < -4
	VORPS   Y3, Y13, Y13
	VMAXPS  Y11, Y2, Y2       // 0 if t is no number
	VMINPS  Y8, Y2, Y2
	VCVTTPS2DQ Y2, Y2
	VEXTRACTI128 $1, Y2, X3
	VPACKUSDW X3, X2, X3
	VPACKUSWB X3, X3, X3
	VMOVQ   X3, (DI)
	VCVTDQ2PS Y2, Y2
	VADDPS  Y1, Y2, Y2
	VCMPPS  $0x04, Y0, Y2, Y3 // code + offset != f
	VORPS   Y3, Y12, Y12
	ADDQ    $32, SI
	ADDQ    $32, DX
	ADDQ    $8, DI
	SUBQ    $8, CX
	JNZ     eight
	VMOVMSKPS Y12, AX
	MOVL    AX, lossy+80(FP)
	VMOVMSKPS Y13, AX
	MOVL    AX, far+84(FP)
	VZEROUPPER
	RET
