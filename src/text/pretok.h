/* Pre-tokenization: cuts a text into pieces; byte pairs are merged within a piece only.
 * Supported, as the last step or alone: ByteLevel (add_prefix_space, use_regex). Before it, in a Sequence: Split by Regex or
 * String (behavior Isolated or Removed, invert), Digits. A ns_pretok is immutable and may be shared by threads; each call
 * brings its own ns_pretok_scratch. */
#ifndef NS_TEXT_PRETOK_H
#define NS_TEXT_PRETOK_H
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

typedef struct ns_pretok ns_pretok;

typedef struct ns_pretok_scratch {
    void *match;     /* pcre2_match_data */
    ns_buf prefixed; /* a piece with its prefix space */
} ns_pretok_scratch;

/* Called for every piece, in order, never empty. The bytes are valid during the call. A non-zero result stops the run. */
typedef int ns_piece_fn(void *ctx, const char *p, size_t n);

/* `spec` is the value of "pre_tokenizer" in tokenizer.json. */
ns_pretok *ns_pretok_parse(const json_t *spec, ns_err *e);
void ns_pretok_free(ns_pretok *p);

int ns_pretok_scratch_init(ns_pretok_scratch *s, ns_err *e);
void ns_pretok_scratch_release(ns_pretok_scratch *s);

/* `text` must be valid UTF-8. `start` says that nothing precedes it; only then is a prefix space added. Returns -1 when fn
 * did (fn reports its own error), or with e filled when a pattern exceeds the engine's limits on this text. */
int ns_pretok_run(const ns_pretok *p, ns_pretok_scratch *s, const char *text, size_t n, bool start, ns_piece_fn *fn, void *ctx,
                  ns_err *e);
#endif
