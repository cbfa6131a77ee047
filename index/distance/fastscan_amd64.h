// SPDX-License-Identifier: Apache-2.0

// SUMS_AVX2 sums what a block of codes chooses of a table, two segments at a time: X0 and
// X1 become the words of lanes 0 to 15, X2 and X3 those of 16 to 31, as FastScan's
// registers are described in fastscan_amd64.s. END is the length of both. Y15, CX, OFF and
// the registers up to Y7 are overwritten.
#define SUMS_AVX2(loop) \
	MOVL  $0x0f0f0f0f, CX \
	VMOVD CX, X15 \
	VPBROADCASTD X15, Y15 \
	VPXOR Y0, Y0, Y0 \
	VPXOR Y1, Y1, Y1 \
	VPXOR Y2, Y2, Y2 \
	VPXOR Y3, Y3, Y3 \
	XORQ  OFF, OFF \
loop: \
	VMOVDQU (CODES)(OFF*1), Y4 \
	VMOVDQU (LUT)(OFF*1), Y5 \
	VPAND   Y15, Y4, Y6 \
	VPSRLW  $4, Y4, Y7 \
	VPAND   Y15, Y7, Y7 \
	VPSHUFB Y6, Y5, Y6 \
	VPSHUFB Y7, Y5, Y7 \
	VPADDW  Y6, Y0, Y0 \
	VPSRLW  $8, Y6, Y6 \
	VPADDW  Y6, Y1, Y1 \
	VPADDW  Y7, Y2, Y2 \
	VPSRLW  $8, Y7, Y7 \
	VPADDW  Y7, Y3, Y3 \
	ADDQ    $32, OFF \
	CMPQ    OFF, END \
	JNE loop \
	VEXTRACTI128 $1, Y0, X4 \
	VEXTRACTI128 $1, Y1, X5 \
	VEXTRACTI128 $1, Y2, X6 \
	VEXTRACTI128 $1, Y3, X7 \
	VPADDW X4, X0, X0 \
	VPADDW X5, X1, X1 \
	VPADDW X6, X2, X2 \
	VPADDW X7, X3, X3

// WIDEN(lo, hi, even, odd): even -= odd<<8; lo, hi = the words interleaved
#define WIDEN(lo, hi, even, odd) \
	VPSLLW $8, odd, lo         \
	VPSUBW lo, even, even      \
	VPUNPCKHWD odd, even, hi   \
	VPUNPCKLWD odd, even, lo
