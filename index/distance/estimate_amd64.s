// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

#define LUT   SI
#define CODES DI
#define EST   DX
#define OUT   R8
#define OFF   AX
#define END   BX

// func estimateAVX512(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32
//
// The sums are those of fastScanAVX512. The factors follow the codes.
TEXT ·estimateAVX512(SB), NOSPLIT, $0-68
	MOVQ   lut_base+0(FP), LUT
	MOVQ   lut_len+8(FP), END
	MOVQ   block_base+24(FP), CODES
	MOVQ   e+48(FP), EST
	MOVQ   keys+56(FP), OUT
	MOVL   $0x0f0f0f0f, CX
	VPBROADCASTD CX, Z15
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	XORQ   OFF, OFF

loop: // four segments
	VMOVDQU64 (CODES)(OFF*1), Z4
	VMOVDQU64 (LUT)(OFF*1), Z5
	VPANDQ    Z15, Z4, Z6     // low halves
	VPSRLW    $4, Z4, Z7      // high halves
	VPANDQ    Z15, Z7, Z7
	VPSHUFB   Z6, Z5, Z6      // lut[low]
	VPSHUFB   Z7, Z5, Z7      // lut[high]
	VPADDW    Z6, Z0, Z0
	VPSRLW    $8, Z6, Z6
	VPADDW    Z6, Z1, Z1
	VPADDW    Z7, Z2, Z2
	VPSRLW    $8, Z7, Z7
	VPADDW    Z7, Z3, Z3
	ADDQ      $64, OFF
	CMPQ      OFF, END
	JNE       loop

	// The four segments' sums become one.
	VEXTRACTI64X4 $1, Z0, Y4
	VEXTRACTI64X4 $1, Z1, Y5
	VEXTRACTI64X4 $1, Z2, Y6
	VEXTRACTI64X4 $1, Z3, Y7
	VPADDW Y4, Y0, Y0
	VPADDW Y5, Y1, Y1
	VPADDW Y6, Y2, Y2
	VPADDW Y7, Y3, Y3
	VEXTRACTI128 $1, Y0, X4
	VEXTRACTI128 $1, Y1, X5
	VEXTRACTI128 $1, Y2, X6
	VEXTRACTI128 $1, Y3, X7
	VPADDW X4, X0, X0
	VPADDW X5, X1, X1
	VPADDW X6, X2, X2
	VPADDW X7, X3, X3

	// even -= odd<<8; the words interleaved are lanes in order.
	VPSLLW $8, X1, X4
	VPSUBW X4, X0, X0
	VPUNPCKLWD X1, X0, X4     // lanes 0 to 7
	VPUNPCKHWD X1, X0, X5     // lanes 8 to 15
	VPSLLW $8, X3, X6
	VPSUBW X6, X2, X2
	VPUNPCKLWD X3, X2, X6
	VPUNPCKHWD X3, X2, X7
	VINSERTI128 $1, X5, Y4, Y4
	VINSERTI128 $1, X7, Y6, Y6
	VPMOVZXWD Y4, Z4
	VPMOVZXWD Y6, Z6
	VCVTDQ2PS Z4, Z4
	VCVTDQ2PS Z6, Z6

	ADDQ END, CODES           // the factors
	VBROADCASTSS 0(EST), Z8   // Scale
	VBROADCASTSS 4(EST), Z9   // Shift
	VBROADCASTSS 8(EST), Z10  // Base
	VBROADCASTSS 12(EST), Z11 // Limit
	VMULPS Z8, Z4, Z4
	VMULPS Z8, Z6, Z6
	VADDPS Z9, Z4, Z4
	VADDPS Z9, Z6, Z6
	VMULPS 128(CODES), Z4, Z4
	VMULPS 192(CODES), Z6, Z6
	VADDPS 0(CODES), Z4, Z4
	VADDPS 64(CODES), Z6, Z6
	VADDPS Z10, Z4, Z4
	VADDPS Z10, Z6, Z6
	VCMPPS $17, Z11, Z4, K1   // below Limit; false for NaN
	VCMPPS $17, Z11, Z6, K2
	KUNPCKWD K1, K2, K1
	KMOVD  K1, AX
	MOVL   AX, ret+64(FP)

	VBROADCASTSS 16(EST), Z8  // Low
	VPBROADCASTD 20(EST), Z10 // Flip
	MOVL   $0x4e800000, CX    // 1 << 30
	VPBROADCASTD CX, Z9
	VMAXPS Z8, Z4, Z4         // the second operand, Low, for NaN
	VMAXPS Z8, Z6, Z6
	VMINPS Z9, Z4, Z4
	VMINPS Z9, Z6, Z6
	VCVTTPS2DQ Z4, Z4
	VCVTTPS2DQ Z6, Z6
	VPXORD Z10, Z4, Z4
	VPXORD Z10, Z6, Z6
	VMOVDQU32 Z4, 0(OUT)
	VMOVDQU32 Z6, 64(OUT)
	VZEROUPPER
	RET
