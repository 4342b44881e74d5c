#include "forge/gguf_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

/* llama.cpp's token types */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED };

typedef struct vocab {
    json_t *tokenizer, *config; /* tokenizer.json; tokenizer_config.json or NULL */
    const char **token;         /* [n] borrowed; NULL: unused */
    int32_t *type;
    int n;
    const char *path;
    ns_err *e;
} vocab;

static int no_memory(vocab *v)
{
    return ns_fail(v->e, NS_ENOMEM, "%s: out of memory", v->path);
}

/* ---- how text is split: names that llama.cpp gives to regular expressions, here by the FNV-1a hash of the expression ---- */

static const char *pre_of_regex(const char *regex)
{
    static const struct { uint64_t hash; const char *pre; } known[] = {
        { 0xec0c3ff4e65691fd, "pixtral" }, /* Nemotron 3, Mistral's Tekken */
        { 0xb4277cd2d4f51e64, "qwen2" },   /* Qwen 2 to 3 */
    };
    uint64_t h = 0xcbf29ce484222325;
    for (; *regex; regex++)
        h = (h ^ (uint8_t)*regex) * 0x100000001b3;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].hash == h)
            return known[i].pre;
    return NULL;
}

static const char *find_pre(const json_t *p)
{
    const char *type = json_string_value(json_object_get(p, "type"));
    const json_t *list = json_object_get(p, "pretokenizers");
    if (type && strcmp(type, "ByteLevel") == 0 && json_is_true(json_object_get(p, "use_regex")))
        return "gpt-2";
    if (type && strcmp(type, "Split") == 0) {
        const char *regex = json_string_value(json_object_get(json_object_get(p, "pattern"), "Regex"));
        return regex ? pre_of_regex(regex) : NULL;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *found = find_pre(json_array_get(list, i));
        if (found)
            return found;
    }
    return NULL;
}

/* ---- tokens ---- */

static int set_token(vocab *v, const char *text, const json_t *id, int type)
{
    const json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= v->n)
        return ns_fail(v->e, NS_EFORMAT, "%s: token \"%.100s\" has an id outside the model's vocabulary of %d", v->path, text, v->n);
    v->token[i] = text;
    v->type[i] = type;
    return 0;
}

static int read_tokens(vocab *v)
{
    const json_t *model = json_object_get(v->tokenizer, "model"), *added = json_object_get(v->tokenizer, "added_tokens");
    const char *text, *kind = json_string_value(json_object_get(model, "type"));
    json_t *words = json_object_get(model, "vocab"), *id;
    if (!kind || strcmp(kind, "BPE") != 0 || !json_is_object(words))
        return ns_fail(v->e, NS_EUNSUPPORTED, "%s: only byte-level BPE tokenizers can be exported", v->path);
    json_object_foreach(words, text, id) if (set_token(v, text, id, TOKEN_NORMAL) != 0) return -1;
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i);
        const bool special = json_is_true(json_object_get(t, "special"));
        if (!(text = json_string_value(json_object_get(t, "content"))))
            return ns_fail(v->e, NS_EFORMAT, "%s: added token %zu has no content", v->path, i);
        if (set_token(v, text, json_object_get(t, "id"), special ? TOKEN_CONTROL : TOKEN_USER_DEFINED) != 0)
            return -1;
    }
    return 0;
}

static void put_tokens(vocab *v, ns_gguf_writer *w)
{
    char unused[32];
    ns_gguf_put_strs(w, "tokenizer.ggml.tokens", (size_t)v->n);
    for (int i = 0; i < v->n; i++) {
        snprintf(unused, sizeof unused, "[PAD%d]", i);
        const char *text = v->token[i] ? v->token[i] : unused;
        ns_gguf_add_str(w, text, strlen(text));
        v->type[i] = v->token[i] ? v->type[i] : TOKEN_UNUSED;
    }
    ns_gguf_put_i32s(w, "tokenizer.ggml.token_type", v->type, (size_t)v->n);
}

/* "a b", also where the file has ["a", "b"]. */
static int put_merges(vocab *v, ns_gguf_writer *w)
{
    const json_t *merges = json_object_get(json_object_get(v->tokenizer, "model"), "merges");
    ns_buf b = { 0 };
    ns_gguf_put_strs(w, "tokenizer.ggml.merges", json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *m = json_array_get(merges, i);
        const char *left = json_string_value(json_is_array(m) ? json_array_get(m, 0) : m), *right = json_string_value(json_array_get(m, 1));
        if (!left || (json_is_array(m) && !right)) {
            ns_buf_release(&b);
            return ns_fail(v->e, NS_EFORMAT, "%s: merge %zu is not a pair", v->path, i);
        }
        ns_buf_clear(&b);
        ns_buf_addf(&b, "%s%s%s", left, right ? " " : "", right ? right : "");
        ns_gguf_add_str(w, b.data, b.len);
    }
    bool failed = b.failed;
    ns_buf_release(&b);
    return failed ? no_memory(v) : 0;
}

static int find_token(const vocab *v, const char *text)
{
    for (int i = 0; text && i < v->n; i++)
        if (v->token[i] && strcmp(v->token[i], text) == 0)
            return i;
    return -1;
}

/* tokenizer_config.json names the special tokens ("eos_token": text or {"content": text}); config.json's ids stand in. */
static void put_special(vocab *v, ns_gguf_writer *w, const char *name, const char *key, int fallback)
{
    const json_t *t = json_object_get(v->config, name);
    int id = find_token(v, json_string_value(json_is_object(t) ? json_object_get(t, "content") : t));
    id = id < 0 ? fallback : id;
    if (id >= 0 && id < v->n)
        ns_gguf_put_u32(w, key, (uint32_t)id);
}

static int put_file(vocab *v, ns_gguf_writer *w, const char *dir, const char *name, const char *key, bool *there)
{
    ns_buf path = { 0 }, text = { 0 };
    ns_path_join(&path, dir, name);
    int rc = path.failed ? no_memory(v) : 0;
    *there = rc == 0 && ns_file_exists(path.data);
    if (*there)
        rc = ns_file_read(path.data, 1u << 28, &text, v->e);
    if (rc == 0 && *there)
        ns_gguf_put_str(w, key, text.data ? text.data : "", text.len);
    ns_buf_release(&path);
    ns_buf_release(&text);
    return rc;
}

static int put_template(vocab *v, ns_gguf_writer *w, const char *dir)
{
    bool there;
    const char *inside = json_string_value(json_object_get(v->config, "chat_template"));
    if (put_file(v, w, dir, "chat_template.jinja", "tokenizer.chat_template", &there) != 0)
        return -1;
    if (!there && inside)
        ns_gguf_put_str(w, "tokenizer.chat_template", inside, strlen(inside));
    return 0;
}

static int put_all(vocab *v, ns_gguf_writer *w, const char *dir, const ns_arch *a, const char *pre)
{
    bool there;
    pre = pre ? pre : find_pre(json_object_get(v->tokenizer, "pre_tokenizer"));
    if (!pre)
        return ns_fail(v->e, NS_EUNSUPPORTED, "%s: llama.cpp's name for this pre-tokenizer is not known; give it with --pre", v->path);
    v->token = calloc((size_t)v->n, sizeof *v->token);
    v->type = calloc((size_t)v->n, sizeof *v->type);
    if (!v->token || !v->type)
        return no_memory(v);
    if (read_tokens(v) != 0)
        return -1;
    ns_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    ns_gguf_put_str(w, "tokenizer.ggml.pre", pre, strlen(pre));
    put_tokens(v, w);
    put_special(v, w, "bos_token", "tokenizer.ggml.bos_token_id", a->bos_id);
    put_special(v, w, "eos_token", "tokenizer.ggml.eos_token_id", a->n_eos ? a->eos_ids[0] : -1);
    put_special(v, w, "unk_token", "tokenizer.ggml.unknown_token_id", -1);
    put_special(v, w, "pad_token", "tokenizer.ggml.padding_token_id", a->pad_id);
    ns_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", json_is_true(json_object_get(v->config, "add_bos_token")));
    return put_merges(v, w) != 0 || put_template(v, w, dir) != 0 ||
           put_file(v, w, dir, "tokenizer.json", "tokenizer.huggingface.json", &there) != 0 ? -1 : 0;
}

int ns_gguf_put_vocab(ns_gguf_writer *w, const char *dir, const ns_arch *a, const char *pre, ns_err *e)
{
    ns_buf path = { 0 }, config = { 0 };
    ns_path_join(&path, dir, "tokenizer.json");
    ns_path_join(&config, dir, "tokenizer_config.json");
    vocab v = { .n = a->vocab_size, .path = path.data, .e = e };
    int rc = path.failed || config.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", dir) : 0;
    const bool there = rc == 0 && ns_file_exists(path.data);
    if (rc == 0 && !there)
        ns_gguf_put_str(w, "tokenizer.ggml.model", "no_vocab", 8);
    if (there)
        rc = (v.tokenizer = ns_json_open(path.data, false, e)) ? 0 : -1;
    if (there && rc == 0 && ns_file_exists(config.data))
        rc = (v.config = ns_json_open(config.data, false, e)) ? 0 : -1;
    if (there && rc == 0)
        rc = put_all(&v, w, dir, a, pre);
    json_decref(v.tokenizer);
    json_decref(v.config);
    free((void *)v.token);
    free(v.type);
    ns_buf_release(&path);
    ns_buf_release(&config);
    return rc;
}
