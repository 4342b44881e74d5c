/* What is not finite, and where. Looks only after something has gone wrong, so it may run a pack again and walk all arrays. */
#include <math.h>
#include <string.h>

#include "train/trainer_impl.h"

typedef struct finding {
    bool any;
    ns_tap_kind kind;
    int layer, expert;
} finding;

static bool all_finite(const ns_real *x, size_t n, size_t *at)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) {
            *at = i;
            return false;
        }
    return true;
}

static void look(void *ctx, const ns_tap *t)
{
    finding *f = ctx;
    size_t at;
    for (int i = 0; i < t->rows && !f->any; i++)
        if (!all_finite(t->x + (size_t)i * t->ld, (size_t)t->cols, &at))
            *f = (finding){ true, t->kind, t->layer, t->expert };
}

/* The tensor that holds element `at` of a flat array. */
static void name_of(const ns_params *p, size_t at, char *out, size_t cap)
{
    for (int i = 0; i < p->n; i++) {
        const ns_param *x = &p->p[i];
        if (at >= x->off && at < x->off + x->count)
            ns_weight_name(x->layer, x->role, (int)((at - x->off) / ((size_t)x->rows * (size_t)x->cols)), out, cap);
    }
}

static void describe(const ns_arch *a, const finding *f, char *out, size_t cap)
{
    static const char *const what[] = { [NS_TAP_NORM] = "the mixer's input", [NS_TAP_FFN] = "the FFN",
                                        [NS_TAP_MAMBA_X] = "in_proj's output", [NS_TAP_ATTENTION] = "the attention output", [NS_TAP_EXPERT_OUT] = "an expert's output" };
    if (!f->any)
        snprintf(out, cap, "all activations are finite, the logits are not");
    else if (f->layer == a->n_layers)
        snprintf(out, cap, "the first activation that is not finite is the final norm's");
    else if (f->expert >= 0)
        snprintf(out, cap, "the first activation that is not finite is in layer %d: %s (expert %d)", f->layer, what[f->kind], f->expert);
    else
        snprintf(out, cap, "the first activation that is not finite is in layer %d: %s", f->layer, what[f->kind]);
}

void ns_diagnose_pack(ns_trainer *t, ns_worker *k, const ns_pack *pack, ns_err *e)
{
    finding f = { 0 };
    size_t at;
    char name[256] = "", where[400];
    if (!all_finite(t->w, t->p->count, &at)) {
        name_of(t->p, at, name, sizeof name);
        snprintf(where, sizeof where, "tensor %s holds a value that is not finite", name);
    } else {
        ns_net_tap(k->net, look, &f);
        ns_net_forward(k->net, t->run, t->mask ? &k->mask : NULL, &pack->seqs);
        ns_net_tap(k->net, NULL, NULL);
        describe(t->p->arch, &f, where, sizeof where);
    }
    ns_fail(e, NS_EFORMAT, "the loss of documents %lld..%lld of the stream is not finite; %s", (long long)pack->first_doc,
            (long long)(pack->first_doc + pack->seqs.n_seqs - 1), where);
}

void ns_diagnose_gradient(ns_trainer *t, ns_err *e)
{
    char name[256] = "";
    size_t at;
    if (all_finite(t->crew.worker[0].g, t->p->count, &at)) {
        ns_fail(e, NS_EFORMAT, "the norm of the gradients overflows (no single one does)");
        return;
    }
    name_of(t->p, at, name, sizeof name);
    ns_fail(e, NS_EFORMAT, "the gradient of tensor %s is not finite, in the batch of documents %lld..%lld of the stream", name,
            (long long)t->first_doc, (long long)(ns_data_position(t->data) - 1));
}
