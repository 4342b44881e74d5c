#include "train/optim.h"



ns_adamw_opts ns_adamw_defaults(void)
{
    return (ns_adamw_opts){ .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8 };
}

/*   w *= 1 - lr wd;   m += (1 - b1) (g - m);   v = b2 v + (1 - b2) g^2
 *   w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 * in torch's order of operations; scalars are double until they meet the arrays. */
NS_CLONES
void ns_adamw_step(const ns_adamw_opts *o, int64_t t, size_t n, ns_real *restrict w, const ns_real *restrict g, ns_real *restrict m,
                   ns_real *restrict v, bool decay)
{
    const ns_real keep = (ns_real)(decay ? 1 - o->lr * o->weight_decay : 1), m_rate = (ns_real)(1 - o->beta1);
    const ns_real b2 = (ns_real)o->beta2, v_rate = (ns_real)(1 - o->beta2), eps = (ns_real)o->eps;
    const ns_real step = (ns_real)(o->lr / (1 - pow(o->beta1, (double)t))), root = (ns_real)sqrt(1 - pow(o->beta2, (double)t));
    for (size_t i = 0; i < n; i++) {
        m[i] += m_rate * (g[i] - m[i]);
        v[i] = b2 * v[i] + v_rate * g[i] * g[i];
        w[i] = w[i] * keep - step * (m[i] / (NS_R(sqrt)(v[i]) / root + eps));
    }
}

/* ---- Muon ---- */

static int smaller(int rows, int cols)
{
    return rows < cols ? rows : cols;
}

size_t ns_muon_scratch(int rows, int cols)
{
    const size_t k = (size_t)smaller(rows, cols);
    return 2 * (size_t)rows * (size_t)cols + 2 * k * k;
}

/* X <- a X + (b A + c A^2) X with A = X X^T; for tall matrices the same from the other side, with A = X^T X. */
static void newton_schulz(const ns_blas *blas, int rows, int cols, ns_real *x, ns_real *next, ns_real *A, ns_real *B)
{
    static const ns_real a = (ns_real)3.4445, b = (ns_real)-4.7750, c = (ns_real)2.0315;
    const bool tall = rows > cols;
    const int k = smaller(rows, cols);
    const size_t n = (size_t)rows * (size_t)cols, square = (size_t)k * (size_t)k;
    ns_gemm(blas, tall, !tall, k, k, tall ? rows : cols, x, cols, x, cols, false, A, k);
    ns_gemm(blas, false, false, k, k, k, A, k, A, k, false, B, k);
    for (size_t i = 0; i < square; i++)
        B[i] = b * A[i] + c * B[i];
    if (tall)
        ns_gemm(blas, false, false, rows, cols, cols, x, cols, B, k, false, next, cols);
    else
        ns_gemm(blas, false, false, rows, cols, rows, B, k, x, cols, false, next, cols);
    for (size_t i = 0; i < n; i++)
        x[i] = a * x[i] + next[i];
}

void ns_muon_step(const ns_muon_opts *o, const ns_blas *b, int rows, int cols, ns_real *w, const ns_real *g, ns_real *m, ns_real *scratch)
{
    const size_t n = (size_t)rows * (size_t)cols, k = (size_t)smaller(rows, cols);
    ns_real *x = scratch, *next = x + n, *A = next + n, *B = A + k * k;
    const ns_real mu = (ns_real)o->momentum, keep = (ns_real)(1 - o->lr * o->weight_decay);
    const ns_real step = (ns_real)(o->lr * 0.2 * sqrt(rows > cols ? rows : cols));
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        m[i] += (1 - mu) * (g[i] - m[i]);
        x[i] = g[i] + mu * (m[i] - g[i]); /* Nesterov */
        sum += (double)x[i] * (double)x[i];
    }
    const ns_real scale = (ns_real)(1 / fmax(sqrt(sum), 1e-7)); /* singular values up to 1 */
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
    for (int i = 0; i < NS_MUON_ITERATIONS; i++)
        newton_schulz(b, rows, cols, x, next, A, B);
    for (size_t i = 0; i < n; i++)
        w[i] = w[i] * keep - step * x[i];
}

/* ---- schedule ---- */

double ns_schedule_at(const ns_schedule *s, int64_t step)
{
    if (step < s->warmup)
        return s->lr * (double)(step + 1) / (double)s->warmup;
    if (step >= s->steps)
        return s->lr_min;
    const double done = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->lr_min + 0.5 * (s->lr - s->lr_min) * (1 + cos(3.141592653589793 * done));
}
