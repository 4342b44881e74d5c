#include "block/ssd.h"

#include <string.h>

#include "block/vec.h"

enum { Q = NS_SSD_CHUNK, LANES = 16 };

/* Carved from `work`. Square matrices have row length Q, those of tokens by channels row length heads x p. */
typedef struct room {
    ns_real *cs, *in, *out;   /* [heads][Q]: running sum of dt A; exp(cs_l); exp(cs_Q - cs_m) */
    ns_real *t0, *t1, *t2;    /* [heads][Q] */
    ns_real *cb, *e, *k, *dcb; /* [Q, Q] */
    ns_real *u, *du, *v;      /* [Q, heads x p] */
} room;

size_t ns_ssd_work(int heads, int p)
{
    return (size_t)heads * (6 * Q) + 4 * Q * Q + 3 * Q * ((size_t)heads * (size_t)p + LANES);
}

static room carve(const ns_ssd *s, ns_real *work)
{
    int h = s->heads * Q, hp = (s->heads * s->p + LANES - 1) / LANES * LANES * Q;
    room r;
    ns_real **part[] = { &r.cs, &r.in, &r.out, &r.t0, &r.t1, &r.t2, &r.cb, &r.e, &r.k, &r.dcb, &r.u, &r.du, &r.v };
    for (int i = 0; i < 13; i++) {
        *part[i] = work;
        work += i < 6 ? h : i < 10 ? Q * Q : hp;
    }
    return r;
}

/* ---- loops ---- */

/* exp(cs) and exp(cs_Q - cs) of all heads; entries past q repeat the last. */
static void decays(const ns_ssd *s, const room *r)
{
    for (int h = 0; h < s->heads; h++) {
        ns_real *cs = r->cs + h * Q, *out = r->out + h * Q, sum = 0;
        for (int l = 0; l < Q; l++)
            cs[l] = sum += l < s->q ? s->dt[h * Q + l] * s->a[h] : 0;
        for (int l = 0; l < Q; l++)
            out[l] = sum - cs[l];
    }
    ns_vec_exp(r->cs, (size_t)s->heads * Q, r->in);
    ns_vec_exp(r->out, (size_t)s->heads * Q, r->out);
}

/* Columns of row l that are computed: those up to the diagonal, in whole vectors. */
static inline int width(int l)
{
    return (l / LANES + 1) * LANES;
}

/* Exponents of E: masked before exp (exp(-1000) is 0 in float and double), and never above 0. */
NS_CLONES static void exponents(int q, const ns_real *restrict cs, ns_real *restrict e)
{
    for (int l = 0; l < q; l++)
        for (int m = 0; m < width(l); m++) {
            ns_real d = cs[l] - cs[m];
            e[l * Q + m] = m > l ? -1000 : d > 0 ? 0 : d; /* a NaN stays one */
        }
}

static void decay_matrix(int q, const ns_real *cs, ns_real *e)
{
    exponents(q, cs, e);
    for (int l = 0; l < q; l++)
        ns_vec_exp(e + l * Q, (size_t)width(l), e + l * Q);
}

/* M = CB o E, with all of its upper triangle. */
NS_CLONES static void mix(int q, const ns_real *restrict cb, const ns_real *restrict e, ns_real *restrict out)
{
    for (int l = 0; l < q; l++) {
        for (int m = 0; m < width(l); m++)
            out[l * Q + m] = cb[l * Q + m] * e[l * Q + m];
        for (int m = width(l); m < q; m++)
            out[l * Q + m] = 0;
    }
}

/* out = f[head][row] * in */
NS_CLONES static void scale_rows(int q, int heads, int p, const ns_real *restrict f, const ns_real *restrict in, int ld,
                                 ns_real *restrict out, int ldo)
{
    for (int l = 0; l < q; l++)
        for (int h = 0; h < heads; h++)
            for (int i = h * p; i < (h + 1) * p; i++)
                out[l * ldo + i] = f[h * Q + l] * in[l * ld + i];
}

/* y += D x + f[head][row] * in; in may be NULL */
NS_CLONES static void add_skip(const ns_ssd *s, const ns_real *restrict f, const ns_real *restrict in, int ld, ns_real *restrict y, int ldy)
{
    for (int l = 0; l < s->q; l++)
        for (int h = 0; h < s->heads; h++) {
            ns_real d = s->d[h], w = in ? f[h * Q + l] : 0;
            for (int i = h * s->p; in && i < (h + 1) * s->p; i++)
                y[l * ldy + i] += d * s->x[l * s->ld + i] + w * in[l * ld + i];
            for (int i = h * s->p; !in && i < (h + 1) * s->p; i++)
                y[l * ldy + i] += d * s->x[l * s->ld + i];
        }
}

/* out[head][row] = <x, y> over the head's channels */
NS_CLONES static void dot_rows(int q, int heads, int p, const ns_real *restrict x, int ldx, const ns_real *restrict y, int ldy,
                               ns_real *restrict out)
{
    for (int l = 0; l < q; l++)
        for (int h = 0; h < heads; h++) {
            ns_real sum = 0;
            for (int i = h * p; i < (h + 1) * p; i++)
                sum += x[l * ldx + i] * y[l * ldy + i];
            out[h * Q + l] = sum;
        }
}

/* S_out = exp(cs_Q) S_in, by head */
NS_CLONES static void decay_state(const ns_ssd *s, const ns_real *in, const ns_real *from, ns_real *to)
{
    for (int j = 0; j < s->n; j++)
        for (int h = 0; h < s->heads; h++)
            for (int i = h * s->p; i < (h + 1) * s->p; i++)
                to[j * s->lds + i] = in[h * Q + s->q - 1] * from[j * s->lds + i];
}

/* all[h] = exp(cs_Q) <dS, S_in> */
NS_CLONES static void state_dots(const ns_ssd *s, const ns_real *in, const ns_real *ds, ns_real *all)
{
    for (int h = 0; h < s->heads; h++) {
        ns_real sum = 0;
        for (int j = 0; j < s->n; j++)
            for (int i = h * s->p; i < (h + 1) * s->p; i++)
                sum += ds[j * s->lds + i] * s->s_in[j * s->lds + i];
        all[h * Q] = in[h * Q + s->q - 1] * sum;
    }
}

/* K becomes K o E and is added to dCB. over[j] = sum_{l >= j > m} K_lm E_lm CB_lm: rows from the last, column sums so far in `col`. */
NS_CLONES static void pairs(int q, const ns_real *restrict k, const ns_real *restrict e, const ns_real *restrict cb, ns_real *restrict dcb,
                            ns_real *restrict over)
{
    ns_real col[Q] = { 0 };
    for (int l = q - 1; l >= 0; l--) {
        ns_real sum = 0;
        for (int m = 0; m < width(l); m++) {
            ns_real g = k[l * Q + m] * e[l * Q + m];
            dcb[l * Q + m] += g;
            col[m] += g * cb[l * Q + m];
        }
        for (int m = 0; m < l; m++)
            sum += col[m];
        over[l] = sum;
    }
}

/* ---- the chunk ---- */

void ns_ssd_forward(const ns_blas *b, const ns_ssd *s, ns_real *y, int ldy, ns_real *s_out, ns_real *work)
{
    room r = carve(s, work);
    int q = s->q, hp = s->heads * s->p;
    decays(s, &r);
    ns_gemm(b, false, true, q, q, s->n, s->c, s->ld, s->b, s->ld, false, r.cb, Q);
    scale_rows(q, s->heads, s->p, s->dt, s->x, s->ld, r.u, hp);
    for (int h = 0; h < s->heads; h++) {
        decay_matrix(q, r.cs + h * Q, r.e);
        mix(q, r.cb, r.e, r.k);
        ns_gemm(b, false, false, q, s->p, q, r.k, Q, r.u + h * s->p, hp, false, y + h * s->p, ldy);
    }
    if (s->s_in)
        ns_gemm(b, false, false, q, hp, s->n, s->c, s->ld, s->s_in, s->lds, false, r.v, hp);
    add_skip(s, r.in, s->s_in ? r.v : NULL, hp, y, ldy);
    if (!s_out)
        return;
    if (s->s_in)
        decay_state(s, r.in, s->s_in, s_out);
    scale_rows(q, s->heads, s->p, r.out, r.u, hp, r.v, hp);
    ns_gemm(b, true, false, s->n, hp, q, s->b, s->ld, r.v, hp, s->s_in != NULL, s_out, s->lds);
}

/* What flows through the state that leaves: du, dB (overwritten), and through[h][m] = exp(cs_Q - cs_m) u_m . (B_m dS). */
static void backward_out(const ns_blas *b, const ns_ssd *s, const room *r, const ns_ssd_grad *g, ns_real *through)
{
    int q = s->q, hp = s->heads * s->p;
    ns_gemm(b, false, false, q, hp, s->n, s->b, s->ld, g->ds, s->lds, false, r->v, hp);
    scale_rows(q, s->heads, s->p, r->out, r->v, hp, r->du, hp);
    dot_rows(q, s->heads, s->p, r->u, hp, r->du, hp, through);
    scale_rows(q, s->heads, s->p, r->out, r->u, hp, r->v, hp);
    ns_gemm(b, false, true, q, s->n, hp, r->v, hp, g->ds, s->lds, false, g->db, s->ld);
}

/* Through the state that enters: dC (overwritten), dS, through[h][l] = exp(cs_l) gy_l . (C_l S_in), and all[h][0]. */
static void backward_in(const ns_blas *b, const ns_ssd *s, const room *r, const ns_real *gy, int ldgy, const ns_ssd_grad *g,
                        ns_real *through, ns_real *all)
{
    int q = s->q, hp = s->heads * s->p;
    if (g->have_ds) {
        state_dots(s, r->in, g->ds, all);
        decay_state(s, r->in, g->ds, g->ds);
    }
    ns_real *ge = r->v, *cs = r->u; /* u is no longer needed */
    scale_rows(q, s->heads, s->p, r->in, gy, ldgy, ge, hp);
    ns_gemm(b, false, false, q, hp, s->n, s->c, s->ld, s->s_in, s->lds, false, cs, hp);
    dot_rows(q, s->heads, s->p, ge, hp, cs, hp, through);
    ns_gemm(b, false, true, q, s->n, hp, ge, hp, s->s_in, s->lds, false, g->dc, s->ld);
    ns_gemm(b, true, false, s->n, hp, q, s->c, s->ld, ge, hp, g->have_ds, g->ds, s->lds);
}

/* dx, ddt, dA and dD from du, ddA over the pairs inside the chunk (in ddt) and what passed through the states. */
NS_CLONES static void finish(const ns_ssd *s, const room *r, const ns_real *restrict gy, int ldgy, const ns_ssd_grad *g,
                             const ns_real *from_in, const ns_real *to_out, const ns_real *all)
{
    int hp = s->heads * s->p, q = s->q;
    for (int h = 0; h < s->heads; h++) {
        ns_real *ddt = g->ddt + h * Q, past = g->have_ds && s->s_in ? all[h * Q] : 0, da = 0, dd = 0;
        for (int j = 0; j < q && to_out; j++) {
            ddt[j] += past;
            past += to_out[h * Q + j];
        }
        past = 0;
        for (int j = q - 1; j >= 0 && from_in; j--)
            ddt[j] += past += from_in[h * Q + j];
        for (int m = 0; m < q; m++) {
            ns_real dt = s->dt[h * Q + m], d = s->d[h], dot = 0;
            const ns_real *restrict x = s->x + m * s->ld + h * s->p, *restrict du = r->du + m * hp + h * s->p;
            const ns_real *restrict gm = gy + m * ldgy + h * s->p;
            ns_real *restrict dx = g->dx + m * s->ld + h * s->p;
            for (int i = 0; i < s->p; i++) {
                dot += x[i] * du[i];
                dd += x[i] * gm[i];
                dx[i] = dt * du[i] + d * gm[i];
            }
            da += ddt[m] * dt;
            ddt[m] = dot + s->a[h] * ddt[m];
        }
        g->da[h] += da;
        g->dd[h] += dd;
    }
}

void ns_ssd_backward(const ns_blas *b, const ns_ssd *s, const ns_real *gy, int ldgy, const ns_ssd_grad *g, ns_real *work)
{
    room r = carve(s, work);
    int q = s->q, hp = s->heads * s->p;
    decays(s, &r);
    ns_gemm(b, false, true, q, q, s->n, s->c, s->ld, s->b, s->ld, false, r.cb, Q);
    scale_rows(q, s->heads, s->p, s->dt, s->x, s->ld, r.u, hp);
    if (g->have_ds)
        backward_out(b, s, &r, g, r.t1);
    memset(r.dcb, 0, Q * Q * sizeof *r.dcb);
    for (int h = 0; h < s->heads; h++) {
        decay_matrix(q, r.cs + h * Q, r.e);
        ns_gemm(b, false, true, q, q, s->p, gy + h * s->p, ldgy, r.u + h * s->p, hp, false, r.k, Q);
        pairs(q, r.k, r.e, r.cb, r.dcb, g->ddt + h * Q);
        mix(q, r.cb, r.e, r.k);
        ns_gemm(b, true, false, q, s->p, q, r.k, Q, gy + h * s->p, ldgy, g->have_ds, r.du + h * s->p, hp);
    }
    if (s->s_in)
        backward_in(b, s, &r, gy, ldgy, g, r.t0, r.t2);
    ns_gemm(b, false, false, q, s->n, q, r.dcb, Q, s->b, s->ld, s->s_in != NULL, g->dc, s->ld);
    ns_gemm(b, true, false, q, s->n, q, r.dcb, Q, s->c, s->ld, g->have_ds, g->db, s->ld);
    finish(s, &r, gy, ldgy, g, s->s_in ? r.t0 : NULL, g->have_ds ? r.t1 : NULL, r.t2);
}
