/* Streaming decode, UTF-8 and NFC: no vocabulary needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#define FFFD "\xef\xbf\xbd"

/* Pushes s in two parts, cut at `cut`. */
static void stream(const char *s, size_t n, size_t cut, ns_buf *out)
{
    ns_detok d;
    ns_detok_init(&d);
    ns_detok_push_bytes(&d, s, cut, out);
    assert_int_equal(ns_utf8_valid(out->data ? out->data : "", out->len), out->len);
    ns_detok_push_bytes(&d, s + cut, n - cut, out);
    ns_detok_finish(&d, out);
    assert_int_equal(d.len, 0);
}

static void invalid_bytes_are_replaced(void **state)
{
    /* Expectations as Python's bytes.decode("utf-8", "replace") gives them. */
    static const char *const cases[][2] = {
        { "", "" },
        { "abc", "abc" },
        { "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z", "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z" },
        { "\xff", FFFD },
        { "a\x80z", "a" FFFD "z" },
        { "\xe2\x82", FFFD },
        { "\xe2\x82z", FFFD "z" },
        { "\xf0\x9f\x98", FFFD },
        { "\xf0\x9f\xc3\xa9", FFFD "\xc3\xa9" },
        { "\xc0\x80", FFFD FFFD },
        { "\xed\xa0\x80", FFFD FFFD FFFD },
        { "\xe0\x80\xaf", FFFD FFFD FFFD },
        { "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD },
        { "\xe2\xe2\x82\xac", FFFD "\xe2\x82\xac" },
        { "\xc3\xc3", FFFD FFFD },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i][0]);
        for (size_t cut = 0; cut <= n; cut++) {
            ns_buf b = { 0 };
            stream(cases[i][0], n, cut, &b);
            assert_string_equal(b.data ? b.data : "", cases[i][1]);
            ns_buf_release(&b);
        }
    }
}

static void nothing_is_held_longer_than_needed(void **state)
{
    ns_detok d;
    ns_buf b = { 0 };
    (void)state;
    ns_detok_init(&d);
    ns_detok_push_bytes(&d, "\xf0\x9f\x98", 3, &b);
    assert_int_equal(b.len, 0);
    ns_detok_push_bytes(&d, "\x80", 1, &b);
    assert_string_equal(b.data, "\xf0\x9f\x98\x80");
    ns_buf_clear(&b);
    ns_detok_push_bytes(&d, "\xe0", 1, &b);
    assert_int_equal(b.len, 0);
    ns_detok_push_bytes(&d, "\x80", 1, &b); /* overlong: certain at the second byte */
    assert_string_equal(b.data, FFFD FFFD);
    ns_detok_finish(&d, &b);
    assert_string_equal(b.data, FFFD FFFD);
    ns_buf_release(&b);
}

static void any_cut_gives_the_same(void **state)
{
    static const unsigned char bytes[] = { 'a', 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xff };
    ns_rng r;
    (void)state;
    ns_rng_init(&r, 7);
    for (int round = 0; round < 3000; round++) {
        char s[24];
        ns_buf whole = { 0 }, cut = { 0 };
        size_t n = ns_rng_u64(&r) % sizeof s;
        for (size_t i = 0; i < n; i++)
            s[i] = (char)bytes[ns_rng_u64(&r) % sizeof bytes];
        stream(s, n, n, &whole);
        stream(s, n, ns_rng_u64(&r) % (n + 1), &cut);
        assert_int_equal(whole.len, cut.len);
        assert_memory_equal(whole.data ? whole.data : "", cut.data ? cut.data : "", whole.len);
        assert_int_equal(ns_utf8_valid(whole.data ? whole.data : "", whole.len), whole.len);
        ns_buf_release(&whole);
        ns_buf_release(&cut);
    }
}

static void every_character_goes_there_and_back(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char u[4];
        uint32_t back = 0, last = 0;
        size_t n = ns_utf8_encode(c, u);
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        if (ns_utf8_decode(u, n, &back) != (surrogate ? -1 : (int)n) || (!surrogate && back != c))
            fail_msg("U+%04X", c);
        if (!surrogate && (ns_utf8_decode_last(u, n, &last) != (int)n || last != c || ns_utf8_decode(u, n - 1, &last) != 0))
            fail_msg("U+%04X", c);
    }
}

static void spaces_are_white_space(void **state)
{
    (void)state;
    assert_true(ns_utf8_is_space(0x85));
    assert_true(ns_utf8_is_space(0x3000));
    assert_false(ns_utf8_is_space(0x180e));
    assert_false(ns_utf8_is_space(0x1c));
    assert_false(ns_utf8_is_space(0x200b));
    assert_true(ns_utf8_is_word('_'));
    assert_true(ns_utf8_is_word(0x301));
    assert_true(ns_utf8_is_word(0x24d0));
    assert_false(ns_utf8_is_word(0xbd));
    assert_false(ns_utf8_is_word('-'));
}

static void nfc_composes(void **state)
{
    static const char *const cases[][2] = {
        { "", "" },
        { "abc\u00e9", "abc\u00e9" },
        { "e\u0301", "\u00e9" },
        { "\u212b\u2126", "\u00c5\u03a9" },
        { "q\u0307\u0323", "q\u0323\u0307" },                   /* order of marks */
        { "\u1e9b\u0323", "\u1e9b\u0323" },                      /* UAX 15, table 8 */
        { "\u1100\u1161\u11a8", "\uac01" },                      /* Hangul */
        { "\u0344", "\u0308\u0301" },                            /* excluded from composition */
        { "\U0002f800", "\u4e3d" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_buf b = { 0 };
        assert_int_equal(ns_utf8_nfc(cases[i][0], strlen(cases[i][0]), &b), 0);
        assert_string_equal(b.data ? b.data : "", cases[i][1]);
        if (ns_utf8_plain_nfc(cases[i][0], strlen(cases[i][0])))
            assert_string_equal(cases[i][0], cases[i][1]);
        ns_buf_release(&b);
    }
}

/* A run of marks in the worst order; neighbours exchanged one by one would take minutes. */
static void nfc_is_linear(void **state)
{
    enum { N = 400000 };
    ns_buf text = { 0 }, b = { 0 };
    (void)state;
    ns_buf_addc(&text, 'q');
    for (int i = 0; i < N; i++)
        ns_buf_adds(&text, i % 2 ? "\u0323" : "\u0307");
    assert_int_equal(ns_utf8_nfc(text.data, text.len, &b), 0);
    assert_int_equal(b.len, text.len);
    assert_memory_equal(b.data, "q\u0323\u0323", 5);
    assert_memory_equal(b.data + b.len - 4, "\u0307\u0307", 4);
    ns_buf_release(&text);
    ns_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(invalid_bytes_are_replaced),
        cmocka_unit_test(nothing_is_held_longer_than_needed),
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(every_character_goes_there_and_back),
        cmocka_unit_test(spaces_are_white_space),
        cmocka_unit_test(nfc_composes),
        cmocka_unit_test(nfc_is_linear),
    };
    return cmocka_run_group_tests_name("tokenizer_stream", tests, NULL, NULL);
}
