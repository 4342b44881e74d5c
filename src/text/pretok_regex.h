/* Regular expressions of tokenizer.json. Hugging Face runs them in Oniguruma with Ruby syntax, we in PCRE2; where the two read
 * a construct differently, the pattern is rewritten, and what has no certain rewriting is refused by name:
 *   \s \S \w \W    explicit sets (PCRE2's \s has U+180E, its \w lacks marks and connectors)
 *   \p{Han} ..     \p{sc:Han}: the script itself, not the script extensions
 *   ^ $            Ruby's are line anchors
 *   \uHHHH         \x{HHHH}
 *   refused        named groups, back references, \b \h \v \R \X .., nested classes and &&, {n,m}+ {n}? {,n}, inline options
 *                  other than (?i: and (?-i:
 * Known differences: under (?i: Oniguruma also folds one character against several (ss matches U+00DF), PCRE2 does not; and
 * each engine follows its own Unicode version, so they may differ on characters assigned after Unicode 14. */
#ifndef NS_TEXT_PRETOK_REGEX_H
#define NS_TEXT_PRETOK_REGEX_H
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

/* Appends the PCRE2 spelling of an Oniguruma pattern to out. */
int ns_regex_translate(const char *pattern, size_t n, ns_buf *out, ns_err *e);
#endif
