/* Elementwise and recurrent kernels, one source for every vector width. Formulas: kernel/ops.h. */
#include <math.h>

#include "kernel/simd/rung.h"

void NS_RUNG(rmsnorm)(const float *x, const float *w, int n, float eps, float *y)
{
    vf sum = splat(0.0f);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += load(x + i) * load(x + i);
    if (i < n) {
        vf v = load_part(x + i, n - i);
        sum += v * v;
    }
    float r = 1.0f / sqrtf(sum_lanes(sum) / (float)n + eps);
    for (i = 0; i + LANES <= n; i += LANES)
        store(y + i, load(w + i) * (load(x + i) * splat(r)));
    for (; i < n; i++)
        y[i] = w[i] * (x[i] * r);
}

void NS_RUNG(gated_norm)(const float *y, const float *z, const float *w, int n, int group, int live, float eps, float *out)
{
    for (int g = 0; g < n; g += group) {
        vf sum = splat(0.0f);
        int i = g, end = g + group;
        for (; i + LANES <= end; i += LANES) {
            vf q = load(y + i) * vsilu(load(z + i));
            store(out + i, q);
            sum += q * q;
        }
        if (i < end) {
            vf q = load_part(y + i, end - i) * vsilu(load_part(z + i, end - i));
            store_part(out + i, q, end - i);
            sum += q * q; /* lanes past the end hold 0 * silu(0) = 0 */
        }
        float r = 1.0f / sqrtf(sum_lanes(sum) / (float)live + eps);
        for (i = g; i + LANES <= end; i += LANES)
            store(out + i, load(w + i) * (load(out + i) * splat(r)));
        for (; i < end; i++)
            out[i] = w[i] * (out[i] * r);
    }
}

void NS_RUNG(relu2)(float *x, int n)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = load(x + i);
        v = choose((vi)(v < splat(0.0f)), splat(0.0f), v);
        store(x + i, v * v);
    }
    for (; i < n; i++) {
        float v = x[i] < 0.0f ? 0.0f : x[i];
        x[i] = v * v;
    }
}

float NS_RUNG(exp_sum)(float *x, int n, float max)
{
    vf sum = splat(0.0f);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = vexp(load(x + i) - splat(max));
        store(x + i, v);
        sum += v;
    }
    float total = sum_lanes(sum);
    if (i < n) {
        store_part(x + i, vexp(load_part(x + i, n - i) - splat(max)), n - i);
        for (; i < n; i++)
            total += x[i];
    }
    return total;
}

static vf load_n(const float *p, int n)
{
    return n == LANES ? load(p) : load_part(p, n);
}

static void store_n(float *p, vf v, int n)
{
    if (n == LANES)
        store(p, v);
    else
        store_part(p, v, n);
}

void NS_RUNG(conv_silu)(const float *x, size_t ldx, int m, int n, int k, const float *w, const float *b, float *state, size_t width,
                        float *y, size_t ldy)
{
    for (int t = 0; t < m; t++) {
        const float *xt = x + (size_t)t * ldx;
        for (int c = 0; c < n; c += LANES) {
            int part = n - c < LANES ? n - c : LANES;
            vf in = load_n(xt + c, part);
            vf acc = b ? load_n(b + c, part) : splat(0.0f);
            for (int j = 0; j < k - 1; j++) {
                float *s = state + (size_t)j * width + (size_t)c;
                vf v = load_n(s, part);
                acc += load_n(w + (size_t)j * width + (size_t)c, part) * v;
                if (j > 0)
                    store_n(s - width, v, part);
            }
            acc += load_n(w + (size_t)(k - 1) * width + (size_t)c, part) * in;
            if (k > 1)
                store_n(state + (size_t)(k - 2) * width + (size_t)c, in, part);
            store_n(y + (size_t)t * ldy + (size_t)c, vsilu(acc), part);
        }
    }
}

/* One vector of channels (four when they are there) at a time, so that y and x stay in registers over the whole state. */
static inline __attribute__((always_inline)) void ssm_columns(float *s, int n, int p, int width, int nv, float decay, float dt,
                                                              const float *b, const float *c, const float *x, float d, float *y)
{
    vf xv[4], yv[4];
    for (int v = 0; v < nv; v++) {
        xv[v] = load_n(x + v * LANES, width);
        yv[v] = splat(0.0f);
    }
    for (int j = 0; j < n; j++) {
        float *row = s + (size_t)j * (size_t)p;
        vf dtb = splat(dt * b[j]), cj = splat(c[j]);
        for (int v = 0; v < nv; v++) {
            vf r = splat(decay) * load_n(row + v * LANES, width) + dtb * xv[v];
            store_n(row + v * LANES, r, width);
            yv[v] += cj * r;
        }
    }
    for (int v = 0; v < nv; v++)
        store_n(y + v * LANES, yv[v] + splat(d) * xv[v], width);
}

void NS_RUNG(ssm_step)(float *s, int n, int p, float decay, float dt, const float *b, const float *c, const float *x, float d,
                       float *y)
{
    int i = 0;
    for (; i + 4 * LANES <= p; i += 4 * LANES)
        ssm_columns(s + i, n, p, LANES, 4, decay, dt, b, c, x + i, d, y + i);
    for (; i + LANES <= p; i += LANES)
        ssm_columns(s + i, n, p, LANES, 1, decay, dt, b, c, x + i, d, y + i);
    if (i < p)
        ssm_columns(s + i, n, p, p - i, 1, decay, dt, b, c, x + i, d, y + i);
}

void NS_RUNG(axpy)(int n, float a, const float *x, float *y)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, load(y + i) + splat(a) * load(x + i));
    for (; i < n; i++)
        y[i] += a * x[i];
}

/* The three mantissa bits and the four of the exponent move to their places in an F32; the bias grows by 127 - 7. Of exponent 0 the
 * mantissa counts 2^-9: through the integer, since F32 subnormals are slow on some machines. */
static inline vf e4m3(vu c)
{
    vu mag = c & 0x7f;
    vf v = (vf)((mag << 20) + (120u << 23));
    v = choose((vi)(mag < 8), __builtin_convertvector((vi)mag, vf) * splat(0x1p-9f), v);
    v = choose((vi)(mag == 0x7f), splat(__builtin_nanf("")), v);
    return (vf)((vu)v | (c & 0x80) << 24);
}

void NS_RUNG(widen_e4m3)(const uint8_t *x, int n, float a, float *y)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, e4m3(__builtin_convertvector(*(const vb *)(x + i), vu)) * splat(a));
    if (i < n) {
        uint8_t t[NS_LANES] = { 0 };
        memcpy(t, x + i, (size_t)(n - i));
        store_part(y + i, e4m3(__builtin_convertvector(*(const vb *)t, vu)) * splat(a), n - i);
    }
}

/* A tile of C in registers: `rows` x `nv` vectors. Both are constants after inlining. */
static inline __attribute__((always_inline)) void gemm_tile(int rows, int nv, int width, int k, const float *a, size_t a_row, size_t a_col,
                                                            const float *b, size_t ldb, float *c, size_t ldc, int add)
{
    vf acc[6][4];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < nv; v++)
            acc[i][v] = add ? load_n(c + (size_t)i * ldc + (size_t)(v * LANES), width) : splat(0.0f);
    for (int t = 0; t < k; t++) {
        vf bv[4];
        for (int v = 0; v < nv; v++)
            bv[v] = load_n(b + (size_t)t * ldb + (size_t)(v * LANES), width);
        for (int i = 0; i < rows; i++) {
            vf ai = splat(a[(size_t)i * a_row + (size_t)t * a_col]);
            for (int v = 0; v < nv; v++)
                acc[i][v] += ai * bv[v];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < nv; v++)
            store_n(c + (size_t)i * ldc + (size_t)(v * LANES), acc[i][v], width);
}

enum { TILE_ROWS = 6, TILE_VECS = NS_LANES == 16 ? 4 : 2 };

static inline __attribute__((always_inline)) void gemm_panel(int m, int nv, int width, int k, const float *a, size_t a_row, size_t a_col,
                                                             const float *b, size_t ldb, float *c, size_t ldc, int add)
{
    int i = 0;
    for (; i + TILE_ROWS <= m; i += TILE_ROWS)
        gemm_tile(TILE_ROWS, nv, width, k, a + (size_t)i * a_row, a_row, a_col, b, ldb, c + (size_t)i * ldc, ldc, add);
    for (; i + 2 <= m; i += 2)
        gemm_tile(2, nv, width, k, a + (size_t)i * a_row, a_row, a_col, b, ldb, c + (size_t)i * ldc, ldc, add);
    if (i < m)
        gemm_tile(1, nv, width, k, a + (size_t)i * a_row, a_row, a_col, b, ldb, c + (size_t)i * ldc, ldc, add);
}

void NS_RUNG(gemm)(int m, int n, int k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, float *c, size_t ldc,
                   bool add)
{
    int j = 0;
    for (; j + TILE_VECS * LANES <= n; j += TILE_VECS * LANES)
        gemm_panel(m, TILE_VECS, LANES, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
    for (; j + LANES <= n; j += LANES)
        gemm_panel(m, 1, LANES, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
    if (j < n)
        gemm_panel(m, 1, n - j, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
}
