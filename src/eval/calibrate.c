#include "eval/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tensor/encode.h"

enum { LOGITS = 64 << 20, NAME = 300 }; /* bytes of logits in hand: the head's input is only there when logits are asked for */

struct ns_calib {
    const ns_engine *en;
    ns_plan **plan;  /* [n_plans] */
    ns_state **state;
    int n_plans, step;
    ns_scratch *scratch;
    float *logits;
    size_t *off;     /* [n_layers + 1] a layer's first slot; row 0 is the model level */
    float *amax;     /* [off[n_layers] + slots of the last layer] input of each matrix; 0: none was seen */
    float *kv;       /* [n_layers][2] keys, values */
    int64_t tokens;
};

/* ---- slots ---- */

static int experts_of(const ns_arch *a, int layer)
{
    return layer < 0 ? 0 : a->layers[layer].width[NS_AXIS_EXPERTS];
}

static float *slot(const ns_calib *k, int layer, ns_role r, int expert)
{
    size_t at = k->off[layer + 1] + (size_t)r;
    if (ns_weight_get(r)->per_expert)
        at = k->off[layer + 1] + NS_W_COUNT + (size_t)(expert * 2 + (r == NS_W_EXPERT_DOWN));
    return &k->amax[at];
}

static int make_slots(ns_calib *k, ns_err *e)
{
    const ns_arch *a = k->en->model.arch;
    size_t total = 0;
    k->off = malloc((size_t)(a->n_layers + 1) * sizeof *k->off);
    k->kv = calloc((size_t)a->n_layers * 2, sizeof *k->kv);
    for (int i = -1; k->off && i < a->n_layers; i++) {
        k->off[i + 1] = total;
        total += NS_W_COUNT + 2 * (size_t)experts_of(a, i);
    }
    k->amax = calloc(total, sizeof *k->amax);
    return k->off && k->kv && k->amax ? 0 : ns_fail(e, NS_ENOMEM, "calibrate: out of memory");
}

/* ---- watching ---- */

static void on_input(void *ctx, const ns_step_input *in)
{
    float *m = slot(ctx, in->layer, in->role, in->expert);
    for (int i = 0; i < in->n; i++)
        *m = ns_row_amax(in->x + (size_t)(in->idx ? in->idx[i] : i) * in->ld, in->cols, *m);
}

static void on_kv(void *ctx, int layer, const float *k, const float *v, int n, int width)
{
    float *m = ((ns_calib *)ctx)->kv + 2 * layer;
    for (int i = 0; i < n; i++) {
        m[0] = ns_row_amax(k + (size_t)i * (size_t)width, width, m[0]);
        m[1] = ns_row_amax(v + (size_t)i * (size_t)width, width, m[1]);
    }
}

/* ---- running ---- */

static int add_size(ns_calib *k, const char *size, int context, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[64];
    if (ns_engine_cut(k->en, size, context, &cut, name, sizeof name, e) != 0)
        return -1;
    const int i = k->n_plans++;
    k->plan[i] = ns_plan_new(&k->en->model, &cut, e);
    k->state[i] = k->plan[i] ? ns_model_state(&k->en->model, &cut, context, e) : NULL;
    ns_cut_release(&cut);
    return k->state[i] ? 0 : -1;
}

ns_calib *ns_calib_new(const ns_engine *en, const char *const *sizes, int n_sizes, int context, ns_err *e)
{
    const size_t vocab = (size_t)en->model.arch->vocab_size, rows = LOGITS / sizeof(float) / vocab;
    ns_calib *k = calloc(1, sizeof *k);
    if (!k || !(k->plan = calloc((size_t)n_sizes, sizeof(ns_plan *))) || !(k->state = calloc((size_t)n_sizes, sizeof(ns_state *))))
        goto no_memory;
    k->en = en;
    k->step = rows < 1 ? 1 : rows < NS_STEP_TOKENS ? (int)rows : NS_STEP_TOKENS;
    k->scratch = ns_scratch_new();
    k->logits = malloc((size_t)k->step * vocab * sizeof *k->logits);
    if (!k->scratch || !k->logits)
        goto no_memory;
    if (make_slots(k, e) != 0)
        goto fail;
    for (int i = 0; i < n_sizes; i++)
        if (add_size(k, sizes[i], context, e) != 0)
            goto fail;
    return k;
no_memory:
    ns_fail(e, NS_ENOMEM, "calibrate: out of memory");
fail:
    ns_calib_free(k);
    return NULL;
}

void ns_calib_free(ns_calib *k)
{
    if (!k)
        return;
    for (int i = 0; i < k->n_plans; i++) {
        ns_plan_free(k->plan[i]);
        ns_state_free(k->state[i]);
    }
    free(k->plan);
    free(k->state);
    ns_scratch_free(k->scratch);
    free(k->logits);
    free(k->off);
    free(k->amax);
    free(k->kv);
    free(k);
}

int ns_calib_add(ns_calib *k, const int *ids, int n, ns_err *e)
{
    const ns_step_tap tap = { .ctx = k, .input = on_input, .kv = on_kv };
    for (int i = 0; i < k->n_plans; i++) {
        ns_state_reset(k->state[i]);
        for (int at = 0; at < n; at += k->step) {
            const int m = n - at < k->step ? n - at : k->step;
            ns_item item = { .state = k->state[i], .ids = ids + at, .n = m, .n_logits = m, .logits = k->logits };
            if (ns_forward(k->plan[i], &item, 1, k->scratch, &tap, e) != 0)
                return -1;
        }
    }
    k->tokens += n;
    return 0;
}

/* ---- the file ---- */

typedef struct list {
    const ns_calib *k;
    ns_tensor *t;
    char (*name)[NAME];
    float *value;
    size_t n;
    ns_calib_report r;
    ns_err *e;
} list;

static int count(void *ctx, int layer, ns_role r, int expert)
{
    (void)layer;
    (void)expert;
    *(size_t *)ctx += ns_weight_get(r)->quantisable ? 2 : 0; /* at most: input, output */
    return 0;
}

/* "..k_proj.weight" -> "..k_proj.WHAT" with its value; one that is not finite has no scale. */
static int put(list *l, int layer, ns_role r, int expert, const char *what, float x)
{
    char *name = l->name[l->n];
    ns_weight_name(layer, r, expert, name, NAME);
    const size_t stem = strlen(name) - strlen("weight");
    snprintf(name + stem, NAME - stem, "%s", what);
    if (!isfinite(x))
        return ns_fail(l->e, NS_EFORMAT, "%s is %g: activations of this checkpoint are not finite", name, (double)x);
    l->value[l->n] = x;
    l->t[l->n] = (ns_tensor){ .name = name, .dtype = NS_F32, .data = (const uint8_t *)&l->value[l->n], .bytes = sizeof x };
    l->n++;
    return 0;
}

static float largest_of_experts(const ns_calib *k, int layer, ns_role r)
{
    float most = 0;
    for (int x = 0; x < experts_of(k->en->model.arch, layer); x++)
        most = ns_row_amax(slot(k, layer, r, x), 1, most);
    return most;
}

static int put_weight(void *ctx, int layer, ns_role r, int expert)
{
    list *l = ctx;
    if (!ns_weight_get(r)->quantisable)
        return 0;
    float x = *slot(l->k, layer, r, expert);
    if (x == 0 && ns_weight_get(r)->per_expert)
        x = largest_of_experts(l->k, layer, r);
    if (x == 0) { /* no size has this layer */
        l->r.absent++;
        return 0;
    }
    l->r.modules++;
    if (put(l, layer, r, expert, "input_amax", x) != 0)
        return -1;
    if (r != NS_W_K && r != NS_W_V)
        return 0;
    l->r.kv_layers += r == NS_W_K;
    return put(l, layer, r, expert, "output_amax", l->k->kv[2 * layer + (r == NS_W_V)]);
}

/* Names the experts of each layer that no token was sent to. */
static int log_unreached(const ns_calib *k)
{
    const ns_arch *a = k->en->model.arch;
    int all = 0;
    for (int i = 0; i < a->n_layers; i++) {
        ns_buf b = { 0 };
        int n = 0;
        for (int x = 0; x < experts_of(a, i) && largest_of_experts(k, i, NS_W_EXPERT_UP) != 0; x++)
            if (*slot(k, i, NS_W_EXPERT_UP, x) == 0 && n++ < 20)
                ns_buf_addf(&b, "%s%d", n > 1 ? ", " : "", x);
        if (n)
            ns_log("layer %d: no token reached %d of %d experts (%s%s); they get the largest of their layer", i, n, experts_of(a, i),
                   b.failed ? "" : b.data, n > 20 ? ", .." : "");
        ns_buf_release(&b);
        all += n;
    }
    return all;
}

int ns_calib_write(const ns_calib *k, const ns_st_meta *meta, size_t n_meta, const char *path, ns_calib_report *report, ns_err *e)
{
    list l = { .k = k, .r.tokens = k->tokens, .e = e };
    size_t most = 0;
    ns_manifest_each(k->en->model.arch, count, &most);
    l.t = calloc(most + 1, sizeof *l.t);
    l.name = calloc(most + 1, sizeof *l.name);
    l.value = calloc(most + 1, sizeof *l.value);
    int rc = l.t && l.name && l.value ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    if (rc == 0)
        rc = ns_manifest_each(k->en->model.arch, put_weight, &l);
    if (rc == 0)
        rc = ns_st_write_file(path, l.t, l.n, meta, n_meta, e);
    if (rc == 0) {
        l.r.unreached = log_unreached(k);
        if (report)
            *report = l.r;
    }
    free(l.t);
    free(l.name);
    free(l.value);
    return rc;
}
