// SPDX-License-Identifier: Apache-2.0

// Instructions the Go assembler has no name for, in its order of operands
// (sources first, m, n, then the destination d), given register numbers.
#define FADD4S(m, n, d)  WORD $(0x4E20D400 | (m)<<16 | (n)<<5 | (d)) // FADD  Vd.4S, Vn.4S, Vm.4S
#define FADD2S(m, n, d)  WORD $(0x0E20D400 | (m)<<16 | (n)<<5 | (d)) // FADD  Vd.2S, Vn.2S, Vm.2S
#define FSUB4S(m, n, d)  WORD $(0x4EA0D400 | (m)<<16 | (n)<<5 | (d)) // FSUB  Vd.4S, Vn.4S, Vm.4S
#define FMUL4S(m, n, d)  WORD $(0x6E20DC00 | (m)<<16 | (n)<<5 | (d)) // FMUL  Vd.4S, Vn.4S, Vm.4S
#define UABD16B(m, n, d) WORD $(0x6E207400 | (m)<<16 | (n)<<5 | (d)) // UABD  Vd.16B, Vn.16B, Vm.16B
#define UDOT16B(m, n, d) WORD $(0x6E809400 | (m)<<16 | (n)<<5 | (d)) // UDOT  Vd.4S, Vn.16B, Vm.16B
#define SDOT16B(m, n, d) WORD $(0x4E809400 | (m)<<16 | (n)<<5 | (d)) // SDOT  Vd.4S, Vn.16B, Vm.16B
#define UMULL8H(m, n, d)  WORD $(0x2E20C000 | (m)<<16 | (n)<<5 | (d)) // UMULL  Vd.8H, Vn.8B, Vm.8B
#define UMULL28H(m, n, d) WORD $(0x6E20C000 | (m)<<16 | (n)<<5 | (d)) // UMULL2 Vd.8H, Vn.16B, Vm.16B
#define SMULL8H(m, n, d)  WORD $(0x0E20C000 | (m)<<16 | (n)<<5 | (d)) // SMULL  Vd.8H, Vn.8B, Vm.8B
#define SMULL28H(m, n, d) WORD $(0x4E20C000 | (m)<<16 | (n)<<5 | (d)) // SMULL2 Vd.8H, Vn.16B, Vm.16B
#define UADALP4S(n, d)   WORD $(0x6E606800 | (n)<<5 | (d))           // UADALP Vd.4S, Vn.8H
#define SADALP4S(n, d)   WORD $(0x4E606800 | (n)<<5 | (d))           // SADALP Vd.4S, Vn.8H
#define UADALP8H(n, d)   WORD $(0x6E206800 | (n)<<5 | (d))           // UADALP Vd.8H, Vn.16B
#define ADDV4S(n, d)     WORD $(0x4EB1B800 | (n)<<5 | (d))           // ADDV  Sd, Vn.4S

// Registers of the Rows kernels: one row at a time, the one after it being
// prefetched (the last row has itself).
#define QUERY  R0
#define BASE   R1
#define STRIDE R2 // in bytes
#define IDS    R3
#define LEFT   R4 // rows to do, this one included
#define OUT    R5
#define ROW    R6
#define NEXT   R7
#define QP     R8  // cursor in the query
#define RP     R9  // cursor in the row
#define NP     R10 // cursor in the next row
#define BLOCKS R11 // whole blocks of a row
#define N      R12 // blocks left of this row
#define TMP    R13

// LOAD_ARGS(shift): elements are 1<<shift bytes
#define LOAD_ARGS(shift) \
	MOVD query_base+0(FP), QUERY \
	MOVD query_len+8(FP), BLOCKS \
	MOVD base_base+24(FP), BASE  \
	MOVD stride+48(FP), STRIDE   \
	MOVD ids_base+56(FP), IDS    \
	MOVD ids_len+64(FP), LEFT    \
	MOVD out_base+80(FP), OUT    \
	LSL  $shift, STRIDE          \
	MOVWU (IDS), TMP             \
	MADD STRIDE, BASE, TMP, NEXT

// NEXT_ROW: ROW = NEXT; if LEFT > 1 { NEXT = BASE + ids[1]*STRIDE }
#define NEXT_ROW(last) \
	MOVD NEXT, ROW      \
	CMP  $1, LEFT       \
	BEQ  last           \
	MOVWU 4(IDS), TMP   \
	MADD STRIDE, BASE, TMP, NEXT

// STEP: to the next result; LEFT is compared by the caller.
#define STEP \
	ADD $4, OUT  \
	ADD $4, IDS  \
	SUB $1, LEFT
