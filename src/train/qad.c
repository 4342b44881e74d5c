#include "train/qad.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tensor/encode.h"

enum { STRETCH = 1 << 16, PIECE = 1024 }; /* elements, multiples of 16: of a task, and of what is encoded and decoded in one go */

/* ---- the plan ---- */

static void add_stretches(ns_qad *q, size_t lo, size_t hi, int matrix, bool bf16, bool fill)
{
    for (size_t at = lo; at < hi; at += STRETCH, q->n_stretches++)
        if (fill)
            q->stretch[q->n_stretches] =
                (ns_qad_stretch){ .lo = at, .hi = hi - at < STRETCH ? hi : at + STRETCH, .matrix = matrix, .bf16 = bf16 };
}

/* Rows are whole blocks and lie one behind the other, so a matrix is one long row to the encoder. */
static void plan(ns_qad *q, const ns_params *p, const ns_quantize_opts *o, bool fill)
{
    q->n_matrices = q->n_stretches = 0;
    for (int i = 0; i < p->n; i++) {
        const ns_param *x = &p->p[i];
        const size_t size = (size_t)x->rows * (size_t)x->cols;
        for (int k = 0; k < (x->n_experts ? x->n_experts : 1); k++) {
            const ns_dtype t = ns_formats_get(&q->formats, x->layer, x->role, k).dtype;
            const bool quantised = t == NS_NVFP4 || t == NS_F8_E4M3;
            const int first = q->n_stretches;
            const size_t lo = x->off + (size_t)k * size;
            add_stretches(q, lo, lo + size, quantised ? q->n_matrices : -1, !quantised && o->bf16 && !x->buffer, fill);
            if (quantised && fill)
                q->matrix[q->n_matrices] = (ns_qad_matrix){ .dtype = t, .first = first, .n = q->n_stretches - first };
            q->n_matrices += quantised;
        }
    }
}

static char *describe(const ns_quantize_opts *o)
{
    ns_buf b = { 0 };
    ns_buf_addf(&b, "%s%s%s%s", o->format, o->all ? " all" : "", o->search ? " search" : "", o->bf16 ? " bf16" : "");
    for (int i = 0; i < o->n_keep; i++)
        ns_buf_addf(&b, " keep %s", o->keep[i]);
    if (!b.failed)
        return b.data;
    ns_buf_release(&b);
    return NULL;
}

int ns_qad_init(ns_qad *q, const ns_ckpt *c, const ns_params *p, const ns_quantize_opts *o, ns_err *e)
{
    *q = (ns_qad){ .search = o->search };
    if (ns_quantize_plan(c, o, &q->hf_quant, &q->formats, e) != 0)
        return -1;
    plan(q, p, o, false);
    q->matrix = malloc(((size_t)q->n_matrices + 1) * sizeof *q->matrix);
    q->stretch = malloc(((size_t)q->n_stretches + 1) * sizeof *q->stretch);
    q->seen = ns_alloc_aligned(p->count * sizeof *q->seen);
    q->about = describe(o);
    if (!q->matrix || !q->stretch || !q->seen || !q->about)
        return ns_fail(e, NS_ENOMEM, "quantised weights beside %zu parameters: out of memory", p->count);
    plan(q, p, o, true);
    return q->n_matrices > 0 ? 0 : ns_fail(e, NS_EINVAL, "%s: no weight is left to quantise", c->dir);
}

void ns_qad_release(ns_qad *q)
{
    ns_formats_close(&q->formats);
    json_decref(q->hf_quant);
    free(q->matrix);
    free(q->stretch);
    free(q->seen);
    free(q->about);
    *q = (ns_qad){ 0 };
}

/* ---- rounding ---- */

static void find_amax(void *ctx, int i, int thread)
{
    ns_qad *q = ctx;
    ns_qad_stretch *s = &q->stretch[i];
    (void)thread;
    if (s->matrix >= 0)
        s->amax = ns_row_amax(q->w + s->lo, (int)(s->hi - s->lo), 0);
}

static void round_piece(const ns_qad *q, const ns_qad_matrix *m, const ns_real *x, int n, ns_real *out)
{
    uint8_t code[PIECE], scale[PIECE / 16];
    double squares = 0, error = 0;
    const ns_mat row = { .dtype = m->dtype, .rows = 1, .cols = n, .data = code, .scale = scale, .global_scale = m->scale };
    ns_row_encode(m->dtype, x, n, m->scale, q->search, code, scale, &squares, &error);
    ns_row_decode(&row, 0, 0, n, out);
}

static void round_stretch(void *ctx, int i, int thread)
{
    const ns_qad *q = ctx;
    const ns_qad_stretch *s = &q->stretch[i];
    (void)thread;
    if (s->matrix >= 0)
        for (size_t at = s->lo; at < s->hi; at += PIECE)
            round_piece(q, &q->matrix[s->matrix], q->w + at, s->hi - at < PIECE ? (int)(s->hi - at) : PIECE, q->seen + at);
    else if (s->bf16)
        for (size_t at = s->lo; at < s->hi; at++)
            q->seen[at] = ns_bf16_to_f32(ns_f32_to_bf16(q->w[at]));
    else
        memcpy(q->seen + s->lo, q->w + s->lo, (s->hi - s->lo) * sizeof *q->seen);
}

void ns_qad_refresh(ns_qad *q, const ns_real *w, ns_pool *pool)
{
    q->w = w;
    ns_pool_run(pool, q->n_stretches, find_amax, q);
    for (int i = 0; i < q->n_matrices; i++) {
        ns_qad_matrix *m = &q->matrix[i];
        float amax = 0;
        for (int k = 0; k < m->n; k++)
            amax = ns_row_amax(&q->stretch[m->first + k].amax, 1, amax);
        m->scale = ns_global_scale(m->dtype, amax);
    }
    ns_pool_run(pool, q->n_stretches, round_stretch, q);
}
