/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef NS_TEXT_UTF8_H
#define NS_TEXT_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Reads the character at p. Returns its length (1..4); 0 when the n bytes are the beginning of a character and more are
 * needed (or n == 0); -1 when no character starts so. *cp is set only when a length is returned. */
int ns_utf8_decode(const char *p, size_t n, uint32_t *cp);
/* The character that ends at p[n]: its length, or 0 when the last bytes are not a whole character. */
int ns_utf8_decode_last(const char *p, size_t n, uint32_t *cp);
/* Writes 1..4 bytes and returns how many. cp must be a scalar value. */
size_t ns_utf8_encode(uint32_t cp, char out[4]);
/* Length of the longest prefix that is valid UTF-8. */
size_t ns_utf8_valid(const char *p, size_t n);

/* White_Space of the Unicode Character Database, which is what \s means to Hugging Face; U+180E is not in it. */
bool ns_utf8_is_space(uint32_t cp);
/* \w: Alphabetic, marks, decimal numbers, connector punctuation, join controls. */
bool ns_utf8_is_word(uint32_t cp);

/* True when the text is in NFC for the reason that no character in it can change; false says nothing. */
bool ns_utf8_plain_nfc(const char *p, size_t n);
/* Appends NFC(p) to out. p must be valid UTF-8. Linear in n whatever the text. Returns -1 when memory is out. */
int ns_utf8_nfc(const char *p, size_t n, ns_buf *out);
#endif
