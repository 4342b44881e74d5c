/* The weight manifest: every weight of the architecture in one table. Binder, views, slicer, synthesiser, cost model (and later
 * permuter, quantiser and optimiser) read it; none has a list of its own. */
#ifndef NS_ARCH_MANIFEST_H
#define NS_ARCH_MANIFEST_H
#include "arch/arch.h"

/* One dimension of a weight: parts laid one after the other (in_proj rows are z|x|B|C|dt), each part a nest of factors, outer to
 * inner. A cut keeps a prefix of every factor that has an axis, inside every copy of the outer factors: for
 * `x` = n_groups (fixed) x heads per group (MAMBA_HEADS) x head_dim (MAMBA_HEAD_DIM), the first heads of every group. */
typedef struct ns_factor {
    ns_axis axis;  /* NS_AXIS_FIXED when never cut */
    int size;      /* entries of this factor in the full model */
    int divide;    /* live entries = width[axis] / divide: MAMBA_HEADS counts all heads, the factor those of one group */
} ns_factor;

typedef struct ns_part {
    int n_factors;
    ns_factor factor[3];
} ns_part;

typedef struct ns_dim {
    int n_parts;
    ns_part part[5];
} ns_dim;

/* Kinds of dimension that occur. */
typedef enum ns_dim_id {
    NS_DIM_ONE,         /* 1 (the middle of conv1d.weight) */
    NS_DIM_HIDDEN,
    NS_DIM_VOCAB,
    NS_DIM_IN_PROJ,     /* z|x|B|C|dt */
    NS_DIM_CONV,        /* x|B|C */
    NS_DIM_CONV_KERNEL,
    NS_DIM_INNER,       /* groups x heads x head_dim */
    NS_DIM_MAMBA_HEADS, /* groups x heads */
    NS_DIM_Q,           /* kv heads x q per kv x head_dim */
    NS_DIM_KV,          /* kv heads x head_dim */
    NS_DIM_EXPERTS,     /* routing groups x experts per group */
    NS_DIM_EXPERT_IO,   /* the latent size where there is one, else hidden */
    NS_DIM_EXPERT_FFN,
    NS_DIM_SHARED_FFN,
    NS_DIM_DENSE_FFN,
    NS_DIM_LATENT
} ns_dim_id;

/* X(id, layer kinds, name, per expert, quantisable, n dims, dim 0, dim 1, dim 2). Kinds "" : model-level weights (layer -1), whose
 * name follows the prefix; otherwise the name follows "layers.N.". "%d" is the expert.
 * Order is the forward order: the slicer and synthesiser write in it. */
#define NS_WEIGHTS(X)                                                                                     \
    X(EMBED, "", "embeddings.weight", 0, 0, 2, VOCAB, HIDDEN, ONE)                                        \
    X(NORM, "M*E-", "norm.weight", 0, 0, 1, HIDDEN, ONE, ONE)                                             \
    X(IN_PROJ, "M", "mixer.in_proj.weight", 0, 1, 2, IN_PROJ, HIDDEN, ONE)                                \
    X(IN_PROJ_BIAS, "M", "mixer.in_proj.bias", 0, 0, 1, IN_PROJ, ONE, ONE)                                \
    X(CONV, "M", "mixer.conv1d.weight", 0, 0, 3, CONV, ONE, CONV_KERNEL)                                  \
    X(CONV_BIAS, "M", "mixer.conv1d.bias", 0, 0, 1, CONV, ONE, ONE)                                       \
    X(DT_BIAS, "M", "mixer.dt_bias", 0, 0, 1, MAMBA_HEADS, ONE, ONE)                                      \
    X(A_LOG, "M", "mixer.A_log", 0, 0, 1, MAMBA_HEADS, ONE, ONE)                                          \
    X(D, "M", "mixer.D", 0, 0, 1, MAMBA_HEADS, ONE, ONE)                                                  \
    X(GATED_NORM, "M", "mixer.norm.weight", 0, 0, 1, INNER, ONE, ONE)                                     \
    X(OUT_PROJ, "M", "mixer.out_proj.weight", 0, 1, 2, HIDDEN, INNER, ONE)                                \
    X(OUT_PROJ_BIAS, "M", "mixer.out_proj.bias", 0, 0, 1, HIDDEN, ONE, ONE)                               \
    X(Q, "*", "mixer.q_proj.weight", 0, 1, 2, Q, HIDDEN, ONE)                                             \
    X(Q_BIAS, "*", "mixer.q_proj.bias", 0, 0, 1, Q, ONE, ONE)                                             \
    X(K, "*", "mixer.k_proj.weight", 0, 1, 2, KV, HIDDEN, ONE)                                            \
    X(K_BIAS, "*", "mixer.k_proj.bias", 0, 0, 1, KV, ONE, ONE)                                            \
    X(V, "*", "mixer.v_proj.weight", 0, 1, 2, KV, HIDDEN, ONE)                                            \
    X(V_BIAS, "*", "mixer.v_proj.bias", 0, 0, 1, KV, ONE, ONE)                                            \
    X(O, "*", "mixer.o_proj.weight", 0, 1, 2, HIDDEN, Q, ONE)                                             \
    X(O_BIAS, "*", "mixer.o_proj.bias", 0, 0, 1, HIDDEN, ONE, ONE)                                        \
    X(GATE, "E", "mixer.gate.weight", 0, 0, 2, EXPERTS, HIDDEN, ONE)                                      \
    X(GATE_CORRECTION, "E", "mixer.gate.e_score_correction_bias", 0, 0, 1, EXPERTS, ONE, ONE)             \
    X(LATENT_IN, "E", "mixer.fc1_latent_proj.weight", 0, 1, 2, LATENT, HIDDEN, ONE)                       \
    X(LATENT_IN_BIAS, "E", "mixer.fc1_latent_proj.bias", 0, 0, 1, LATENT, ONE, ONE)                       \
    X(EXPERT_UP, "E", "mixer.experts.%d.up_proj.weight", 1, 1, 2, EXPERT_FFN, EXPERT_IO, ONE)             \
    X(EXPERT_DOWN, "E", "mixer.experts.%d.down_proj.weight", 1, 1, 2, EXPERT_IO, EXPERT_FFN, ONE)         \
    X(LATENT_OUT, "E", "mixer.fc2_latent_proj.weight", 0, 1, 2, HIDDEN, LATENT, ONE)                      \
    X(LATENT_OUT_BIAS, "E", "mixer.fc2_latent_proj.bias", 0, 0, 1, HIDDEN, ONE, ONE)                      \
    X(SHARED_UP, "E", "mixer.shared_experts.up_proj.weight", 0, 1, 2, SHARED_FFN, HIDDEN, ONE)            \
    X(SHARED_UP_BIAS, "E", "mixer.shared_experts.up_proj.bias", 0, 0, 1, SHARED_FFN, ONE, ONE)            \
    X(SHARED_DOWN, "E", "mixer.shared_experts.down_proj.weight", 0, 1, 2, HIDDEN, SHARED_FFN, ONE)        \
    X(SHARED_DOWN_BIAS, "E", "mixer.shared_experts.down_proj.bias", 0, 0, 1, HIDDEN, ONE, ONE)            \
    X(UP, "-", "mixer.up_proj.weight", 0, 1, 2, DENSE_FFN, HIDDEN, ONE)                                   \
    X(UP_BIAS, "-", "mixer.up_proj.bias", 0, 0, 1, DENSE_FFN, ONE, ONE)                                   \
    X(DOWN, "-", "mixer.down_proj.weight", 0, 1, 2, HIDDEN, DENSE_FFN, ONE)                               \
    X(DOWN_BIAS, "-", "mixer.down_proj.bias", 0, 0, 1, HIDDEN, ONE, ONE)                                  \
    X(FINAL_NORM, "", "norm_f.weight", 0, 0, 1, HIDDEN, ONE, ONE)                                         \
    X(LM_HEAD, "", "lm_head.weight", 0, 1, 2, VOCAB, HIDDEN, ONE)

typedef enum ns_role {
#define X(id, ...) NS_W_##id,
    NS_WEIGHTS(X)
#undef X
    NS_W_COUNT
} ns_role;

typedef struct ns_weight_def {
    const char *id, *kinds, *name;
    bool per_expert, quantisable;
    int n_dims;
    ns_dim_id dim[3];
} ns_weight_def;

const ns_weight_def *ns_weight_get(ns_role r);
/* Does this model have the weight in this layer (-1: model level)? Decided by kind and config: biases, latent projections, a tied head. */
bool ns_weight_exists(const ns_arch *a, int layer, ns_role r);
/* The name with the prefix "backbone." in `out` (lm_head has no prefix). */
void ns_weight_name(int layer, ns_role r, int expert, char *out, size_t cap);
/* The dimension's structure in this layer of the full model. Layer -1 for model-level weights. */
ns_dim ns_arch_dim(const ns_arch *a, int layer, ns_dim_id id);
int ns_dim_size(const ns_dim *d); /* full size: sum over parts of the product of the factors */

/* Visits every weight of the model in forward order, experts one by one (up and down of one, then the next). Stops at the first non-zero return and gives it back. */
typedef int ns_weight_fn(void *ctx, int layer, ns_role r, int expert);
int ns_manifest_each(const ns_arch *a, ns_weight_fn *fn, void *ctx);
#endif
