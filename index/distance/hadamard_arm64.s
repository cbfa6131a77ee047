// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// func hadamardNEON(v []float32)
TEXT ·hadamardNEON(SB), NOSPLIT, $0-24
	MOVD v_base+0(FP), R0
	MOVD v_len+8(FP), R1
	LSL  $2, R1
	ADD  R0, R1, R2  // end of v
	// Signs flipped where the second half of a pair stands.
	MOVD $0x8000000000000000, R3
	VDUP R3, V30.D2           // h = 1: odd lanes
	MOVD $0x8000000080000000, R4
	VEOR V31.B16, V31.B16, V31.B16
	VMOV R4, V31.D[1]         // h = 2: lanes 2, 3
	MOVD R0, R5

small: // h = 1, 2 inside a register: (a, b) = (b, a) + (a, -b)
	VLD1   (R5), [V0.S4]
	VREV64 V0.S4, V1.S4
	VEOR   V30.B16, V0.B16, V0.B16
	FADD4S(1, 0, 0)
	VEXT   $8, V0.B16, V0.B16, V1.B16
	VEOR   V31.B16, V0.B16, V0.B16
	FADD4S(1, 0, 0)
	VST1.P [V0.S4], 16(R5)
	CMP    R2, R5
	BNE    small
	MOVD   $16, R6 // h in bytes

stage: // for ; h < len(v); h *= 2
	CMP  R1, R6
	BGE  done
	MOVD R0, R5

pairs:
	ADD  R6, R5, R7 // v[i+h:]
	MOVD R7, R8     // end of the pairs that begin at R5

pair: // v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h], 4 elements
	VLD1   (R5), [V0.S4]
	VLD1   (R7), [V1.S4]
	FADD4S(1, 0, 2)
	FSUB4S(1, 0, 3)
	VST1.P [V2.S4], 16(R5)
	VST1.P [V3.S4], 16(R7)
	CMP    R8, R5
	BNE    pair
	MOVD   R7, R5
	CMP    R2, R5
	BNE    pairs
	LSL    $1, R6
	B      stage

done:
	RET
