#include "nest/variants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "arch/config.h"
#include "nest/variants_impl.h"

void ns_variant_release(ns_variant *v)
{
    free(v->name);
    free(v->alias);
    ns_cut_release(&v->cut);
    *v = (ns_variant){ 0 };
}

void ns_variants_release(ns_variants *v)
{
    if (!v)
        return;
    for (int i = 0; i < v->n; i++)
        ns_variant_release(&v->v[i]);
    free(v->v);
    ns_router_free(v->router);
    *v = (ns_variants){ 0 };
}

const ns_variant *ns_variants_find(const ns_variants *v, const char *name)
{
    for (int i = 0; i < v->n; i++)
        if (strcasecmp(v->v[i].name, name) == 0 || (v->v[i].alias && strcasecmp(v->v[i].alias, name) == 0))
            return &v->v[i];
    return NULL;
}

int ns_variants_append(ns_variants *out, ns_variant *item, ns_err *e)
{
    ns_variant *grown = realloc(out->v, ((size_t)out->n + 1) * sizeof *grown);
    if (!grown) {
        ns_variant_release(item);
        return ns_fail(e, NS_ENOMEM, "out of memory");
    }
    out->v = grown;
    grown[out->n++] = *item;
    *item = (ns_variant){ 0 };
    return 0;
}

/* ---- the whole model and the order ---- */

/* Makes sure that there is one entry for the whole model and that it is called "full"; a file's own name for it becomes its alias. */
static int ensure_full(const ns_arch *a, ns_variants *out, ns_err *e)
{
    ns_variant full = { .name = strdup("full") }, *whole = NULL;
    int rc = -1;
    if (!full.name) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        goto out;
    }
    if (ns_cut_full(a, &full.cut, e) < 0)
        goto out;
    for (int i = 0; i < out->n; i++) {
        ns_variant *v = &out->v[i];
        bool is_whole = ns_cut_equal(&v->cut, &full.cut);
        if (!is_whole && strcasecmp(v->name, "full") == 0) {
            ns_fail(e, NS_EFORMAT, "variant \"full\": this name is reserved for the whole model");
            goto out;
        }
        if (is_whole && whole) {
            ns_fail(e, NS_EFORMAT, "variants \"%s\" and \"%s\" are both the whole model", whole->name, v->name);
            goto out;
        }
        whole = is_whole ? v : whole;
    }
    if (!whole) {
        rc = ns_variants_append(out, &full, e);
    } else {
        rc = 0;
        if (strcasecmp(whole->name, "full") != 0)
            whole->alias = whole->name;
        else
            free(whole->name); /* "FULL" */
        whole->name = full.name;
        full.name = NULL;
    }
out:
    ns_variant_release(&full);
    return rc;
}

typedef struct ranked {
    ns_variant v;
    ns_cost cost;
    int at; /* keeps the file's order among equals */
} ranked;

static int by_width(const void *x, const void *y)
{
    const ranked *p = x, *q = y;
    if (p->cost.params_active != q->cost.params_active)
        return p->cost.params_active > q->cost.params_active ? -1 : 1;
    if (p->cost.params_total != q->cost.params_total)
        return p->cost.params_total > q->cost.params_total ? -1 : 1;
    return p->at - q->at;
}

static int sort_variants(const ns_arch *a, ns_variants *out, ns_err *e)
{
    int rc = 0;
    ranked *r = calloc((size_t)out->n, sizeof *r);
    if (!r)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    for (int i = 0; i < out->n && rc == 0; i++) {
        r[i].v = out->v[i];
        r[i].at = i;
        rc = ns_cut_cost(a, &out->v[i].cut, NULL, NULL, &r[i].cost, e);
    }
    if (rc == 0) {
        qsort(r, (size_t)out->n, sizeof *r, by_width);
        for (int i = 0; i < out->n; i++)
            out->v[i] = r[i].v;
    }
    free(r);
    return rc;
}

/* ---- the released family ---- */

/* Nemotron 3 Nano 30B-A3B's dims, without multi-token prediction (which the nested checkpoint does not have). */
static bool is_released(const ns_arch *a)
{
    static const char pattern[] = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
    if (a->n_layers != (int)sizeof pattern - 1 || a->hidden_size != 2688 || a->vocab_size != 131072 || a->n_groups != 8 ||
        a->n_kv_heads != 2 || a->head_dim != 128 || a->n_group != 1 || a->latent_size != 0 || a->per_layer)
        return false;
    for (int i = 0; i < a->n_layers; i++)
        if (a->layers[i].kind != pattern[i])
            return false;
    const int *m = a->layers[0].width, *x = a->layers[1].width, *t = a->layers[5].width;
    return m[NS_AXIS_MAMBA_HEADS] == 64 && m[NS_AXIS_MAMBA_HEAD_DIM] == 64 && m[NS_AXIS_SSM_STATE] == 128 &&
           x[NS_AXIS_EXPERTS] == 128 && x[NS_AXIS_EXPERT_FFN] == 1856 && x[NS_AXIS_SHARED_FFN] == 3712 && a->layers[1].topk == 6 &&
           t[NS_AXIS_ATTN_HEADS] == 32 &&
           json_integer_value(json_object_get(ns_config_text(a->config), "num_nextn_predict_layers")) == 0;
}

/* As the family is published. The checkpoint does not state the widths; the counts of parameters agree with them. */
static int add_released(const ns_arch *a, ns_variants *out, ns_err *e)
{
    static const struct { const char *name; int hidden, expert_ffn; } sizes[] = {
        { "30B", 2688, 1856 }, { "23B", 2016, 1856 }, { "12B", 1920, 960 },
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ns_variant v = { .name = strdup(sizes[i].name) };
        if (!v.name || ns_cut_full(a, &v.cut, e) < 0) {
            ns_variant_release(&v);
            return ns_fail(e, NS_ENOMEM, "out of memory");
        }
        ns_cut_set(a, &v.cut, NS_AXIS_HIDDEN, sizes[i].hidden);
        ns_cut_set(a, &v.cut, NS_AXIS_EXPERT_FFN, sizes[i].expert_ffn);
        if (ns_variants_append(out, &v, e) < 0)
            return -1;
    }
    return 0;
}

int ns_variants_parse(const ns_arch *a, const json_t *nest, const char *what, ns_variants *out, ns_err *e)
{
    bool released = !nest && is_released(a);
    *out = (ns_variants){ .assumed = released };
    snprintf(out->source, sizeof out->source, "%s", nest ? "nest.json" : released ? "built in" : "none");
    if (nest && ns_nest_read(a, nest, out, e) < 0)
        goto fail;
    if (released && add_released(a, out, e) < 0)
        goto fail;
    if (ensure_full(a, out, e) < 0 || sort_variants(a, out, e) < 0)
        goto fail;
    return 0;
fail:
    ns_variants_release(out);
    return ns_err_wrap(e, "%s", what ? what : "nest.json");
}
