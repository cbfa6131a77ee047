// SPDX-License-Identifier: Apache-2.0

// HALVES: Y0 to Y3 = the sums of the halves of Z0 to Z3
#define HALVES \
	VEXTRACTI64X4 $1, Z0, Y4 \
	VEXTRACTI64X4 $1, Z1, Y5 \
	VEXTRACTI64X4 $1, Z2, Y6 \
	VEXTRACTI64X4 $1, Z3, Y7 \
	VPADDD Y4, Y0, Y0        \
	VPADDD Y5, Y1, Y1        \
	VPADDD Y6, Y2, Y2        \
	VPADDD Y7, Y3, Y3

// SUMS: X0 = the sums of the four rows
#define SUMS \
	VPHADDD      Y1, Y0, Y0 \
	VPHADDD      Y3, Y2, Y2 \
	VPHADDD      Y2, Y0, Y0 \
	VEXTRACTI128 $1, Y0, X1 \
	VPADDD       X1, X0, X0
