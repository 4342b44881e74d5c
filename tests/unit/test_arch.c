/* config.json and the manifest. */
#include "arch_configs.h"

#include <dirent.h>
#include <math.h>

#include "arch/glob.h"
#include "arch/manifest.h"

static void nano_fields(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    assert_int_equal(a->n_layers, 52);
    assert_int_equal(a->hidden_size, 2688);
    assert_int_equal(a->vocab_size, 131072);
    assert_int_equal(a->max_position, 262144);
    assert_int_equal(a->n_groups, 8);
    assert_int_equal(a->conv_kernel, 4);
    assert_int_equal(a->chunk_size, 128);
    assert_int_equal(a->n_kv_heads, 2);
    assert_int_equal(a->head_dim, 128);
    assert_int_equal(a->n_group, 1);
    assert_int_equal(a->latent_size, 0);
    assert_true(a->norm_eps == 1e-5 && a->gated_norm_eps == 1e-5 && a->routed_scaling == 2.5);
    assert_true(a->dt_min == 0 && isinf(a->dt_max));
    assert_true(a->norm_topk && a->conv_bias && !a->mamba_bias && !a->attention_bias && !a->mlp_bias && !a->tie_embeddings);
    assert_int_equal(a->bos_id, 1);
    assert_int_equal(a->pad_id, 0);
    assert_int_equal(a->n_eos, 1);
    assert_int_equal(a->eos_ids[0], 2);
    assert_false(a->per_layer);
    const ns_layer *m = &a->layers[0], *x = &a->layers[1], *t = &a->layers[5];
    assert_int_equal(m->kind, NS_LAYER_MAMBA);
    assert_int_equal(m->width[NS_AXIS_MAMBA_HEADS], 64);
    assert_int_equal(m->width[NS_AXIS_SSM_STATE], 128);
    assert_int_equal(m->width[NS_AXIS_EXPERTS], 0);
    assert_int_equal(x->kind, NS_LAYER_MOE);
    assert_int_equal(x->topk, 6);
    assert_int_equal(x->width[NS_AXIS_SHARED_FFN], 3712);
    assert_int_equal(x->width[NS_AXIS_HIDDEN], 2688);
    assert_int_equal(t->kind, NS_LAYER_ATTENTION);
    assert_int_equal(t->width[NS_AXIS_ATTN_HEADS], 32);
    ns_arch_free(a);
    ns_arch_free(NULL);
}

/* The 30B config with some keys replaced; a value of "-" removes the key. */
static json_t *edited(const char *edits)
{
    json_t *cfg = json_of(nano_30b), *changes = json_of(edits), *v;
    const char *key;
    json_object_foreach(changes, key, v) {
        if (json_is_string(v) && strcmp(json_string_value(v), "-") == 0)
            json_object_del(cfg, key);
        else
            json_object_set(cfg, key, v);
    }
    json_decref(changes);
    return cfg;
}

static ns_arch *arch_edited(const char *edits)
{
    json_t *cfg = edited(edits);
    ns_arch *a = arch_of_json(cfg);
    json_decref(cfg);
    return a;
}

static void refused(const char *edits, const char *expect)
{
    ns_err e = { 0 };
    json_t *cfg = edited(edits);
    ns_arch *a = ns_arch_parse(cfg, "C", &e);
    if (a)
        fail_msg("accepted: %s", edits);
    if (!strstr(e.msg, expect) || strncmp(e.msg, "C: ", 3) != 0)
        fail_msg("%s: \"%s\" does not mention %s", edits, e.msg, expect);
    json_decref(cfg);
}

static void refusals(void **state)
{
    static const struct { const char *edits, *expect; } cases[] = {
        { "{\"model_type\":\"llama\"}", "\"model_type\": \"llama\"" },
        { "{\"model_type\":\"-\"}", "model_type" },
        { "{\"mlp_hidden_act\":\"silu\"}", "mlp_hidden_act" },
        { "{\"mamba_hidden_act\":\"gelu\"}", "mamba_hidden_act" },
        { "{\"sliding_window\":4096}", "sliding_window" },
        { "{\"use_qk_norm\":true}", "use_qk_norm" },
        { "{\"final_logit_softcapping\":30.0}", "final_logit_softcapping" },
        { "{\"embedding_multiplier\":12}", "embedding_multiplier" },
        { "{\"scoring_func\":\"softmax\"}", "scoring_func" },
        { "{\"hidden_size\":-1}", "hidden_size" },
        { "{\"hidden_size\":0}", "hidden_size" },
        { "{\"hidden_size\":99999999999}", "hidden_size" },
        { "{\"hidden_size\":2688.0}", "hidden_size" },
        { "{\"hidden_size\":\"-\"}", "hidden_size" },
        { "{\"vocab_size\":\"-\"}", "vocab_size" },
        { "{\"mamba_num_heads\":63}", "mamba_num_heads" },
        { "{\"n_groups\":0}", "n_groups" },
        { "{\"num_attention_heads\":33}", "num_attention_heads" },
        { "{\"num_key_value_heads\":\"-\"}", "num_key_value_heads" },
        { "{\"num_experts_per_tok\":129}", "num_experts_per_tok" },
        { "{\"n_group\":3}", "n_routed_experts" },
        { "{\"n_group\":128}", "n_group" },
        { "{\"topk_group\":2}", "topk_group" },
        { "{\"n_group\":64,\"topk_group\":2}", "num_experts_per_tok" },
        { "{\"n_shared_experts\":2}", "n_shared_experts" },
        { "{\"moe_shared_expert_intermediate_size\":\"-\"}", "moe_shared_expert_intermediate_size" },
        { "{\"num_hidden_layers\":51}", "num_hidden_layers" },
        { "{\"hybrid_override_pattern\":\"-\",\"num_hidden_layers\":null}", "hybrid_override_pattern" },
        { "{\"hybrid_override_pattern\":\"MEX\"}", "hybrid_override_pattern" },
        { "{\"hybrid_override_pattern\":7}", "hybrid_override_pattern" },
        { "{\"layers_block_type\":[\"mamba\"]}", "layers_block_type" },
        { "{\"layers_block_type\":[\"rwkv\"]}", "rwkv" },
        { "{\"layers_block_type\":{}}", "layers_block_type" },
        { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", "eos_token_id" },
        { "{\"eos_token_id\":\"x\"}", "eos_token_id" },
        { "{\"eos_token_id\":131072}", "eos_token_id" },
        { "{\"time_step_limit\":[0.0]}", "time_step_limit" },
        { "{\"time_step_limit\":[1.0,0.5]}", "time_step_limit" },
        { "{\"time_step_limit\":[Infinity,Infinity]}", "time_step_limit" },
        { "{\"layer_norm_epsilon\":-1e-5}", "layer_norm_epsilon" },
        { "{\"conv_kernel\":1}", "conv_kernel" },
        { "{\"mamba_d_conv\":1000}", "mamba_d_conv" },
        { "{\"tie_word_embeddings\":1}", "tie_word_embeddings" },
        { "{\"moe_intermediate_size\":4194304,\"n_routed_experts\":4096,\"hidden_size\":131072}", "parameters" },
        { "{\"hybrid_override_pattern\":\"--\",\"num_hidden_layers\":2,\"intermediate_size\":[1,2,3]}", "intermediate_size" },
        { "{\"hybrid_override_pattern\":\"--\",\"num_hidden_layers\":2,\"intermediate_size\":[1,0]}", "intermediate_size" },
        { "{\"hybrid_override_pattern\":\"M\",\"num_hidden_layers\":1,\"block_configs\":[{}]}", "block_configs" },
        { "{\"hybrid_override_pattern\":\"M\",\"num_hidden_layers\":1,\"block_configs\":[{\"block_type\":\"moe\"}]}", "block_configs" },
        { "{\"hybrid_override_pattern\":\"MM\",\"num_hidden_layers\":2,\"block_configs\":[{\"block_type\":\"mamba\"},"
          "{\"block_type\":\"mamba\",\"n_groups\":4}]}", "layer 1: key \"n_groups\"" },
        { "{\"hybrid_override_pattern\":\"*\",\"num_hidden_layers\":1,\"block_configs\":[{\"block_type\":\"attention\","
          "\"sliding_window\":512}]}", "sliding_window" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(cases[i].edits, cases[i].expect);
    ns_err e = { 0 };
    json_t *list = json_array();
    assert_null(ns_arch_parse(list, "C", &e));
    json_decref(list);
}

static void layer_lists(void **state)
{
    (void)state;
    ns_arch *a = arch_edited("{\"hybrid_override_pattern\":\"M|E*|-\",\"num_hidden_layers\":4}");
    ns_arch *b = arch_edited("{\"hybrid_override_pattern\":\"-\",\"num_hidden_layers\":null,"
                             "\"layers_block_type\":[\"mamba\",\"moe\",\"attention\",\"mlp\"]}");
    ns_arch *c = arch_edited("{\"hybrid_override_pattern\":\"ME*-\",\"num_hidden_layers\":4,"
                             "\"layers_block_type\":[\"linear_attention\",\"moe\",\"full_attention\",\"mlp\"]}");
    const ns_arch *all[] = { a, b, c };
    for (int k = 0; k < 3; k++) {
        assert_int_equal(all[k]->n_layers, 4);
        for (int i = 0; i < 4; i++)
            assert_int_equal(all[k]->layers[i].kind, "ME*-"[i]);
        assert_int_equal(all[k]->layers[3].width[NS_AXIS_DENSE_FFN], 1856);
    }
    ns_arch_free(a);
    ns_arch_free(b);
    ns_arch_free(c);
}

static void aliases(void **state)
{
    (void)state;
    /* the legacy name wins, the others only stand in */
    ns_arch *a = arch_edited("{\"mamba_n_groups\":4,\"mamba_d_conv\":3,\"mamba_chunk_size\":64,\"mamba_conv_bias\":false,"
                             "\"mamba_dt_limit\":[0.5,2.0],\"time_step_limit\":[0.0,1.0],\"attention_head_dim\":64,"
                             "\"norm_eps\":0.5,\"rms_norm_eps\":0.25}");
    assert_int_equal(a->n_groups, 4);
    assert_int_equal(a->conv_kernel, 3);
    assert_int_equal(a->chunk_size, 64);
    assert_false(a->conv_bias);
    assert_true(a->dt_min == 0.5 && a->dt_max == 2.0);
    assert_int_equal(a->head_dim, 128);
    assert_true(a->norm_eps == 1e-5);
    ns_arch_free(a);
    a = arch_edited("{\"head_dim\":\"-\",\"attention_head_dim\":64,\"layer_norm_epsilon\":null,\"norm_eps\":0.5,\"rms_norm_eps\":0.25,"
                    "\"n_routed_experts\":\"-\",\"num_local_experts\":32,\"mamba_n_groups\":null,\"num_key_value_heads\":null}");
    assert_int_equal(a->head_dim, 64);
    assert_true(a->norm_eps == 0.5 && a->gated_norm_eps == 0.5);
    assert_int_equal(a->layers[1].width[NS_AXIS_EXPERTS], 32);
    assert_int_equal(a->n_groups, 8);
    assert_int_equal(a->n_kv_heads, 32);
    ns_arch_free(a);
}

static void dt_limits(void **state)
{
    static const struct { const char *edits; double lo, hi; } cases[] = {
        { "{\"time_step_limit\":[0.0,Infinity]}", 0, INFINITY },
        { "{\"time_step_limit\":[0.0,1e308]}", 0, INFINITY },
        { "{\"time_step_limit\":[0,{\"__float__\":\"Infinity\"}]}", 0, INFINITY },
        { "{\"time_step_limit\":[0.0,1e30]}", 0, 1e30 },
        { "{\"time_step_limit\":null}", 0, INFINITY },
        { "{\"time_step_min\":0.5,\"time_step_max\":0.6}", 0, INFINITY },
        { "{\"time_step_limit\":[0.001,0.1]}", 0.001, 0.1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_arch *a = arch_edited(cases[i].edits);
        assert_true(a->dt_min == cases[i].lo && a->dt_max == cases[i].hi);
        ns_arch_free(a);
    }
}

static void variety(void **state)
{
    (void)state;
    ns_arch *a = arch_edited("{\"eos_token_id\":[2,11],\"bos_token_id\":null,\"pad_token_id\":-1,\"n_shared_experts\":0,"
                             "\"moe_latent_size\":1024,\"n_group\":4,\"topk_group\":2,\"tie_word_embeddings\":true}");
    assert_int_equal(a->n_eos, 2);
    assert_int_equal(a->eos_ids[1], 11);
    assert_int_equal(a->bos_id, -1);
    assert_int_equal(a->pad_id, -1);
    assert_int_equal(a->layers[1].width[NS_AXIS_SHARED_FFN], 0);
    assert_false(ns_weight_exists(a, 1, NS_W_SHARED_UP));
    assert_true(ns_weight_exists(a, 1, NS_W_LATENT_IN));
    assert_false(ns_weight_exists(a, -1, NS_W_LM_HEAD));
    assert_int_equal(a->latent_size, 1024);
    ns_arch_free(a);

    a = arch_edited("{\"hybrid_override_pattern\":\"-M-\",\"num_hidden_layers\":3,\"intermediate_size\":[100,200]}");
    assert_int_equal(a->layers[0].width[NS_AXIS_DENSE_FFN], 100);
    assert_int_equal(a->layers[2].width[NS_AXIS_DENSE_FFN], 200);
    assert_true(a->per_layer);
    ns_arch_free(a);
    a = arch_edited("{\"hybrid_override_pattern\":\"-M-\",\"num_hidden_layers\":3,\"intermediate_size\":[100]}");
    assert_int_equal(a->layers[2].width[NS_AXIS_DENSE_FFN], 100);
    assert_false(a->per_layer);
    ns_arch_free(a);

    json_t *nest = json_pack("{s:s, s:o}", "model_type", "nemotron_vl", "text_config", json_of(nano_30b));
    a = arch_of_json(nest);
    assert_int_equal(a->n_layers, 52);
    assert_string_equal(json_string_value(json_object_get(a->config, "model_type")), "nemotron_vl");
    ns_arch_free(a);
    json_decref(nest);
}

/* As NVIDIA's Puzzle-75B writes it: the dims stand in the blocks only. */
static void puzzle(void **state)
{
    (void)state;
    ns_arch *a = arch_edited(
        "{\"model_type\":\"nemotron_h_puzzle\",\"hybrid_override_pattern\":\"-\",\"num_hidden_layers\":\"-\","
        "\"n_routed_experts\":\"-\",\"moe_intermediate_size\":\"-\",\"num_experts_per_tok\":\"-\",\"moe_latent_size\":\"-\","
        "\"block_configs\":[{\"block_type\":\"mamba\",\"ssm_state_size\":96},"
        "{\"block_type\":\"moe\",\"n_routed_experts\":512,\"num_experts_per_tok\":4,\"moe_intermediate_size\":1280,\"moe_latent_size\":1024},"
        "{\"block_type\":\"moe\",\"n_routed_experts\":512,\"num_experts_per_tok\":18,\"moe_intermediate_size\":2816,\"moe_latent_size\":1024},"
        "{\"block_type\":\"attention\",\"sliding_window\":null}]}");
    assert_int_equal(a->n_layers, 4);
    assert_true(a->per_layer);
    assert_int_equal(a->layers[0].width[NS_AXIS_SSM_STATE], 96);
    assert_int_equal(a->layers[1].width[NS_AXIS_EXPERT_FFN], 1280);
    assert_int_equal(a->layers[1].topk, 4);
    assert_int_equal(a->layers[2].width[NS_AXIS_EXPERT_FFN], 2816);
    assert_int_equal(a->layers[2].topk, 18);
    assert_int_equal(a->latent_size, 1024);
    ns_arch_free(a);
}

/* ---- the manifest ---- */

typedef struct count {
    const ns_arch *a;
    int n, stop_at;
    int64_t params, bytes;
} count;

static int count_weight(void *ctx, int layer, ns_role r, int expert)
{
    count *c = ctx;
    const ns_weight_def *w = ns_weight_get(r);
    int64_t size = 1;
    (void)expert;
    for (int d = 0; d < w->n_dims; d++) {
        ns_dim dim = ns_arch_dim(c->a, layer, w->dim[d]);
        size *= ns_dim_size(&dim);
    }
    c->n++;
    c->params += size;
    c->bytes += size * (r == NS_W_GATE_CORRECTION ? 4 : 2);
    return c->stop_at && c->n == c->stop_at ? 42 : 0;
}

/* The published index: 6243 tensors, total_size 63155886464 (correction biases F32, the rest BF16). */
static void published_index(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    count c = { .a = a };
    assert_int_equal(ns_manifest_each(a, count_weight, &c), 0);
    assert_int_equal(c.n, 6243);
    assert_true(c.params == 31577940288);
    assert_true(c.bytes == 63155886464);
    c = (count){ .a = a, .stop_at = 100 };
    assert_int_equal(ns_manifest_each(a, count_weight, &c), 42);
    assert_int_equal(c.n, 100);
    ns_arch_free(a);
}

static int append_name(void *ctx, int layer, ns_role r, int expert)
{
    char name[128], (*list)[128] = ctx;
    ns_weight_name(layer, r, expert, name, sizeof name);
    for (int i = 0; i < 64; i++)
        if (!list[i][0]) {
            strcpy(list[i], name);
            return 0;
        }
    return -1;
}

static void names_in_order(void **state)
{
    static const char *const expect[] = {
        "backbone.embeddings.weight", "backbone.layers.0.norm.weight", "backbone.layers.0.mixer.in_proj.weight",
        "backbone.layers.0.mixer.conv1d.weight", "backbone.layers.0.mixer.conv1d.bias", "backbone.layers.0.mixer.dt_bias",
        "backbone.layers.0.mixer.A_log", "backbone.layers.0.mixer.D", "backbone.layers.0.mixer.norm.weight",
        "backbone.layers.0.mixer.out_proj.weight", "backbone.layers.1.norm.weight", "backbone.layers.1.mixer.gate.weight",
        "backbone.layers.1.mixer.gate.e_score_correction_bias", "backbone.layers.1.mixer.fc1_latent_proj.weight",
        "backbone.layers.1.mixer.fc1_latent_proj.bias", "backbone.layers.1.mixer.experts.0.up_proj.weight",
        "backbone.layers.1.mixer.experts.0.down_proj.weight", "backbone.layers.1.mixer.experts.1.up_proj.weight",
        "backbone.layers.1.mixer.experts.1.down_proj.weight", "backbone.layers.1.mixer.fc2_latent_proj.weight",
        "backbone.layers.1.mixer.fc2_latent_proj.bias", "backbone.layers.1.mixer.shared_experts.up_proj.weight",
        "backbone.layers.1.mixer.shared_experts.up_proj.bias", "backbone.layers.1.mixer.shared_experts.down_proj.weight",
        "backbone.layers.1.mixer.shared_experts.down_proj.bias", "backbone.layers.2.norm.weight",
        "backbone.layers.2.mixer.q_proj.weight", "backbone.layers.2.mixer.k_proj.weight", "backbone.layers.2.mixer.v_proj.weight",
        "backbone.layers.2.mixer.o_proj.weight", "backbone.layers.3.norm.weight", "backbone.layers.3.mixer.up_proj.weight",
        "backbone.layers.3.mixer.up_proj.bias", "backbone.layers.3.mixer.down_proj.weight", "backbone.layers.3.mixer.down_proj.bias",
        "backbone.norm_f.weight", "lm_head.weight",
    };
    char got[64][128] = { { 0 } };
    (void)state;
    ns_arch *a = arch_edited("{\"hybrid_override_pattern\":\"ME*-\",\"num_hidden_layers\":4,\"n_routed_experts\":2,"
                             "\"num_experts_per_tok\":1,\"mlp_bias\":true,\"moe_latent_size\":8}");
    assert_int_equal(ns_manifest_each(a, append_name, got), 0);
    for (size_t i = 0; i < sizeof expect / sizeof *expect; i++)
        assert_string_equal(got[i], expect[i]);
    assert_int_equal(got[sizeof expect / sizeof *expect][0], 0);
    ns_arch_free(a);
}

static void dim_sizes(void **state)
{
    static const struct { int layer; ns_dim_id id; int size; } cases[] = {
        { -1, NS_DIM_VOCAB, 131072 },    { -1, NS_DIM_HIDDEN, 2688 },  { 0, NS_DIM_IN_PROJ, 10304 }, { 0, NS_DIM_CONV, 6144 },
        { 0, NS_DIM_CONV_KERNEL, 4 },    { 0, NS_DIM_INNER, 4096 },    { 0, NS_DIM_MAMBA_HEADS, 64 }, { 5, NS_DIM_Q, 4096 },
        { 5, NS_DIM_KV, 256 },           { 1, NS_DIM_EXPERTS, 128 },   { 1, NS_DIM_EXPERT_IO, 2688 }, { 1, NS_DIM_EXPERT_FFN, 1856 },
        { 1, NS_DIM_SHARED_FFN, 3712 },  { 0, NS_DIM_ONE, 1 },         { 0, NS_DIM_EXPERTS, 0 },
    };
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_dim d = ns_arch_dim(a, cases[i].layer, cases[i].id);
        assert_int_equal(ns_dim_size(&d), cases[i].size);
    }
    ns_arch_free(a);
}

static void axes(void **state)
{
    (void)state;
    assert_int_equal(ns_axis_find("expert_ffn"), NS_AXIS_EXPERT_FFN);
    assert_int_equal(ns_axis_find("Expert_ffn"), -1);
    assert_string_equal(ns_axis_name(NS_AXIS_HIDDEN), "hidden");
    assert_string_equal(ns_axis_key(NS_AXIS_ATTN_HEADS), "num_attention_heads");
    assert_string_equal(ns_axis_name(NS_AXIS_FIXED), "fixed");
}

static void globs(void **state)
{
    static const struct { const char *pattern, *text; bool match; } cases[] = {
        { "lm_head", "lm_head", true },       { "lm_head", "lm_head2", false },  { "mtp*", "mtp.layers.0", true },
        { "*conv1d", "a.b.conv1d", true },    { "*conv1d", "a.conv1d.b", false }, { "a*b*c", "axxbyybzzc", true },
        { "a*b*c", "axxbyybzz", false },      { "l.4*", "l.40.x", true },        { "l.?.x", "l.4.x", true },
        { "l.?.x", "l.40.x", false },         { "l.[0-3].x", "l.2.x", true },    { "l.[!0-3].x", "l.2.x", false },
        { "l.[!0-3].x", "l.7.x", true },      { "[]a]", "]", true },             { "[a", "[a", true },
        { "", "", true },                     { "*", "", true },                 { "?", "", false },
        { "[a-]", "-", true },                { "\\*", "\\x", true },            { "[!]]", "a", true },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (ns_glob_match(cases[i].pattern, cases[i].text) != cases[i].match)
            fail_msg("%s against %s", cases[i].pattern, cases[i].text);
}

/* ---- real files ---- */

/* Calls fn for every *config.json in `dir` that is a model config; returns how many. */
static int each_config(const char *dir, void (*fn)(const char *name, const ns_arch *a))
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *f; d && (f = readdir(d));) {
        size_t len = strlen(f->d_name);
        char path[1024];
        if (len < 11 || strcmp(f->d_name + len - 11, "config.json") != 0 || strstr(f->d_name, "hf_quant"))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
        ns_err e = { 0 };
        ns_arch *a = ns_arch_open(path, &e);
        if (!a)
            fail_msg("%s", e.msg);
        fn(f->d_name, a);
        ns_arch_free(a);
        n++;
    }
    if (d)
        closedir(d);
    return n;
}

static void check_published(const char *name, const ns_arch *a)
{
    static const struct { const char *part; int layers, hidden, latent, mtp; double billions; } known[] = {
        { "Nano-30B", 52, 2688, 0, 0, 31.578 }, { "Lightning-30B", 52, 2688, 0, 0, 31.578 },
        { "Super-120B", 88, 4096, 1024, 1, 120 }, { "Ultra-550B", 108, 8192, 2048, 1, 550 }, { "H-56B", 118, 8192, 0, 0, 56 },
    };
    count c = { .a = a };
    assert_int_equal(ns_manifest_each(a, count_weight, &c), 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(name, known[i].part)) {
            assert_int_equal(a->n_layers, known[i].layers);
            assert_int_equal(a->hidden_size, known[i].hidden);
            assert_int_equal(a->latent_size, known[i].latent);
            if (fabs((double)c.params / 1e9 / known[i].billions - 1) > 0.04)
                fail_msg("%s: %.3f billion parameters", name, (double)c.params / 1e9);
            assert_true(a->dt_min == 0 && isinf(a->dt_max));
            return;
        }
    fail_msg("%s: not in the test's table", name);
}

static void real_configs(void **state)
{
    const char *data = getenv("NS_TEST_DATA");
    char dir[1024];
    (void)state;
    if (!data || !*data)
        skip();
    snprintf(dir, sizeof dir, "%s/nemotron3/configs", data);
    assert_true(each_config(dir, check_published) >= 8);
}

static void check_fixture(const char *name, const ns_arch *a)
{
    (void)name;
    assert_true(a->n_layers > 0);
}

static void fixture_configs(void **state)
{
    const char *src = getenv("NS_TEST_SRC");
    char path[1024];
    int n = 0;
    (void)state;
    if (!src || !*src)
        skip();
    snprintf(path, sizeof path, "%s/tests/golden/fixtures", src);
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (f->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/tests/golden/fixtures/%s", src, f->d_name);
        n += each_config(path, check_fixture);
    }
    if (d)
        closedir(d);
    if (n == 0)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nano_fields),     cmocka_unit_test(refusals),       cmocka_unit_test(layer_lists),
        cmocka_unit_test(aliases),         cmocka_unit_test(dt_limits),      cmocka_unit_test(variety),
        cmocka_unit_test(puzzle),          cmocka_unit_test(published_index), cmocka_unit_test(names_in_order),
        cmocka_unit_test(dim_sizes),       cmocka_unit_test(axes),           cmocka_unit_test(globs),
        cmocka_unit_test(real_configs),    cmocka_unit_test(fixture_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
