/* What the blocks compute with, in float as training does: elementwise functions and reductions against double, matrix products
 * against plain loops, the scan against its recurrence. */
#include "block/vec.h"
#include "grad/scan_check.h"

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

enum { BATCH = 1 << 12 };

typedef struct elementwise {
    const char *name;
    void (*f)(const float *x, size_t n, float *y);
    double (*want)(double x);
    double tolerance; /* relative, where the result is a normal number */
} elementwise;

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double relu2(double x)
{
    return x > 0 ? x * x : 0;
}

/* Every 997th float up to 200 in magnitude, in batches of odd length. */
static void check_elementwise(const elementwise *e)
{
    static float x[BATCH], y[BATCH];
    size_t n = 0;
    for (uint64_t u = 0; u < (1ull << 32) + 997; u += 997) {
        const float v = from_bits((uint32_t)u);
        if (u < 1ull << 32 && fabsf(v) < 200)
            x[n++] = v;
        if (n < BATCH - 3 && u < 1ull << 32)
            continue;
        e->f(x, n, y);
        for (size_t i = 0; i < n; i++) {
            const double want = e->want((double)x[i]), got = (double)y[i];
            const double slack = e->tolerance * fabs(want) + 4e-37; /* e^-x overflows in float before x / (1 + e^-x) vanishes */
            const bool ok = fabs(want) > 3.4028235e38 ? isinf(got) : fabs(got - want) <= slack;
            if (!ok)
                fail_msg("%s(%a): %.9g, expected %.9g", e->name, (double)x[i], got, want);
        }
        n = 0;
    }
    float odd[3] = { NAN, INFINITY, -INFINITY };
    e->f(odd, 3, odd);
    assert_true(isnan(odd[0]));
    assert_true((double)odd[1] == e->want((double)INFINITY));
}

static void test_elementwise(void **state)
{
    static const elementwise all[] = {
        { "exp", ns_vec_exp, exp, 2e-7 },    { "softplus", ns_vec_softplus, softplus, 4e-7 }, { "sigmoid", ns_vec_sigmoid, sigmoid, 3e-7 },
        { "silu", ns_vec_silu, silu, 4e-7 }, { "relu2", ns_vec_relu2, relu2, 1e-7 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_elementwise(&all[i]);
}

enum { N = 1003 };

static void fill(ns_rng *r, float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)ns_rng_normal(r);
}

static void test_derivatives(void **state)
{
    (void)state;
    ns_rng r;
    float x[N], dy[N], dx[N];
    ns_rng_init(&r, 3);
    fill(&r, x, N);
    fill(&r, dy, N);
    ns_vec_silu_backward(x, dy, N, dx);
    for (int i = 0; i < N; i++) {
        const double v = (double)x[i], s = sigmoid(v);
        expect_near("silu'", i, (double)dx[i], (double)dy[i] * s * (1 + v * (1 - s)), 5e-7);
    }
    ns_vec_relu2_backward(x, dy, N, dx);
    for (int i = 0; i < N; i++)
        expect_near("relu2'", i, (double)dx[i], x[i] > 0 ? 2 * (double)x[i] * (double)dy[i] : 0, 5e-7);
}

static void test_rows(void **state)
{
    (void)state;
    ns_rng r;
    float x[N], y[N], z[N];
    ns_rng_init(&r, 4);
    fill(&r, x, N);
    fill(&r, y, N);
    for (int n = 0; n < N; n += n < 70 ? 1 : 311) {
        double dot = 0, most = -INFINITY;
        for (int i = 0; i < n; i++) {
            dot += (double)x[i] * (double)y[i];
            most = (double)x[i] > most ? (double)x[i] : most;
        }
        expect_near("dot", n, (double)ns_vec_dot(x, y, (size_t)n), dot, 1e-5);
        assert_true((double)ns_vec_max(x, (size_t)n) == most);
        memcpy(z, y, sizeof z);
        ns_vec_axpy((size_t)n, 0.5f, x, z);
        for (int i = 0; i < N; i++)
            expect_near("axpy", i, (double)z[i], (double)y[i] + (i < n ? 0.5 * (double)x[i] : 0), 1e-6);
        memcpy(z, y, sizeof z);
        ns_vec_mul(x, y, (size_t)n, z);
        for (int i = 0; i < N; i++)
            assert_true(z[i] == (i < n ? x[i] * y[i] : y[i]));
    }
}

/* Forward by the formula, backward by differences in double. */
static double norm_value(const float *x, const float *w, const float *dy, int n, int div, double eps, double scale, int at, double step)
{
    double sum = 0, value = 0;
    for (int i = 0; i < n; i++) {
        const double v = (double)x[i] + (i == at ? step : 0);
        sum += v * v;
    }
    for (int i = 0; i < n; i++)
        value += (double)dy[i] * scale * (double)w[i] * ((double)x[i] + (i == at ? step : 0)) / sqrt(sum / div + eps);
    return value;
}

static void test_rmsnorm(void **state)
{
    (void)state;
    enum { LEN = 77, DIV = 100 };
    const double h = 1e-5;
    ns_rng r;
    float x[LEN], w[LEN], dy[LEN], y[LEN], dx[LEN], dw[LEN], d_eps = 1, d_scale = 2;
    ns_rng_init(&r, 5);
    fill(&r, x, LEN);
    fill(&r, w, LEN);
    fill(&r, dy, LEN);
    for (int i = 0; i < LEN; i++)
        dw[i] = 3;
    const float root = ns_vec_rmsnorm(x, w, LEN, DIV, 0.3f, 0.8f, y);
    double value = 0;
    for (int i = 0; i < LEN; i++)
        value += (double)dy[i] * (double)y[i];
    const double eps = (double)0.3f, scale = (double)0.8f;
    expect_near("rmsnorm", 0, value, norm_value(x, w, dy, LEN, DIV, eps, scale, -1, 0), 1e-5);
    ns_vec_rmsnorm_backward(x, w, dy, LEN, DIV, 0.8f, root, dx, dw, &d_eps, &d_scale);
    for (int i = 0; i < LEN; i++) {
        const double up = norm_value(x, w, dy, LEN, DIV, eps, scale, i, h), down = norm_value(x, w, dy, LEN, DIV, eps, scale, i, -h);
        expect_near("dx", i, (double)dx[i], (up - down) / (2 * h), 1e-5);
        expect_near("dw", i, (double)dw[i], 3 + (double)dy[i] * (double)y[i] / (double)w[i], 1e-5);
    }
    const double up = norm_value(x, w, dy, LEN, DIV, eps + h, scale, -1, 0), down = norm_value(x, w, dy, LEN, DIV, eps - h, scale, -1, 0);
    expect_near("d_eps", 0, (double)d_eps, 1 + (up - down) / (2 * h), 1e-5);
    expect_near("d_scale", 0, (double)d_scale, 2 + value / scale, 1e-5);
}

/* ---- matrix products ---- */

static void check_gemm(const ns_blas *b, ns_rng *r, int m, int n, int k, bool ta, bool tb, bool add)
{
    const int lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2, a_rows = ta ? k : m, b_rows = tb ? n : k;
    float *A = normals(r, (size_t)(a_rows * lda), 1), *B = normals(r, (size_t)(b_rows * ldb), 1), *C = normals(r, (size_t)(m * ldc), 1);
    float *before = reals((size_t)(m * ldc));
    memcpy(before, C, (size_t)(m * ldc) * sizeof *C);
    for (int i = 0; !add && i < m; i++)
        for (int j = 0; j < n; j++)
            C[i * ldc + j] = NAN; /* overwritten, not multiplied by zero */
    ns_gemm(b, ta, tb, m, n, k, A, lda, B, ldb, add, C, ldc);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < ldc; j++) {
            double want = add || j >= n ? (double)before[i * ldc + j] : 0;
            for (int l = 0; l < k && j < n; l++)
                want += (double)A[ta ? l * lda + i : i * lda + l] * (double)B[tb ? j * ldb + l : l * ldb + j];
            expect_near("product", i * ldc + j, (double)C[i * ldc + j], want, 1e-5 * (1 + sqrt(k)));
        }
    free(A);
    free(B);
    free(C);
    free(before);
}

static void test_gemm(void **state)
{
    static const int sizes[][3] = { { 1, 1, 1 }, { 64, 32, 64 }, { 3, 130, 7 }, { 65, 64, 31 }, { 70, 90, 300 },
                                    { 2, 3, 0 }, { 0, 3, 2 },    { 3, 0, 2 } };
    (void)state;
    ns_err e = { 0 };
    ns_rng r;
    ns_rng_init(&r, 6);
    ns_blas *b = ns_blas_open(&e);
    if (!b)
        fail_msg("%s", e.msg);
    print_message("%s\n", ns_blas_name(b));
    assert_true(*ns_blas_name(b) != '\0');
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int f = 0; f < 8; f++)
            check_gemm(b, &r, sizes[i][0], sizes[i][1], sizes[i][2], f & 1, f & 2, f & 4);
    ns_blas_close(b);
}

static void test_scan(void **state)
{
    (void)state;
    check_scan(3e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elementwise), cmocka_unit_test(test_derivatives), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_rmsnorm),     cmocka_unit_test(test_gemm),        cmocka_unit_test(test_scan),
    };
    return cmocka_run_group_tests_name("vec", tests, NULL, NULL);
}
