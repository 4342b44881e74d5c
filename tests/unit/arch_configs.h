/* Configs for the tests of arch and nest: the published 30B one, and random small ones. */
#ifndef NS_TESTS_ARCH_CONFIGS_H
#define NS_TESTS_ARCH_CONFIGS_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "base/rng.h"

static const char nano_30b[] =
    "{\"attention_bias\":false,\"bos_token_id\":1,\"chunk_size\":128,\"conv_kernel\":4,\"eos_token_id\":2,\"head_dim\":128,"
    "\"hidden_size\":2688,\"hybrid_override_pattern\":\"MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME\","
    "\"intermediate_size\":1856,\"layer_norm_epsilon\":1e-05,\"mamba_head_dim\":64,\"mamba_hidden_act\":\"silu\","
    "\"mamba_num_heads\":64,\"max_position_embeddings\":262144,\"mlp_bias\":false,\"mlp_hidden_act\":\"relu2\","
    "\"model_type\":\"nemotron_h\",\"moe_intermediate_size\":1856,\"moe_shared_expert_intermediate_size\":3712,\"n_group\":1,"
    "\"n_groups\":8,\"n_routed_experts\":128,\"n_shared_experts\":1,\"norm_topk_prob\":true,\"num_attention_heads\":32,"
    "\"num_experts_per_tok\":6,\"num_hidden_layers\":52,\"num_key_value_heads\":2,\"pad_token_id\":0,"
    "\"routed_scaling_factor\":2.5,\"sliding_window\":null,\"ssm_state_size\":128,\"tie_word_embeddings\":false,"
    "\"time_step_min\":0.001,\"topk_group\":1,\"use_bias\":false,\"use_conv_bias\":true,\"vocab_size\":131072}";

static inline json_t *json_of(const char *text)
{
    ns_err e = { 0 };
    json_t *v = ns_json_parse(text, strlen(text), true, "test", &e);
    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static inline ns_arch *arch_of_json(const json_t *cfg)
{
    ns_err e = { 0 };
    ns_arch *a = ns_arch_parse(cfg, "test", &e);
    if (!a)
        fail_msg("%s", e.msg);
    return a;
}

static inline ns_arch *arch_of(const char *text)
{
    json_t *v = json_of(text);
    ns_arch *a = arch_of_json(v);
    json_decref(v);
    return a;
}

/* An integer in lo..hi. */
static inline int pick(ns_rng *r, int lo, int hi)
{
    return lo + (int)(ns_rng_u64(r) % (uint64_t)(hi - lo + 1));
}

/* A small random config; widths are multiples of `unit`. */
static inline json_t *random_config(ns_rng *r, int unit)
{
    static const char kinds[] = "ME*-";
    char pattern[16] = { 0 };
    int n = pick(r, 1, 12), groups = pick(r, 1, 3), kv = pick(r, 1, 3), n_group = pick(r, 0, 3) ? 1 : pick(r, 2, 3);
    int experts = n_group * pick(r, 2, 4), topk_group = pick(r, 1, n_group);
    for (int i = 0; i < n; i++)
        pattern[i] = kinds[pick(r, 0, 3)];
    json_t *cfg = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "nemotron_h",
                            "hybrid_override_pattern", pattern, "num_hidden_layers", n, "hidden_size", unit * pick(r, 1, 5),
                            "vocab_size", pick(r, 2, 50), "n_groups", groups, "mamba_num_heads", groups * pick(r, 1, 4),
                            "mamba_head_dim", unit * pick(r, 1, 3), "ssm_state_size", pick(r, 1, 9), "conv_kernel", pick(r, 2, 5),
                            "head_dim", unit * pick(r, 1, 2));
    json_t *more = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:b, s:b}", "num_key_value_heads", kv,
                             "num_attention_heads", kv * pick(r, 1, 4), "n_group", n_group, "topk_group", topk_group,
                             "n_routed_experts", experts, "num_experts_per_tok", pick(r, 1, experts / n_group * topk_group),
                             "moe_intermediate_size", unit * pick(r, 1, 5), "moe_shared_expert_intermediate_size",
                             unit * pick(r, 1, 5), "intermediate_size", unit * pick(r, 1, 5), "tie_word_embeddings",
                             pick(r, 0, 1), "use_bias", pick(r, 0, 1), "mlp_bias", pick(r, 0, 1), "attention_bias", pick(r, 0, 1),
                             "use_conv_bias", pick(r, 0, 1));
    json_object_update(cfg, more);
    json_decref(more);
    if (pick(r, 0, 2) == 0)
        json_object_set_new(cfg, "moe_latent_size", json_integer(unit * pick(r, 1, 3)));
    if (pick(r, 0, 3) == 0)
        json_object_set_new(cfg, "n_shared_experts", json_integer(0));
    return cfg;
}
#endif
