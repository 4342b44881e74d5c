#include "arch/arch.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "arch/manifest.h"

/* Sane limits: an order of magnitude or two above any published model. With them every dimension of every weight fits an int:
 * the widest, in_proj's rows, are 2 x heads x head_dim + 2 x groups x state + heads < 2^30. */
enum {
    MAX_HIDDEN = 1 << 17,
    MAX_FFN = 1 << 22,
    MAX_VOCAB = 1 << 24,
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 1 << 13,
    MAX_STATE = 1 << 13,
    MAX_EXPERTS = 1 << 12,
};

static const struct { const char *name, *key; } axes[NS_AXIS_COUNT] = {
#define X(id, name, key) { name, key },
    NS_AXES(X)
#undef X
};

const char *ns_axis_name(ns_axis a)
{
    return (unsigned)a < NS_AXIS_COUNT ? axes[a].name : "fixed";
}

const char *ns_axis_key(ns_axis a)
{
    return (unsigned)a < NS_AXIS_COUNT ? axes[a].key : "fixed";
}

int ns_axis_find(const char *name)
{
    for (int i = 0; i < NS_AXIS_COUNT; i++)
        if (strcmp(axes[i].name, name) == 0)
            return i;
    return -1;
}

bool ns_axis_of_kind(ns_axis a, char kind)
{
    switch (a) {
    case NS_AXIS_HIDDEN:
        return true;
    case NS_AXIS_EXPERT_FFN:
    case NS_AXIS_EXPERTS:
    case NS_AXIS_SHARED_FFN:
        return kind == NS_LAYER_MOE;
    case NS_AXIS_DENSE_FFN:
        return kind == NS_LAYER_MLP;
    case NS_AXIS_MAMBA_HEADS:
    case NS_AXIS_MAMBA_HEAD_DIM:
    case NS_AXIS_SSM_STATE:
        return kind == NS_LAYER_MAMBA;
    case NS_AXIS_ATTN_HEADS:
        return kind == NS_LAYER_ATTENTION;
    default:
        return false;
    }
}

static int divides(int whole, const char *whole_key, int part, const char *part_key, ns_err *e)
{
    if (whole % part == 0)
        return 0;
    return ns_fail(e, NS_EFORMAT, "key \"%s\": %d is not a multiple of \"%s\" = %d", whole_key, whole, part_key, part);
}

/* ---- one layer ---- */

/* Dims that all layers of a kind share. block_configs repeats them per layer; a layer that differs is refused, because the
 * manifest has one number for them. */
typedef struct shared_dims {
    int n_groups, conv_kernel, chunk_size, n_kv_heads, head_dim, n_group, topk_group, latent_size;
} shared_dims;

static int same(bool first, int *slot, int value, const char *key, ns_err *e)
{
    if (!first && *slot != value)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"%s\": %d here, %d in an earlier layer; it must not differ", key, value, *slot);
    *slot = value;
    return 0;
}

static int parse_mamba(ns_arch *a, ns_layer *l, const json_t *cfg, bool first, ns_err *e)
{
    int heads, head_dim, state;
    shared_dims s;
    if (ns_config_need(cfg, "mamba_num_heads", 1, MAX_HEADS, &heads, e) < 0 ||
        ns_config_need(cfg, "mamba_head_dim", 1, MAX_HEAD_DIM, &head_dim, e) < 0 ||
        ns_config_need(cfg, "ssm_state_size", 1, MAX_STATE, &state, e) < 0 ||
        ns_config_int(cfg, "n_groups", 1, MAX_HEADS, 8, &s.n_groups, e) < 0 ||
        ns_config_int(cfg, "conv_kernel", 2, 64, 4, &s.conv_kernel, e) < 0 ||
        ns_config_int(cfg, "chunk_size", 1, 1 << 16, 128, &s.chunk_size, e) < 0)
        return -1;
    if (divides(heads, "mamba_num_heads", s.n_groups, "n_groups", e) < 0)
        return -1;
    l->width[NS_AXIS_MAMBA_HEADS] = heads;
    l->width[NS_AXIS_MAMBA_HEAD_DIM] = head_dim;
    l->width[NS_AXIS_SSM_STATE] = state;
    if (same(first, &a->n_groups, s.n_groups, "n_groups", e) < 0 ||
        same(first, &a->conv_kernel, s.conv_kernel, "conv_kernel", e) < 0)
        return -1;
    return same(first, &a->chunk_size, s.chunk_size, "chunk_size", e);
}

static int parse_attention(ns_arch *a, ns_layer *l, const json_t *cfg, bool first, ns_err *e)
{
    int heads;
    shared_dims s;
    if (ns_config_need(cfg, "num_attention_heads", 1, MAX_HEADS, &heads, e) < 0 ||
        ns_config_need(cfg, "head_dim", 1, MAX_HEAD_DIM, &s.head_dim, e) < 0)
        return -1;
    /* transformers: null means as many as query heads */
    if (!json_object_get(cfg, "num_key_value_heads"))
        return ns_fail(e, NS_EFORMAT, "key \"num_key_value_heads\" is missing");
    if (ns_config_int(cfg, "num_key_value_heads", 1, MAX_HEADS, heads, &s.n_kv_heads, e) < 0 ||
        divides(heads, "num_attention_heads", s.n_kv_heads, "num_key_value_heads", e) < 0)
        return -1;
    l->width[NS_AXIS_ATTN_HEADS] = heads;
    if (same(first, &a->head_dim, s.head_dim, "head_dim", e) < 0)
        return -1;
    return same(first, &a->n_kv_heads, s.n_kv_heads, "num_key_value_heads", e);
}

/* The shared expert: its width is the config's own number. transformers ignores n_shared_experts and vLLM multiplies by it, so
 * only the values on which they agree (and 0, none) are taken. */
static int parse_shared_expert(ns_layer *l, const json_t *cfg, ns_err *e)
{
    int n;
    if (ns_config_int(cfg, "n_shared_experts", 0, 1, 1, &n, e) < 0)
        return -1;
    if (n == 0)
        return 0;
    return ns_config_need(cfg, "moe_shared_expert_intermediate_size", 1, MAX_FFN, &l->width[NS_AXIS_SHARED_FFN], e);
}

static int parse_moe(ns_arch *a, ns_layer *l, const json_t *cfg, bool first, ns_err *e)
{
    int experts;
    shared_dims s;
    if (ns_config_need(cfg, "n_routed_experts", 1, MAX_EXPERTS, &experts, e) < 0 ||
        ns_config_need(cfg, "num_experts_per_tok", 1, MAX_EXPERTS, &l->topk, e) < 0 ||
        ns_config_need(cfg, "moe_intermediate_size", 1, MAX_FFN, &l->width[NS_AXIS_EXPERT_FFN], e) < 0 ||
        ns_config_int(cfg, "moe_latent_size", 1, MAX_HIDDEN, 0, &s.latent_size, e) < 0 ||
        ns_config_int(cfg, "n_group", 1, MAX_EXPERTS, 1, &s.n_group, e) < 0 ||
        ns_config_int(cfg, "topk_group", 1, MAX_EXPERTS, 1, &s.topk_group, e) < 0 || parse_shared_expert(l, cfg, e) < 0)
        return -1;
    if (divides(experts, "n_routed_experts", s.n_group, "n_group", e) < 0)
        return -1;
    if (s.topk_group > s.n_group)
        return ns_fail(e, NS_EFORMAT, "key \"topk_group\": %d is over \"n_group\" = %d", s.topk_group, s.n_group);
    /* a group's score is the sum of its two best experts */
    if (s.n_group > 1 && experts / s.n_group < 2)
        return ns_fail(e, NS_EFORMAT, "key \"n_group\": %d groups leave under 2 of %d experts each", s.n_group, experts);
    if (l->topk > experts / s.n_group * s.topk_group)
        return ns_fail(e, NS_EFORMAT, "key \"num_experts_per_tok\": %d is over the %d experts to pick from", l->topk,
                       experts / s.n_group * s.topk_group);
    l->width[NS_AXIS_EXPERTS] = experts;
    if (same(first, &a->latent_size, s.latent_size, "moe_latent_size", e) < 0 ||
        same(first, &a->n_group, s.n_group, "n_group", e) < 0)
        return -1;
    return same(first, &a->topk_group, s.topk_group, "topk_group", e);
}

/* intermediate_size may be a list: one number for all, or one per dense layer (vLLM reads it so). `nth` counts dense layers. */
static int parse_mlp(const ns_arch *a, ns_layer *l, const json_t *cfg, int nth, ns_err *e)
{
    const json_t *list = json_object_get(cfg, "intermediate_size");
    size_t n = json_array_size(list), n_mlp = 0;
    if (!json_is_array(list))
        return ns_config_need(cfg, "intermediate_size", 1, MAX_FFN, &l->width[NS_AXIS_DENSE_FFN], e);
    for (int i = 0; i < a->n_layers; i++)
        n_mlp += a->layers[i].kind == NS_LAYER_MLP;
    const json_t *v = json_array_get(list, n == 1 ? 0 : (size_t)nth);
    if (n != 1 && n != n_mlp)
        return ns_fail(e, NS_EFORMAT, "key \"intermediate_size\": %zu entries for %zu dense layers", n, n_mlp);
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MAX_FFN)
        return ns_fail(e, NS_EFORMAT, "key \"intermediate_size\": entry %d is not an integer in 1..%d", nth, MAX_FFN);
    l->width[NS_AXIS_DENSE_FFN] = (int)json_integer_value(v);
    return 0;
}

static int parse_layer(ns_arch *a, int i, int nth, const json_t *cfg, ns_err *e)
{
    ns_layer *l = &a->layers[i];
    int hidden;
    /* block_configs may repeat the hidden size */
    if (ns_config_need(cfg, "hidden_size", 1, MAX_HIDDEN, &hidden, e) < 0 || ns_config_refuse_layer(cfg, e) < 0)
        return -1;
    if (hidden != a->hidden_size)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"hidden_size\": %d, but %d elsewhere", hidden, a->hidden_size);
    l->width[NS_AXIS_HIDDEN] = hidden;
    switch (l->kind) {
    case NS_LAYER_MAMBA:
        return parse_mamba(a, l, cfg, nth == 0, e);
    case NS_LAYER_ATTENTION:
        return parse_attention(a, l, cfg, nth == 0, e);
    case NS_LAYER_MOE:
        return parse_moe(a, l, cfg, nth == 0, e);
    default:
        return parse_mlp(a, l, cfg, nth, e);
    }
}

/* The config as layer i sees it: its block_configs entry over the rest. */
static json_t *layer_config(const json_t *text, int i, ns_err *e)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)text);
    if (copy && json_object_update(copy, (json_t *)(uintptr_t)ns_config_block(text, i)) == 0)
        return copy;
    json_decref(copy);
    ns_fail(e, NS_ENOMEM, "out of memory");
    return NULL;
}

static int parse_layers(ns_arch *a, const json_t *text, ns_err *e)
{
    char *kinds;
    int seen[256] = { 0 };
    if (ns_config_kinds(text, &a->arena, &kinds, &a->n_layers, e) < 0)
        return -1;
    a->layers = ns_arena_array(&a->arena, (size_t)a->n_layers, sizeof *a->layers);
    if (!a->layers)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    for (int i = 0; i < a->n_layers; i++)
        a->layers[i].kind = kinds[i];
    for (int i = 0; i < a->n_layers; i++) {
        int nth = seen[(unsigned char)kinds[i]]++, rc;
        if (!ns_config_block(text, i)) {
            rc = parse_layer(a, i, nth, text, e);
        } else {
            json_t *cfg = layer_config(text, i, e);
            rc = cfg && parse_layer(a, i, nth, cfg, e) == 0 ? 0 : ns_err_wrap(e, "block_configs, layer %d", i);
            json_decref(cfg);
        }
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* ---- the whole model ---- */

/* Numbers that Python's json would write as Infinity: bare (ns_json_parse reads 1.797e308), huge, or transformers' marker object. */
static int limit_value(const json_t *v, double *out, ns_err *e)
{
    const json_t *mark = json_object_get(v, "__float__");
    if (json_is_number(v)) {
        double x = json_number_value(v);
        *out = x >= 1e300 ? (double)INFINITY : x;
        return 0;
    }
    if (json_is_string(mark) && strcmp(json_string_value(mark), "Infinity") == 0) {
        *out = (double)INFINITY;
        return 0;
    }
    return ns_fail(e, NS_EFORMAT, "key \"time_step_limit\": expected two numbers");
}

/* Only time_step_limit clamps dt. time_step_min, _max and _floor belong to the initialisation of dt_bias. */
static int parse_dt_limit(ns_arch *a, const json_t *text, ns_err *e)
{
    const json_t *v = json_object_get(text, ns_config_key(text, "time_step_limit"));
    a->dt_min = 0;
    a->dt_max = (double)INFINITY;
    if (!v || json_is_null(v))
        return 0;
    if (json_array_size(v) != 2)
        return ns_fail(e, NS_EFORMAT, "key \"time_step_limit\": expected two numbers");
    if (limit_value(json_array_get(v, 0), &a->dt_min, e) < 0 || limit_value(json_array_get(v, 1), &a->dt_max, e) < 0)
        return -1;
    if (!(a->dt_min >= 0 && a->dt_min <= a->dt_max && isfinite(a->dt_min)))
        return ns_fail(e, NS_EFORMAT, "key \"time_step_limit\": [%g, %g] is not a range", a->dt_min, a->dt_max);
    return 0;
}

static int parse_eos(ns_arch *a, const json_t *text, ns_err *e)
{
    const json_t *v = json_object_get(text, "eos_token_id");
    const size_t cap = sizeof a->eos_ids / sizeof *a->eos_ids;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (!v || json_is_null(v))
        return 0;
    if (n > cap)
        return ns_fail(e, NS_EFORMAT, "key \"eos_token_id\": %zu ids, at most %zu", n, cap);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= a->vocab_size)
            return ns_fail(e, NS_EFORMAT, "key \"eos_token_id\": expected token ids under %d", a->vocab_size);
        a->eos_ids[a->n_eos++] = (int)json_integer_value(id);
    }
    return 0;
}

static int parse_model(ns_arch *a, const json_t *text, ns_err *e)
{
    if (ns_config_need(text, "hidden_size", 1, MAX_HIDDEN, &a->hidden_size, e) < 0 ||
        ns_config_need(text, "vocab_size", 1, MAX_VOCAB, &a->vocab_size, e) < 0 ||
        ns_config_int(text, "max_position_embeddings", 1, INT_MAX, 4096, &a->max_position, e) < 0 ||
        ns_config_real(text, "layer_norm_epsilon", 0, 1, 1e-5, &a->norm_eps, e) < 0 ||
        ns_config_real(text, "routed_scaling_factor", -1e6, 1e6, 1, &a->routed_scaling, e) < 0 ||
        ns_config_bool(text, "norm_topk_prob", true, &a->norm_topk, e) < 0 ||
        ns_config_bool(text, "tie_word_embeddings", false, &a->tie_embeddings, e) < 0 ||
        ns_config_bool(text, "use_bias", false, &a->mamba_bias, e) < 0 ||
        ns_config_bool(text, "use_conv_bias", true, &a->conv_bias, e) < 0 ||
        ns_config_bool(text, "attention_bias", false, &a->attention_bias, e) < 0 ||
        ns_config_bool(text, "mlp_bias", false, &a->mlp_bias, e) < 0 ||
        ns_config_int(text, "bos_token_id", -1, MAX_VOCAB, -1, &a->bos_id, e) < 0 ||
        ns_config_int(text, "pad_token_id", -1, MAX_VOCAB, -1, &a->pad_id, e) < 0)
        return -1;
    a->gated_norm_eps = a->norm_eps; /* transformers builds both norms with layer_norm_epsilon */
    return parse_dt_limit(a, text, e) < 0 ? -1 : parse_eos(a, text, e);
}

static bool differ(const ns_arch *a)
{
    const ns_layer *first[256] = { 0 };
    for (int i = 0; i < a->n_layers; i++) {
        const ns_layer *l = &a->layers[i], **f = &first[(unsigned char)l->kind];
        if (*f && (memcmp((*f)->width, l->width, sizeof l->width) != 0 || (*f)->topk != l->topk))
            return true;
        *f = l;
    }
    return false;
}

/* The whole is a size that 64-bit counts of bytes and operations can hold. */
static int check_total(const ns_arch *a, ns_err *e)
{
    double total = 0;
    for (int i = -1; i < a->n_layers; i++)
        for (int r = 0; r < NS_W_COUNT; r++) {
            const ns_weight_def *w = ns_weight_get((ns_role)r);
            if (!ns_weight_exists(a, i, (ns_role)r))
                continue;
            double size = w->per_expert ? a->layers[i].width[NS_AXIS_EXPERTS] : 1;
            for (int d = 0; d < w->n_dims; d++) {
                ns_dim dim = ns_arch_dim(a, i, w->dim[d]);
                size *= ns_dim_size(&dim);
            }
            total += size;
        }
    if (total > 0x1p48)
        return ns_fail(e, NS_EFORMAT, "the dims make %.3g parameters: beyond any model", total);
    return 0;
}

ns_arch *ns_arch_parse(const json_t *cfg, const char *what, ns_err *e)
{
    const json_t *text = ns_config_text(cfg);
    ns_arch *a = calloc(1, sizeof *a);
    if (!a) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        goto fail;
    }
    /* what no layer states stays at a number that is safe to divide by */
    a->n_groups = a->n_kv_heads = a->head_dim = a->n_group = a->topk_group = a->chunk_size = 1;
    a->conv_kernel = 2;
    if (!json_is_object(cfg)) {
        ns_fail(e, NS_EFORMAT, "expected an object");
        goto fail;
    }
    if (ns_config_refuse(text, e) < 0 || parse_model(a, text, e) < 0 || parse_layers(a, text, e) < 0 || check_total(a, e) < 0)
        goto fail;
    a->per_layer = differ(a);
    a->config = json_deep_copy(cfg);
    if (!a->config) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        goto fail;
    }
    return a;
fail:
    ns_err_wrap(e, "%s", what);
    ns_arch_free(a);
    return NULL;
}

ns_arch *ns_arch_open(const char *config_path, ns_err *e)
{
    json_t *cfg = ns_json_open(config_path, true, e);
    ns_arch *a = cfg ? ns_arch_parse(cfg, config_path, e) : NULL;
    json_decref(cfg);
    return a;
}

void ns_arch_free(ns_arch *a)
{
    if (!a)
        return;
    json_decref(a->config);
    ns_arena_release(&a->arena);
    free(a);
}
