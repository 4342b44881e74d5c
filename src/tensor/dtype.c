#include "tensor/dtype.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned bits, block;
} info[] = {
#define X(id, name, bits, block) { name, bits, block },
    NS_DTYPES(X)
#undef X
};

const char *ns_dtype_name(ns_dtype t)
{
    return info[t].name;
}

int ns_dtype_find(const char *name, size_t len)
{
    for (int t = 0; t < NS_DTYPE_COUNT; t++)
        if (t != NS_NVFP4 && strlen(info[t].name) == len && memcmp(info[t].name, name, len) == 0)
            return t; /* NVFP4 is a layout of three tensors, not a safetensors dtype */
    return -1;
}

unsigned ns_dtype_bits(ns_dtype t)
{
    return info[t].bits;
}

unsigned ns_dtype_block(ns_dtype t)
{
    return info[t].block;
}

size_t ns_dtype_row_bytes(ns_dtype t, size_t cols)
{
    return (cols * info[t].bits + 7) / 8;
}

size_t ns_mat_bytes(const ns_mat *m)
{
    size_t row = ns_dtype_row_bytes(m->dtype, (size_t)m->cols);
    if (m->dtype == NS_NVFP4)
        row += (size_t)m->cols / 16;
    return row * (size_t)m->rows;
}

/* The panel of a column, as a matrix of its own; *first is its first column. */
static ns_mat panel(const ns_mat *m, int col, int *first)
{
    const ns_panels *p = m->panels;
    ns_mat v = *m;
    int i = 0;
    *first = 0;
    if (!p)
        return v;
    while (i < p->n - 1 && p->end[i] <= col)
        *first = p->end[i++];
    v.cols = p->end[i] - *first;
    v.stride = ns_dtype_row_bytes(m->dtype, (size_t)v.cols);
    v.data += (size_t)m->rows * ns_dtype_row_bytes(m->dtype, (size_t)*first);
    if (m->scale) {
        v.scale_stride = (size_t)v.cols / 16;
        v.scale += (size_t)m->rows * ((size_t)*first / 16);
    }
    v.panels = NULL;
    return v;
}

int ns_mat_run(const ns_mat *m, int col)
{
    int first;
    ns_mat v = panel(m, col, &first);
    return first + v.cols - col;
}

ns_mat ns_mat_view(const ns_mat *m, int row, int rows, int col, int cols)
{
    int first;
    ns_mat v = panel(m, col, &first);
    assert(row >= 0 && rows >= 0 && row + rows <= m->rows && col >= 0 && cols >= 0 && col + cols <= first + v.cols);
    assert((unsigned)col % info[m->dtype].block == 0);
    v.rows = rows;
    v.cols = cols;
    v.data += (size_t)row * v.stride + ns_dtype_row_bytes(m->dtype, (size_t)(col - first));
    if (m->scale)
        v.scale += (size_t)row * v.scale_stride + (size_t)(col - first) / 16;
    return v;
}
