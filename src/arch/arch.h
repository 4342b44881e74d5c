/* The architecture of a checkpoint: config.json as dims and a layer pattern. Numbers only; no weights, no arithmetic on them.
 * Source of the field meanings: the published NemotronH configuration (transformers models/nemotron_h). */
#ifndef NS_ARCH_ARCH_H
#define NS_ARCH_ARCH_H
#include <stdbool.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

/* The axes on which a model can be made smaller. Widths are the config's own numbers: total heads, total experts.
 * X(id, name in nest.json and --size, config.json key) */
#define NS_AXES(X)                                                               \
    X(HIDDEN, "hidden", "hidden_size")                                           \
    X(EXPERT_FFN, "expert_ffn", "moe_intermediate_size")                         \
    X(EXPERTS, "experts", "n_routed_experts")                                    \
    X(SHARED_FFN, "shared_ffn", "moe_shared_expert_intermediate_size")           \
    X(DENSE_FFN, "dense_ffn", "intermediate_size")                               \
    X(MAMBA_HEADS, "mamba_heads", "mamba_num_heads")                             \
    X(MAMBA_HEAD_DIM, "mamba_head_dim", "mamba_head_dim")                        \
    X(SSM_STATE, "ssm_state", "ssm_state_size")                                  \
    X(ATTN_HEADS, "attn_heads", "num_attention_heads")

typedef enum ns_axis {
#define X(id, name, key) NS_AXIS_##id,
    NS_AXES(X)
#undef X
    NS_AXIS_COUNT,
    NS_AXIS_FIXED = NS_AXIS_COUNT /* a dimension that is never cut */
} ns_axis;

const char *ns_axis_name(ns_axis a);
const char *ns_axis_key(ns_axis a);  /* the config.json key */
int ns_axis_find(const char *name);  /* -1 when unknown */
bool ns_axis_of_kind(ns_axis a, char kind); /* do layers of this kind have the axis? */

/* Layer kinds are the characters of hybrid_override_pattern. */
enum { NS_LAYER_MAMBA = 'M', NS_LAYER_ATTENTION = '*', NS_LAYER_MOE = 'E', NS_LAYER_MLP = '-' };

typedef struct ns_layer {
    char kind;
    int width[NS_AXIS_COUNT]; /* HIDDEN everywhere; the other axes only where the kind has them, else 0 */
    int topk;                 /* MoE: experts per token */
} ns_layer;

/* Immutable after parsing. All memory in its own arena. Numbers of a kind of which the model has no layer are 1 (conv_kernel 2):
 * meaningless, but safe to divide by. */
typedef struct ns_arch {
    int n_layers, vocab_size, hidden_size, max_position;
    ns_layer *layers; /* [n_layers] */
    bool tie_embeddings;
    double norm_eps;                          /* RMSNorm, pre-norms and final */
    double gated_norm_eps;                    /* Mamba's gated norm */
    int n_groups, conv_kernel, chunk_size;    /* Mamba: B/C groups, conv width, SSD chunk of the reference */
    double dt_min, dt_max;                    /* time_step_limit: dt is clamped to it; default 0, +inf */
    int n_kv_heads, head_dim;                 /* attention */
    int n_group, topk_group, latent_size;     /* MoE: routing groups; 0 = no latent projection */
    bool norm_topk;
    double routed_scaling;
    bool mamba_bias, conv_bias, attention_bias, mlp_bias;
    int bos_id, pad_id, eos_ids[8], n_eos;    /* -1 where absent */
    bool per_layer;                           /* dims differ between layers of a kind (block_configs) */
    json_t *config;                           /* the config as read; owned; the slicer edits a copy */
    ns_arena arena;
} ns_arch;

/* `cfg` is borrowed. Every key is range-checked: absurd values are refused before any size is computed from them. */
ns_arch *ns_arch_parse(const json_t *cfg, const char *what, ns_err *e);
ns_arch *ns_arch_open(const char *config_path, ns_err *e);
void ns_arch_free(ns_arch *a);

/* How config.json / hf_quant_config.json say each linear layer is stored. */
typedef enum ns_scheme { NS_SCHEME_NONE, NS_SCHEME_FP8, NS_SCHEME_NVFP4 } ns_scheme;
typedef struct ns_quant ns_quant;
/* Either argument may be NULL; hf_quant_config.json wins over config.json's quantization_config. Never NULL without an error:
 * a checkpoint without either gets a table that answers NONE. Unknown algorithms are refused by name. */
ns_quant *ns_quant_parse(const json_t *hf_quant_config, const json_t *config, ns_err *e);
void ns_quant_free(ns_quant *q);
/* Scheme of the module ("backbone.layers.3.mixer.in_proj"; a "model." prefix is treated as "backbone."). */
ns_scheme ns_quant_scheme(const ns_quant *q, const char *module);
bool ns_quant_present(const ns_quant *q);
/* True where the file lists modules or exclusions, so that a weight stored otherwise than it says is an error. False where it only
 * names an algorithm (as Super and Ultra do): then the dtype in the file decides, and an unquantised weight is no contradiction. */
bool ns_quant_strict(const ns_quant *q);
const char *ns_quant_kv_algo(const ns_quant *q); /* "FP8" or NULL */
#endif
