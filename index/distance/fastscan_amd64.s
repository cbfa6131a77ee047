// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "fastscan_amd64.h"

// Registers of FastScan. Byte sums are kept in 16-bit words without unpacking:
// adding a register of bytes as words sums even bytes in the low half and lets
// odd ones spill into the high half; a second sum of the odd bytes alone takes
// the spill away at the end.
#define LUT   SI
#define CODES DI
#define SUMS  DX
#define OFF   AX
#define END   BX

// STORE(at, words, y): sums[at/4:] = eight words
#define STORE(at, words, y) \
	VPMOVZXWD words, y         \
	VMOVDQU   y, at(SUMS)

// FINISH: sums = the words of X0 (even), X1 (odd) for lanes 0 to 15 and of
// X2, X3 for lanes 16 to 31.
#define FINISH \
	WIDEN(X4, X5, X0, X1)      \
	WIDEN(X6, X7, X2, X3)      \
	STORE(0, X4, Y4)           \
	STORE(32, X5, Y5)          \
	STORE(64, X6, Y6)          \
	STORE(96, X7, Y7)

// func fastScanAVX512(lut, block []byte, sums *[FastScanLanes]uint32)
TEXT ·fastScanAVX512(SB), NOSPLIT, $0-56
	MOVQ   lut_base+0(FP), LUT
	MOVQ   lut_len+8(FP), END
	MOVQ   block_base+24(FP), CODES
	MOVQ   sums+48(FP), SUMS
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
	FINISH
	VZEROUPPER
	RET

// func fastScanAVX2(lut, block []byte, sums *[FastScanLanes]uint32)
TEXT ·fastScanAVX2(SB), NOSPLIT, $0-56
	MOVQ  lut_base+0(FP), LUT
	MOVQ  lut_len+8(FP), END
	MOVQ  block_base+24(FP), CODES
	MOVQ  sums+48(FP), SUMS
	SUMS_AVX2(loop)
	FINISH
	VZEROUPPER
	RET
