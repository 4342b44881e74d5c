/* Finding added tokens in a text: at each place the longest that fits, from left to right. Private to the tokenizer. */
#ifndef NS_TEXT_TOKENIZER_ADDED_H
#define NS_TEXT_TOKENIZER_ADDED_H
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct ns_added {
    char *content; /* owned */
    size_t len;    /* never 0 */
    int id;
    bool lstrip, rstrip; /* swallow white space on that side */
    bool single_word;    /* no match directly beside a word character */
} ns_added;

typedef struct ns_added_set {
    ns_added *items; /* owned; sorted by content once the set is sealed */
    size_t n, cap;
    bool first[256]; /* bytes that begin a content */
} ns_added_set;

/* Copies a->content. */
int ns_added_set_add(ns_added_set *s, const ns_added *a, ns_err *e);
/* Ends the additions: sorts, and drops contents listed twice. */
void ns_added_set_seal(ns_added_set *s);
/* The longest content that p begins with, within n bytes; NULL if none. */
const ns_added *ns_added_match(const ns_added_set *s, const char *p, size_t n);
void ns_added_set_release(ns_added_set *s);
#endif
