/* The input is a tokenizer.json, up to an optional NUL byte; what follows it (or else a slice of the file) is text. Whatever
 * is accepted must encode any bytes, or say why not, and decode the ids that came out. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const ns_tokenizer *t, const ns_ids *ids)
{
    ns_buf out = { 0 };
    ns_detok d;
    ns_detok_init(&d);
    for (size_t i = 0; i < ids->len; i++)
        ns_detok_push(&d, t, ids->data[i], &out);
    ns_detok_finish(&d, &out);
    ns_buf_release(&out);
}

static void use(const ns_tokenizer *t, const char *text, size_t n)
{
    for (int special = 0; special < 2; special++) {
        const ns_text_span spans[] = { { text, n / 2, !special }, { text + n / 2, n - n / 2, special } };
        ns_ids ids = { 0 };
        ns_buf back = { 0 };
        ns_err e = { 0 };
        if ((ns_tokenizer_encode(t, text, n, special, &ids, &e) == 0 && ns_tokenizer_encode_spans(t, spans, 2, &ids, &e) == 0 &&
             ns_tokenizer_decode(t, ids.data, ids.len, special, &back, &e) != 0) ||
            back.failed)
            __builtin_trap(); /* what encode gave must decode */
        stream(t, &ids);
        ns_ids_release(&ids);
        ns_buf_release(&back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data, *end = size ? memchr(json, 0, size) : NULL;
    size_t n = end ? (size_t)(end - json) : size, rest = end ? size - n - 1 : size < 200 ? size : 200;
    ns_err e = { 0 };
    ns_tokenizer *t = ns_tokenizer_parse(json, n, "fuzz", &e);
    if (t)
        use(t, end ? end + 1 : json, rest);
    ns_tokenizer_free(t);
    return 0;
}
