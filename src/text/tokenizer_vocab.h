/* The tokens of one tokenizer: id -> bytes, and bytes -> id. Private to the tokenizer.
 * A vocabulary file spells bytes in the "byte alphabet" of GPT-2: printable Latin-1 stands for itself, every other byte for
 * U+0100 and up, so " the" is written "Ġthe". Tokens are kept as the bytes they stand for; entries that are not in the
 * alphabet (added tokens with spaces, say) are kept literally and are found only by name. */
#ifndef NS_TEXT_TOKENIZER_VOCAB_H
#define NS_TEXT_TOKENIZER_VOCAB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    NS_TOKEN_PRESENT = 1, /* the id is in use */
    NS_TOKEN_ADDED = 2,
    NS_TOKEN_SPECIAL = 4,
    NS_TOKEN_CLOSED = 8, /* an added token whose text is also a word of the vocabulary: plain text must not reach it */
};

enum { NS_TOKEN_MAX_ID = (1 << 22) - 1 };

typedef struct ns_token {
    uint32_t off, len; /* in blob */
    unsigned flags;
} ns_token;

typedef struct ns_strslot {
    uint32_t off, len, hash;
    int id; /* -1: empty */
} ns_strslot;

/* Open addressing, linear probing, at most half full. The strings are in the vocabulary's blob. */
typedef struct ns_strtab {
    ns_strslot *slots; /* owned */
    size_t n, cap;     /* cap is 0 or a power of two */
} ns_strtab;

typedef struct ns_vocab {
    ns_buf blob;
    ns_token *tokens; /* owned; by id */
    size_t n, cap;    /* n: largest id + 1 */
    ns_strtab words;  /* model.vocab by the bytes it stands for: what merging looks up */
    ns_strtab names;  /* added tokens by content, and literal entries */
    size_t max_len;   /* of a word */
} ns_vocab;

/* Bytes of a string in the byte alphabet; out holds n. Returns how many, or -1 if a character is not in the alphabet. */
ptrdiff_t ns_alphabet_decode(const char *s, size_t n, char *out);

/* Reserves room for n words. */
int ns_vocab_reserve(ns_vocab *v, size_t n, ns_err *e);
/* Adds an entry of model.vocab. Refuses a taken id, and one outside 0..NS_TOKEN_MAX_ID. */
int ns_vocab_add(ns_vocab *v, const char *name, size_t n, int64_t id, ns_err *e);
/* Adds an added token, or turns the vocabulary's entry of the same name and id into one. `closable`: see NS_TOKEN_CLOSED. */
int ns_vocab_add_added(ns_vocab *v, const char *content, size_t n, int64_t id, bool special, bool closable, ns_err *e);
/* A word by its bytes; -1 if there is none. */
int ns_vocab_find(const ns_vocab *v, const char *p, size_t n);
/* An added token by its content, or an entry of model.vocab as the file spells it; -1 if there is none. */
int ns_vocab_find_name(const ns_vocab *v, const char *name, size_t n);
void ns_vocab_release(ns_vocab *v);
#endif
