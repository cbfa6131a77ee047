// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// Lanes whose sign is flipped where the second half of a pair stands.
DATA flip<>+0x00(SB)/8, $0x8000000000000000 // h = 1: odd lanes
DATA flip<>+0x08(SB)/8, $0x8000000000000000
DATA flip<>+0x10(SB)/8, $0x0000000000000000 // h = 2: lanes 2, 3
DATA flip<>+0x18(SB)/8, $0x8000000080000000
DATA flip<>+0x20(SB)/8, $0x0000000000000000 // h = 4: lanes 4 to 7
DATA flip<>+0x28(SB)/8, $0x0000000000000000
DATA flip<>+0x30(SB)/8, $0x8000000080000000
DATA flip<>+0x38(SB)/8, $0x8000000080000000
DATA flip<>+0x40(SB)/8, $0x0000000000000000 // h = 8: lanes 8 to 15
DATA flip<>+0x48(SB)/8, $0x0000000000000000
DATA flip<>+0x50(SB)/8, $0x0000000000000000
DATA flip<>+0x58(SB)/8, $0x0000000000000000
DATA flip<>+0x60(SB)/8, $0x8000000080000000
DATA flip<>+0x68(SB)/8, $0x8000000080000000
DATA flip<>+0x70(SB)/8, $0x8000000080000000
DATA flip<>+0x78(SB)/8, $0x8000000080000000
GLOBL flip<>(SB), RODATA|NOPTR, $128

#define V   SI
#define LEN BX // in bytes
#define H   CX // in bytes
#define A   DI // v[i:]
#define END DX // of the pairs that begin at A
#define STOP R8

// func hadamardAVX512(v []float32)
TEXT ·hadamardAVX512(SB), NOSPLIT, $0-24
	MOVQ v_base+0(FP), V
	MOVQ v_len+8(FP), LEN
	SHLQ $2, LEN
	LEAQ (V)(LEN*1), STOP
	VBROADCASTF32X4 flip<>+0x00(SB), Z12
	VBROADCASTF32X4 flip<>+0x10(SB), Z13
	VBROADCASTF64X4 flip<>+0x20(SB), Z14
	VMOVUPS flip<>+0x40(SB), Z15
	MOVQ V, A

small: // h = 1, 2, 4, 8 inside a register: (a, b) = (b, a) + (a, -b)
	VMOVUPS    (A), Z0
	VPERMILPS  $0xB1, Z0, Z1
	VXORPS     Z12, Z0, Z0
	VADDPS     Z1, Z0, Z0
	VPERMILPS  $0x4E, Z0, Z1
	VXORPS     Z13, Z0, Z0
	VADDPS     Z1, Z0, Z0
	VSHUFF32X4 $0xB1, Z0, Z0, Z1
	VXORPS     Z14, Z0, Z0
	VADDPS     Z1, Z0, Z0
	VSHUFF32X4 $0x4E, Z0, Z0, Z1
	VXORPS     Z15, Z0, Z0
	VADDPS     Z1, Z0, Z0
	VMOVUPS    Z0, (A)
	ADDQ       $64, A
	CMPQ       A, STOP
	JNE        small
	MOVQ       $64, H

stage: // for ; h < len(v); h *= 2
	CMPQ H, LEN
	JGE  done
	MOVQ V, A

pairs:
	LEAQ (A)(H*1), END

pair: // v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h], 16 elements
	VMOVUPS (A), Z0
	VMOVUPS (A)(H*1), Z1
	VADDPS  Z1, Z0, Z2
	VSUBPS  Z1, Z0, Z3
	VMOVUPS Z2, (A)
	VMOVUPS Z3, (A)(H*1)
	ADDQ    $64, A
	CMPQ    A, END
	JNE     pair
	ADDQ    H, A
	CMPQ    A, STOP
	JNE     pairs
	ADDQ    H, H
	JMP     stage

done:
	VZEROUPPER
	RET

// func hadamardAVX2(v []float32)
TEXT ·hadamardAVX2(SB), NOSPLIT, $0-24
	MOVQ v_base+0(FP), V
	MOVQ v_len+8(FP), LEN
	SHLQ $2, LEN
	LEAQ (V)(LEN*1), STOP
	VBROADCASTF128 flip<>+0x00(SB), Y12
	VBROADCASTF128 flip<>+0x10(SB), Y13
	VMOVUPS flip<>+0x20(SB), Y14
	MOVQ V, A

small: // h = 1, 2, 4 inside a register: (a, b) = (b, a) + (a, -b)
	VMOVUPS    (A), Y0
	VPERMILPS  $0xB1, Y0, Y1
	VXORPS     Y12, Y0, Y0
	VADDPS     Y1, Y0, Y0
	VPERMILPS  $0x4E, Y0, Y1
	VXORPS     Y13, Y0, Y0
	VADDPS     Y1, Y0, Y0
	VPERM2F128 $0x01, Y0, Y0, Y1
	VXORPS     Y14, Y0, Y0
	VADDPS     Y1, Y0, Y0
	VMOVUPS    Y0, (A)
	ADDQ       $32, A
	CMPQ       A, STOP
	JNE        small
	MOVQ       $32, H

stage: // for ; h < len(v); h *= 2
	CMPQ H, LEN
	JGE  done
	MOVQ V, A

pairs:
	LEAQ (A)(H*1), END

pair: // v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h], 8 elements
	VMOVUPS (A), Y0
	VMOVUPS (A)(H*1), Y1
	VADDPS  Y1, Y0, Y2
	VSUBPS  Y1, Y0, Y3
	VMOVUPS Y2, (A)
	VMOVUPS Y3, (A)(H*1)
	ADDQ    $32, A
	CMPQ    A, END
	JNE     pair
	ADDQ    H, A
	CMPQ    A, STOP
	JNE     pairs
	ADDQ    H, H
	JMP     stage

done:
	VZEROUPPER
	RET
