// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// A block is 2 words. Counts of bytes are summed in pairs into 8 words of 16
// bits, which hold 4095 blocks; maxWords keeps rows below that.
#define PLANE R14 // bytes of a plane
#define ODD   R15 // 1 if a word is left behind the blocks
#define Q1    R16
#define Q2    R17
#define Q3    R19

// func hammingRowsNEON(query, base []uint64, stride int, ids []uint32, out []int32)
TEXT ·hammingRowsNEON(SB), NOSPLIT, $0-104
	LOAD_ARGS(3)
	AND $1, BLOCKS, ODD
	LSR $1, BLOCKS

row:
	NEXT_ROW(start)

start:
	VEOR V0.B16, V0.B16, V0.B16
	MOVD QUERY, QP
	MOVD ROW, RP
	PRFM (NEXT), PLDL1KEEP
	PRFM 64(NEXT), PLDL1KEEP
	MOVD BLOCKS, N
	CBZ  N, tail

block: // sum += OnesCount(query[w] ^ row[w]), 2 words
	VLD1.P 16(QP), [V4.B16]
	VLD1.P 16(RP), [V5.B16]
	VEOR V5.B16, V4.B16, V4.B16
	VCNT V4.B16, V4.B16
	UADALP8H(4, 0)
	SUB  $1, N
	CBNZ N, block

tail:
	CBZ  ODD, store
	VLD1 (QP), [V4.B8]
	VLD1 (RP), [V5.B8]
	VEOR V5.B16, V4.B16, V4.B16
	VCNT V4.B16, V4.B16
	UADALP8H(4, 0)

store:
	VUADDLV V0.H8, V0
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// COUNT(v, sum): sum += OnesCount(v & row[w]), 2 words; the row's in V4
#define COUNT(v, n, sum) \
	VAND v.B16, V4.B16, v.B16 \
	VCNT v.B16, v.B16         \
	UADALP8H(n, sum)

// func dotBits4RowsNEON(query, base []uint64, stride int, ids []uint32, out []int32)
TEXT ·dotBits4RowsNEON(SB), NOSPLIT, $0-104
	LOAD_ARGS(3)
	LSR $2, BLOCKS // words of a plane
	LSL $3, BLOCKS, PLANE
	AND $1, BLOCKS, ODD
	LSR $1, BLOCKS

row:
	NEXT_ROW(start)

start:
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	MOVD QUERY, QP
	ADD  PLANE, QP, Q1
	ADD  PLANE, Q1, Q2
	ADD  PLANE, Q2, Q3
	MOVD ROW, RP
	PRFM (NEXT), PLDL1KEEP
	PRFM 64(NEXT), PLDL1KEEP
	MOVD BLOCKS, N
	CBZ  N, tail

block: // sum[p] += OnesCount(query[p*n+w] & row[w]), 2 words
	VLD1.P 16(RP), [V4.B16]
	VLD1.P 16(QP), [V5.B16]
	VLD1.P 16(Q1), [V6.B16]
	VLD1.P 16(Q2), [V7.B16]
	VLD1.P 16(Q3), [V8.B16]
	COUNT(V5, 5, 0)
	COUNT(V6, 6, 1)
	COUNT(V7, 7, 2)
	COUNT(V8, 8, 3)
	SUB  $1, N
	CBNZ N, block

tail:
	CBZ  ODD, store
	VLD1 (RP), [V4.B8]
	VLD1 (QP), [V5.B8]
	VLD1 (Q1), [V6.B8]
	VLD1 (Q2), [V7.B8]
	VLD1 (Q3), [V8.B8]
	COUNT(V5, 5, 0)
	COUNT(V6, 6, 1)
	COUNT(V7, 7, 2)
	COUNT(V8, 8, 3)

store: // sum[0] + sum[1]<<1 + sum[2]<<2 + sum[3]<<3
	VUADDLV V0.H8, V0
	VUADDLV V1.H8, V1
	VUADDLV V2.H8, V2
	VUADDLV V3.H8, V3
	VSHL $1, V1.S4, V1.S4
	VSHL $2, V2.S4, V2.S4
	VSHL $3, V3.S4, V3.S4
	VADD V1.S4, V0.S4, V0.S4
	VADD V3.S4, V2.S4, V2.S4
	VADD V2.S4, V0.S4, V0.S4
	FMOVS F0, (OUT)
	STEP
	CBNZ LEFT, row
	RET

// STORE(v): sums[0:8] = the eight words of v; sums = sums[8:]
#define STORE(v) \
	VUXTL  v.H4, V4.S4           \
	VUXTL2 v.H8, V5.S4           \
	VST1.P [V4.S4, V5.S4], 32(R3)

// func fastScanNEON(lut, block []byte, sums *[FastScanLanes]uint32)
TEXT ·fastScanNEON(SB), NOSPLIT, $0-56
	MOVD  lut_base+0(FP), R0
	MOVD  lut_len+8(FP), R1
	MOVD  block_base+24(FP), R2
	MOVD  sums+48(FP), R3
	VMOVI $15, V31.B16
	VEOR  V0.B16, V0.B16, V0.B16 // lanes 0..7
	VEOR  V1.B16, V1.B16, V1.B16 // lanes 8..15
	VEOR  V2.B16, V2.B16, V2.B16 // lanes 16..23
	VEOR  V3.B16, V3.B16, V3.B16 // lanes 24..31

loop: // two segments
	VLD1.P 32(R0), [V4.B16, V5.B16]
	VLD1.P 32(R2), [V6.B16, V7.B16]
	VAND   V31.B16, V6.B16, V16.B16
	VAND   V31.B16, V7.B16, V17.B16
	VUSHR  $4, V6.B16, V18.B16
	VUSHR  $4, V7.B16, V19.B16
	VTBL   V16.B16, [V4.B16], V16.B16 // lut[low]
	VTBL   V17.B16, [V5.B16], V17.B16
	VTBL   V18.B16, [V4.B16], V18.B16 // lut[high]
	VTBL   V19.B16, [V5.B16], V19.B16
	VUADDW  V16.B8, V0.H8, V0.H8
	VUADDW2 V16.B16, V1.H8, V1.H8
	VUADDW  V18.B8, V2.H8, V2.H8
	VUADDW2 V18.B16, V3.H8, V3.H8
	VUADDW  V17.B8, V0.H8, V0.H8
	VUADDW2 V17.B16, V1.H8, V1.H8
	VUADDW  V19.B8, V2.H8, V2.H8
	VUADDW2 V19.B16, V3.H8, V3.H8
	SUB    $32, R1
	CBNZ   R1, loop
	STORE(V0)
	STORE(V1)
	STORE(V2)
	STORE(V3)
	RET
