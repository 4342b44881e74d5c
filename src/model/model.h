/* The network: a checkpoint bound to kernels, run at any cut.
 *   ns_model   what is independent of a size: kernels, threads, and the small F32 vectors (norm gains, conv weights, A, D ..)
 *              widened once; matrices stay in the mapping and are used in their stored form
 *   ns_plan    a cut, prepared: which segments of each dimension are read. Costs kilobytes and microseconds; owns no weights
 *   ns_state   what one sequence remembers (state.h)
 *   ns_forward one step: any number of sequences, any number of tokens each, each at its own size
 * Equations: the NemotronH architecture; every block is x += mixer(rmsnorm(x)). */
#ifndef NS_MODEL_MODEL_H
#define NS_MODEL_MODEL_H
#include "ckpt/ckpt.h"
#include "kernel/ops.h"
#include "kernel/pool.h"
#include "model/state.h"

/* Small vectors of one layer in F32, full width. NULL where the layer has none. */
typedef struct ns_vectors {
    float *norm;                                     /* [hidden] */
    float *conv_w, *conv_b;                          /* [conv_kernel, channels], [channels] */
    float *dt_bias, *a, *d;                          /* [heads]; a = -exp(A_log) */
    float *gated_norm;                               /* [inner] */
    float *in_bias, *out_bias;                       /* Mamba projections */
    float *q_bias, *k_bias, *v_bias, *o_bias;
    float k_scale, v_scale;                          /* of an FP8 cache; 1 where the checkpoint has none */
    float *correction;                               /* [experts] */
    float *latent_in_bias, *latent_out_bias, *shared_up_bias, *shared_down_bias, *up_bias, *down_bias;
} ns_vectors;

typedef struct ns_model {
    const ns_ckpt *ckpt;
    const ns_arch *arch;
    const ns_ops *ops;
    ns_pool *pool;       /* borrowed */
    ns_vectors *vec;     /* [n_layers] */
    float *final_norm;
    ns_dtype kv;         /* how its states keep keys and values: NS_F32, until the owner says NS_F8_E4M3 */
    ns_arena arena;
} ns_model;

int ns_model_init(ns_model *m, const ns_ckpt *c, const ns_ops *ops, ns_pool *pool, ns_err *e);
void ns_model_release(ns_model *m);
/* An empty state for a size of the model. */
ns_state *ns_model_state(const ns_model *m, const ns_cut *cut, int context, ns_err *e);
/* Attention layers for which the checkpoint has no k_scale or no v_scale. */
int ns_model_unscaled(const ns_model *m);

/* One layer of a plan: live sizes, and the segments of the full dimensions that are live. */
typedef struct ns_plan_layer {
    char kind;
    bool keep;
    int topk, n_experts, ffn, shared;        /* MoE (ffn also for '-') */
    int groups, heads, head_dim, state;      /* Mamba: heads in all; attention: heads = query heads, head_dim */
    int conv_dim, inner;
    ns_segs in_proj, conv, inner_segs, mamba_heads, q, experts;
    ns_vectors vec;                          /* gathered to the live entries where those are not a prefix */
    const struct ns_plan_layer *mask;        /* the hard mask's layer, NULL in a view */
} ns_plan_layer;

typedef struct ns_plan {
    const ns_model *model;
    ns_cut cut;
    int hidden;
    ns_plan_layer *layer; /* [n_layers] */
    struct ns_plan *mask; /* owned; see ns_plan_new_masked */
    ns_arena arena;
} ns_plan;

/* The cut must have been validated; it is copied. */
ns_plan *ns_plan_new(const ns_model *m, const ns_cut *cut, ns_err *e);
/* The full model computing what `cut` computes, by zeroing what the cut lacks: slow, and the check on views and slices. */
ns_plan *ns_plan_new_masked(const ns_model *m, const ns_cut *cut, ns_err *e);
void ns_plan_free(ns_plan *p);

/* A sequence's share of a step. */
typedef struct ns_item {
    const ns_plan *plan; /* its size, where that is another than the step's; NULL */
    ns_state *state;
    const int *ids; /* [n], each below vocab_size */
    int n;
    int n_logits;   /* logits of the last so many positions go to `logits` [n_logits, vocab] */
    float *logits;
} ns_item;

/* What a matrix multiplies in a step: rows of `cols` live entries, ld apart; idx (NULL: all in order) says which. */
typedef struct ns_step_input {
    int layer, expert; /* -1 the head; 0 where there are no experts, which count as in the full model */
    ns_role role;
    const float *x;
    size_t ld;
    const int *idx;
    int n, cols;
} ns_step_input;

/* Looks at a step from inside; any member may be NULL. */
typedef struct ns_step_tap {
    void *ctx;
    /* The residual stream [n_tokens, hidden] after a layer. */
    void (*hidden)(void *ctx, int layer, const float *x, int n_tokens, int hidden);
    /* The router's picks [n_tokens, topk], experts as the full model counts them, in the order of selection. */
    void (*router)(void *ctx, int layer, const int *expert, const float *weight, int n_tokens, int topk);
    /* Every matrix's input: projections, experts (those chosen), head. */
    void (*input)(void *ctx, const ns_step_input *in);
    /* Keys and values [n_tokens, kv heads * head_dim], biases added, before they are stored. */
    void (*kv)(void *ctx, int layer, const float *k, const float *v, int n_tokens, int width);
} ns_step_tap;

/* Working memory of a step; grows to the largest step seen and is reused. One per thread of control. */
typedef struct ns_scratch ns_scratch;
ns_scratch *ns_scratch_new(void);
void ns_scratch_free(ns_scratch *s);

/* Runs one step and advances every state. All tokens of all items together should not exceed NS_STEP_TOKENS: longer prompts go in
 * pieces. States must have room (ns_state_room) and the shape of their plan's cut. A sequence's results do not depend on its company, bit
 * for bit. `p` may be NULL where every item has a plan. On error the states are in no defined position. */
enum { NS_STEP_TOKENS = 512 };
int ns_forward(const ns_plan *p, ns_item *items, int n_items, ns_scratch *s, const ns_step_tap *tap, ns_err *e);
#endif
