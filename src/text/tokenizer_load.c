/* tokenizer.json -> ns_tokenizer. The order matters: added tokens decide which words are closed, merges leave those out. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/tokenizer_impl.h"

static int load_vocab(ns_tokenizer *t, json_t *vocab, ns_err *e)
{
    if (!json_is_object(vocab))
        return ns_fail(e, NS_EFORMAT, "model.vocab: expected an object");
    if (ns_vocab_reserve(&t->vocab, json_object_size(vocab), e) != 0)
        return ns_err_wrap(e, "model.vocab");
    for (void *it = json_object_iter(vocab); it; it = json_object_iter_next(vocab, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *id = json_object_iter_value(it);
        if (!json_is_integer(id))
            return ns_fail(e, NS_EFORMAT, "model.vocab: \"%.100s\": expected an integer", name);
        if (ns_vocab_add(&t->vocab, name, strlen(name), json_integer_value(id), e) != 0)
            return ns_err_wrap(e, "model.vocab: \"%.100s\"", name);
    }
    return 0;
}

static int load_bytes(ns_tokenizer *t, ns_err *e)
{
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        t->bpe.bytes[i] = ns_vocab_find(&t->vocab, &c, 1);
        if (t->bpe.bytes[i] < 0)
            return ns_fail(e, NS_EFORMAT, "model.vocab: byte 0x%02X has no token", i);
    }
    return 0;
}

static int load_added_token(ns_tokenizer *t, const json_t *o, ns_err *e)
{
    ns_added a = { 0 };
    bool special, normalized;
    int64_t id;
    const json_t *content = json_object_get(o, "content");
    if (!json_is_string(content))
        return ns_fail(e, NS_EFORMAT, "key \"content\": expected a string");
    if (ns_json_int(o, "id", 0, NS_TOKEN_MAX_ID, -1, &id, e) != 0 || ns_json_bool(o, "special", false, &special, e) != 0 ||
        ns_json_bool(o, "lstrip", false, &a.lstrip, e) != 0 || ns_json_bool(o, "rstrip", false, &a.rstrip, e) != 0 ||
        ns_json_bool(o, "single_word", false, &a.single_word, e) != 0 ||
        ns_json_bool(o, "normalized", !special, &normalized, e) != 0)
        return -1;
    a.len = json_string_length(content);
    a.id = (int)id;
    if (a.len == 0) /* Hugging Face skips these too */
        return 0;
    if (normalized && t->nfc)
        return ns_fail(e, NS_EUNSUPPORTED, "\"normalized\" is not supported together with a normalizer");
    if (ns_vocab_add_added(&t->vocab, json_string_value(content), a.len, id, special, !a.single_word, e) != 0)
        return -1;
    a.content = (char *)json_string_value(content); /* copied by the set */
    return ns_added_set_add(&t->added[normalized], &a, e);
}

static int load_added(ns_tokenizer *t, const json_t *list, ns_err *e)
{
    if (list && !json_is_null(list) && !json_is_array(list))
        return ns_fail(e, NS_EFORMAT, "added_tokens: expected an array");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (load_added_token(t, json_array_get(list, i), e) != 0)
            return ns_err_wrap(e, "added_tokens[%zu]", i);
    ns_added_set_seal(&t->added[0]);
    ns_added_set_seal(&t->added[1]);
    return 0;
}

/* The two halves of a merge, as the file spells them: ["a", "b"] or "a b". */
static int split_merge(const json_t *m, const char *half[2], size_t len[2], ns_err *e)
{
    if (json_is_array(m) && json_array_size(m) == 2) {
        for (size_t i = 0; i < 2; i++) {
            half[i] = json_string_value(json_array_get(m, i));
            len[i] = json_string_length(json_array_get(m, i));
        }
        if (half[0] && half[1])
            return 0;
    } else if (json_is_string(m)) {
        const char *s = json_string_value(m), *space = memchr(s, ' ', json_string_length(m));
        if (space && !memchr(space + 1, ' ', json_string_length(m) - (size_t)(space + 1 - s))) {
            half[0] = s;
            half[1] = space + 1;
            len[0] = (size_t)(space - s);
            len[1] = json_string_length(m) - len[0] - 1;
            return 0;
        }
    }
    return ns_fail(e, NS_EFORMAT, "expected [\"a\", \"b\"] or \"a b\"");
}

static int load_merge(ns_tokenizer *t, const json_t *m, uint32_t rank, ns_buf *scratch, ns_err *e)
{
    const char *half[2];
    size_t len[2];
    if (split_merge(m, half, len, e) != 0)
        return -1;
    ns_buf_clear(scratch);
    ns_buf_add(scratch, half[0], len[0]);
    ns_buf_add(scratch, half[1], len[1]);
    if (scratch->failed)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    char *bytes = scratch->data;
    ptrdiff_t left = ns_alphabet_decode(half[0], len[0], bytes);
    ptrdiff_t right = left > 0 ? ns_alphabet_decode(half[1], len[1], bytes + left) : -1;
    if (left <= 0 || right <= 0)
        return ns_fail(e, NS_EFORMAT, "a half is empty or not in the byte alphabet");
    int a = ns_vocab_find(&t->vocab, bytes, (size_t)left);
    int b = ns_vocab_find(&t->vocab, bytes + left, (size_t)right);
    int to = ns_vocab_find(&t->vocab, bytes, (size_t)(left + right));
    if (a < 0 || b < 0 || to < 0)
        return ns_fail(e, NS_EFORMAT, "\"%.100s\" + \"%.100s\": %s is not in model.vocab", half[0], half[1],
                       a < 0 ? "the left half" : b < 0 ? "the right half" : "the result");
    if (!(t->vocab.tokens[to].flags & NS_TOKEN_CLOSED))
        ns_bpe_add(&t->bpe, a, b, rank, to);
    return 0;
}

static int load_merges(ns_tokenizer *t, const json_t *list, ns_err *e)
{
    ns_buf scratch = { 0 };
    int rc = -1;
    size_t n = json_array_size(list);
    if (!json_is_array(list)) {
        ns_fail(e, NS_EFORMAT, "model.merges: expected an array");
        goto out;
    }
    if (ns_bpe_init(&t->bpe, n, e) != 0)
        goto out;
    for (size_t i = 0; i < n; i++) {
        if (load_merge(t, json_array_get(list, i), (uint32_t)i, &scratch, e) != 0) {
            ns_err_wrap(e, "model.merges[%zu]", i);
            goto out;
        }
    }
    rc = 0;
out:
    ns_buf_release(&scratch);
    return rc;
}

/* null, false, 0 and "" all mean that an option is off. */
static bool is_off(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

static int check_model(ns_tokenizer *t, const json_t *model, ns_err *e)
{
    static const char *const off[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback" };
    const char *type;
    if (!json_is_object(model))
        return ns_fail(e, NS_EFORMAT, "key \"model\": expected an object");
    if (ns_json_str(model, "type", "BPE", &type, e) != 0) /* old files leave it out */
        return -1;
    if (strcmp(type, "BPE") != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "model type \"%.100s\" is not supported", type);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (!is_off(json_object_get(model, off[i])))
            return ns_fail(e, NS_EUNSUPPORTED, "model: \"%s\" is not supported", off[i]);
    return ns_json_bool(model, "ignore_merges", false, &t->ignore_merges, e);
}

static int load_normalizer(ns_tokenizer *t, const json_t *o, ns_err *e)
{
    const char *type;
    if (!o || json_is_null(o))
        return 0;
    if (ns_json_str(o, "type", "", &type, e) != 0)
        return ns_err_wrap(e, "normalizer");
    t->nfc = strcmp(type, "NFC") == 0;
    return t->nfc ? 0 : ns_fail(e, NS_EUNSUPPORTED, "normalizer type \"%.100s\" is not supported", type);
}

static int check_post_processor(const json_t *o, ns_err *e)
{
    const char *type;
    if (!o || json_is_null(o))
        return 0;
    if (ns_json_str(o, "type", "", &type, e) != 0)
        return ns_err_wrap(e, "post_processor");
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "TemplateProcessing") == 0)
        return 0;
    if (strcmp(type, "Sequence") != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "post_processor type \"%.100s\" is not supported", type);
    const json_t *list = json_object_get(o, "processors");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (check_post_processor(json_array_get(list, i), e) != 0)
            return -1;
    return 0;
}

static int check_decoder(const json_t *o, ns_err *e)
{
    const char *type;
    if (ns_json_str(o, "type", "null", &type, e) != 0)
        return ns_err_wrap(e, "decoder");
    return strcmp(type, "ByteLevel") == 0 ? 0 : ns_fail(e, NS_EUNSUPPORTED, "decoder type \"%.100s\" is not supported", type);
}

static int load(ns_tokenizer *t, const json_t *root, ns_err *e)
{
    const json_t *model = json_object_get(root, "model");
    if (check_model(t, model, e) != 0 || load_normalizer(t, json_object_get(root, "normalizer"), e) != 0 ||
        check_post_processor(json_object_get(root, "post_processor"), e) != 0 ||
        check_decoder(json_object_get(root, "decoder"), e) != 0)
        return -1;
    t->pretok = ns_pretok_parse(json_object_get(root, "pre_tokenizer"), e);
    if (!t->pretok || load_vocab(t, json_object_get(model, "vocab"), e) != 0 ||
        load_added(t, json_object_get(root, "added_tokens"), e) != 0 ||
        load_merges(t, json_object_get(model, "merges"), e) != 0)
        return -1;
    return load_bytes(t, e);
}

static ns_tokenizer *load_and_free(json_t *root, const char *what, ns_err *e)
{
    ns_tokenizer *t = NULL;
    if (!root)
        return NULL;
    t = calloc(1, sizeof *t);
    if (!t) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
    } else if (load(t, root, e) != 0) {
        ns_err_wrap(e, "%s", what);
        ns_tokenizer_free(t);
        t = NULL;
    }
    json_decref(root);
    return t;
}

ns_tokenizer *ns_tokenizer_open(const char *path, ns_err *e)
{
    return load_and_free(ns_json_open(path, false, e), path, e);
}

ns_tokenizer *ns_tokenizer_parse(const char *json, size_t n, const char *what, ns_err *e)
{
    return load_and_free(ns_json_parse(json, n, false, what, e), what, e);
}

void ns_tokenizer_free(ns_tokenizer *t)
{
    if (!t)
        return;
    ns_vocab_release(&t->vocab);
    ns_bpe_release(&t->bpe);
    ns_pretok_free(t->pretok);
    ns_added_set_release(&t->added[0]);
    ns_added_set_release(&t->added[1]);
    free(t);
}
