#include "arch/config.h"

#include <string.h>

#include "arch/arch.h"

static const struct { const char *key, *other; bool other_wins; } aliases[] = {
    /* legacy names of transformers' NemotronHConfig: they override the modern ones */
    { "n_groups", "mamba_n_groups", true },
    { "conv_kernel", "mamba_d_conv", true },
    { "chunk_size", "mamba_chunk_size", true },
    { "use_conv_bias", "mamba_conv_bias", true },
    { "time_step_limit", "mamba_dt_limit", true },
    /* names that older or other writers use instead */
    { "head_dim", "attention_head_dim", false },
    { "n_routed_experts", "num_local_experts", false },
    { "layers_block_type", "layer_types", false },
    { "layer_norm_epsilon", "norm_eps", false },
    { "layer_norm_epsilon", "rms_norm_eps", false },
};

static bool is_set(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

const json_t *ns_config_text(const json_t *cfg)
{
    static const char *const nests[] = { "text_config", "llm_config" };
    for (size_t i = 0; i < sizeof nests / sizeof *nests; i++) {
        const json_t *t = json_object_get(cfg, nests[i]);
        if (json_is_object(t))
            return t;
    }
    return cfg;
}

const char *ns_config_key(const json_t *text, const char *key)
{
    bool own = is_set(text, key);
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcmp(aliases[i].key, key) == 0 && (aliases[i].other_wins || !own) && is_set(text, aliases[i].other))
            return aliases[i].other;
    return key;
}

int ns_config_int(const json_t *text, const char *key, int lo, int hi, int dflt, int *out, ns_err *e)
{
    int64_t v;
    if (ns_json_int(text, ns_config_key(text, key), lo, hi, dflt, &v, e) < 0)
        return -1;
    *out = (int)v;
    return 0;
}

int ns_config_need(const json_t *text, const char *key, int lo, int hi, int *out, ns_err *e)
{
    if (!is_set(text, ns_config_key(text, key)))
        return ns_fail(e, NS_EFORMAT, "key \"%s\" is missing", key);
    return ns_config_int(text, key, lo, hi, lo, out, e);
}

int ns_config_real(const json_t *text, const char *key, double lo, double hi, double dflt, double *out, ns_err *e)
{
    const char *k = ns_config_key(text, key);
    if (ns_json_real(text, k, dflt, out, e) < 0)
        return -1;
    if (!(*out >= lo && *out <= hi))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": %g is outside %g..%g", k, *out, lo, hi);
    return 0;
}

int ns_config_bool(const json_t *text, const char *key, bool dflt, bool *out, ns_err *e)
{
    return ns_json_bool(text, ns_config_key(text, key), dflt, out, e);
}

/* ---- settings that are not computed here ---- */

static int only(const json_t *obj, const char *key, const char *value, ns_err *e)
{
    const char *s;
    if (ns_json_str(obj, key, value, &s, e) < 0)
        return -1;
    if (strcmp(s, value) != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"%s\": \"%.60s\" is not supported, only \"%s\"", key, s, value);
    return 0;
}

/* Absent, null, false and 0 are "off". */
static int off(const json_t *obj, const char *key, ns_err *e)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0))
        return 0;
    return ns_fail(e, NS_EUNSUPPORTED, "key \"%s\" is set: this engine has no such feature", key);
}

static int unity(const json_t *obj, const char *key, ns_err *e)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v) || (json_is_number(v) && json_number_value(v) == 1))
        return 0;
    return ns_fail(e, NS_EUNSUPPORTED, "key \"%s\": only 1 is supported", key);
}

int ns_config_refuse_layer(const json_t *layer, ns_err *e)
{
    static const char *const offs[] = {
        "sliding_window", "use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm", "attention_sinks", "attention_chunk_size",
        "attn_logit_softcapping", "norm_before_gate", "mamba_norm_before_gate",
    };
    for (size_t i = 0; i < sizeof offs / sizeof *offs; i++)
        if (off(layer, offs[i], e) < 0)
            return -1;
    if (only(layer, "scoring_func", "sigmoid", e) < 0 || only(layer, "topk_method", "noaux_tc", e) < 0)
        return -1;
    return only(layer, "mlp_hidden_act", "relu2", e) < 0 ? -1 : only(layer, "mamba_hidden_act", "silu", e);
}

int ns_config_refuse(const json_t *text, ns_err *e)
{
    static const char *const ones[] = {
        "embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling", "lm_head_multiplier",
    };
    const char *type;
    if (ns_json_str(text, "model_type", "", &type, e) < 0)
        return -1;
    if (strcmp(type, "nemotron_h") != 0 && strcmp(type, "nemotron_h_puzzle") != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"model_type\": \"%.60s\" is not supported, only \"nemotron_h\" and "
                       "\"nemotron_h_puzzle\"", type);
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        if (unity(text, ones[i], e) < 0)
            return -1;
    if (off(text, "final_logit_softcapping", e) < 0 || off(text, "logits_soft_cap", e) < 0)
        return -1;
    return ns_config_refuse_layer(text, e);
}

/* ---- layer kinds ---- */

static const struct { const char *name; char kind; } kind_names[] = {
    { "mamba", NS_LAYER_MAMBA },         { "linear_attention", NS_LAYER_MAMBA },
    { "attention", NS_LAYER_ATTENTION }, { "full_attention", NS_LAYER_ATTENTION },
    { "moe", NS_LAYER_MOE },             { "mlp", NS_LAYER_MLP },
};

char ns_config_kind_of(const char *block_type)
{
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++)
        if (strcmp(kind_names[i].name, block_type) == 0)
            return kind_names[i].kind;
    return 0;
}

const char *ns_config_kind_name(char kind)
{
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++)
        if (kind_names[i].kind == kind)
            return kind_names[i].name;
    return "?";
}

const json_t *ns_config_block(const json_t *text, int i)
{
    return json_array_get(json_object_get(text, "block_configs"), (size_t)i);
}

/* One source of kinds; `out` holds NS_MAX_LAYERS + 1 and is left empty where the key is missing. */
static int kinds_of_pattern(const json_t *text, char *out, ns_err *e)
{
    const char *p;
    int n = 0;
    if (ns_json_str(text, "hybrid_override_pattern", "", &p, e) < 0)
        return -1;
    for (; *p; p++) {
        if (*p == '|') /* Megatron's pipeline separator */
            continue;
        if (!strchr("ME*-", *p))
            return ns_fail(e, NS_EFORMAT, "key \"hybrid_override_pattern\": unknown layer character '%c' (0x%02x)",
                           *p >= ' ' && *p <= '~' ? *p : '?', (unsigned char)*p);
        if (n == NS_MAX_LAYERS)
            return ns_fail(e, NS_EFORMAT, "key \"hybrid_override_pattern\": over %d layers", NS_MAX_LAYERS);
        out[n++] = *p;
    }
    out[n] = 0;
    return 0;
}

/* `member`: NULL for a list of strings, else the string is that member of each entry. */
static int kinds_of_list(const json_t *text, const char *key, const char *member, char *out, ns_err *e)
{
    const json_t *list = json_object_get(text, key);
    size_t n = json_array_size(list);
    out[0] = 0;
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected a list", key);
    if (n > NS_MAX_LAYERS)
        return ns_fail(e, NS_EFORMAT, "key \"%s\": over %d layers", key, NS_MAX_LAYERS);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const char *s = json_string_value(member ? json_object_get(v, member) : v);
        if (!s)
            return ns_fail(e, NS_EFORMAT, "key \"%s\": entry %zu has no layer type", key, i);
        out[i] = ns_config_kind_of(s);
        if (!out[i])
            return ns_fail(e, NS_EFORMAT, "key \"%s\": entry %zu: unknown layer type \"%.60s\"", key, i, s);
    }
    out[n] = 0;
    return 0;
}

int ns_config_kinds(const json_t *text, ns_arena *arena, char **kinds, int *n, ns_err *e)
{
    const char *keys[3] = { "block_configs", ns_config_key(text, "layers_block_type"), "hybrid_override_pattern" };
    char got[3][NS_MAX_LAYERS + 1];
    int pick = -1, stated;
    if (kinds_of_list(text, keys[0], "block_type", got[0], e) < 0 || kinds_of_list(text, keys[1], NULL, got[1], e) < 0 ||
        kinds_of_pattern(text, got[2], e) < 0)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (!got[i][0])
            continue;
        if (pick >= 0 && strcmp(got[pick], got[i]) != 0)
            return ns_fail(e, NS_EFORMAT, "keys \"%s\" and \"%s\" describe different layers", keys[pick], keys[i]);
        pick = pick < 0 ? i : pick;
    }
    if (pick < 0)
        return ns_fail(e, NS_EFORMAT, "no layers: key \"hybrid_override_pattern\" (or \"layers_block_type\") is missing");
    *n = (int)strlen(got[pick]);
    if (ns_config_int(text, "num_hidden_layers", 1, NS_MAX_LAYERS, *n, &stated, e) < 0)
        return -1;
    if (stated != *n)
        return ns_fail(e, NS_EFORMAT, "key \"num_hidden_layers\": %d, but \"%s\" has %d layers", stated, keys[pick], *n);
    *kinds = ns_arena_strdup(arena, got[pick]);
    return *kinds ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
}
