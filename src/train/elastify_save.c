/* What an elastification leaves: a folder as transformers reads it, nest.json, the router. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "ckpt/router_file.h"
#include "forge/folder.h"
#include "train/elastify_run.h"
#include "train/folder_io.h"

/* ---- nest.json ---- */

/* Is the size's cut that of a larger one? With --only, sizes that were not trained are left out too. */
static bool is_named(const ns_elastify_run *s, int i)
{
    const ns_elastic_plan *p = &s->plan;
    if (p->weight[0][i] == 0 && p->weight[1][i] == 0)
        return false;
    for (int j = 0; j < i; j++)
        if (ns_cut_equal(&p->size[j].cut, &p->size[i].cut)) {
            ns_log("sizes %s and %s have the same cut: one stands in nest.json", p->size[j].name, p->size[i].name);
            return false;
        }
    return true;
}

/* "full" is the whole model's name alone. */
static void name_of(const ns_elastify_run *s, int i, const ns_cut *full, char *out, size_t cap)
{
    const ns_elastic_size *z = &s->plan.size[i];
    if (strcmp(z->name, "full") == 0 && !ns_cut_equal(&z->cut, full))
        snprintf(out, cap, "%g", z->budget);
    else
        snprintf(out, cap, "%s", z->name);
}

static json_t *nest_json(ns_elastify_run *s)
{
    ns_variants v = { .v = calloc((size_t)s->plan.n, sizeof *v.v), .router = s->plan.router,
                      .handover = s->o->change > 0 ? NS_HANDOVER_CACHE : NS_HANDOVER_AUTO };
    char name[NS_ELASTIC_MAX][64];
    ns_cut full = { 0 };
    json_t *nest = NULL;
    if (!v.v)
        ns_fail(s->e, NS_ENOMEM, "nest.json: out of memory");
    if (v.v && ns_cut_full(s->c->arch, &full, s->e) == 0) {
        for (int i = 0; i < s->plan.n; i++) {
            if (!is_named(s, i))
                continue;
            name_of(s, i, &full, name[i], sizeof name[i]);
            v.v[v.n++] = (ns_variant){ .name = name[i], .budget = s->plan.size[i].budget, .cut = s->plan.size[i].cut }; /* all borrowed */
        }
        nest = ns_variants_json(s->c->arch, &v, s->e);
    }
    free(v.v);
    ns_cut_release(&full);
    return nest;
}

/* The parent's sizes as they were, the router too; trained now to go on from each other's caches, if they are. */
static int copy_nest(const ns_elastify_run *s, const char *dir, ns_err *e)
{
    ns_buf path = { 0 };
    json_t *nest = NULL;
    int rc = ns_folder_copy_nest(s->c->dir, dir, e);
    if (rc == 0 && s->o->change > 0) {
        ns_path_join(&path, dir, "nest.json");
        nest = path.failed ? NULL : ns_json_open(path.data, false, e);
        rc = nest && json_object_set_new(nest, "handover", json_string("cache")) == 0 ? ns_folder_json(dir, "nest.json", nest, e) : -1;
    }
    json_decref(nest);
    ns_buf_release(&path);
    return rc;
}

static int add_nest(void *ctx, const char *dir, ns_err *e)
{
    ns_elastify_run *s = ctx;
    ns_buf path = { 0 };
    if (ns_elastic_own_sizes(&s->o->sizes))
        return copy_nest(s, dir, e);
    json_t *nest = nest_json(s);
    int rc = nest ? ns_folder_json(dir, "nest.json", nest, e) : -1;
    ns_path_join(&path, dir, "router.safetensors");
    if (rc == 0 && s->plan.router)
        rc = path.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", dir) : ns_router_write(s->plan.router, path.data, e);
    json_decref(nest);
    ns_buf_release(&path);
    return rc;
}

/* Quantised from F32: BF16 in between would round to other weights than those that were trained. `config` is already the result's. */
static int save_quantised(ns_elastify_run *s, const json_t *config)
{
    ns_buf path = { 0 };
    ns_outdir between = { 0 }; /* never committed */
    ns_ckpt *c = NULL;
    ns_path_join(&path, s->run, "f32");
    int rc = path.failed ? ns_fail(s->e, NS_ENOMEM, "%s: out of memory", s->run) : ns_outdir_open(&between, path.data, s->e);
    if (rc == 0)
        rc = ns_params_save(&s->p, s->w, config, NS_F32, s->c->dir, add_nest, s, between.tmp, s->e);
    if (rc == 0)
        rc = (c = ns_ckpt_open(between.tmp, NULL, s->e)) ? 0 : -1;
    if (rc == 0)
        rc = ns_quantize(c, &s->qad_opts, s->out, NULL, s->e);
    ns_ckpt_close(c);
    ns_outdir_release(&between);
    ns_buf_release(&path);
    return rc;
}

int ns_elastify_save(ns_elastify_run *s)
{
    if (ns_comm_rank(s->comm) != 0)
        return 0;
    json_t *config = ns_params_config(s->c->arch->config, s->o->dtype, s->e);
    int rc = !config ? -1 : s->o->qad.format ? save_quantised(s, config)
                     : ns_params_save(&s->p, s->w, config, s->o->dtype, s->c->dir, add_nest, s, s->out, s->e);
    json_decref(config);
    return rc;
}
