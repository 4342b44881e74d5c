/* Opening and closing a checkpoint folder. */
#include "ckpt/ckpt.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/bind.h"
#include "ckpt/panels.h"
#include "ckpt/router_file.h"

int ns_ckpt_json(const char *dir, const char *name, json_t **out, ns_err *e)
{
    ns_buf path = { 0 };
    int rc = 0;
    *out = NULL;
    ns_path_join(&path, dir, name);
    if (path.failed)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
    else if (ns_file_exists(path.data) && !(*out = ns_json_open(path.data, true, e)))
        rc = -1;
    ns_buf_release(&path);
    return rc;
}

static int open_arch(ns_ckpt *c, ns_err *e)
{
    ns_buf path = { 0 };
    ns_path_join(&path, c->dir, "config.json");
    if (path.failed)
        ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
    else
        c->arch = ns_arch_open(path.data, e);
    ns_buf_release(&path);
    return c->arch ? 0 : -1;
}

static int open_quant(ns_ckpt *c, ns_err *e)
{
    if (ns_ckpt_json(c->dir, "hf_quant_config.json", &c->hf_quant, e) != 0)
        return -1;
    c->quant = ns_quant_parse(c->hf_quant, c->arch->config, e);
    return c->quant ? 0 : ns_err_wrap(e, "%s", c->dir);
}

/* A router that nest.json describes has its weights beside it. */
static int open_router(ns_ckpt *c, const char *nest_path, ns_err *e)
{
    const char *slash = nest_path ? strrchr(nest_path, '/') : NULL;
    ns_buf path = { 0 };
    int rc = 0;
    if (!c->variants.router)
        return 0;
    if (!nest_path)
        ns_path_join(&path, c->dir, "router.safetensors");
    else
        ns_buf_addf(&path, "%.*srouter.safetensors", slash ? (int)(slash + 1 - nest_path) : 0, nest_path);
    if (path.failed)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
    else if (!ns_file_exists(path.data))
        rc = ns_fail(e, NS_EIO, "%s: not there, but %s describes a router", path.data, nest_path ? nest_path : "nest.json");
    else
        rc = ns_router_read(c->variants.router, path.data, e);
    ns_buf_release(&path);
    return rc;
}

static int open_variants(ns_ckpt *c, const char *nest_path, ns_err *e)
{
    ns_buf what = { 0 };
    json_t *nest = NULL;
    int rc = 0;
    if (nest_path)
        rc = (nest = ns_json_open(nest_path, false, e)) ? 0 : -1;
    else
        rc = ns_ckpt_json(c->dir, "nest.json", &nest, e);
    if (rc == 0) {
        ns_path_join(&what, c->dir, "nest.json");
        rc = ns_variants_parse(c->arch, nest, nest_path ? nest_path : what.failed ? "nest.json" : what.data, &c->variants, e);
    }
    if (rc == 0)
        rc = open_router(c, nest_path, e);
    json_decref(nest);
    ns_buf_release(&what);
    return rc;
}

ns_ckpt *ns_ckpt_open(const char *dir, const ns_ckpt_opts *opts, ns_err *e)
{
    ns_ckpt *c = calloc(1, sizeof *c);
    if (!c || !(c->dir = strdup(dir))) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
        goto fail;
    }
    if (!ns_dir_exists(dir)) {
        ns_fail(e, NS_EIO, "%s: not a checkpoint folder", dir);
        goto fail;
    }
    if (open_arch(c, e) != 0 || open_quant(c, e) != 0 || open_variants(c, opts ? opts->nest_path : NULL, e) != 0)
        goto fail;
    c->store = ns_store_open(dir, opts && opts->huge_pages ? NS_LOAD_HUGE : NS_LOAD_MMAP, e);
    if (c->store)
        ns_store_advise(c->store, true); /* binding reads one scalar here and there: 13 s of reading ahead on a cold 30B file */
    if (!c->store || ns_ckpt_bind(c, e) != 0)
        goto fail;
    ns_store_advise(c->store, false);
    if (opts && opts->huge_pages && ns_ckpt_lay_out(c, e) != 0)
        goto fail;
    return c;
fail:
    ns_ckpt_close(c);
    return NULL;
}

void ns_ckpt_close(ns_ckpt *c)
{
    if (!c)
        return;
    ns_store_close(c->store);
    ns_variants_release(&c->variants);
    ns_quant_free(c->quant);
    json_decref(c->hf_quant);
    ns_arch_free(c->arch);
    ns_arena_release(&c->arena);
    free(c->dir);
    free(c);
}

const ns_bound *ns_ckpt_weight(const ns_ckpt *c, int layer, ns_role r, int expert)
{
    if (r == NS_W_LM_HEAD && c->arch->tie_embeddings)
        r = NS_W_EMBED;
    const ns_bound *b = ns_ckpt_slot(c, layer, r, expert);
    return b && b->mat.data ? b : NULL;
}

/* Bytes of a tensor-wide companion that are this weight's own. */
static int scalar_bytes(const ns_bound *b, const ns_tensor *t)
{
    if (!t)
        return 0;
    size_t width = ns_dtype_bits(t->dtype) / 8;
    if (b->expert_index < 0)
        return (int)t->bytes;
    return t->bytes > width || b->expert_index == 0 ? (int)width : 0;
}

ns_stored ns_ckpt_dtype_of(void *ckpt, int layer, ns_role r, int expert)
{
    const ns_bound *b = ns_ckpt_weight(ckpt, layer, r, expert);
    if (!b)
        return (ns_stored){ .dtype = NS_F32 };
    int n = scalar_bytes(b, b->scale_2) + scalar_bytes(b, b->input_scale) + scalar_bytes(b, b->kv_scale);
    if (b->mat.dtype == NS_F8_E4M3)
        n += scalar_bytes(b, b->scale);
    return (ns_stored){ .dtype = b->mat.dtype, .scalar_bytes = n };
}

int ns_ckpt_size(const ns_ckpt *c, const char *text, ns_cut *out, char *name, size_t cap, ns_err *e)
{
    if (ns_size_parse(c->arch, &c->variants, text, out, name, cap, e) != 0)
        return -1;
    /* the callback's context is not const; the function above only reads it */
    if (ns_cut_validate(c->arch, out, ns_ckpt_dtype_of, (void *)(uintptr_t)c, e) == 0)
        return 0;
    ns_cut_release(out);
    return ns_err_wrap(e, "size %s", text);
}
