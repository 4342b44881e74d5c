/* NVFP4 on this rung: what packing (nvfp4_pack_avx512.c) and products (nvfp4_avx512.c) agree on.
 *
 * The codes are integers (2 x e2m1 is 0 1 2 3 4 6 8 12), so the dot product of a block of 16 is exact in integers once the
 * activations are. Each block of 16 activations becomes integers of 16 or of 8 bits with a scale of its own, so that a block means the
 * same whatever else the row holds.
 *
 *   16 bits: q = round(x / 2^(k-14)), 2^k <= the block's largest < 2^(k+1): |error| <= the block's largest 2^-15
 *     y = base * global_scale * 128 * sum over blocks of (e4m3 scale * 2^-8) * 2^e * (sum of 2*e2m1 * q)
 *     base = 2^(K-14), 2^K <= the vector's largest < 2^(K+1); e = k - K <= 0
 *   8 bits: q = round(x / s), s = the block's largest / 127: |error| <= the block's largest / 254
 *     y = base * global_scale * 128 * sum over blocks of (e4m3 scale * 2^-8) * (s / base) * (sum of (2*e2m1 + 12) * q - 12 * sum of q)
 *     base = 2^(K-7). vpdpbusd takes one factor without a sign: 12 more than the weight, 0 to 24; the last sum is what it starts from
 *
 * 128 = 2^8 / 2. Columns are taken in parts. A wide part has 256: one 32-bit lane for each of 16 blocks, in which eight vpdpwssd
 * (four vpdpbusd) add up the 16 products; then one conversion and one multiply-add with the scales. What is left over, if it is 128
 * columns or fewer, is a narrow part: two lanes for each of 8 blocks, half as many instructions; in the end they become one.
 *
 * A 16-bit lane of stored codes holds columns 4j..4j+3, so four table look-ups give vectors of 16-bit weights whose columns are
 * strided by 4, and two give vectors of bytes strided by 2; wide parts first sort 32-bit lanes into even and odd ones, the halves of
 * the blocks. Packed activations follow that order. After a header that holds base, every part is its vectors, then, 32 bits a lane,
 *   16 bits: e << 23, which is added to the bits of the weights' scale
 *   8 bits: -12 * the sum of the lane's q; s / base as a float */
#ifndef NS_KERNEL_NVFP4_AVX512_H
#define NS_KERNEL_NVFP4_AVX512_H
#include "kernel/avx512/avx512.h"

enum { WIDE = 256, NARROW = 128, HEADER = 64 }; /* columns; bytes before the packed parts */

/* Vectors of a part, of which `left` columns exist. */
static inline __attribute__((always_inline)) int part_vectors(int left, int bits)
{
    return (left > NARROW ? 8 : 4) * bits / 16;
}

/* What follows them in packed activations. */
static inline __attribute__((always_inline)) int part_extra(int bits)
{
    return bits == 8 ? 2 : 1;
}

/* Bytes of all parts of a row, `extra` vectors behind the vectors of each. */
static inline size_t parts_bytes(int cols, int bits, int extra)
{
    size_t tail = cols % WIDE == 0 ? 0 : (size_t)(part_vectors(cols % WIDE, bits) + extra);
    return 64 * ((size_t)(cols / WIDE) * (size_t)(part_vectors(WIDE, bits) + extra) + tail);
}

static inline __m512i even_lanes(void)
{
    return _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
#endif
