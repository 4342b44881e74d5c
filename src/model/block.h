/* The mixers, one per layer kind: out = mixer(x), over all tokens of a part of a step. Internal to the model floor.
 * A mixer goes in stages: each asks for matrix products (ns_ask), which are computed before the next one. So the parts of a step that run
 * at different sizes go through a layer side by side, and a weight that they share is read from memory once. */
#ifndef NS_MODEL_BLOCK_H
#define NS_MODEL_BLOCK_H
#include "model/linear.h"

typedef struct ns_asked {
    ns_product *p; /* [cap] */
    int n, cap;
} ns_asked;

/* The part of a step that runs at one size: tokens of all its items one after the other. */
typedef struct ns_step {
    const ns_model *m;
    const ns_plan *plan;
    ns_scratch *s;
    const ns_step_tap *tap;  /* may be NULL */
    ns_item *items;
    int n_items, n_tokens, hidden;
    int *first;         /* [n_items] index of an item's first token */
    float *x, *normed, *out; /* [n_tokens, hidden]: the residual stream, a mixer's input (normed, and masked) and output */
    ns_asked *asked;    /* of all parts */
    void *mixer;        /* what a mixer keeps from stage to stage, in the layer's scratch */
} ns_step;

/* Stage 0, 1, .. of a layer; false when `out` is written and nothing was asked for. */
typedef bool ns_mixer_fn(ns_step *st, int layer, int stage);
ns_mixer_fn ns_mamba_stage, ns_attention_stage, ns_moe_stage, ns_mlp_stage;

/* A product to be computed after this stage; what it points to lives in the layer's scratch. */
void ns_ask(ns_step *st, const ns_product *p);
/* y = W x for a whole input. */
void ns_ask_linear(ns_step *st, int layer, ns_role role, const ns_segs *rows, int n_rows, ns_acts *x, const float *bias, float *y, size_t ldy);
/* Shows the tap what a matrix is about to multiply; ns_ask_linear does so itself. */
void ns_tap_input(const ns_step *st, int layer, ns_role role, int expert, const ns_acts *x, const int *idx, int n);
/* Zeroes what a hard mask kills in each of n vectors of `full` entries, ld apart. */
void ns_mask_segs(float *v, size_t ld, int n, int full, const ns_segs *live);
void ns_mask_prefix(float *v, size_t ld, int n, int full, int live);
#endif
