#include "text/jinja_lex_string.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
}

/* Digits with single underscores between them: the position behind the last digit; i itself when there is none. */
static size_t digits(const char *s, size_t n, size_t i, int base, bool leading_underscore)
{
    size_t end = i;
    bool may_skip = leading_underscore;
    while (i < n) {
        if (digit_value(s[i]) < base) {
            end = ++i;
            may_skip = true;
        } else if (s[i] == '_' && may_skip) {
            may_skip = false;
            i++;
        } else
            break;
    }
    return end;
}

/* The end of a float that begins at i, or 0 when it is none. */
static size_t float_end(const char *s, size_t n, size_t i)
{
    size_t end = digits(s, n, i, 10, false), frac = end;
    bool is_float = false;
    if (end < n && s[end] == '.') {
        frac = digits(s, n, end + 1, 10, false);
        is_float = frac > end + 1;
        if (is_float)
            end = frac;
    }
    if (end < n && (s[end] == 'e' || s[end] == 'E')) {
        size_t sign = end + 1 < n && (s[end + 1] == '+' || s[end + 1] == '-') ? end + 2 : end + 1;
        size_t exp = digits(s, n, sign, 10, false);
        if (exp > sign)
            return exp;
    }
    return is_float ? end : 0;
}

static int read_float(const char *s, size_t len, double *f)
{
    char text[400];
    size_t k = 0;
    for (size_t i = 0; i < len && k < sizeof text - 1; i++)
        if (s[i] != '_')
            text[k++] = s[i];
    text[k] = '\0';
    *f = strtod(text, NULL);
    return k < sizeof text - 1 ? 1 : -1;
}

int ns_jlex_number(const char *s, size_t n, size_t *pos, bool integer_only, int64_t *out, double *f)
{
    size_t i = *pos, end = integer_only ? 0 : float_end(s, n, i);
    if (end) {
        *pos = end;
        return read_float(s + i, end - i, f);
    }
    int base = 10;
    if (s[i] == '0' && i + 1 < n) {
        char c = (char)(s[i + 1] | 0x20);
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
        if (base != 10 && digits(s, n, i + 2, base, true) == i + 2)
            base = 10;
    }
    size_t begin = base == 10 ? i : i + 2;
    end = base == 10 && s[i] == '0' ? digits(s, n, i, 1, false) : digits(s, n, begin, base, base != 10);
    int64_t v = 0;
    for (size_t k = begin; k < end; k++)
        if (s[k] != '_' && (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit_value(s[k]), &v)))
            return -1;
    *out = v;
    *pos = end;
    return 0;
}

static int read_hex(const char *s, size_t n, size_t digits_wanted, uint32_t *out)
{
    if (n < digits_wanted)
        return -1;
    *out = 0;
    for (size_t i = 0; i < digits_wanted; i++) {
        int v = digit_value(s[i]);
        if (v > 15)
            return -1;
        *out = *out << 4 | (uint32_t)v;
    }
    return 0;
}

static size_t read_octal(const char *s, size_t n, uint32_t *out)
{
    size_t k = 0;
    for (*out = 0; k < 3 && k < n && digit_value(s[k]) < 8; k++)
        *out = *out << 3 | (uint32_t)digit_value(s[k]);
    return k;
}

/* One escape behind the backslash at s: what it means and how many bytes it took; 0 bytes: Python keeps the backslash. */
static const char *escape(const char *s, size_t n, size_t *used, uint32_t *c)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = *s ? strchr(from, *s) : NULL;
    *used = 1;
    if (known) {
        *c = (unsigned char)to[known - from];
        return NULL;
    }
    if (digit_value(*s) < 8) {
        *used = read_octal(s, n, c);
        return NULL;
    }
    size_t wanted = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
    if (wanted == 0) {
        *used = 0;
        return *s == 'N' ? "escape \\N{..} is not supported" : NULL;
    }
    if (read_hex(s + 1, n - 1, wanted, c) || *c > 0x10ffff)
        return "bad \\x, \\u or \\U escape";
    if (*c >= 0xd800 && *c < 0xe000)
        return "a surrogate is not a character";
    *used = 1 + wanted;
    return NULL;
}

const char *ns_jlex_unescape(const char *s, size_t n, char *out, size_t *len)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (s[i] != '\\' || i + 1 == n) {
            out[k++] = s[i++];
            continue;
        }
        i++;
        if (s[i] == '\n') { /* backslash at the end of a line: both go */
            i++;
            continue;
        }
        size_t used;
        uint32_t c = 0;
        const char *bad = escape(s + i, n - i, &used, &c);
        if (bad)
            return bad;
        if (used)
            k += ns_utf8_encode(c, out + k);
        else
            out[k++] = '\\';
        i += used;
    }
    *len = k;
    return NULL;
}
