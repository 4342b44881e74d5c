#include "text/jinja_text.h"

#include <utf8proc.h>

#include "text/utf8.h"

uint32_t ns_jtext_next(const char **p, const char *end)
{
    uint32_t c = (unsigned char)**p;
    if (c < 0x80) {
        (*p)++;
        return c;
    }
    int n = ns_utf8_decode(*p, (size_t)(end - *p), &c);
    *p += n > 0 ? n : 1;
    return c;
}

uint32_t ns_jtext_prev(const char **p, const char *begin)
{
    uint32_t c = (unsigned char)(*p)[-1];
    int n = c < 0x80 ? 1 : ns_utf8_decode_last(begin, (size_t)(*p - begin), &c);
    *p -= n > 0 ? n : 1;
    return c;
}

static bool continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

size_t ns_jtext_count(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += !continuation(p[i]);
    return count;
}

size_t ns_jtext_offset(const char *p, size_t n, size_t index)
{
    for (size_t i = 0; i < n; i++)
        if (!continuation(p[i]) && index-- == 0)
            return i;
    return n;
}

bool ns_jtext_space(uint32_t c)
{
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

bool ns_jtext_newline(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool ns_jtext_printable(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool ns_jtext_alpha(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool ns_jtext_digit(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool ns_jtext_lower(uint32_t c)
{
    return utf8proc_islower((utf8proc_int32_t)c) != 0;
}

bool ns_jtext_upper(uint32_t c)
{
    return utf8proc_isupper((utf8proc_int32_t)c) != 0;
}

bool ns_jtext_cased(uint32_t c)
{
    return ns_jtext_lower(c) || ns_jtext_upper(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

/* Unicode's SpecialCasing.txt, the unconditional upper-case rows: what utf8proc's one-to-one mapping cannot say.
 * U+1F80..1FAF are regular and computed below. Sorted. */
static const struct special {
    uint16_t c, to[NS_JTEXT_CASE];
} special[] = {
    { 0xdf, { 0x53, 0x53 } }, { 0x149, { 0x2bc, 0x4e } }, { 0x1f0, { 0x4a, 0x30c } },
    { 0x390, { 0x399, 0x308, 0x301 } }, { 0x3b0, { 0x3a5, 0x308, 0x301 } }, { 0x587, { 0x535, 0x552 } },
    { 0x1e96, { 0x48, 0x331 } }, { 0x1e97, { 0x54, 0x308 } }, { 0x1e98, { 0x57, 0x30a } },
    { 0x1e99, { 0x59, 0x30a } }, { 0x1e9a, { 0x41, 0x2be } }, { 0x1f50, { 0x3a5, 0x313 } },
    { 0x1f52, { 0x3a5, 0x313, 0x300 } }, { 0x1f54, { 0x3a5, 0x313, 0x301 } }, { 0x1f56, { 0x3a5, 0x313, 0x342 } },
    { 0x1fb2, { 0x1fba, 0x399 } }, { 0x1fb3, { 0x391, 0x399 } }, { 0x1fb4, { 0x386, 0x399 } },
    { 0x1fb6, { 0x391, 0x342 } }, { 0x1fb7, { 0x391, 0x342, 0x399 } }, { 0x1fbc, { 0x391, 0x399 } },
    { 0x1fc2, { 0x1fca, 0x399 } }, { 0x1fc3, { 0x397, 0x399 } }, { 0x1fc4, { 0x389, 0x399 } },
    { 0x1fc6, { 0x397, 0x342 } }, { 0x1fc7, { 0x397, 0x342, 0x399 } }, { 0x1fcc, { 0x397, 0x399 } },
    { 0x1fd2, { 0x399, 0x308, 0x300 } }, { 0x1fd3, { 0x399, 0x308, 0x301 } }, { 0x1fd6, { 0x399, 0x342 } },
    { 0x1fd7, { 0x399, 0x308, 0x342 } }, { 0x1fe2, { 0x3a5, 0x308, 0x300 } }, { 0x1fe3, { 0x3a5, 0x308, 0x301 } },
    { 0x1fe4, { 0x3a1, 0x313 } }, { 0x1fe6, { 0x3a5, 0x342 } }, { 0x1fe7, { 0x3a5, 0x308, 0x342 } },
    { 0x1ff2, { 0x1ffa, 0x399 } }, { 0x1ff3, { 0x3a9, 0x399 } }, { 0x1ff4, { 0x38f, 0x399 } },
    { 0x1ff6, { 0x3a9, 0x342 } }, { 0x1ff7, { 0x3a9, 0x342, 0x399 } }, { 0x1ffc, { 0x3a9, 0x399 } },
    { 0xfb00, { 0x46, 0x46 } }, { 0xfb01, { 0x46, 0x49 } }, { 0xfb02, { 0x46, 0x4c } },
    { 0xfb03, { 0x46, 0x46, 0x49 } }, { 0xfb04, { 0x46, 0x46, 0x4c } }, { 0xfb05, { 0x53, 0x54 } },
    { 0xfb06, { 0x53, 0x54 } }, { 0xfb13, { 0x544, 0x546 } }, { 0xfb14, { 0x544, 0x535 } },
    { 0xfb15, { 0x544, 0x53b } }, { 0xfb16, { 0x54e, 0x546 } }, { 0xfb17, { 0x544, 0x53d } },
};

static int special_upper(uint32_t c, uint32_t out[NS_JTEXT_CASE])
{
    if (c >= 0x1f80 && c <= 0x1faf) { /* Greek with iota below: the capital, then a capital iota */
        static const uint16_t base[] = { 0x1f08, 0x1f28, 0x1f68 };
        out[0] = base[(c - 0x1f80) / 16] + c % 8;
        out[1] = 0x399;
        return 2;
    }
    for (size_t i = 0; i < sizeof special / sizeof *special && special[i].c <= c; i++) {
        int n = 0;
        for (; special[i].c == c && n < NS_JTEXT_CASE && special[i].to[n]; n++)
            out[n] = special[i].to[n];
        if (n)
            return n;
    }
    return 0;
}

int ns_jtext_to_upper(uint32_t c, uint32_t out[NS_JTEXT_CASE])
{
    int n = c < 0x80 ? 0 : special_upper(c, out);
    if (n)
        return n;
    out[0] = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
    return 1;
}

int ns_jtext_to_title(uint32_t c, uint32_t out[NS_JTEXT_CASE])
{
    uint32_t single = (uint32_t)utf8proc_totitle((utf8proc_int32_t)c);
    int n = c < 0x80 || (c != 0xdf && single != c) ? 0 : special_upper(c, out);
    if (n == 0 || (c >= 0x1f80 && c <= 0x1faf) || c == 0x1fbc || c == 0x1fcc || c == 0x1ffc) {
        out[0] = single;
        return 1;
    }
    for (int i = 1; i < n && c != 0x149; i++) {
        bool iota = out[i] == 0x399 && c >= 0x1fb2; /* it stays below its letter */
        out[i] = iota ? 0x345 : (uint32_t)utf8proc_tolower((utf8proc_int32_t)out[i]);
    }
    return n;
}

/* Sigma is final after a letter and not before one. (Unicode also looks past case-ignorable marks; so does this.) */
static bool case_ignorable(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_LM ||
           k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019;
}

static bool final_sigma(const char *begin, const char *at, const char *end)
{
    uint32_t c = 0;
    const char *p = at;
    do {
        if (p == begin)
            return false;
        c = ns_jtext_prev(&p, begin);
    } while (case_ignorable(c));
    if (!ns_jtext_cased(c))
        return false;
    ns_jtext_next(&at, end);
    while (at < end) {
        c = ns_jtext_next(&at, end);
        if (!case_ignorable(c))
            return !ns_jtext_cased(c);
    }
    return true;
}

int ns_jtext_to_lower(uint32_t c, const char *begin, const char *at, const char *end, uint32_t out[NS_JTEXT_CASE])
{
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (c == 0x130) { /* capital I with a dot: small i and the dot */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    if (c == 0x3a3 && final_sigma(begin, at, end))
        out[0] = 0x3c2;
    return 1;
}
