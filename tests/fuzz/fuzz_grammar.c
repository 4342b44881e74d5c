/* The input is a schema (a list: the tools of a call), a NUL byte, and bytes. Once these are taken as an answer, once they choose among the
 * tokens that the masks allow. A mask never allows what is not taken, never leaves an unfinished answer without a token, and a finished one
 * is JSON. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "byte_vocab.h"
#include "text/grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS = 200, WORDS = 8 };

static const char *const words[] = { "{\"", "\": \"", "\":", "\", \"", "\"}", "\"]", "[[", "[{\"", "}}", "]}", ",\n  ", "\n\n", "  ", "true", "null",
    "123", "-1", "\\u", "\\uD83D\\u", "ab", "a\"", "\xc3\xa9", "\xe6\xbc", "\xa2\"", "<tool_call>", "</parameter>", "\n</", "\n<", "=ci", "ction",
    "abcdefghijklmnopqrstuvwxyz" };
enum { N_WORDS = sizeof words / sizeof *words, VOCAB = 256 + N_WORDS + 1 };

static ns_tokenizer *tokenizer;
static ns_grammar_vocab *vocab;

static void free_vocab(void)
{
    ns_grammar_vocab_free(vocab);
    ns_tokenizer_free(tokenizer);
}

static void setup(void)
{
    ns_err e = { 0 };
    tokenizer = byte_vocab_new(words, N_WORDS, &e);
    vocab = tokenizer ? ns_grammar_vocab_new(tokenizer, &e) : NULL;
    if (!vocab)
        abort();
    atexit(free_vocab);
}

static bool has(const uint64_t *bits, int id)
{
    return bits[id / 64] >> id % 64 & 1;
}

/* The nth allowed token, counted around; -1: there is none. */
static int pick(const uint64_t *bits, unsigned nth)
{
    int count = 0;
    for (int id = 0; id < VOCAB; id++)
        count += has(bits, id);
    for (int id = 0, i = count ? (int)(nth % (unsigned)count) : -1; id < VOCAB && i >= 0; id++)
        if (has(bits, id) && i-- == 0)
            return id;
    return -1;
}

static int take(ns_grammar_walk *w, int id, ns_buf *text)
{
    const char *p;
    size_t n;
    if (ns_tokenizer_bytes(tokenizer, id, &p, &n) < 0 || ns_grammar_take(w, p, n) < 0)
        return -1;
    ns_buf_add(text, p, n);
    return 0;
}

static void check_json(const ns_buf *b)
{
    json_t *v = json_loadb(b->data, b->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!v)
        abort();
    json_decref(v);
}

static void walk_masks(const ns_grammar *g, bool json, const uint8_t *p, size_t n)
{
    ns_grammar_walk *w = ns_grammar_walk_new(g, NULL);
    ns_buf text = { 0 };
    uint64_t bits[WORDS];
    for (size_t i = 0; w && i < n && i < STEPS; i++) {
        ns_grammar_mask(w, vocab, bits);
        int id = pick(bits, p[i]), other = (p[i] * 7 + (int)i) % (VOCAB - 1);
        if (has(bits, VOCAB - 1) || (id < 0 && !ns_grammar_complete(w)))
            abort(); /* a special token, a dead end */
        if (id < 0)
            break;
        if ((!has(bits, other) && take(w, other, &text) == 0) || take(w, id, &text) < 0)
            abort();
        if (json && ns_grammar_complete(w))
            check_json(&text);
    }
    ns_buf_release(&text);
    ns_grammar_walk_free(w);
}

static void walk_bytes(const ns_grammar *g, bool json, const char *p, size_t n)
{
    ns_grammar_walk *w = ns_grammar_walk_new(g, NULL), *whole = ns_grammar_walk_new(g, NULL);
    ns_buf text = { 0 };
    for (size_t i = 0; w && i < n && ns_grammar_take(w, p + i, 1) == 0; i++)
        ns_buf_add(&text, p + i, 1);
    if (w && json && ns_grammar_complete(w))
        check_json(&text);
    if (w && whole && (ns_grammar_take(whole, p, n) == 0) != (text.len == n))
        abort(); /* byte by byte or at once */
    ns_buf_release(&text);
    ns_grammar_walk_free(w);
    ns_grammar_walk_free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    ns_err e = { 0 };
    if (!vocab)
        setup();
    json_t *v = json_loadb((const char *)data, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!v)
        return 0;
    ns_grammar *g = json_is_array(v) ? ns_grammar_call(v, NULL, &e) : ns_grammar_schema(v, &e);
    if ((g == NULL) != (e.code != NS_OK))
        abort();
    if (g && nul) {
        walk_masks(g, !json_is_array(v), nul + 1, size - n - 1);
        walk_bytes(g, !json_is_array(v), (const char *)nul + 1, size - n - 1);
    }
    ns_grammar_free(g);
    json_decref(v);
    return 0;
}
