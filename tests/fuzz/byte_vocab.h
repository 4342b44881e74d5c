/* A small byte-level tokenizer for tests: ids 0..255 are the bytes, then the words given, then "<|end|>" as special token. */
#ifndef NS_TESTS_FUZZ_BYTE_VOCAB_H
#define NS_TESTS_FUZZ_BYTE_VOCAB_H
#include <string.h>

#include "base/buf.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

/* As the vocabulary file spells bytes, JSON escapes included. */
static inline void byte_vocab_spell(ns_buf *b, const char *p, size_t n)
{
    unsigned spelling[256];
    for (unsigned i = 0, next = 0x100; i < 256; i++)
        spelling[i] = (i > 0x20 && i < 0x7f) || (i > 0xa0 && i != 0xad) ? i : next++;
    for (size_t i = 0; i < n; i++) {
        char u[4];
        if (p[i] == '"' || p[i] == '\\')
            ns_buf_addc(b, '\\');
        ns_buf_add(b, u, ns_utf8_encode(spelling[(unsigned char)p[i]], u));
    }
}

static inline ns_tokenizer *byte_vocab_new(const char *const *words, size_t n_words, ns_err *e)
{
    ns_buf b = { 0 };
    ns_buf_addf(&b, "{\"added_tokens\": [{\"id\": %zu, \"content\": \"<|end|>\", \"special\": true}], \"normalizer\": null, ", 256 + n_words);
    ns_buf_adds(&b, "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}, "
                    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
    for (size_t i = 0; i < 256 + n_words; i++) {
        char byte = (char)i;
        ns_buf_adds(&b, i ? ", \"" : "\"");
        byte_vocab_spell(&b, i < 256 ? &byte : words[i - 256], i < 256 ? 1 : strlen(words[i - 256]));
        ns_buf_addf(&b, "\": %zu", i);
    }
    ns_buf_adds(&b, "}}}");
    ns_tokenizer *t = b.failed ? NULL : ns_tokenizer_parse(b.data, b.len, "bytes", e);
    ns_buf_release(&b);
    return t;
}
#endif
