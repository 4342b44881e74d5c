/* Sizes of an engine: what each costs, and the one that fits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "run/engine.h"

static void fill_info(const ns_cost *c, const char *name, double budget, bool assumed, ns_size_info *out)
{
    *out = (ns_size_info){ .name = name,
                           .assumed = assumed,
                           .budget = budget,
                           .params_total = c->params_total,
                           .params_active = c->params_active,
                           .weight_bytes = c->weight_bytes,
                           .active_bytes = c->active_bytes,
                           .state_bytes = c->state_bytes,
                           .kv_bytes_per_token = c->kv_bytes_per_token };
}

static int cost_of(const ns_engine *en, const ns_cut *cut, ns_cost *out, ns_err *e)
{
    int rc = ns_cut_cost(en->model.arch, cut, ns_ckpt_dtype_of, en->ckpt, out, e);
    ns_cost_set_kv(out, en->model.kv);
    return rc;
}

int ns_engine_n_sizes(const ns_engine *en)
{
    return en->ckpt->variants.n;
}

int ns_engine_size(const ns_engine *en, int i, ns_size_info *out, ns_err *e)
{
    ns_cost cost;
    if (i < 0 || i >= en->ckpt->variants.n)
        return ns_fail(e, NS_EINVAL, "size %d: there are %d", i, en->ckpt->variants.n);
    const ns_variant *v = &en->ckpt->variants.v[i];
    if (cost_of(en, &v->cut, &cost, e) != 0)
        return -1;
    fill_info(&cost, v->name, v->budget, en->ckpt->variants.assumed, out);
    return 0;
}

int ns_bytes_parse(const char *text, int64_t *out, ns_err *e)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = { { "", 1 },       { "B", 1 },        { "K", 1024.0 },  { "KiB", 1024.0 },       { "KB", 1e3 },
                  { "M", 1048576.0 }, { "MiB", 1048576.0 }, { "MB", 1e6 }, { "G", 1073741824.0 }, { "GiB", 1073741824.0 },
                  { "GB", 1e9 } };
    char *end;
    double x = strtod(text, &end);
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++)
        if (strcasecmp(end, units[i].unit) == 0 && x > 0.0 && x * units[i].factor < 9e18) {
            *out = (int64_t)(x * units[i].factor);
            return 0;
        }
    return ns_fail(e, NS_EINVAL, "\"%s\": expected a number of bytes, such as 16GiB or 800MB", text);
}

/* Bytes of working memory of the largest step, from above: what the widest layer kind takes for NS_STEP_TOKENS tokens, and the
 * logits. */
static int64_t scratch_bytes(const ns_arch *a, const ns_cut *c)
{
    int64_t worst = 0, hidden = ns_cut_hidden(c);
    for (int i = 0; i < a->n_layers; i++) {
        const int *w = c->layer[i].width;
        int64_t per_token = 0;
        if (a->layers[i].kind == NS_LAYER_MAMBA)
            per_token = 3 * ns_cut_dim(a, c, i, NS_DIM_IN_PROJ) + 64 * a->n_groups;
        else if (a->layers[i].kind == NS_LAYER_ATTENTION)
            per_token = 4 * ns_cut_dim(a, c, i, NS_DIM_Q);
        else if (a->layers[i].kind == NS_LAYER_MOE)
            per_token = a->layers[i].topk * (2 * w[NS_AXIS_EXPERT_FFN] + hidden) + 2 * w[NS_AXIS_SHARED_FFN] + hidden;
        else
            per_token = 2 * w[NS_AXIS_DENSE_FFN];
        worst = per_token > worst ? per_token : worst;
    }
    return NS_STEP_TOKENS * (worst + 5 * hidden) * (int64_t)sizeof(float) + 4 * (int64_t)a->vocab_size * (int64_t)sizeof(double);
}

static int fit(const ns_engine *en, const char *text, int context, ns_cut *out, char *name, size_t cap, ns_err *e)
{
    int64_t limit, need = 0;
    const ns_variants *vs = &en->ckpt->variants;
    if (ns_bytes_parse(text, &limit, e) != 0)
        return ns_err_wrap(e, "fit");
    for (int i = 0; i < vs->n; i++) { /* widest first */
        const ns_variant *v = &vs->v[i];
        ns_cost cost;
        if (cost_of(en, &v->cut, &cost, e) != 0)
            return -1;
        need = cost.weight_bytes + cost.state_bytes + context * cost.kv_bytes_per_token + scratch_bytes(en->model.arch, &v->cut);
        if (need <= limit) {
            snprintf(name, cap, "%s", v->name);
            return ns_cut_copy(&v->cut, out, e);
        }
    }
    return ns_fail(e, NS_EINVAL, "no size fits %s at a context of %d tokens: the smallest, %s, needs %.2f GiB", text, context,
                   vs->v[vs->n - 1].name, (double)need / 1073741824.0);
}

int ns_engine_cut(const ns_engine *en, const char *size, int context, ns_cut *out, char *name, size_t cap, ns_err *e)
{
    if (!size)
        size = "full";
    if (strncmp(size, "fit:", 4) == 0)
        return fit(en, size + 4, context, out, name, cap, e);
    return ns_ckpt_size(en->ckpt, size, out, name, cap, e);
}

int ns_engine_resolve(const ns_engine *en, const char *size, int context, char *name, size_t cap, ns_size_info *out, ns_err *e)
{
    ns_cut cut = { 0 };
    ns_cost cost;
    if (ns_engine_cut(en, size, context, &cut, name, cap, e) != 0)
        return -1;
    int rc = cost_of(en, &cut, &cost, e);
    if (rc == 0) {
        const ns_variant *v = ns_variants_find(&en->ckpt->variants, name);
        fill_info(&cost, name, v ? v->budget : 0.0, v && en->ckpt->variants.assumed, out);
    }
    ns_cut_release(&cut);
    return rc;
}
