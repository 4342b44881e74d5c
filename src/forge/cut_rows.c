#include "forge/cut_rows.h"

#include <string.h>

#include "tensor/format.h"

int ns_cut_rows_init(const ns_ckpt *c, const ns_cut *cut, int layer, ns_role r, int expert, ns_arena *arena, ns_cut_rows *out, ns_err *e)
{
    const ns_weight_def *def = ns_weight_get(r);
    *out = (ns_cut_rows){ .bound = ns_ckpt_weight(c, layer, r, expert), .rows = 1 };
    int rc = ns_cut_segments(c->arch, cut, layer, def->dim[def->n_dims - 1], arena, &out->col_segs);
    if (rc == 0 && def->n_dims > 1)
        rc = ns_cut_segments(c->arch, cut, layer, def->dim[0], arena, &out->row_segs);
    if (rc != 0)
        return ns_fail(e, NS_ENOMEM, "reading the cut: out of memory");
    out->rows = def->n_dims > 1 ? out->row_segs.total : 1;
    out->cols = out->col_segs.total;
    return 0;
}

static int full_row(const ns_cut_rows *w, int i)
{
    for (int k = 0; k < w->row_segs.n; k++) {
        if (i < w->row_segs.seg[k].len)
            return w->row_segs.seg[k].off + i;
        i -= w->row_segs.seg[k].len;
    }
    return 0; /* a vector */
}

void ns_cut_rows_get(const ns_cut_rows *w, int i, float *out)
{
    const int row = full_row(w, i);
    for (int k = 0; k < w->col_segs.n; k++) {
        ns_row_decode(&w->bound->mat, row, w->col_segs.seg[k].off, w->col_segs.seg[k].len, out);
        out += w->col_segs.seg[k].len;
    }
}

void ns_cut_rows_nvfp4(const ns_cut_rows *w, int i, uint8_t *q, uint8_t *scale)
{
    const ns_mat *m = &w->bound->mat;
    const size_t row = (size_t)full_row(w, i);
    for (int k = 0; k < w->col_segs.n; k++) {
        const size_t off = (size_t)w->col_segs.seg[k].off, len = (size_t)w->col_segs.seg[k].len;
        memcpy(q, m->data + row * m->stride + off / 2, len / 2);
        memcpy(scale, m->scale + row * m->scale_stride + off / 16, len / 16);
        q += len / 2;
        scale += len / 16;
    }
}
