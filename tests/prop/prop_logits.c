#include "prop/prop_logits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prop/prop.h"

float *prop_logits(const char *dir, const ns_cut *cut, const int *ids, int n)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c) {
        fprintf(stderr, "prop: %s\n", e.msg);
        abort();
    }
    prop_model m = prop_open(c, ns_ops_find(NS_RUNG_REF), 1);
    ns_plan *p = prop_plan(&m, cut);
    prop_feed f = prop_whole(n);
    prop_trace t = prop_run(p, ids, &f, 0);
    float *logits = t.logits;
    t.logits = NULL;
    prop_trace_release(&t);
    ns_plan_free(p);
    prop_close(&m);
    return logits;
}

void prop_float_variants(prop_float v[PROP_FLOAT_VARIANTS])
{
    static const char *const names[PROP_FLOAT_VARIANTS] = { "f32", "bf16", "groups", "latent", "tied", "biases" };
    for (int i = 0; i < PROP_FLOAT_VARIANTS; i++) {
        v[i] = (prop_float){ names[i], tiny_defaults() };
        v[i].o.seed = (uint64_t)(200 + i);
    }
    v[1].o.dtype = "bf16";
    v[2].o.n_group = 2;
    v[2].o.topk_group = 1;
    v[2].o.mamba_groups = 4;
    v[3].o.latent = 32;
    v[3].o.pattern = "EMM*E-*M";
    v[4].o.tied = true;
    v[4].o.pattern = "*-EMME";
    v[5].o.biases = true;
}
