#include "prop/residual.h"

#include <stdlib.h>
#include <string.h>

#include "prop/prop.h"

typedef struct record {
    int n;
    float *stream, *gates;
    int *picks;
} record;

static void on_hidden(void *ctx, int layer, const float *x, int n, int hidden)
{
    const record *r = ctx;
    memcpy(r->stream + (size_t)layer * (size_t)(n * hidden), x, (size_t)(n * hidden) * sizeof *x);
}

static void on_router(void *ctx, int layer, const int *expert, const float *weight, int n, int topk)
{
    const record *r = ctx;
    if (topk > PROP_MAX_TOPK)
        abort();
    memcpy(r->picks + (size_t)(layer * n * PROP_MAX_TOPK), expert, (size_t)(n * topk) * sizeof *expert);
    memcpy(r->gates + (size_t)(layer * n * PROP_MAX_TOPK), weight, (size_t)(n * topk) * sizeof *weight);
}

void prop_residual(const char *dir, const int *ids, int n, float *stream, int *picks, float *gates)
{
    ns_err e = { 0 };
    ns_cut full;
    record r = { n, stream, gates, picks };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c || ns_cut_full(c->arch, &full, &e) != 0)
        abort();
    prop_model m = prop_open(c, ns_ops_find(NS_RUNG_REF), 1);
    ns_plan *p = prop_plan(&m, &full);
    ns_state *state = ns_state_new(c->arch, &full, NS_F32, n, &e);
    ns_scratch *scratch = ns_scratch_new();
    ns_item item = { .state = state, .ids = ids, .n = n };
    if (!state || !scratch || ns_forward(p, &item, 1, scratch, &(ns_step_tap){ .ctx = &r, .hidden = on_hidden, .router = on_router }, &e) != 0)
        abort();
    ns_scratch_free(scratch);
    ns_state_free(state);
    ns_plan_free(p);
    ns_cut_release(&full);
    prop_close(&m);
}
