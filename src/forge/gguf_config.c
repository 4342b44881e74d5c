#include "forge/gguf_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "base/file.h"
#include "forge/folder.h"
#include "forge/gguf_names.h"

typedef struct reader {
    const ns_gguf *g;
    char prefix[32];
    json_t *cfg;
    ns_err *e;
} reader;

static const char *key(reader *r, const char *name, char out[NS_GGUF_NAME])
{
    snprintf(out, NS_GGUF_NAME, "%s.%s", r->prefix, name);
    return out;
}

/* A number of the file as a key of the config. `need` false: left out where the file has none. */
static int copy_int(reader *r, const char *name, const char *to, bool need)
{
    char k[NS_GGUF_NAME];
    int64_t v;
    if (!need && !ns_gguf_find(r->g, key(r, name, k)))
        return 0;
    if (ns_gguf_int(r->g, key(r, name, k), 0, &v, r->e) != 0)
        return -1;
    if (v < 0 || v > INT32_MAX)
        return ns_fail(r->e, NS_EFORMAT, "key \"%s\" is %lld", k, (long long)v);
    return json_object_set_new(r->cfg, to, json_integer(v));
}

static int copy_real(reader *r, const char *name, const char *to, bool need)
{
    char k[NS_GGUF_NAME];
    double v;
    if (!need && !ns_gguf_find(r->g, key(r, name, k)))
        return 0;
    if (ns_gguf_real(r->g, key(r, name, k), &v, r->e) != 0)
        return -1;
    char text[32];
    snprintf(text, sizeof text, "%.7g", v); /* a float's digits: 1e-05, not 9.9999997e-06 */
    return json_object_set_new(r->cfg, to, json_real(strtod(text, NULL)));
}

/* Entry i of a key that holds one number for all layers or one for each. */
static int layer_int(reader *r, const char *name, int64_t i, int64_t *out)
{
    char k[NS_GGUF_NAME];
    const ns_gguf_kv *kv = ns_gguf_find(r->g, key(r, name, k));
    return ns_gguf_int(r->g, k, kv && kv->type != NS_GGUF_ARRAY ? 0 : (uint64_t)i, out, r->e);
}

/* No key/value heads and no FFN is Mamba; the widths of the FFN layers must agree. */
static int read_pattern(reader *r, bool moe)
{
    char pattern[NS_MAX_LAYERS + 1], k[NS_GGUF_NAME];
    int64_t n, kv, ff, dense = 0, kv_heads = 0;
    if (ns_gguf_int(r->g, key(r, "block_count", k), 0, &n, r->e) != 0)
        return -1;
    if (n < 1 || n > NS_MAX_LAYERS)
        return ns_fail(r->e, NS_EFORMAT, "key \"%s\" is %lld", k, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        if (layer_int(r, "attention.head_count_kv", i, &kv) != 0 || layer_int(r, "feed_forward_length", i, &ff) != 0)
            return -1;
        if (kv < 0 || ff < 0 || kv > INT32_MAX || ff > INT32_MAX || (kv && ff) || (kv && kv_heads && kv != kv_heads) ||
            (ff && !moe && dense && ff != dense))
            return ns_fail(r->e, NS_EUNSUPPORTED, "layer %d has %lld key/value heads and an FFN of %lld", (int)i, (long long)kv, (long long)ff);
        pattern[i] = kv ? NS_LAYER_ATTENTION : !ff ? NS_LAYER_MAMBA : moe ? NS_LAYER_MOE : NS_LAYER_MLP;
        dense = ff && !moe ? ff : dense;
        kv_heads = kv ? kv : kv_heads;
    }
    pattern[n] = '\0';
    json_object_set_new(r->cfg, "num_hidden_layers", json_integer(n));
    json_object_set_new(r->cfg, "hybrid_override_pattern", json_string(pattern));
    if (dense)
        json_object_set_new(r->cfg, "intermediate_size", json_integer(dense));
    if (kv_heads)
        json_object_set_new(r->cfg, "num_key_value_heads", json_integer(kv_heads));
    return 0;
}

static int read_mamba(reader *r)
{
    int64_t inner, heads;
    char k[NS_GGUF_NAME];
    if (ns_gguf_int(r->g, key(r, "ssm.inner_size", k), 0, &inner, r->e) != 0 ||
        ns_gguf_int(r->g, key(r, "ssm.time_step_rank", k), 0, &heads, r->e) != 0)
        return -1;
    if (heads < 1 || inner < heads || inner % heads || inner > INT32_MAX)
        return ns_fail(r->e, NS_EFORMAT, "%lld inner channels in %lld Mamba heads", (long long)inner, (long long)heads);
    json_object_set_new(r->cfg, "mamba_num_heads", json_integer(heads));
    json_object_set_new(r->cfg, "mamba_head_dim", json_integer(inner / heads));
    json_object_set_new(r->cfg, "use_conv_bias", json_boolean(ns_gguf_find_tensor(r->g, "blk.0.ssm_conv1d.bias") != NULL));
    return copy_int(r, "ssm.state_size", "ssm_state_size", true) != 0 || copy_int(r, "ssm.group_count", "n_groups", true) != 0 ||
           copy_int(r, "ssm.conv_kernel", "conv_kernel", true) != 0 ? -1 : 0;
}

static int read_moe(reader *r)
{
    char k[NS_GGUF_NAME];
    int64_t norm = 1;
    if (ns_gguf_find(r->g, key(r, "expert_weights_norm", k)) && ns_gguf_int(r->g, k, 0, &norm, r->e) != 0)
        return -1;
    json_object_set_new(r->cfg, "norm_topk_prob", json_boolean(norm != 0));
    json_object_set_new(r->cfg, "n_shared_experts", json_integer(1));
    return copy_int(r, "expert_count", "n_routed_experts", true) != 0 || copy_int(r, "expert_used_count", "num_experts_per_tok", true) != 0 ||
           copy_int(r, "expert_feed_forward_length", "moe_intermediate_size", true) != 0 ||
           copy_int(r, "expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", true) != 0 ||
           copy_real(r, "expert_weights_scale", "routed_scaling_factor", true) != 0 ||
           copy_int(r, "expert_group_count", "n_group", false) != 0 || copy_int(r, "expert_group_used_count", "topk_group", false) != 0 ||
           copy_int(r, "moe_latent_size", "moe_latent_size", false) != 0 ? -1 : 0;
}

static int special_id(reader *r, const char *name, const char *to)
{
    int64_t v;
    if (!ns_gguf_find(r->g, name))
        return 0;
    if (ns_gguf_int(r->g, name, 0, &v, r->e) != 0)
        return -1;
    return json_object_set_new(r->cfg, to, json_integer(v));
}

static bool any_tensor(const ns_gguf *g, const char *ending)
{
    size_t k = strlen(ending);
    for (size_t i = 0; i < g->n_tensors; i++) {
        size_t n = strlen(g->tensor[i].name);
        if (n > k && strcmp(g->tensor[i].name + n - k, ending) == 0)
            return true;
    }
    return false;
}

static int read_rest(reader *r)
{
    const ns_gguf_tensor *embed = ns_gguf_find_tensor(r->g, "token_embd.weight");
    if (!embed)
        return ns_fail(r->e, NS_EFORMAT, "tensor token_embd.weight is missing");
    json_object_set_new(r->cfg, "vocab_size", json_integer((json_int_t)embed->ne[1]));
    json_object_set_new(r->cfg, "tie_word_embeddings", json_boolean(!ns_gguf_find_tensor(r->g, "output.weight")));
    json_object_set_new(r->cfg, "attention_bias", json_boolean(any_tensor(r->g, ".attn_q.bias")));
    json_object_set_new(r->cfg, "mlp_bias", json_boolean(any_tensor(r->g, ".ffn_up.bias")));
    return special_id(r, "tokenizer.ggml.bos_token_id", "bos_token_id") != 0 || special_id(r, "tokenizer.ggml.eos_token_id", "eos_token_id") != 0 ||
           special_id(r, "tokenizer.ggml.padding_token_id", "pad_token_id") != 0 ||
           copy_int(r, "context_length", "max_position_embeddings", true) != 0 || copy_int(r, "embedding_length", "hidden_size", true) != 0 ||
           copy_int(r, "attention.head_count", "num_attention_heads", true) != 0 || copy_int(r, "attention.key_length", "head_dim", true) != 0 ||
           copy_real(r, "attention.layer_norm_rms_epsilon", "layer_norm_epsilon", true) != 0 ? -1 : 0;
}

/* What the config inside says beyond the keys: names of classes, chunk size, types. The keys above win: they describe the tensors. */
static int complete(reader *r)
{
    const char *text;
    size_t n;
    if (!ns_gguf_find(r->g, NS_GGUF_CONFIG_KEY))
        return 0;
    if (ns_gguf_string(r->g, NS_GGUF_CONFIG_KEY, 0, NULL, &text, &n, r->e) != 0)
        return -1;
    json_t *inside = ns_json_parse(text, n, false, NS_GGUF_CONFIG_KEY, r->e);
    if (!inside)
        return -1;
    json_object_del(inside, "block_configs");
    json_object_del(inside, "layers_block_type");
    json_object_del(inside, "quantization_config");
    json_object_del(inside, "text_config");
    json_object_del(inside, "auto_map"); /* would name code */
    int rc = json_is_object(inside) ? json_object_update(inside, r->cfg) : ns_fail(r->e, NS_EFORMAT, "key \"" NS_GGUF_CONFIG_KEY "\" is no object");
    if (rc == 0) {
        json_decref(r->cfg);
        r->cfg = json_incref(inside);
    }
    json_decref(inside);
    return rc;
}

static int read_config(reader *r)
{
    const char *arch;
    size_t n;
    if (ns_gguf_string(r->g, "general.architecture", 0, NULL, &arch, &n, r->e) != 0)
        return -1;
    snprintf(r->prefix, sizeof r->prefix, "%.*s", (int)(n < 30 ? n : 30), arch);
    const bool moe = strcmp(r->prefix, "nemotron_h_moe") == 0;
    if (!moe && strcmp(r->prefix, "nemotron_h") != 0)
        return ns_fail(r->e, NS_EUNSUPPORTED, "architecture \"%s\": only nemotron_h and nemotron_h_moe can be imported", r->prefix);
    r->cfg = json_pack("{s:[s], s:s, s:s, s:s, s:s, s:b}", "architectures", "NemotronHForCausalLM", "model_type", "nemotron_h", "torch_dtype",
                       "bfloat16", "mlp_hidden_act", "relu2", "mamba_hidden_act", "silu", "use_bias", 0);
    if (!r->cfg)
        return ns_fail(r->e, NS_ENOMEM, "config.json: out of memory");
    json_t *defaults = r->cfg; /* torch_dtype among them is only a guess: the config inside knows */
    int rc = read_pattern(r, moe) != 0 || read_mamba(r) != 0 || (moe && read_moe(r) != 0) || read_rest(r) != 0 ? -1 : 0;
    if (rc == 0 && ns_gguf_find(r->g, NS_GGUF_CONFIG_KEY))
        json_object_del(defaults, "torch_dtype");
    return rc ? rc : complete(r);
}

json_t *ns_gguf_config(const ns_gguf *g, ns_err *e)
{
    reader r = { .g = g, .e = e };
    if (read_config(&r) == 0)
        return r.cfg;
    json_decref(r.cfg);
    return NULL;
}

/* ---- text ---- */

static int write_string(const ns_gguf *g, const char *k, const char *dir, const char *name, bool *there, ns_err *e)
{
    const char *s;
    size_t n;
    ns_buf path = { 0 };
    *there = ns_gguf_find(g, k) != NULL;
    if (!*there)
        return 0;
    if (ns_gguf_string(g, k, 0, NULL, &s, &n, e) != 0)
        return -1;
    ns_path_join(&path, dir, name);
    int rc = path.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", dir) : ns_file_write(path.data, s, n, e);
    ns_buf_release(&path);
    return rc;
}

static json_t *pre_tokenizer(const ns_gguf *g, ns_err *e)
{
    static const struct { const char *pre, *regex; } known[] = {
        { "pixtral", "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?"
                     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
                     "\\s+(?!\\S)|\\s+" },
        { "qwen2", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|"
                   "\\s+" },
    };
    const char *pre;
    size_t n;
    if (ns_gguf_string(g, "tokenizer.ggml.pre", 0, NULL, &pre, &n, e) != 0)
        return NULL;
    if (n == 5 && memcmp(pre, "gpt-2", 5) == 0)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].pre) == n && memcmp(known[i].pre, pre, n) == 0)
            return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]}", "type", "Sequence", "pretokenizers", "type", "Split",
                             "pattern", "Regex", known[i].regex, "behavior", "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space", 0,
                             "trim_offsets", 1, "use_regex", 0);
    ns_fail(e, NS_EUNSUPPORTED, "tokenizer.ggml.pre \"%.*s\": this way of splitting text is not known here", (int)(n < 60 ? n : 60), pre);
    return NULL;
}

enum { TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };

static int add_tokens(const ns_gguf *g, json_t *vocab, json_t *added, ns_err *e)
{
    const ns_gguf_kv *tokens = ns_gguf_find(g, "tokenizer.ggml.tokens");
    ns_gguf_cursor c = { 0 };
    const char *s;
    size_t n;
    int64_t type;
    for (uint64_t i = 0; tokens && i < tokens->n; i++) {
        if (ns_gguf_string(g, "tokenizer.ggml.tokens", i, &c, &s, &n, e) != 0 || ns_gguf_int(g, "tokenizer.ggml.token_type", i, &type, e) != 0)
            return -1;
        if (type == TOKEN_UNUSED)
            continue;
        if (memchr(s, 0, n))
            return ns_fail(e, NS_EFORMAT, "tokenizer.ggml.tokens: entry %llu holds a NUL", (unsigned long long)i);
        char *text = strndup(s, n);
        int rc = !text ? -1 : type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED
            ? json_array_append_new(added, json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", text, "special",
                                                     type == TOKEN_CONTROL, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0))
            : json_object_set_new(vocab, text, json_integer((json_int_t)i));
        free(text);
        if (rc != 0)
            return ns_fail(e, NS_EFORMAT, "tokenizer.ggml.tokens: entry %llu is not UTF-8", (unsigned long long)i);
    }
    return 0;
}

static int add_merges(const ns_gguf *g, json_t *merges, ns_err *e)
{
    const ns_gguf_kv *kv = ns_gguf_find(g, "tokenizer.ggml.merges");
    ns_gguf_cursor c = { 0 };
    const char *s;
    size_t n;
    for (uint64_t i = 0; kv && i < kv->n; i++)
        if (ns_gguf_string(g, "tokenizer.ggml.merges", i, &c, &s, &n, e) != 0)
            return -1;
        else if (json_array_append_new(merges, json_stringn(s, n)) != 0)
            return ns_fail(e, NS_EFORMAT, "tokenizer.ggml.merges: entry %llu is not UTF-8", (unsigned long long)i);
    return 0;
}

static int make_tokenizer(const ns_gguf *g, const char *dir, ns_err *e)
{
    json_t *pre = pre_tokenizer(g, e), *vocab = json_object(), *added = json_array(), *merges = json_array(), *out = NULL;
    int rc = pre ? 0 : -1;
    if (rc == 0 && (add_tokens(g, vocab, added, e) != 0 || add_merges(g, merges, e) != 0))
        rc = -1;
    if (rc == 0) {
        out = json_pack("{s:s, s:O, s:n, s:O, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:O, s:O, s:b}}", "version", "1.0", "added_tokens", added,
                        "normalizer", "pre_tokenizer", pre, "decoder", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1,
                        "model", "type", "BPE", "vocab", vocab, "merges", merges, "ignore_merges", 1);
        rc = out ? ns_folder_json(dir, "tokenizer.json", out, e) : ns_fail(e, NS_ENOMEM, "tokenizer.json: out of memory");
    }
    json_decref(out);
    json_decref(pre);
    json_decref(vocab);
    json_decref(added);
    json_decref(merges);
    return rc;
}

/* tokenizer_config.json with the special tokens' texts. */
static int write_special(const ns_gguf *g, const char *dir, ns_err *e)
{
    static const struct { const char *name, *key; } names[] = {
        { "bos_token", "tokenizer.ggml.bos_token_id" }, { "eos_token", "tokenizer.ggml.eos_token_id" },
        { "unk_token", "tokenizer.ggml.unknown_token_id" }, { "pad_token", "tokenizer.ggml.padding_token_id" } };
    json_t *out = json_object();
    int rc = out ? 0 : ns_fail(e, NS_ENOMEM, "tokenizer_config.json: out of memory");
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        int64_t id;
        const char *s;
        size_t n;
        if (!ns_gguf_find(g, names[i].key))
            continue;
        if (ns_gguf_int(g, names[i].key, 0, &id, e) != 0 || id < 0 ||
            ns_gguf_string(g, "tokenizer.ggml.tokens", (uint64_t)id, NULL, &s, &n, e) != 0)
            rc = ns_fail(e, NS_EFORMAT, "%s: no such token", names[i].key);
        else if (json_object_set_new(out, names[i].name, json_stringn(s, n)) != 0)
            rc = ns_fail(e, NS_EFORMAT, "%s: not UTF-8", names[i].key);
    }
    rc = rc ? rc : ns_folder_json(dir, "tokenizer_config.json", out, e);
    json_decref(out);
    return rc;
}

int ns_gguf_write_text(const ns_gguf *g, const char *dir, ns_err *e)
{
    bool there;
    if (!ns_gguf_find(g, "tokenizer.ggml.tokens"))
        return 0;
    if (write_string(g, "tokenizer.huggingface.json", dir, "tokenizer.json", &there, e) != 0 || (!there && make_tokenizer(g, dir, e) != 0) ||
        write_special(g, dir, e) != 0)
        return -1;
    return write_string(g, "tokenizer.chat_template", dir, "chat_template.jinja", &there, e);
}
