/* The chunked scan over three chunks against the recurrence step by step, and its backward against the sequential adjoint: with
 * G_t = dL/dS_t, G_t += gy_t (x) C_t, then G_{t-1} = exp(dt_t A) G_t. For both number types. */
#ifndef GRAD_SCAN_CHECK_H
#define GRAD_SCAN_CHECK_H
#include "block/ssd.h"
#include "fixture.h"

enum {
    SCAN_Q = NS_SSD_CHUNK,
    SCAN_HEADS = 3,
    SCAN_P = 5,
    SCAN_N = 7,
    SCAN_HP = SCAN_HEADS * SCAN_P,
    SCAN_LD = SCAN_HP + 2 * SCAN_N + 1, /* rows x|B|C and one element that is nobody's */
    SCAN_STEPS = 2 * SCAN_Q + 2,
    SCAN_CHUNKS = 3
};

typedef struct scan {
    ns_real in[SCAN_STEPS * SCAN_LD], din[SCAN_STEPS * SCAN_LD];
    ns_real dt[SCAN_CHUNKS][SCAN_HEADS * SCAN_Q], ddt[SCAN_CHUNKS][SCAN_HEADS * SCAN_Q];
    ns_real a[SCAN_HEADS], d[SCAN_HEADS], da[SCAN_HEADS], dd[SCAN_HEADS];
    ns_real y[SCAN_STEPS * SCAN_HP], gy[SCAN_STEPS * SCAN_HP];
    ns_real entering[SCAN_CHUNKS][SCAN_N * SCAN_HP], ds[SCAN_N * SCAN_HP];
} scan;

static inline void expect_near(const char *what, int at, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
        fail_msg("%s, %d: %.15g, expected %.15g", what, at, got, want);
}

static inline void scan_fill(scan *s, ns_rng *r)
{
    static const ns_real decay[SCAN_HEADS] = { (ns_real)0.1, 3, 60 }; /* remembers; forgets in a few steps; underflows */
    for (int i = 0; i < SCAN_STEPS * SCAN_LD; i++)
        s->in[i] = (ns_real)ns_rng_normal(r);
    for (int i = 0; i < SCAN_STEPS * SCAN_HP; i++)
        s->gy[i] = (ns_real)ns_rng_normal(r);
    for (int h = 0; h < SCAN_HEADS; h++) {
        s->a[h] = -decay[h];
        s->d[h] = 1 + (ns_real)h / 8;
        for (int t = 0; t < SCAN_STEPS; t++)
            s->dt[t / SCAN_Q][h * SCAN_Q + t % SCAN_Q] = (ns_real)(0.3 * ns_rng_uniform(r));
    }
    s->dt[0][SCAN_Q + 9] = 40; /* in the second head exp(-120): everything before is forgotten */
}

static inline ns_ssd scan_chunk(scan *s, int c)
{
    const int left = SCAN_STEPS - c * SCAN_Q;
    const ns_real *x = s->in + c * SCAN_Q * SCAN_LD;
    return (ns_ssd){ .q = left < SCAN_Q ? left : SCAN_Q, .heads = SCAN_HEADS, .p = SCAN_P, .n = SCAN_N, .lds = SCAN_HP, .ld = SCAN_LD,
                     .x = x, .b = x + SCAN_HP, .c = x + SCAN_HP + SCAN_N, .dt = s->dt[c], .a = s->a, .d = s->d,
                     .s_in = c ? s->entering[c] : NULL };
}

static inline void scan_run(scan *s, const ns_blas *b, ns_real *work)
{
    const int last = SCAN_CHUNKS - 1;
    for (int c = 0; c <= last; c++) {
        ns_ssd k = scan_chunk(s, c);
        ns_ssd_forward(b, &k, s->y + c * SCAN_Q * SCAN_HP, SCAN_HP, c < last ? s->entering[c + 1] : NULL, work);
    }
    for (int c = last; c >= 0; c--) {
        ns_ssd k = scan_chunk(s, c);
        ns_real *x = s->din + c * SCAN_Q * SCAN_LD;
        ns_ssd_grad g = { .dx = x, .db = x + SCAN_HP, .dc = x + SCAN_HP + SCAN_N, .ddt = s->ddt[c], .da = s->da, .dd = s->dd, .ds = s->ds,
                          .have_ds = c < last };
        ns_ssd_backward(b, &k, s->gy + c * SCAN_Q * SCAN_HP, SCAN_HP, &g, work);
    }
}

/* One head, one row p of its state: checks y; adds to din [steps, SCAN_LD], ddt [steps], da and dd. */
static inline void scan_adjoint(const scan *s, int h, int p, double tolerance, double *din, double *ddt, double *da, double *dd)
{
    double states[SCAN_STEPS + 1][SCAN_N] = { { 0 } }, G[SCAN_N] = { 0 };
    const int i = h * SCAN_P + p;
    const double a = (double)s->a[h], d = (double)s->d[h];
    for (int t = 0; t < SCAN_STEPS; t++) {
        const ns_real *row = s->in + t * SCAN_LD, *b = row + SCAN_HP, *c = b + SCAN_N;
        const double dt = (double)s->dt[t / SCAN_Q][h * SCAN_Q + t % SCAN_Q], x = (double)row[i];
        double y = d * x;
        for (int n = 0; n < SCAN_N; n++) {
            states[t + 1][n] = exp(dt * a) * states[t][n] + dt * (double)b[n] * x;
            y += (double)c[n] * states[t + 1][n];
        }
        expect_near("y", t, (double)s->y[t * SCAN_HP + i], y, tolerance);
    }
    for (int t = SCAN_STEPS - 1; t >= 0; t--) {
        const ns_real *row = s->in + t * SCAN_LD, *b = row + SCAN_HP, *c = b + SCAN_N;
        const double dt = (double)s->dt[t / SCAN_Q][h * SCAN_Q + t % SCAN_Q], x = (double)row[i], gy = (double)s->gy[t * SCAN_HP + i];
        const double keep = exp(dt * a);
        double *dx = din + t * SCAN_LD, *db = dx + SCAN_HP, *dc = db + SCAN_N;
        dx[i] += d * gy;
        *dd += gy * x;
        for (int n = 0; n < SCAN_N; n++) {
            dc[n] += gy * states[t + 1][n];
            G[n] += gy * (double)c[n];
            db[n] += dt * G[n] * x;
            dx[i] += dt * G[n] * (double)b[n];
            ddt[t] += G[n] * (states[t][n] * keep * a + x * (double)b[n]);
            *da += G[n] * states[t][n] * keep * dt;
            G[n] *= keep;
        }
    }
}

static inline void check_scan(double tolerance)
{
    ns_err e = { 0 };
    ns_rng r;
    ns_rng_init(&r, 11);
    ns_blas *blas = ns_blas_open(&e);
    if (!blas)
        fail_msg("%s", e.msg);
    scan *s = calloc(1, sizeof *s);
    double *din = calloc(SCAN_STEPS * SCAN_LD, sizeof *din);
    ns_real *work = normals(&r, ns_ssd_work(SCAN_HEADS, SCAN_P), 1e30); /* its contents must not matter */
    assert_true(s && din);
    scan_fill(s, &r);
    scan_run(s, blas, work);
    for (int h = 0; h < SCAN_HEADS; h++) {
        double da = 0, dd = 0, ddt[SCAN_STEPS] = { 0 };
        for (int p = 0; p < SCAN_P; p++)
            scan_adjoint(s, h, p, tolerance, din, ddt, &da, &dd);
        expect_near("dA", h, (double)s->da[h], da, 10 * tolerance);
        expect_near("dD", h, (double)s->dd[h], dd, 10 * tolerance);
        for (int t = 0; t < SCAN_STEPS; t++)
            expect_near("ddt", t, (double)s->ddt[t / SCAN_Q][h * SCAN_Q + t % SCAN_Q], ddt[t], 10 * tolerance);
    }
    for (int t = 0; t < SCAN_STEPS; t++)
        for (int i = 0; i < SCAN_HP + 2 * SCAN_N; i++)
            expect_near(i < SCAN_HP ? "dx" : i < SCAN_HP + SCAN_N ? "dB" : "dC", t, (double)s->din[t * SCAN_LD + i], din[t * SCAN_LD + i],
                        10 * tolerance);
    free(work);
    free(din);
    free(s);
    ns_blas_close(blas);
}
#endif
