#include "forge/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "forge/folder.h"
#include "forge/formats.h"
#include "kernel/pool.h"
#include "store/writer.h"
#include "tensor/encode.h"

enum { PIECE = 1 << 22 }; /* bytes of output in hand: rows are encoded in pieces of about this much */

typedef struct quantizer {
    const ns_ckpt *c;
    const ns_quantize_opts *o;
    ns_formats formats;
    json_t *hf_quant;
    ns_store *calib;       /* NULL: weights only */
    ns_pool *pool;
    ns_writer *w;
    size_t next;           /* tensor to write next */
    uint8_t *out, *scales; /* a piece; a matrix's block scales */
    size_t scales_cap;
    ns_quantize_report r;
    ns_err *e;
} quantizer;

static int no_memory(quantizer *q)
{
    return ns_fail(q->e, NS_ENOMEM, "quantize: out of memory");
}

/* ---- what becomes of each weight ---- */

static const ns_bound *source(const quantizer *q, int layer, ns_role r, int expert)
{
    return ns_ckpt_weight(q->c, layer, r, expert);
}

/* "..in_proj.weight" -> "..in_proj.PART" */
static void part_name(int layer, ns_role r, int expert, const char *part, char *out, size_t cap)
{
    ns_weight_name(layer, r, expert, out, cap);
    size_t stem = strlen(out) - strlen("weight");
    snprintf(out + stem, cap - stem, "%s", part);
}

static bool is_quantised(ns_dtype t)
{
    return t == NS_NVFP4 || t == NS_F8_E4M3;
}

/* Of a weight that stays plain. The router's correction is F32 in every published checkpoint: it decides near ties. */
static ns_dtype plain_dtype(const quantizer *q, const ns_bound *b, ns_role r)
{
    return q->o->bf16 && r != NS_W_GATE_CORRECTION ? NS_BF16 : b->mat.dtype;
}

/* A scalar of the statistics; absent is an error: the file was made for another checkpoint, or with other exclusions. */
static int calib_scale(quantizer *q, int layer, ns_role r, int expert, const char *part, float divide, float *out)
{
    char name[300];
    part_name(layer, r, expert, part, name, sizeof name);
    const ns_tensor *t = ns_store_get(q->calib, name, q->e);
    if (!t)
        return -1;
    if (t->dtype != NS_F32 || t->bytes != sizeof *out)
        return ns_fail(q->e, NS_EFORMAT, "%s: %s: expected one F32 number", q->o->calib, name);
    memcpy(out, t->data, sizeof *out);
    if (!(*out > 0) || isinf(*out))
        return ns_fail(q->e, NS_EFORMAT, "%s: %s: %g is no largest magnitude", q->o->calib, name, (double)*out);
    *out /= divide;
    return 0;
}

static int declare(quantizer *q, int layer, ns_role r, int expert, const char *part, ns_dtype t, int n, const int64_t *shape)
{
    char name[300];
    part_name(layer, r, expert, part, name, sizeof name);
    return ns_writer_declare(q->w, name, t, n, shape, q->e);
}

static int declare_quantised(quantizer *q, int layer, ns_role r, int expert, const ns_bound *b, ns_dtype t)
{
    const bool fp4 = t == NS_NVFP4;
    if (declare(q, layer, r, expert, "weight", fp4 ? NS_U8 : t, 2, (int64_t[]){ b->mat.rows, fp4 ? b->mat.cols / 2 : b->mat.cols }) != 0)
        return -1;
    if (fp4 && (declare(q, layer, r, expert, "weight_scale", NS_F8_E4M3, 2, (int64_t[]){ b->mat.rows, b->mat.cols / 16 }) != 0 ||
                declare(q, layer, r, expert, "weight_scale_2", NS_F32, 0, NULL) != 0))
        return -1;
    if (!fp4 && declare(q, layer, r, expert, "weight_scale", NS_F32, 0, NULL) != 0)
        return -1;
    return q->calib ? declare(q, layer, r, expert, "input_scale", NS_F32, fp4 ? 0 : 1, (int64_t[]){ 1 }) : 0;
}

static int declare_weight(void *ctx, int layer, ns_role r, int expert)
{
    quantizer *q = ctx;
    const ns_bound *b = source(q, layer, r, expert);
    const ns_format f = ns_formats_get(&q->formats, layer, r, expert);
    char name[300];
    ns_weight_name(layer, r, expert, name, sizeof name);
    int rc;
    if (is_quantised(f.dtype)) {
        rc = declare_quantised(q, layer, r, expert, b, f.dtype);
    } else if (b->expert_index >= 0) { /* fused over experts: written one by one, as ModelOpt does */
        rc = ns_writer_declare(q->w, name, plain_dtype(q, b, r), 2, (int64_t[]){ b->mat.rows, b->mat.cols }, q->e);
    } else {
        rc = ns_writer_declare(q->w, name, plain_dtype(q, b, r), b->tensor->n_dims, b->tensor->shape, q->e);
    }
    if (rc == 0 && q->o->kv_fp8 && (r == NS_W_K || r == NS_W_V))
        rc = declare(q, layer, r, 0, r == NS_W_K ? "k_scale" : "v_scale", NS_F32, 1, (int64_t[]){ 1 });
    return rc;
}

/* ---- one matrix ---- */

enum { ROWS_PER_TASK = 8 };

typedef struct task {
    const ns_mat *m;
    int row0, rows;    /* of this piece */
    ns_dtype dtype;
    float global_scale;
    bool search;
    uint8_t *out, *scales; /* of row0 */
    float *amax;           /* [tasks] or NULL */
    double *squares, *error;
    bool failed;
} task;

static void rows_of(const task *t, int i, int *from, int *to)
{
    *from = i * ROWS_PER_TASK;
    *to = *from + ROWS_PER_TASK < t->rows ? *from + ROWS_PER_TASK : t->rows;
}

static void task_amax(void *ctx, int i, int thread)
{
    task *t = ctx;
    (void)thread;
    float *x = ns_alloc_aligned((size_t)t->m->cols * sizeof *x), amax = 0;
    int from, to;
    rows_of(t, i, &from, &to);
    if (!x)
        t->failed = true;
    for (int r = from; x && r < to; r++) {
        ns_row_decode(t->m, t->row0 + r, 0, t->m->cols, x);
        amax = ns_row_amax(x, t->m->cols, amax);
    }
    t->amax[i] = amax;
    free(x);
}

static void task_encode(void *ctx, int i, int thread)
{
    task *t = ctx;
    (void)thread;
    const int n = t->m->cols;
    const size_t row = ns_dtype_row_bytes(t->dtype, (size_t)n), blocks = (size_t)n / 16;
    float *x = ns_alloc_aligned((size_t)n * sizeof *x);
    int from, to;
    rows_of(t, i, &from, &to);
    if (!x)
        t->failed = true;
    t->squares[i] = t->error[i] = 0;
    for (int r = from; x && r < to; r++) {
        ns_row_decode(t->m, t->row0 + r, 0, n, x);
        uint8_t *out = t->out + (size_t)r * row;
        ns_row_encode(t->dtype, x, n, t->global_scale, t->search, out, t->scales ? t->scales + (size_t)r * blocks : NULL, &t->squares[i],
                      &t->error[i]);
    }
    free(x);
}

static int n_tasks(int rows)
{
    return (rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
}

static int find_amax(quantizer *q, const ns_mat *m, const char *name, float *amax)
{
    task t = { .m = m, .rows = m->rows };
    const int n = n_tasks(m->rows);
    t.amax = calloc((size_t)n, sizeof *t.amax);
    if (!t.amax)
        return no_memory(q);
    ns_pool_run(q->pool, n, task_amax, &t);
    *amax = 0;
    for (int i = 0; i < n; i++)
        *amax = ns_row_amax(&t.amax[i], 1, *amax);
    free(t.amax);
    if (t.failed)
        return no_memory(q);
    return isfinite(*amax) ? 0 : ns_fail(q->e, NS_EFORMAT, "%s: holds an infinity or NaN", name);
}

static int encode_piece(quantizer *q, task *t)
{
    const int n = n_tasks(t->rows);
    double *sums = calloc((size_t)n * 2, sizeof *sums);
    if (!sums)
        return no_memory(q);
    t->squares = sums;
    t->error = sums + n;
    ns_pool_run(q->pool, n, task_encode, t);
    for (int i = 0; i < n; i++) { /* in order: the same sum however many threads there are */
        q->r.sum_squares += t->squares[i];
        q->r.sum_error += t->error[i];
    }
    free(sums);
    return t->failed ? no_memory(q) : 0;
}

static int begin(quantizer *q)
{
    return ns_writer_tensor_begin(q->w, q->next++, q->e);
}

static int write_scalar(quantizer *q, float x)
{
    return begin(q) == 0 ? ns_writer_append(q->w, &x, sizeof x, q->e) : -1;
}

static int reserve_scales(quantizer *q, size_t n)
{
    if (n <= q->scales_cap)
        return 0;
    free(q->scales);
    q->scales = malloc(n);
    q->scales_cap = q->scales ? n : 0;
    return q->scales ? 0 : no_memory(q);
}

static int write_matrix(quantizer *q, const ns_mat *m, const char *name, ns_dtype dtype)
{
    const bool fp4 = dtype == NS_NVFP4;
    const size_t row = ns_dtype_row_bytes(dtype, (size_t)m->cols), blocks = fp4 ? (size_t)m->cols / 16 : 0;
    const int step = row > PIECE ? 1 : (int)(PIECE / row);
    float amax = 0;
    if (find_amax(q, m, name, &amax) != 0 || reserve_scales(q, blocks * (size_t)m->rows) != 0 || begin(q) != 0)
        return -1;
    const float scale = ns_global_scale(dtype, amax);
    uint8_t *out = row > PIECE ? malloc(row) : q->out;
    int rc = out ? 0 : no_memory(q);
    for (int r0 = 0; rc == 0 && r0 < m->rows; r0 += step) {
        const int rows = m->rows - r0 < step ? m->rows - r0 : step;
        task t = { .m = m, .row0 = r0, .rows = rows, .dtype = dtype, .global_scale = scale, .search = q->o->search, .out = out,
                   .scales = fp4 ? q->scales + (size_t)r0 * blocks : NULL };
        rc = encode_piece(q, &t);
        rc = rc ? rc : ns_writer_append(q->w, out, (size_t)rows * row, q->e);
    }
    if (out != q->out)
        free(out);
    if (rc == 0 && fp4)
        rc = begin(q) ? -1 : ns_writer_append(q->w, q->scales, blocks * (size_t)m->rows, q->e);
    q->r.n_weights += (int64_t)m->rows * m->cols;
    q->r.n_tensors++;
    return rc ? rc : write_scalar(q, scale);
}

static int write_bf16(quantizer *q, const ns_mat *m)
{
    const size_t n = (size_t)m->cols;
    float *x = malloc(n * sizeof *x);
    uint16_t *out = malloc(n * sizeof *out);
    int rc = !x || !out ? no_memory(q) : begin(q);
    for (int r = 0; rc == 0 && r < m->rows; r++) {
        ns_row_decode(m, r, 0, m->cols, x);
        for (size_t i = 0; i < n; i++)
            out[i] = ns_f32_to_bf16(x[i]);
        rc = ns_writer_append(q->w, out, n * sizeof *out, q->e);
    }
    free(x);
    free(out);
    return rc;
}

static int copy_plain(quantizer *q, const ns_bound *b, ns_role r)
{
    const size_t row = ns_dtype_row_bytes(b->mat.dtype, (size_t)b->mat.cols);
    if (plain_dtype(q, b, r) != b->mat.dtype)
        return write_bf16(q, &b->mat);
    if (begin(q) != 0)
        return -1;
    if (b->expert_index < 0 || b->mat.stride == row)
        return ns_writer_append(q->w, b->mat.data, b->expert_index < 0 ? b->tensor->bytes : row * (size_t)b->mat.rows, q->e);
    for (int i = 0; i < b->mat.rows; i++)
        if (ns_writer_append(q->w, b->mat.data + (size_t)i * b->mat.stride, row, q->e) != 0)
            return -1;
    return 0;
}

static int write_weight(void *ctx, int layer, ns_role r, int expert)
{
    quantizer *q = ctx;
    const ns_bound *b = source(q, layer, r, expert);
    const ns_format f = ns_formats_get(&q->formats, layer, r, expert);
    char name[300];
    float scale;
    ns_weight_name(layer, r, expert, name, sizeof name);
    int rc = is_quantised(f.dtype) ? write_matrix(q, &b->mat, name, f.dtype) : copy_plain(q, b, r);
    if (rc == 0 && is_quantised(f.dtype) && q->calib) {
        rc = calib_scale(q, layer, r, expert, "input_amax", f.dtype == NS_NVFP4 ? 6 * 448 : 448, &scale);
        rc = rc ? rc : write_scalar(q, scale);
    }
    if (rc == 0 && q->o->kv_fp8 && (r == NS_W_K || r == NS_W_V)) {
        rc = calib_scale(q, layer, r, 0, "output_amax", 448, &scale);
        rc = rc ? rc : write_scalar(q, scale);
    }
    return rc;
}

/* ---- the folder ---- */

/* Every named size must still be a size of the result: a width that splits a block is found before anything is written. */
static int check_sizes(quantizer *q)
{
    for (int i = 0; i < q->c->variants.n; i++) {
        const ns_variant *v = &q->c->variants.v[i];
        if (!q->c->variants.assumed && ns_cut_validate(q->c->arch, &v->cut, ns_formats_dtype_of, &q->formats, q->e) != 0)
            return ns_err_wrap(q->e, "size %s", v->name);
    }
    return 0;
}

static int write_weights(quantizer *q, const char *dir)
{
    ns_writer_options wo = ns_writer_defaults();
    wo.max_shard_bytes = q->o->max_shard_bytes ? q->o->max_shard_bytes : wo.max_shard_bytes;
    wo.progress = q->o->progress;
    wo.ctx = q->o->ctx;
    q->out = malloc(PIECE);
    q->pool = ns_pool_new(q->o->threads, q->e);
    if (!q->out || !q->pool)
        return q->out ? -1 : no_memory(q);
    q->w = ns_writer_new(dir, &wo, q->e);
    if (!q->w || ns_manifest_each(q->c->arch, declare_weight, q) != 0 || ns_manifest_each(q->c->arch, write_weight, q) != 0)
        return -1;
    q->r.bytes_out = ns_writer_total(q->w);
    return ns_writer_finish(q->w, q->e);
}

static int write_config(quantizer *q, const char *dir)
{
    json_t *cfg = json_deep_copy(q->c->arch->config);
    if (!cfg)
        return no_memory(q);
    ns_formats_drop_mtp(cfg);
    json_object_del(cfg, "quantization_config");
    int rc = ns_folder_json(dir, "config.json", cfg, q->e);
    json_decref(cfg);
    return rc ? rc : ns_folder_json(dir, "hf_quant_config.json", q->hf_quant, q->e);
}

static int write_folder(quantizer *q, const char *dir)
{
    ns_err ignored = { 0 };
    if (write_config(q, dir) != 0 || ns_folder_copy_text(q->c->dir, dir, q->e) != 0 || ns_folder_copy_nest(q->c->dir, dir, q->e) != 0 ||
        write_weights(q, dir) != 0)
        return -1;
    ns_ckpt *made = ns_ckpt_open(dir, NULL, q->e ? q->e : &ignored); /* headers only: cheap */
    ns_ckpt_close(made);
    return made ? 0 : ns_err_wrap(q->e, "checking the result");
}

int ns_quantize(const ns_ckpt *c, const ns_quantize_opts *o, const char *out_dir, ns_quantize_report *report, ns_err *e)
{
    quantizer q = { .c = c, .o = o, .e = e };
    ns_outdir dir = { 0 };
    int rc = ns_quantize_plan(c, o, &q.hf_quant, &q.formats, e);
    if (rc == 0)
        rc = check_sizes(&q);
    if (rc == 0 && o->calib)
        rc = (q.calib = ns_store_open(o->calib, NS_LOAD_MMAP, e)) ? 0 : -1;
    if (rc == 0)
        rc = ns_outdir_open(&dir, out_dir, e);
    if (rc == 0)
        rc = write_folder(&q, dir.tmp);
    ns_writer_free(q.w);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, e);
    ns_outdir_release(&dir);
    q.r.bytes_in = ns_store_bytes(c->store);
    if (rc == 0 && report)
        *report = q.r;
    ns_pool_free(q.pool);
    ns_store_close(q.calib);
    free(q.out);
    free(q.scales);
    ns_formats_close(&q.formats);
    json_decref(q.hf_quant);
    return rc;
}
