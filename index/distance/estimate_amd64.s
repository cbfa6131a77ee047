// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "fastscan_amd64.h"

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

// WORDS(x, y, lo, hi, even, odd): x, y = what WIDEN makes, as float32; lo and hi are their
// lower halves
#define WORDS(x, y, lo, hi, even, odd) \
	WIDEN(lo, hi, even, odd)   \
	VPMOVZXWD lo, x            \
	VPMOVZXWD hi, y            \
	VCVTDQ2PS x, x             \
	VCVTDQ2PS y, y

// INNER(at, x): x = add + times*(x*Scale + Shift) + Base, of eight lanes
#define INNER(at, x) \
	VMULPS Y8, x, x            \
	VADDPS Y9, x, x            \
	VMULPS (128+at)(CODES), x, x \
	VADDPS at(CODES), x, x     \
	VADDPS Y10, x, x

// KEYS(at, x): eight keys of estimates; CX gets a bit for each below Limit
#define KEYS(at, x) \
	VCMPPS $17, Y11, x, Y13    \
	VMOVMSKPS Y13, R9          \
	SHLL  $(at/4), R9          \
	ORL   R9, CX               \
	VMAXPS Y12, x, x           \
	VMINPS Y14, x, x           \
	VCVTTPS2DQ x, x            \
	VPXOR Y15, x, x            \
	VMOVDQU x, at(OUT)

// func estimateAVX2(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32
//
// The sums are those of fastScanAVX2. The factors follow the codes.
TEXT ·estimateAVX2(SB), NOSPLIT, $0-68
	MOVQ  lut_base+0(FP), LUT
	MOVQ  lut_len+8(FP), END
	MOVQ  block_base+24(FP), CODES
	MOVQ  e+48(FP), EST
	MOVQ  keys+56(FP), OUT
	SUMS_AVX2(loop)

	ADDQ END, CODES           // the factors
	VBROADCASTSS 0(EST), Y8   // Scale
	VBROADCASTSS 4(EST), Y9   // Shift
	VBROADCASTSS 8(EST), Y10  // Base
	VBROADCASTSS 12(EST), Y11 // Limit
	VBROADCASTSS 16(EST), Y12 // Low
	VBROADCASTSS 20(EST), Y15 // Flip
	MOVL  $0x4e800000, CX     // 1 << 30
	VMOVD CX, X14
	VPBROADCASTD X14, Y14
	WORDS(Y4, Y5, X4, X5, X0, X1)
	WORDS(Y6, Y7, X6, X7, X2, X3)
	INNER(0, Y4)
	INNER(32, Y5)
	INNER(64, Y6)
	INNER(96, Y7)
	XORL CX, CX
	KEYS(0, Y4)
	KEYS(32, Y5)
	KEYS(64, Y6)
	KEYS(96, Y7)
	MOVL CX, ret+64(FP)
	VZEROUPPER
	RET
