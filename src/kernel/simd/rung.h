/* What each rung's compilation of this folder defines, and the rest of the rung uses. */
#ifndef NS_KERNEL_SIMD_RUNG_H
#define NS_KERNEL_SIMD_RUNG_H
#include "kernel/simd/simd.h"

void NS_RUNG(rmsnorm)(const float *x, const float *w, int n, float eps, float *y);
void NS_RUNG(gated_norm)(const float *y, const float *z, const float *w, int n, int group, int live, float eps, float *out);
void NS_RUNG(relu2)(float *x, int n);
float NS_RUNG(exp_sum)(float *x, int n, float max);
void NS_RUNG(conv_silu)(const float *x, size_t ldx, int m, int n, int k, const float *w, const float *b, float *state, size_t width,
                        float *y, size_t ldy);
void NS_RUNG(ssm_step)(float *s, int n, int p, float decay, float dt, const float *b, const float *c, const float *x, float d,
                       float *y);
void NS_RUNG(axpy)(int n, float a, const float *x, float *y);
void NS_RUNG(widen_e4m3)(const uint8_t *x, int n, float a, float *y);
void NS_RUNG(gemm)(int m, int n, int k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, float *c, size_t ldc,
                   bool add);

/* Rows that lie AHEAD are asked for early: several short streams that jump at every row end are too much for the hardware's own
 * prefetching (a Zen 5 core reads 15 to 18 GB/s without it, 28 to 32 with it). What is on its way to the first-level cache takes one of
 * few places there, which on Zen 4 holds a core at 10 to 12 GB/s; so rows that lie FAR ahead are first asked into the second level. */
enum { AHEAD = 8, FAR = 16 };

/* The bits of an E4M3 number, moved to their places in binary32, are the number times 2^-120, subnormal ones too (NaN becomes 480 there, and is
 * looked for apart). Half of that is made good in the activations, which are packed times 2^60, so that no product is too small to be
 * exact, and half in the sum. */
#define E4M3_HALF 0x1p60f
#endif
