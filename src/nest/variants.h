/* Named sizes: nest.json, the built-in table for the released family, and the text of --size. The format is in docs/NEST.md. */
#ifndef NS_NEST_VARIANTS_H
#define NS_NEST_VARIANTS_H
#include "nest/router.h"

typedef struct ns_variant {
    char *name;    /* "12B"; the entry of the whole model is always called "full" */
    char *alias;   /* what the file calls the whole model ("30B"), or NULL */
    double budget; /* share of the full model's active parameters; 0 when the file states none */
    ns_cut cut;
} ns_variant;

typedef struct ns_variants {
    int n;
    ns_variant *v;      /* widest first by active parameters; always holds "full" */
    bool assumed;       /* built in for the released family, not stated by the checkpoint */
    char source[64];    /* "nest.json", "built in", "none" */
    enum ns_handover handover; /* CACHE or PREFILL: what nest.json says the sizes may do when one follows another; AUTO: it says nothing */
    ns_router *router;  /* of nest.json; its weights come from beside it (ckpt/router_file.h); NULL */
} ns_variants;

/* `nest` may be NULL: then the built-in sizes where the architecture is the released one's, else only "full".
 * Errors name the variant and key. */
int ns_variants_parse(const ns_arch *a, const json_t *nest, const char *what, ns_variants *out, ns_err *e);
void ns_variants_release(ns_variants *v);
/* By name or alias, whatever the case of the letters; NULL when there is none. */
const ns_variant *ns_variants_find(const ns_variants *v, const char *name);
/* nest.json for the given sizes, with their counts of parameters; the inverse of parse. The router is in it when it has weights. */
json_t *ns_variants_json(const ns_arch *a, const ns_variants *v, ns_err *e);

/* --size: a name, "full", a budget in (0,1] ("0.58": what the router gives for it; without a router's weights the largest variant whose
 * active parameters are within it, up to half a percent), or an explicit cut: axis=width pairs, "hidden=1920,expert_ffn=960";
 * "layers=0-9+12-51" keeps layers; "expert_ffn@3=480" sets one layer. `name` (cap bytes) receives what to call the result: a router's cut
 * that is a variant's has that name, another one the budget's text. The cut is validated by the caller. */
int ns_size_parse(const ns_arch *a, const ns_variants *v, const char *text, ns_cut *out, char *name, size_t cap, ns_err *e);
#endif
