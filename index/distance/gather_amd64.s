// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// func unmarkedAsm(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int
TEXT ·unmarkedAsm(SB), NOSPLIT, $0-88
	MOVQ ids_base+0(FP), SI
	MOVQ ids_len+8(FP), R11
	MOVQ marks_base+24(FP), DI
	MOVL shift+48(FP), CX
	MOVL limit+52(FP), R8
	MOVQ out_base+56(FP), R9
	XORQ AX, AX             // n
	LEAQ (SI)(R11*4), R11   // end of ids

next:
	MOVL (SI), DX           // id
	ADDQ $4, SI
	CMPL DX, R8
	JAE  outside
	MOVL DX, (R9)(AX*4)     // out[n] = id
	MOVL DX, BX
	SHRL CX, BX
	MOVQ (DI)(BX*8), R10
	BTSQ DX, R10            // carry: was it there?
	MOVQ R10, (DI)(BX*8)
	SBBQ $-1, AX            // n += 1 - carry
	CMPQ SI, R11
	JNE  next
	MOVQ AX, ret+80(FP)
	RET

outside:
	CMPL DX, $-1
	JEQ  done
	CMPQ SI, R11
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

// ABOVE says which of the eight items at SI are above x, Y7, in Y2 and Y3, and whether the
// lower four are.
#define ABOVE \
	VMOVDQU   (SI), Y0   \
	VMOVDQU   32(SI), Y1 \
	VPXOR     Y6, Y0, Y2 \
	VPXOR     Y6, Y1, Y3 \
	VPCMPGTQ  Y7, Y2, Y2 \
	VPCMPGTQ  Y7, Y3, Y3 \
	VMOVMSKPD Y2, AX     \
	VMOVMSKPD Y3, BX     \
	CMPL      AX, $0xf

// BETWEEN moves those of them up, puts x, DX, before them, and makes SI its place.
#define BETWEEN \
	VMOVDQU   40(SI), Y4     \
	VBLENDVPD Y3, Y1, Y4, Y1 \
	VMOVDQU   8(SI), Y5      \
	VBLENDVPD Y2, Y0, Y5, Y0 \
	VMOVDQU   Y1, 40(SI)     \
	VMOVDQU   Y0, 8(SI)      \
	SHLL      $4, BX         \
	ORL       BX, AX         \
	POPCNTL   AX, AX         \
	SUBQ      DI, SI         \
	SARQ      $3, SI         \
	ADDQ      $8, SI         \
	SUBQ      AX, SI         \
	MOVQ      DX, (DI)(SI*8)

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
	ABOVE
	JNE       last
	VMOVDQU Y1, 40(SI) // move up
	VMOVDQU Y0, 8(SI)
	JMP       eight

last: // not all of them: the others stay
	BETWEEN
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

// func insertAllAVX2(room []uint64, n, limit int, xs []uint64) (length, first int)
//
// As insertSortedAVX2, with no check for the first of the items: the zeros before them
// are above nothing.
TEXT ·insertAllAVX2(SB), NOSPLIT, $0-80
	MOVQ room_base+0(FP), DI
	ADDQ $64, DI
	MOVQ n+24(FP), CX
	MOVQ limit+32(FP), R8
	MOVQ xs_base+40(FP), R9
	MOVQ xs_len+48(FP), R10
	LEAQ (R9)(R10*8), R10
	MOVQ R8, R11                 // the first place of one put in
	VPBROADCASTQ signs<>(SB), Y6

next:
	CMPQ R9, R10
	JEQ  done
	MOVQ (R9), DX
	VPBROADCASTQ (R9), Y7
	ADDQ $8, R9
	CMPQ CX, R8
	JLT  grow
	CMPQ DX, -8(DI)(CX*8)
	JHS  next
	DECQ CX

grow:
	INCQ CX
	VPXOR Y6, Y7, Y7
	LEAQ -8(DI)(CX*8), SI        // the last has no item now

eight: // the eight items before SI
	SUBQ $64, SI
	ABOVE
	JNE       last
	VMOVDQU Y1, 40(SI) // move up
	VMOVDQU Y0, 8(SI)
	JMP       eight

last: // not all of them: the others stay
	BETWEEN
	CMPQ      SI, R11
	CMOVQLT   SI, R11
	JMP       next

done:
	MOVQ CX, length+64(FP)
	MOVQ R11, first+72(FP)
	VZEROUPPER
	RET

// What follows keeps a list in registers: item i becomes min(item i, max(item i-1, x)).
// Numbers are flipped, since comparisons are of signed ones. Of a vector, ITEMS makes
// the items from n on, which is in Y12, the largest there is; Y11 has their places.
#define ITEMS(off, v) \
	VMOVDQU  off(DI), v   \
	VPCMPGTQ Y11, Y12, Y8 \
	VPANDN   Y13, Y8, Y9  \
	VPOR     Y9, v, v     \
	VPXOR    Y14, v, v    \
	VPADDQ   Y10, Y11, Y11

// SHIFT makes Y8 the items of v one place up, with the last of below first.
#define SHIFT(v, below) \
	VPERMQ   $0x93, v, Y8     \
	VPERMQ   $0x93, below, Y9 \
	VPBLENDD $3, Y9, Y8, Y8

// PUT takes x, in Y15, into v.
#define PUT(v) \
	VPCMPGTQ  Y8, Y15, Y9     \
	VBLENDVPD Y9, Y15, Y8, Y8 \
	VPCMPGTQ  Y8, v, Y9       \
	VBLENDVPD Y9, Y8, v, v

// FIRST is PUT for the first items.
#define FIRST(v) \
	VPERMQ   $0x93, v, Y8    \
	VPBLENDD $3, Y14, Y8, Y8 \
	PUT(v)

// BELOW adds to SI how many of v are below the smallest x, in Y12, and writes v back.
#define BELOW(off, v) \
	VPCMPGTQ  v, Y12, Y8 \
	VMOVMSKPD Y8, AX     \
	POPCNTL   AX, AX     \
	ADDQ      AX, SI     \
	VPXOR     Y14, v, v  \
	VMOVDQU   v, off(DI)

// The first sixteen items.
#define ITEMS16 \
	ITEMS(0, Y0)  \
	ITEMS(32, Y1) \
	ITEMS(64, Y2) \
	ITEMS(96, Y3)

#define PUT16 \
	SHIFT(Y3, Y2) \
	PUT(Y3)       \
	SHIFT(Y2, Y1) \
	PUT(Y2)       \
	SHIFT(Y1, Y0) \
	PUT(Y1)       \
	FIRST(Y0)

#define BELOW16 \
	BELOW(0, Y0)  \
	BELOW(32, Y1) \
	BELOW(64, Y2) \
	BELOW(96, Y3)

#define LISTBEGIN \
	MOVQ room_base+0(FP), DI       \
	ADDQ $64, DI                   \
	MOVQ n+24(FP), CX              \
	MOVQ limit+32(FP), R8          \
	MOVQ xs_base+40(FP), R9        \
	MOVQ xs_len+48(FP), R10        \
	VPBROADCASTQ n+24(FP), Y12     \
	VMOVDQU      places<>(SB), Y11 \
	VPBROADCASTQ four<>(SB), Y10   \
	VPBROADCASTQ signs<>(SB), Y14  \
	VPCMPEQD     Y13, Y13, Y13     \
	LEAQ (R9)(R10*8), R11

// The next x, and the smallest so far.
#define NEXTX \
	VPBROADCASTQ (R9), Y15         \
	VPXOR        Y14, Y15, Y15     \
	VPCMPGTQ     Y15, Y12, Y9      \
	VBLENDVPD    Y9, Y15, Y12, Y12 \
	ADDQ         $8, R9

#define LISTEND \
	ADDQ    R10, CX           \
	CMPQ    CX, R8            \
	CMOVQGT R8, CX            \
	CMPQ    SI, R8            \
	CMOVQGT R8, SI            \
	MOVQ    CX, length+64(FP) \
	MOVQ    SI, first+72(FP)  \
	VZEROUPPER

DATA places<>+0(SB)/8, $0
DATA places<>+8(SB)/8, $1
DATA places<>+16(SB)/8, $2
DATA places<>+24(SB)/8, $3
GLOBL places<>(SB), RODATA|NOPTR, $32

DATA four<>+0(SB)/8, $4
GLOBL four<>(SB), RODATA|NOPTR, $8

// func insertAll16AVX2(room []uint64, n, limit int, xs []uint64) (length, first int)
TEXT ·insertAll16AVX2(SB), NOSPLIT, $0-80
	LISTBEGIN
	ITEMS16
	VPXOR Y14, Y13, Y12 // the largest number

x:
	CMPQ R9, R11
	JEQ  done
	NEXTX
	PUT16
	JMP  x

done:
	XORQ SI, SI
	BELOW16
	LISTEND
	RET

// func insertAll32AVX2(room []uint64, n, limit int, xs []uint64) (length, first int)
TEXT ·insertAll32AVX2(SB), NOSPLIT, $0-80
	LISTBEGIN
	ITEMS16
	ITEMS(128, Y4)
	ITEMS(160, Y5)
	ITEMS(192, Y6)
	ITEMS(224, Y7)
	VPXOR Y14, Y13, Y12 // the largest number

x:
	CMPQ R9, R11
	JEQ  done
	NEXTX
	SHIFT(Y7, Y6)
	PUT(Y7)
	SHIFT(Y6, Y5)
	PUT(Y6)
	SHIFT(Y5, Y4)
	PUT(Y5)
	SHIFT(Y4, Y3)
	PUT(Y4)
	PUT16
	JMP  x

done:
	XORQ SI, SI
	BELOW16
	BELOW(128, Y4)
	BELOW(160, Y5)
	BELOW(192, Y6)
	BELOW(224, Y7)
	LISTEND
	RET

// With AVX-512 two numbers at a time: item i becomes the least of itself, the larger of
// item i-1 and the smaller number, and the larger of item i-2 and the larger number.
// Z31 is zero, Z30 the smallest number so far.

// UP: v and the items below take the two numbers, in Z16 and Z17
#define UP(v, below) \
	VALIGNQ $7, below, v, Z18 \
	VALIGNQ $6, below, v, Z19 \
	VPMAXUQ Z16, Z18, Z18     \
	VPMAXUQ Z17, Z19, Z19     \
	VPMINUQ Z18, v, v         \
	VPMINUQ Z19, v, v

// UP1: they take one, in Z16
#define UP1(v, below) \
	VALIGNQ $7, below, v, Z18 \
	VPMAXUQ Z16, Z18, Z18     \
	VPMINUQ Z18, v, v

// EIGHT: v = the items at off, those from n on being the largest number. CX has a bit
// for each that there is.
#define EIGHT(off, v) \
	KMOVB      CX, K1           \
	SHRQ       $8, CX           \
	VPTERNLOGD $0xff, v, v, v   \
	VMOVDQU64  off(DI), K1, v

#define REGISTERS_BEGIN \
	MOVQ   room_base+0(FP), DI      \
	ADDQ   $64, DI                  \
	MOVQ   n+24(FP), DX             \
	MOVQ   $-1, CX                  \
	BZHIQ  DX, CX, CX               \
	MOVQ   limit+32(FP), R8         \
	MOVQ   xs_base+40(FP), R9       \
	MOVQ   xs_len+48(FP), R10       \
	LEAQ   -8(R9)(R10*8), R11       \
	VPXORQ Z31, Z31, Z31            \
	VPTERNLOGD $0xff, Z30, Z30, Z30

// The next two, in order, or the last.
#define TWO \
	VPBROADCASTQ (R9), Z18     \
	VPBROADCASTQ 8(R9), Z19    \
	ADDQ         $16, R9       \
	VPMINUQ      Z19, Z18, Z16 \
	VPMAXUQ      Z19, Z18, Z17 \
	VPMINUQ      Z16, Z30, Z30

#define ONE \
	VPBROADCASTQ (R9), Z16     \
	VPMINUQ      Z16, Z30, Z30

// COUNT: SI += how many of v are below the smallest number; v is written back
#define COUNT(off, v) \
	VPCMPUQ   $1, Z30, v, K1 \
	KMOVB     K1, AX         \
	POPCNTL   AX, AX         \
	ADDQ      AX, SI         \
	VMOVDQU64 v, off(DI)

#define REGISTERS_END \
	ADDQ    DX, R10           \
	CMPQ    R10, R8           \
	CMOVQGT R8, R10           \
	CMPQ    SI, R8            \
	CMOVQGT R8, SI            \
	MOVQ    R10, length+64(FP) \
	MOVQ    SI, first+72(FP)  \
	VZEROUPPER

#define EIGHTS16 \
	EIGHT(0, Z0) \
	EIGHT(64, Z1)

#define EIGHTS32 \
	EIGHTS16 \
	EIGHT(128, Z2) \
	EIGHT(192, Z3)

#define EIGHTS64 \
	EIGHTS32 \
	EIGHT(256, Z4) \
	EIGHT(320, Z5) \
	EIGHT(384, Z6) \
	EIGHT(448, Z7)

// UPS: all of them take numbers by UP or UP1, the last first.
#define UPS16(UP) \
	UP(Z1, Z0) \
	UP(Z0, Z31)

#define UPS32(UP) \
	UP(Z3, Z2) \
	UP(Z2, Z1) \
	UPS16(UP)

#define UPS64(UP) \
	UP(Z7, Z6) \
	UP(Z6, Z5) \
	UP(Z5, Z4) \
	UP(Z4, Z3) \
	UPS32(UP)

#define COUNTS16 \
	COUNT(0, Z0) \
	COUNT(64, Z1)

#define COUNTS32 \
	COUNTS16 \
	COUNT(128, Z2) \
	COUNT(192, Z3)

#define COUNTS64 \
	COUNTS32 \
	COUNT(256, Z4) \
	COUNT(320, Z5) \
	COUNT(384, Z6) \
	COUNT(448, Z7)

// LIST is the body of func(room []uint64, n, limit int, xs []uint64) (length, first int)
// for a list of so many registers.
#define LIST(EIGHTS, UPS, COUNTS) \
	REGISTERS_BEGIN \
	EIGHTS          \
two: \
	CMPQ R9, R11    \
	JHS  last       \
	TWO             \
	UPS(UP)         \
	JMP  two        \
last: \
	JNE  done       \
	ONE             \
	UPS(UP1)        \
done: \
	XORL SI, SI     \
	COUNTS          \
	REGISTERS_END   \
	RET

// func insertAll16AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)
TEXT ·insertAll16AVX512(SB), NOSPLIT, $0-80
	LIST(EIGHTS16, UPS16, COUNTS16)

// func insertAll32AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)
TEXT ·insertAll32AVX512(SB), NOSPLIT, $0-80
	LIST(EIGHTS32, UPS32, COUNTS32)

// func insertAll64AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)
TEXT ·insertAll64AVX512(SB), NOSPLIT, $0-80
	LIST(EIGHTS64, UPS64, COUNTS64)

// func insertAllAVX512(room []uint64, n, limit int, xs []uint64) (length, first int)
//
// From the last eight items down, to those of which none is above the smaller of two
// numbers.
TEXT ·insertAllAVX512(SB), NOSPLIT, $0-80
	MOVQ       room_base+0(FP), DI
	ADDQ       $64, DI
	MOVQ       n+24(FP), DX
	MOVQ       limit+32(FP), R8
	MOVQ       xs_base+40(FP), R9
	MOVQ       xs_len+48(FP), R10
	LEAQ       -8(R9)(R10*8), R11
	MOVQ       R8, SI              // the first place of one put in
	VPTERNLOGD $0xff, Z30, Z30, Z30

next:
	LEAQ    2(DX), BX
	CMPQ    R9, R11
	JLO     two
	JNE     done
	DECQ    BX
	VPBROADCASTQ (R9), Z16
	VMOVDQA64    Z30, Z17
	ADDQ    $8, R9
	JMP     grow

two:
	VPBROADCASTQ (R9), Z18
	VPBROADCASTQ 8(R9), Z19
	ADDQ    $16, R9
	VPMINUQ Z19, Z18, Z16
	VPMAXUQ Z19, Z18, Z17

grow: // to BX items, the new ones being the largest number
	CMPQ    BX, R8
	CMOVQGT R8, BX
	CMPQ    DX, BX
	JEQ     last

more:
	MOVQ $-1, (DI)(DX*8)
	INCQ DX
	CMPQ DX, BX
	JNE  more

last: // up to eight items, from CX on
	LEAQ      -1(DX), CX
	ANDQ      $~7, CX
	SUBQ      CX, BX
	MOVL      $-1, AX
	BZHIL     BX, AX, AX
	KMOVB     AX, K1
	VMOVDQA64 Z30, Z0
	VMOVDQU64 (DI)(CX*8), K1, Z0
	VMOVDQU64 -64(DI)(CX*8), Z3
	VPCMPUQ   $6, Z16, Z0, K2     // which are above the smaller
	UP(Z0, Z3)
	VMOVDQU64 Z0, K1, (DI)(CX*8)
	KMOVB     K2, AX
	CMPL      AX, $0xff
	JNE       place

eight:
	SUBQ      $8, CX
	JLT       place
	VMOVDQA64 Z3, Z0
	VMOVDQU64 -64(DI)(CX*8), Z3
	VPCMPUQ   $6, Z16, Z0, K2
	UP(Z0, Z3)
	VMOVDQU64 Z0, (DI)(CX*8)
	KMOVB     K2, AX
	CMPL      AX, $0xff
	JEQ       eight

place: // of the smaller
	POPCNTL AX, AX
	SUBQ    AX, CX
	ADDQ    $8, CX
	JLT     first
	CMPQ    CX, DX
	JGE     next              // it is not there
	CMPQ    CX, SI
	CMOVQLT CX, SI
	JMP     next

first:
	XORL SI, SI
	JMP  next

done:
	MOVQ DX, length+64(FP)
	MOVQ SI, first+72(FP)
	VZEROUPPER
	RET

// SIXTEEN: out has those of the numbers of which AX has a bit, 16 of them
#define SIXTEEN(numbers) \
	KMOVW         AX, K1           \
	VPCOMPRESSD.Z numbers, K1, Z6  \
	VPADDD        Z5, Z6, Z6       \
	VMOVDQU32     Z6, (DI)(R9*4)   \
	MOVWLZX       AX, BX           \
	POPCNTL       BX, BX           \
	ADDQ          BX, R9

// func membersAVX512(words []uint64, first uint32, out []uint32) (n, done int)
//
// Z1 to Z4 are the numbers of a word's bits within it, Z5 that of the first.
TEXT ·membersAVX512(SB), NOSPLIT, $0-72
	MOVQ words_base+0(FP), SI
	MOVQ words_len+8(FP), CX
	MOVQ out_base+32(FP), DI
	MOVQ out_len+40(FP), R8
	SUBQ $const_MembersRoom, R8 // at most so many when a word is begun
	XORL R9, R9
	XORL R10, R10
	VMOVDQU32    sixteen<>(SB), Z1
	VPBROADCASTD sixteen<>+64(SB), Z0 // 16
	VPADDD       Z0, Z1, Z2
	VPADDD       Z0, Z2, Z3
	VPADDD       Z0, Z3, Z4

word:
	CMPQ  R10, CX
	JGE   done
	CMPQ  R9, R8
	JGT   done
	MOVQ  (SI)(R10*8), AX
	INCQ  R10
	TESTQ AX, AX
	JEQ   word
	LEAQ  -1(R10), BX
	SHLQ  $6, BX
	ADDL  first+24(FP), BX
	VPBROADCASTD BX, Z5
	SIXTEEN(Z1)
	SHRQ  $16, AX
	SIXTEEN(Z2)
	SHRQ  $16, AX
	SIXTEEN(Z3)
	SHRQ  $16, AX
	SIXTEEN(Z4)
	JMP   word

done:
	MOVQ R9, n+56(FP)
	MOVQ R10, done+64(FP)
	VZEROUPPER
	RET

DATA sixteen<>+0(SB)/4, $0
DATA sixteen<>+4(SB)/4, $1
DATA sixteen<>+8(SB)/4, $2
DATA sixteen<>+12(SB)/4, $3
DATA sixteen<>+16(SB)/4, $4
DATA sixteen<>+20(SB)/4, $5
DATA sixteen<>+24(SB)/4, $6
DATA sixteen<>+28(SB)/4, $7
DATA sixteen<>+32(SB)/4, $8
DATA sixteen<>+36(SB)/4, $9
DATA sixteen<>+40(SB)/4, $10
DATA sixteen<>+44(SB)/4, $11
DATA sixteen<>+48(SB)/4, $12
DATA sixteen<>+52(SB)/4, $13
DATA sixteen<>+56(SB)/4, $14
DATA sixteen<>+60(SB)/4, $15
DATA sixteen<>+64(SB)/4, $16
GLOBL sixteen<>(SB), RODATA|NOPTR, $68
