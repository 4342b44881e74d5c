/* Byte pair encoding of one piece: of all neighbouring pairs the one with the lowest rank is merged, the leftmost first, until
 * no pair is in the table. Private to the tokenizer. */
#ifndef NS_TEXT_TOKENIZER_BPE_H
#define NS_TEXT_TOKENIZER_BPE_H
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer_ids.h"

typedef struct ns_merge {
    int left, right; /* left is -1 in an empty slot */
    int to;
    uint32_t rank;
} ns_merge;

/* Open addressing, linear probing, at most half full. */
typedef struct ns_bpe {
    ns_merge *slots; /* owned */
    size_t n, cap;   /* cap is a power of two */
    int bytes[256];  /* the token of each byte */
} ns_bpe;

/* Working memory of one encoding call. A zero-initialised one is valid. */
typedef struct ns_bpe_scratch {
    struct ns_symbol *symbols;
    uint64_t *heap;
    size_t symbols_cap; /* the heap has room for three times as many */
} ns_bpe_scratch;

/* Room for n merges; n must be known before the first is added. */
int ns_bpe_init(ns_bpe *b, size_t n, ns_err *e);
void ns_bpe_release(ns_bpe *b);
/* A pair listed twice takes its later rank, as in Hugging Face's implementation. */
void ns_bpe_add(ns_bpe *b, int left, int right, uint32_t rank, int to);
/* Appends the ids of the n bytes at p, n <= UINT32_MAX. Time O(n log n) for long pieces, O(n^2) only below a few dozen bytes. */
int ns_bpe_encode(const ns_bpe *b, ns_bpe_scratch *s, const char *p, size_t n, ns_ids *out, ns_err *e);
void ns_bpe_scratch_release(ns_bpe_scratch *s);
#endif
