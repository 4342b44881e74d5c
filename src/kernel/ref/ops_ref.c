/* The reference: plain loops, sums in index order. Every other rung is tested against it. */
#include <math.h>
#include <string.h>

#include "kernel/ops.h"
#include "tensor/format.h"

static size_t act_bytes(ns_dtype w, int cols)
{
    (void)w;
    return ((size_t)cols * sizeof(float) + 63) / 64 * 64;
}

static void act_pack(ns_dtype w, const float *x, int cols, void *out)
{
    (void)w;
    memcpy(out, x, (size_t)cols * sizeof(float));
}

/* The block's largest becomes 127. Where that is below 2^-100, the step is that of 2^-100. */
static void act_pack8(ns_dtype w, const float *x, int cols, void *out)
{
    float *y = out;
    act_pack(w, x, cols, out);
    for (int b = 0; w == NS_NVFP4 && b < cols; b += 16) {
        int n = cols - b < 16 ? cols - b : 16;
        float most = 0x1p-100f;
        for (int i = b; i < b + n; i++)
            most = fmaxf(most, fabsf(x[i]));
        float up = 127.0f / most, down = most / 127.0f;
        for (int i = b; i < b + n; i++)
            y[i] = rintf(x[i] * up) * down;
    }
}

/* One row is decoded in pieces so that no row-sized scratch is needed. */
enum { PIECE = 256 };

static void matmul(const ns_mat *w, int row0, int rows, const void *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    size_t stride = act_bytes(w->dtype, w->cols);
    float wrow[PIECE];
    for (int r = 0; r < rows; r++) {
        if (!add)
            for (int i = 0; i < m; i++)
                y[(size_t)i * ldy + (size_t)r] = 0.0f;
        for (int k0 = 0; k0 < w->cols; k0 += PIECE) {
            int n = w->cols - k0 < PIECE ? w->cols - k0 : PIECE;
            ns_row_decode(w, row0 + r, k0, n, wrow);
            for (int i = 0; i < m; i++) {
                const float *xi = (const float *)((const char *)x + (size_t)(idx ? idx[i] : i) * stride) + k0;
                float acc = y[(size_t)i * ldy + (size_t)r];
                for (int k = 0; k < n; k++)
                    acc += wrow[k] * xi[k];
                y[(size_t)i * ldy + (size_t)r] = acc;
            }
        }
    }
}

static void gemm(int m, int n, int k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, float *c, size_t ldc,
                 bool add)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float acc = add ? c[(size_t)i * ldc + (size_t)j] : 0.0f;
            for (int t = 0; t < k; t++)
                acc += a[(size_t)i * a_row + (size_t)t * a_col] * b[(size_t)t * ldb + (size_t)j];
            c[(size_t)i * ldc + (size_t)j] = acc;
        }
}

static void rmsnorm(const float *x, const float *w, int n, float eps, float *y)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    float r = 1.0f / sqrtf(sum / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = w[i] * (x[i] * r);
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static void gated_norm(const float *y, const float *z, const float *w, int n, int group, int live, float eps, float *out)
{
    for (int g = 0; g < n; g += group) {
        float sum = 0.0f;
        for (int i = g; i < g + group; i++) {
            out[i] = y[i] * silu(z[i]);
            sum += out[i] * out[i];
        }
        float r = 1.0f / sqrtf(sum / (float)live + eps);
        for (int i = g; i < g + group; i++)
            out[i] = w[i] * (out[i] * r);
    }
}

static void relu2(float *x, int n)
{
    for (int i = 0; i < n; i++) {
        /* not fmaxf: a NaN must stay one, so that a broken weight is noticed */
        float v = x[i] < 0.0f ? 0.0f : x[i];
        x[i] = v * v;
    }
}

static float exp_sum(float *x, int n, float max)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += x[i];
    }
    return sum;
}

static void conv_silu(const float *x, size_t ldx, int m, int n, int k, const float *w, const float *b, float *state, size_t width,
                      float *y, size_t ldy)
{
    for (int t = 0; t < m; t++) {
        const float *xt = x + (size_t)t * ldx;
        for (int c = 0; c < n; c++) {
            float acc = b ? b[c] : 0.0f;
            for (int j = 0; j < k - 1; j++)
                acc += w[(size_t)j * width + (size_t)c] * state[(size_t)j * width + (size_t)c];
            acc += w[(size_t)(k - 1) * width + (size_t)c] * xt[c];
            y[(size_t)t * ldy + (size_t)c] = silu(acc);
        }
        for (int j = 0; j < k - 1; j++)
            memcpy(state + (size_t)j * width, j < k - 2 ? state + (size_t)(j + 1) * width : xt, (size_t)n * sizeof *state);
    }
}

static void ssm_step(float *s, int n, int p, float decay, float dt, const float *b, const float *c, const float *x, float d, float *y)
{
    for (int i = 0; i < p; i++)
        y[i] = 0.0f;
    for (int j = 0; j < n; j++) {
        float dtb = dt * b[j];
        float *row = s + (size_t)j * (size_t)p;
        for (int i = 0; i < p; i++) {
            row[i] = decay * row[i] + dtb * x[i];
            y[i] += c[j] * row[i];
        }
    }
    for (int i = 0; i < p; i++)
        y[i] += d * x[i];
}

static void axpy(int n, float a, const float *x, float *y)
{
    for (int i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void widen_e4m3(const uint8_t *x, int n, float a, float *y)
{
    for (int i = 0; i < n; i++)
        y[i] = ns_e4m3_to_f32(x[i]) * a;
}

void ns_ops_act8_ref(ns_ops *o)
{
    o->name = "ref, 8-bit activations";
    o->act_pack = act_pack8;
}

void ns_ops_fill_ref(ns_ops *o)
{
    *o = (ns_ops){ .name = "ref",
                   .act_bytes = act_bytes,
                   .act_pack = act_pack,
                   .matmul = matmul,
                   .gemm = gemm,
                   .rmsnorm = rmsnorm,
                   .gated_norm = gated_norm,
                   .relu2 = relu2,
                   .exp_sum = exp_sum,
                   .conv_silu = conv_silu,
                   .ssm_step = ssm_step,
                   .axpy = axpy,
                   .widen_e4m3 = widen_e4m3 };
}
