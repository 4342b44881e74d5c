/* The mixers, one function per layer kind: out = mixer(x), over all tokens of a step. Internal to the model floor. */
#ifndef NS_MODEL_BLOCK_H
#define NS_MODEL_BLOCK_H
#include "model/linear.h"

/* A step as the blocks see it: tokens of all items one after the other. */
typedef struct ns_step {
    const ns_model *m;
    const ns_plan *plan;
    ns_scratch *s;
    const ns_step_tap *tap;  /* may be NULL */
    ns_item *items;
    int n_items, n_tokens, hidden;
    int *first;         /* [n_items] index of an item's first token */
} ns_step;

/* x [n_tokens, hidden] is normed (and masked); out [n_tokens, hidden] is overwritten. */
void ns_mamba_forward(ns_step *st, int layer, const float *x, float *out);
void ns_attention_forward(ns_step *st, int layer, const float *x, float *out);
void ns_moe_forward(ns_step *st, int layer, const float *x, float *out);
void ns_mlp_forward(ns_step *st, int layer, const float *x, float *out);

/* y = W x for a whole input, one product. */
void ns_linear(ns_step *st, int layer, ns_role role, const ns_segs *rows, int n_rows, ns_acts *x, const float *bias, float *y, size_t ldy);
/* Shows the tap what a matrix is about to multiply; ns_linear does so itself. */
void ns_tap_input(const ns_step *st, int layer, ns_role role, int expert, const ns_acts *x, const int *idx, int n);
/* Zeroes what a hard mask kills in each of n vectors of `full` entries, ld apart. */
void ns_mask_segs(float *v, size_t ld, int n, int full, const ns_segs *live);
void ns_mask_prefix(float *v, size_t ld, int n, int full, int live);
#endif
