#include "train/folder_io.h"

#include <stdlib.h>

#include "arch/config.h"
#include "base/file.h"
#include "forge/folder.h"
#include "forge/formats.h"
#include "store/writer.h"
#include "tensor/format.h"

/* ---- reading ---- */

static int load_one(const ns_param *x, int expert, const ns_ckpt *c, ns_real *flat, ns_err *e)
{
    const ns_bound *b = ns_ckpt_weight(c, x->layer, x->role, expert);
    ns_real *out = flat + x->off + (size_t)expert * (size_t)x->rows * (size_t)x->cols;
    if (!b || b->mat.rows != x->rows || b->mat.cols != x->cols) {
        char name[256];
        ns_weight_name(x->layer, x->role, expert, name, sizeof name);
        return ns_fail(e, NS_EFORMAT, "%s: tensor %s: the checkpoint is not of the architecture in training", c->dir, name);
    }
    for (int row = 0; row < x->rows; row++)
        ns_row_decode(&b->mat, row, 0, x->cols, out + (size_t)row * (size_t)x->cols);
    return 0;
}

int ns_params_load(const ns_params *p, const ns_ckpt *c, ns_real *flat, ns_err *e)
{
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < (p->p[i].n_experts ? p->p[i].n_experts : 1); k++)
            if (load_one(&p->p[i], k, c, flat, e) != 0)
                return -1;
    return 0;
}

/* ---- writing ---- */

enum { BUFFER = 1 << 16 }; /* elements */

typedef struct saver {
    const ns_params *p;
    const ns_real *flat;
    ns_dtype dtype;
    ns_writer *w;
    size_t next;      /* number of the next tensor */
    uint16_t *buffer; /* [BUFFER] */
    ns_err *e;
} saver;

/* The router's correction is F32 in every published checkpoint: it decides near ties. */
static ns_dtype dtype_of(const saver *s, ns_role r)
{
    return r == NS_W_GATE_CORRECTION ? NS_F32 : s->dtype;
}

static int declare_weight(void *ctx, int layer, ns_role r, int expert)
{
    saver *s = ctx;
    const ns_weight_def *def = ns_weight_get(r);
    int64_t shape[NS_MAX_DIMS] = { 0 };
    char name[256];
    for (int i = 0; i < def->n_dims; i++) {
        ns_dim d = ns_arch_dim(s->p->arch, layer, def->dim[i]);
        shape[i] = ns_dim_size(&d);
    }
    ns_weight_name(layer, r, expert, name, sizeof name);
    return ns_writer_declare(s->w, name, dtype_of(s, r), def->n_dims, shape, s->e);
}

static int append_bf16(saver *s, const ns_real *x, size_t n)
{
    for (size_t done = 0; done < n; done += BUFFER) {
        const size_t k = n - done < BUFFER ? n - done : BUFFER;
        for (size_t i = 0; i < k; i++)
            s->buffer[i] = ns_f32_to_bf16(x[done + i]);
        if (ns_writer_append(s->w, s->buffer, k * sizeof *s->buffer, s->e) != 0)
            return -1;
    }
    return 0;
}

static int write_weight(void *ctx, int layer, ns_role r, int expert)
{
    saver *s = ctx;
    const ns_param *x = ns_params_find(s->p, layer, r);
    const ns_real *at = ns_params_cat(s->p, s->flat, layer, r, expert);
    const size_t n = (size_t)x->rows * (size_t)x->cols;
    if (ns_writer_tensor_begin(s->w, s->next++, s->e) != 0)
        return -1;
    return dtype_of(s, r) == NS_F32 ? ns_writer_append(s->w, at, n * sizeof *at, s->e) : append_bf16(s, at, n);
}

static int write_weights(saver *s, const char *dir)
{
    if (!(s->buffer = malloc(BUFFER * sizeof *s->buffer)))
        return ns_fail(s->e, NS_ENOMEM, "%s: out of memory", dir);
    s->w = ns_writer_new(dir, NULL, s->e);
    if (!s->w || ns_manifest_each(s->p->arch, declare_weight, s) != 0 || ns_manifest_each(s->p->arch, write_weight, s) != 0)
        return -1;
    return ns_writer_finish(s->w, s->e);
}

/* What was written must open: headers only, so this is cheap. */
static int check_result(const char *dir, ns_err *e)
{
    ns_ckpt *c = ns_ckpt_open(dir, NULL, e);
    ns_ckpt_close(c);
    return c ? 0 : ns_err_wrap(e, "checking what was written");
}

int ns_params_save(const ns_params *p, const ns_real *flat, const json_t *config, ns_dtype dtype, const char *text_dir,
                   ns_folder_extra_fn *extra, void *ctx, const char *dir, ns_err *e)
{
    saver s = { .p = p, .flat = flat, .dtype = dtype, .e = e };
    ns_outdir out = { 0 };
    if (dtype != NS_F32 && dtype != NS_BF16)
        return ns_fail(e, NS_EINVAL, "%s: parameters are saved as F32 or BF16, not %s", dir, ns_dtype_name(dtype));
    int rc = ns_outdir_open(&out, dir, e);
    if (rc == 0)
        rc = ns_folder_json(out.tmp, "config.json", config, e);
    if (rc == 0 && text_dir)
        rc = ns_folder_copy_text(text_dir, out.tmp, e);
    if (rc == 0)
        rc = write_weights(&s, out.tmp);
    if (rc == 0 && extra)
        rc = extra(ctx, out.tmp, e);
    if (rc == 0)
        rc = check_result(out.tmp, e);
    ns_writer_free(s.w);
    if (rc == 0)
        rc = ns_outdir_commit(&out, e);
    ns_outdir_release(&out);
    free(s.buffer);
    return rc;
}

json_t *ns_params_config(const json_t *config, ns_dtype dtype, ns_err *e)
{
    json_t *out = json_deep_copy(config);
    json_t *text = out ? (json_t *)(uintptr_t)ns_config_text(out) : NULL; /* part of the copy, which is ours */
    const char *key = json_object_get(text, "dtype") ? "dtype" : "torch_dtype";
    json_object_del(out, "quantization_config");
    json_object_del(text, "quantization_config");
    if (out)
        ns_formats_drop_mtp(out);
    if (!out || json_object_set_new(text, key, json_string(dtype == NS_BF16 ? "bfloat16" : "float32")) != 0) {
        json_decref(out);
        ns_fail(e, NS_ENOMEM, "config.json: out of memory");
        return NULL;
    }
    return out;
}
