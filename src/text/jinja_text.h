/* Code points, character classes and case as Python's str has them. Input is valid UTF-8 (checked where it enters). */
#ifndef NS_TEXT_JINJA_TEXT_H
#define NS_TEXT_JINJA_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NS_JTEXT_CASE = 3 }; /* a code point becomes at most three when its case changes */

/* Decodes the code point at *p and moves past it. */
uint32_t ns_jtext_next(const char **p, const char *end);
/* The code point that ends at *p; moves to its first byte. */
uint32_t ns_jtext_prev(const char **p, const char *begin);
size_t ns_jtext_count(const char *p, size_t n);
/* Byte offset of code point number `index`; n when the string is shorter. */
size_t ns_jtext_offset(const char *p, size_t n, size_t index);

bool ns_jtext_space(uint32_t c);     /* str.isspace */
bool ns_jtext_newline(uint32_t c);   /* where str.splitlines cuts */
bool ns_jtext_printable(uint32_t c); /* str.isprintable */
bool ns_jtext_alpha(uint32_t c);     /* str.isalpha */
bool ns_jtext_digit(uint32_t c);     /* str.isdecimal */
bool ns_jtext_lower(uint32_t c);
bool ns_jtext_upper(uint32_t c);
bool ns_jtext_cased(uint32_t c);

/* Each writes 1..3 code points and returns how many. */
int ns_jtext_to_upper(uint32_t c, uint32_t out[NS_JTEXT_CASE]);
int ns_jtext_to_title(uint32_t c, uint32_t out[NS_JTEXT_CASE]);
/* `at` is where c stands in begin..end: a final sigma depends on its neighbours. */
int ns_jtext_to_lower(uint32_t c, const char *begin, const char *at, const char *end, uint32_t out[NS_JTEXT_CASE]);
#endif
