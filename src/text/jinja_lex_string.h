/* Literals of the template language: numbers, and strings with Python's escapes. */
#ifndef NS_TEXT_JINJA_LEX_STRING_H
#define NS_TEXT_JINJA_LEX_STRING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads the number at s[*pos]; returns 0 for an integer, 1 for a float, -1 when it is too large. integer_only: it follows
 * a dot, as in items.0.1 */
int ns_jlex_number(const char *s, size_t n, size_t *pos, bool integer_only, int64_t *i, double *f);
/* Writes at most n bytes. Returns NULL, or what is wrong. */
const char *ns_jlex_unescape(const char *s, size_t n, char *out, size_t *len);
#endif
