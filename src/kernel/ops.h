/* The op table: what the model needs computed, and nothing about models. The plain-C reference fills every entry; a rung (AVX2,
 * AVX-512) overrides what it does better. All entries are single-threaded and pure: threads are the caller's (kernel/pool.h).
 *
 * Conventions: matrices are row-major; `ld*` are elements between rows; pointers may have any alignment; outputs never overlap
 * inputs unless said. Kernels return void: dtypes and shapes were checked at bind time.
 * Gradient convention, for the backward twins: parameter gradients accumulate, input gradients are overwritten, the residual
 * stream's accumulate.
 *
 * The reference sums in index order with one F32 accumulator, so that zeros appended to a sum change no bit: that is what makes
 * hard mask == view == sliced file an exact property. */
#ifndef NS_KERNEL_OPS_H
#define NS_KERNEL_OPS_H
#include "base/err.h"
#include "tensor/dtype.h"

typedef struct ns_ops {
    const char *name;

    /* y_i[r] (+)= sum_k W[row0 + r, k] x_i[k]   for 0 <= r < rows, 0 <= i < m.
     * The activations come packed in the form this rung wants for this weight dtype: packed vector i starts at
     * x + (idx ? idx[i] : i) * act_bytes(dtype, cols). Result i goes to y + i * ldy. add: += instead of =. */
    size_t (*act_bytes)(ns_dtype w, int cols); /* a multiple of 64 */
    void (*act_pack)(ns_dtype w, const float *x, int cols, void *out);
    void (*matmul)(const ns_mat *w, int row0, int rows, const void *x, const int *idx, int m, float *y, size_t ldy, bool add);

    /* C[i,j] (+)= sum_k A[i*a_row + k*a_col] B[k*ldb + j]; C is m x n. F32. */
    void (*gemm)(int m, int n, int k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, float *c, size_t ldc,
                 bool add);

    /* y = w * x / sqrt(mean(x^2) + eps) over n */
    void (*rmsnorm)(const float *x, const float *w, int n, float eps, float *y);
    /* Mamba-2's gated norm, norm_before_gate = false: q = y * silu(z); out = w * q / sqrt(mean over the group of q^2 + eps).
     * `live` <= group: the divisor of the mean (a masked group has fewer live channels than entries). out may be y. */
    void (*gated_norm)(const float *y, const float *z, const float *w, int n, int group, int live, float eps, float *out);
    /* y = max(x, 0)^2, in place */
    void (*relu2)(float *x, int n);
    /* x[i] = exp(x[i] - max); returns the sum */
    float (*exp_sum)(float *x, int n, float max);
    /* Causal depthwise convolution, then SiLU: y_t[c] = silu(b[c] + sum_j w[j*width + c] x_{t-k+1+j}[c]) for t < m, channels
     * c < n. x_t at x + t*ldx; `state` holds the k-1 inputs before t = 0, oldest first, and is advanced by m. b may be NULL.
     * Rows of w and of state lie `width` apart, so that a call may take some of the channels. */
    void (*conv_silu)(const float *x, size_t ldx, int m, int n, int k, const float *w, const float *b, float *state, size_t width,
                      float *y, size_t ldy);
    /* One step of the selective state space recurrence of one head, state S [n, p] (p: channels of the head, n: state):
     * S[j,:] = decay * S[j,:] + (dt * b[j]) * x[:];   y[:] = sum_j c[j] * S[j,:] + d * x[:] */
    void (*ssm_step)(float *s, int n, int p, float decay, float dt, const float *b, const float *c, const float *x, float d, float *y);
    /* y += a * x */
    void (*axpy)(int n, float a, const float *x, float *y);
    /* y[i] = e4m3(x[i]) * a: one rounding, so every rung has the same bits. */
    void (*widen_e4m3)(const uint8_t *x, int n, float a, float *y);
} ns_ops;

enum ns_rung { NS_RUNG_REF, NS_RUNG_AVX2, NS_RUNG_AVX512, NS_RUNG_COUNT };

/* The table of a rung, NULL where this machine or build lacks it. */
const ns_ops *ns_ops_find(enum ns_rung r);
/* The same table but for products with NVFP4 weights, whose activations it rounds to integers of 8 bits: q = round(127 x / most),
 * most: the largest |x| of a block of 16. NULL where the rung has none: only ref and avx512 do. */
const ns_ops *ns_ops_find_act8(enum ns_rung r);
/* The best rung of this machine, or the one the environment's NS_CPU names (ref, avx2, avx512), with activations of so many bits for
 * NVFP4 weights: 16 (0 means that), or 8. -1: not to be had. */
int ns_ops_select(int act_bits, const ns_ops **out, ns_err *e);

/* Each rung's own table (kernel-internal). */
void ns_ops_fill_ref(ns_ops *o);
void ns_ops_fill_avx2(ns_ops *o);
void ns_ops_fill_avx512(ns_ops *o);
/* The changes that make a filled table the one of ns_ops_find_act8. */
void ns_ops_act8_ref(ns_ops *o);
void ns_ops_act8_avx512(ns_ops *o);
#endif
