/* Regular expressions over answers: PCRE2 with Unicode classes, on text that need not be valid UTF-8. Patterns are compiled where they
 * are used: an answer is graded in far less time than it takes to generate. A pattern out of memory or out of its limits matches nothing. */
#ifndef NS_EVAL_REGEX_H
#define NS_EVAL_REGEX_H
#include "base/buf.h"
#include "eval/score.h"

enum { NS_RE_NOCASE = 1, NS_RE_LINES = 2 /* ^ and $ at every line */ };

typedef struct ns_re {
    void *code, *match; /* pcre2_code, pcre2_match_data */
    ns_text text;
    size_t at;
    ns_text whole, group[4]; /* of the last match; a group that took no part is empty, with p NULL */
} ns_re;

void ns_re_open(ns_re *r, const char *pattern, int flags, ns_text text);
bool ns_re_next(ns_re *r); /* the next match, which does not overlap the last */
void ns_re_close(ns_re *r);

int ns_re_count(const char *pattern, int flags, ns_text text);
bool ns_re_find(const char *pattern, int flags, ns_text text);
/* The last match's group 1 (the whole match where it has none); p is NULL where nothing matches. */
ns_text ns_re_last(const char *pattern, int flags, ns_text text);
/* Replaces every match; `with` may name groups as $1. Nothing is changed where the pattern fails. */
void ns_re_replace(ns_buf *text, const char *pattern, int flags, const char *with);
/* Appends `s` with a backslash before everything that is no letter, digit or underscore. */
void ns_re_quote(ns_buf *out, ns_text s);
#endif
