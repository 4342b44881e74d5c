/* Tokenizer: Hugging Face tokenizer.json with a byte-level BPE model. Text -> ids -> bytes.
 *
 * Supported: model BPE (ignore_merges either way, merges as pairs or as "a b", byte_fallback false, no affixes, no dropout)
 * over a vocabulary that has every byte; normalizer null or NFC; pre_tokenizer as in text/pretok.h; decoder ByteLevel; added
 * tokens with lstrip, rstrip, single_word (with `normalized` only where the normalizer is null). Anything else is refused
 * when loading, by name. The fields truncation and padding are ignored. A post_processor is accepted if it is ByteLevel or
 * TemplateProcessing and is not run: encoding never adds special tokens, the caller (the chat template) does.
 *
 * Bytes: any input is accepted. Bytes that are not UTF-8 become their single-byte tokens, one by one, and cut the text there;
 * so decode(encode(x)) == x for every x, unless the normalizer changes x (NFC), the pre-tokenizer adds a prefix space or
 * removes, or an added token strips white space. On valid UTF-8 the ids are Hugging Face's.
 *
 * Plain text never yields an added token whose content it spells, not even where the content is also a word of the
 * vocabulary (Nemotron lists "<think>" there); exceptions are contents of one byte, and tokens with single_word.
 *
 * A ns_tokenizer is immutable: threads may share it without locks. */
#ifndef NS_TEXT_TOKENIZER_H
#define NS_TEXT_TOKENIZER_H
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "text/tokenizer_ids.h"

typedef struct ns_tokenizer ns_tokenizer;

/* The path is that of tokenizer.json itself. NULL with e filled on failure. */
ns_tokenizer *ns_tokenizer_open(const char *path, ns_err *e);
/* The same from memory; `what` names the text in errors. */
ns_tokenizer *ns_tokenizer_parse(const char *json, size_t n, const char *what, ns_err *e);
void ns_tokenizer_free(ns_tokenizer *t);

/* Largest id + 1; not every id below needs to be in use. */
int ns_tokenizer_vocab_size(const ns_tokenizer *t);

/* Appends the ids of text[0..n) to out. With parse_special, added tokens in the text become their ids; without, the whole
 * text is plain. Returns -1 with e filled when memory is out, when the text is over 1 GiB, or when a pattern exceeds the
 * regular expression engine's limits; out is then as it was. */
int ns_tokenizer_encode(const ns_tokenizer *t, const char *text, size_t n, bool parse_special, ns_ids *out, ns_err *e);

typedef struct ns_text_span {
    const char *text;
    size_t len;
    bool parse_special;
} ns_text_span;

/* Encodes the joined spans as one text, except that added tokens are recognised only where parse_special spans hold them
 * wholly (neighbouring parse_special spans count as one; empty spans count for nothing). Stripping by lstrip and rstrip, and
 * the word boundaries of single_word, see the joined text. Errors as above. */
int ns_tokenizer_encode_spans(const ns_tokenizer *t, const ns_text_span *spans, size_t n_spans, ns_ids *out, ns_err *e);

/* The id of an added token by its content, or of a vocabulary entry as the file spells it ("Ġthe"); -1 if there is none. */
int ns_tokenizer_find(const ns_tokenizer *t, const char *token, size_t n);
/* True for added tokens marked special; false for all others, and for ids that are not in use. */
bool ns_tokenizer_is_special(const ns_tokenizer *t, int id);
/* The bytes one token stands for; for an added token, its content. Borrowed from t, not NUL-terminated. Returns -1 (and an
 * empty string) for ids that are not in use. */
int ns_tokenizer_bytes(const ns_tokenizer *t, int id, const char **p, size_t *n);

/* Appends the bytes of all tokens to out, exactly, UTF-8 or not; skip_special leaves special tokens out. Returns -1 with e
 * filled for an id that is not in use, or when memory is out; out is then as it was. */
int ns_tokenizer_decode(const ns_tokenizer *t, const int *ids, size_t n, bool skip_special, ns_buf *out, ns_err *e);

/* Streaming decode: tokens end in the middle of characters, and this hands out whole ones. What it appends is always valid
 * UTF-8: bytes that cannot be part of a character become U+FFFD (one per maximal part, as browsers and Python do) as soon as
 * that is certain. Caller's memory, no release needed. */
typedef struct ns_detok {
    char tail[3]; /* the beginning of a character */
    unsigned len;
} ns_detok;

void ns_detok_init(ns_detok *d);
/* Appends what token `id` completes; an id that is not in use adds nothing. Memory failures show in out->failed. */
void ns_detok_push(ns_detok *d, const ns_tokenizer *t, int id, ns_buf *out);
/* The same for bytes from elsewhere. */
void ns_detok_push_bytes(ns_detok *d, const char *p, size_t n, ns_buf *out);
/* Ends the text: an incomplete tail becomes U+FFFD. The state is as after init. */
void ns_detok_finish(ns_detok *d, ns_buf *out);
#endif
