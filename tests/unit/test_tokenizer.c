/* The tokenizer over a tiny vocabulary built here: ids 0..255 are the bytes, a few words and added tokens follow. */
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

enum { HE = 256, LL, HELL, HELLO, S_HELLO, LO, TAG, XYZ, E_ACUTE, END, END_X, WORD = 269 };

#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}"
#define WHOLE "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define PAIRS                                                                                                         \
    "[\"h\",\"e\"],[\"l\",\"l\"],[\"he\",\"ll\"],[\"hell\",\"o\"],[\"\u0120\",\"hello\"],[\"l\",\"o\"],[\"\u00c3\",\"\u00a9\"]"
#define STRINGS "\"h e\",\"l l\",\"he ll\",\"hell o\",\"\u0120 hello\",\"l o\",\"\u00c3 \u00a9\""
#define WORDS                                                                                                         \
    "\"he\":256,\"ll\":257,\"hell\":258,\"hello\":259,\"\u0120hello\":260,\"lo\":261,\"<t>\":262,\"xyz\":263,"         \
    "\"\u00c3\u00a9\":264"
#define ADDED                                                                                                         \
    "{\"id\":262,\"content\":\"<t>\",\"special\":false,\"normalized\":false},"                                        \
    "{\"id\":265,\"content\":\"<|end|>\",\"special\":true},{\"id\":266,\"content\":\"<|end|>x\",\"special\":true},"   \
    "{\"id\":267,\"content\":\"<l>\",\"special\":true,\"lstrip\":true},"                                              \
    "{\"id\":268,\"content\":\"<r>\",\"special\":true,\"rstrip\":true},"                                              \
    "{\"id\":269,\"content\":\"word\",\"special\":true,\"single_word\":true}"

/* Parts of tokenizer.json; NULL means the usual one. */
typedef struct tiny {
    const char *pretok, *normalizer, *merges, *words, *added, *model, *decoder, *post;
    int missing_byte; /* 0: none */
} tiny;

static const char *or_else(const char *s, const char *usual)
{
    return s ? s : usual;
}

/* How the vocabulary file spells a byte, JSON escapes included. */
static void spell(ns_buf *b, unsigned byte)
{
    static unsigned next[256];
    char u[4];
    if (next[0] == 0)
        for (unsigned i = 0, n = 0x100; i < 256; i++)
            next[i] = (i > 0x20 && i < 0x7f) || (i > 0xa0 && i != 0xad) ? i : n++;
    if (byte == '"' || byte == '\\')
        ns_buf_addc(b, '\\');
    ns_buf_add(b, u, ns_utf8_encode(next[byte], u));
}

static void write_tiny(const tiny *o, ns_buf *b)
{
    ns_buf_addf(b, "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, ",
                or_else(o->added, ADDED), or_else(o->normalizer, "null"), or_else(o->pretok, BYTE_LEVEL),
                or_else(o->post, "null"));
    ns_buf_addf(b, "\"decoder\": %s, \"model\": {%s, \"merges\": [%s], \"vocab\": {", or_else(o->decoder, BYTE_LEVEL),
                or_else(o->model, "\"type\": \"BPE\""), or_else(o->merges, PAIRS));
    for (unsigned i = 0; i < 256; i++) {
        if (o->missing_byte && i == (unsigned)o->missing_byte)
            continue;
        ns_buf_adds(b, "\"");
        spell(b, i);
        ns_buf_addf(b, "\": %u, ", i);
    }
    ns_buf_addf(b, "%s}}}", or_else(o->words, WORDS));
}

static ns_tokenizer *parse_tiny(const tiny *o, ns_err *e)
{
    ns_buf b = { 0 };
    write_tiny(o, &b);
    ns_tokenizer *t = ns_tokenizer_parse(b.data, b.len, "tiny", e);
    ns_buf_release(&b);
    return t;
}

static ns_tokenizer *make(tiny o)
{
    ns_err e = { 0 };
    ns_tokenizer *t = parse_tiny(&o, &e);
    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

/* Ids as text: words and added tokens by number, bytes as they are (printable ones). */
static void show(const ns_ids *ids, ns_buf *out)
{
    for (size_t i = 0; i < ids->len; i++) {
        if (ids->data[i] < 256)
            ns_buf_addf(out, "%s%c", i ? " " : "", ids->data[i]);
        else
            ns_buf_addf(out, "%s%d", i ? " " : "", ids->data[i]);
    }
}

static void check_spans(const ns_tokenizer *t, const ns_text_span *spans, size_t n, const char *expected)
{
    ns_err e = { 0 };
    ns_ids ids = { 0 };
    ns_buf b = { 0 };
    assert_int_equal(ns_tokenizer_encode_spans(t, spans, n, &ids, &e), 0);
    show(&ids, &b);
    assert_string_equal(b.data ? b.data : "", expected);
    ns_ids_release(&ids);
    ns_buf_release(&b);
}

static void check(const ns_tokenizer *t, const char *text, bool special, const char *expected)
{
    ns_text_span span = { text, strlen(text), special };
    ns_err e = { 0 };
    ns_ids ids = { 0 };
    ns_buf b = { 0 };
    assert_int_equal(ns_tokenizer_encode(t, text, strlen(text), special, &ids, &e), 0);
    show(&ids, &b);
    assert_string_equal(b.data ? b.data : "", expected);
    ns_ids_release(&ids);
    ns_buf_release(&b);
    check_spans(t, &span, 1, expected);
}

static void merges_in_rank_order(void **state)
{
    const char *const merges[] = { PAIRS, STRINGS };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        ns_tokenizer *t = make((tiny){ .merges = merges[i] });
        check(t, "", true, "");
        check(t, "hello", true, "259");
        check(t, "hello hello", true, "259 260");
        check(t, "helo", true, "256 261");
        check(t, "lllo", true, "257 261");
        check(t, "llo", true, "257 o");
        check(t, "\u00e9", true, "264");
        check(t, "xyz", true, "x y z");
        ns_tokenizer_free(t);
    }
}

static void ignore_merges_takes_whole_words(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .model = "\"type\": \"BPE\", \"ignore_merges\": true" });
    check(t, "xyz", true, "263");
    check(t, "xyzx", true, "x y z x");
    check(t, "hello", true, "259");
    ns_tokenizer_free(t);
}

static void added_tokens_are_found(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ 0 });
    check(t, "hello<|end|>hello", true, "259 265 259");
    check(t, "<|end|>x<|end|>y", true, "266 265 y");
    check(t, "<|end|><|end|", true, "265 < | e n d |");
    check(t, "<t>", true, "262");
    check(t, "h  <l> e<r> \n e", true, "h 267   e 268 e");
    check(t, "word word, sword words", true, "269   269 ,   s w o r d   w o r d s");
    ns_tokenizer_free(t);
}

static void plain_text_stays_text(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .pretok = WHOLE, .model = "\"type\": \"BPE\", \"ignore_merges\": true" });
    check(t, "<|end|>", false, "< | e n d | >");
    check(t, "<t>", false, "< t >"); /* a word of the vocabulary as well */
    ns_tokenizer_free(t);
    /* Not by way of merges either. */
    t = make((tiny){ .merges = PAIRS ",[\"<\",\"t\"],[\"<t\",\">\"]", .words = WORDS ",\"<t\":300", .pretok = WHOLE });
    check(t, "<t>", false, "300 >");
    check(t, "<t>", true, "262");
    ns_tokenizer_free(t);
}

static void spans_bound_added_tokens(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ 0 });
    const ns_text_span mixed[] = { { "<|end|>", 7, true }, { "<|end|>", 7, false }, { "<|end|>", 7, true } };
    check_spans(t, mixed, 3, "265 < | e n d | > 265");
    const ns_text_span straddling[] = { { "<|e", 3, true }, { "nd|>", 4, false } };
    check_spans(t, straddling, 2, "< | e n d | >");
    const ns_text_span shorter[] = { { "<|end|>", 7, true }, { "x", 1, false } };
    check_spans(t, shorter, 2, "265 x");
    const ns_text_span adjacent[] = { { "<|e", 3, true }, { "", 0, false }, { NULL, 0, true }, { "nd|>", 4, true } };
    check_spans(t, adjacent, 4, "265");
    const ns_text_span joined[] = { { " he", 3, true }, { "llo", 3, false } };
    check_spans(t, joined, 2, "260");
    check_spans(t, NULL, 0, "");
    ns_tokenizer_free(t);
}

static void nfc_is_applied(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .normalizer = "{\"type\": \"NFC\"}" });
    check(t, "e\u0301", true, "264");
    check(t, "\u00e9", true, "264");
    ns_tokenizer_free(t);
}

static void prefix_space_is_added(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .pretok = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}" });
    check(t, "hello", true, "260");
    check(t, " hello", true, "260");
    check(t, "<|end|>hello", true, "265 260");
    check(t, "", true, "");
    ns_tokenizer_free(t);
}

/* Lowest rank, leftmost, by search of the whole list: what both algorithms must equal. */
static size_t merge_naively(int *id, size_t n)
{
    static const int rule[][3] = { { 'h', 'e', HE }, { 'l', 'l', LL }, { HE, LL, HELL }, { HELL, 'o', HELLO },
                                   { ' ', HELLO, S_HELLO }, { 'l', 'o', LO } };
    for (;;) {
        size_t best = 6, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t r = 0; r < best; r++)
                if (id[i] == rule[r][0] && id[i + 1] == rule[r][1]) {
                    best = r;
                    at = i;
                }
        if (best == 6)
            return n;
        id[at] = rule[best][2];
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof *id);
        n--;
    }
}

static void long_and_short_pieces_merge_alike(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .pretok = WHOLE });
    ns_rng r;
    ns_rng_init(&r, 5);
    for (int round = 0; round < 2000; round++) {
        char text[120];
        int want[120];
        ns_err e = { 0 };
        ns_ids ids = { 0 };
        size_t n = 1 + ns_rng_u64(&r) % sizeof text;
        for (size_t i = 0; i < n; i++)
            want[i] = (unsigned char)(text[i] = " helloll"[ns_rng_u64(&r) % 8]);
        size_t n_want = merge_naively(want, n);
        assert_int_equal(ns_tokenizer_encode(t, text, n, false, &ids, &e), 0);
        assert_int_equal(ids.len, n_want);
        assert_memory_equal(ids.data, want, n_want * sizeof *want);
        ns_ids_release(&ids);
    }
    ns_tokenizer_free(t);
}

static void random_bytes_round_trip(void **state)
{
    static const char *const bits[] = { "hello", " ", "\xc3\xa9", "\xe2\x82", "\xac", "\xf0\x9f\x98\x80", "\xed\xa0\x80", "\xff",
                                        "\xe1\xa0\x8e", "\r\n", "<|end|>", "<t>", "\xcc\x81", "7" };
    (void)state;
    ns_tokenizer *t = make((tiny){ 0 });
    ns_rng r;
    ns_rng_init(&r, 6);
    for (int round = 0; round < 3000; round++) {
        ns_buf text = { 0 }, back = { 0 };
        ns_ids ids = { 0 };
        ns_err e = { 0 };
        for (size_t n = ns_rng_u64(&r) % 20; n > 0; n--) {
            if (round % 2)
                ns_buf_addc(&text, (char)ns_rng_u64(&r));
            else
                ns_buf_adds(&text, bits[ns_rng_u64(&r) % (sizeof bits / sizeof *bits)]);
        }
        assert_int_equal(ns_tokenizer_encode(t, text.data, text.len, round % 4 < 2, &ids, &e), 0);
        assert_int_equal(ns_tokenizer_decode(t, ids.data, ids.len, false, &back, &e), 0);
        assert_int_equal(back.len, text.len);
        assert_memory_equal(back.data ? back.data : "", text.data ? text.data : "", text.len);
        ns_ids_release(&ids);
        ns_buf_release(&text);
        ns_buf_release(&back);
    }
    ns_tokenizer_free(t);
}

static void tokens_can_be_asked_about(void **state)
{
    const char *p;
    size_t n;
    (void)state;
    ns_tokenizer *t = make((tiny){ 0 });
    assert_int_equal(ns_tokenizer_vocab_size(t), WORD + 1);
    assert_int_equal(ns_tokenizer_find(t, "<|end|>", 7), END);
    assert_int_equal(ns_tokenizer_find(t, "<|end|>x", 8), END_X);
    assert_int_equal(ns_tokenizer_find(t, "\u0120hello", 7), S_HELLO);
    assert_int_equal(ns_tokenizer_find(t, " hello", 6), -1);
    assert_int_equal(ns_tokenizer_find(t, "hello world", 11), -1);
    assert_int_equal(ns_tokenizer_find(t, "", 0), -1);
    assert_true(ns_tokenizer_is_special(t, END));
    assert_false(ns_tokenizer_is_special(t, TAG));
    assert_false(ns_tokenizer_is_special(t, HELLO));
    assert_false(ns_tokenizer_is_special(t, -1));
    assert_int_equal(ns_tokenizer_bytes(t, S_HELLO, &p, &n), 0);
    assert_int_equal(n, 6);
    assert_memory_equal(p, " hello", 6);
    assert_int_equal(ns_tokenizer_bytes(t, E_ACUTE, &p, &n), 0);
    assert_memory_equal(p, "\xc3\xa9", n);
    assert_int_equal(ns_tokenizer_bytes(t, END, &p, &n), 0);
    assert_memory_equal(p, "<|end|>", n);
    assert_int_equal(ns_tokenizer_bytes(t, WORD + 1, &p, &n), -1);
    assert_int_equal(n, 0);
    ns_tokenizer_free(t);
    ns_tokenizer_free(NULL);
}

static void decode_skips_special_and_refuses_unknown(void **state)
{
    const int ids[] = { HELLO, END, TAG, 0xff, S_HELLO }, bad[] = { HELLO, 100000 };
    ns_err e = { 0 };
    ns_buf b = { 0 };
    (void)state;
    ns_tokenizer *t = make((tiny){ 0 });
    assert_int_equal(ns_tokenizer_decode(t, ids, 5, false, &b, &e), 0);
    assert_string_equal(b.data, "hello<|end|><t>\xff hello");
    ns_buf_clear(&b);
    assert_int_equal(ns_tokenizer_decode(t, ids, 5, true, &b, &e), 0);
    assert_string_equal(b.data, "hello<t>\xff hello");
    assert_int_equal(ns_tokenizer_decode(t, bad, 2, true, &b, &e), -1);
    assert_non_null(strstr(e.msg, "100000"));
    assert_string_equal(b.data, "hello<t>\xff hello");
    ns_buf_release(&b);
    ns_tokenizer_free(t);
}

typedef struct refusal {
    tiny tiny;
    const char *message;
} refusal;

static void unsupported_is_named(void **state)
{
    static const refusal cases[] = {
        { { .model = "\"type\": \"Unigram\"" }, "tiny: model type \"Unigram\" is not supported" },
        { { .model = "\"type\": \"BPE\", \"byte_fallback\": true" }, "\"byte_fallback\" is not supported" },
        { { .model = "\"type\": \"BPE\", \"dropout\": 0.1" }, "\"dropout\" is not supported" },
        { { .model = "\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\"" }, "\"end_of_word_suffix\" is not supported" },
        { { .model = "\"type\": \"BPE\", \"ignore_merges\": 1" }, "ignore_merges" },
        { { .normalizer = "{\"type\": \"NFKC\"}" }, "normalizer type \"NFKC\" is not supported" },
        { { .pretok = "null" }, "pre_tokenizer: type \"null\"" },
        { { .pretok = "{\"type\": \"Metaspace\"}" }, "pre_tokenizer: type \"Metaspace\"" },
        { { .decoder = "{\"type\": \"WordPiece\"}" }, "decoder type \"WordPiece\" is not supported" },
        { { .decoder = "null" }, "decoder type \"null\" is not supported" },
        { { .post = "{\"type\": \"BertProcessing\"}" }, "post_processor type \"BertProcessing\" is not supported" },
        { { .missing_byte = 0xf5 }, "byte 0xF5 has no token" },
        { { .words = WORDS ",\"zz\": 256" }, "model.vocab: \"zz\": id 256 is used twice" },
        { { .words = WORDS ",\"zz\": -1" }, "id -1 is outside" },
        { { .words = WORDS ",\"zz\": 999999999999" }, "id 999999999999 is outside" },
        { { .words = WORDS ",\"zz\": \"1\"" }, "expected an integer" },
        { { .merges = "[\"h\",\"zz\"]" }, "model.merges[0]: \"h\" + \"zz\": the right half is not in model.vocab" },
        { { .merges = "[\"h\",\"h\"]" }, "the result is not in model.vocab" },
        { { .merges = "\"h e\", \"a b c\"" }, "model.merges[1]: expected" },
        { { .merges = "[\"h\"]" }, "model.merges[0]: expected" },
        { { .merges = "\"h \"" }, "empty or not in the byte alphabet" },
        { { .added = "{\"id\":300,\"content\":\"hello\"}" }, "added_tokens[0]: id 300, but the same token already has id 259" },
        { { .added = "{\"id\":65,\"content\":\"<x>\"}" }, "added_tokens[0]: id 65 belongs to another token" },
        { { .added = "{\"content\":\"<x>\"}" }, "added_tokens[0]: id -1" },
        { { .added = "{\"id\":300,\"content\":\"<x>\",\"normalized\":true}", .normalizer = "{\"type\": \"NFC\"}" },
          "\"normalized\" is not supported together with a normalizer" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        assert_null(parse_tiny(&cases[i].tiny, &e));
        if (!strstr(e.msg, cases[i].message))
            fail_msg("expected \"%s\", got \"%s\"", cases[i].message, e.msg);
    }
}

static void broken_files_are_refused(void **state)
{
    static const char *const texts[] = { "", "{", "[]", "null", "{}", "{\"model\": 1}", "{\"model\": {\"type\": \"BPE\"}}" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ns_err e = { 0 };
        assert_null(ns_tokenizer_parse(texts[i], strlen(texts[i]), "broken", &e));
        assert_int_equal(strncmp(e.msg, "broken: ", 8), 0);
    }
    ns_err e = { 0 };
    assert_null(ns_tokenizer_open("/nonexistent/tokenizer.json", &e));
    assert_int_equal(e.code, NS_EIO);
}

static void post_processors_are_not_run(void **state)
{
    (void)state;
    ns_tokenizer *t = make((tiny){ .post = "{\"type\": \"Sequence\", \"processors\": [" BYTE_LEVEL
                                           ", {\"type\": \"TemplateProcessing\"}]}" });
    check(t, "hello", true, "259");
    ns_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_in_rank_order),
        cmocka_unit_test(ignore_merges_takes_whole_words),
        cmocka_unit_test(added_tokens_are_found),
        cmocka_unit_test(plain_text_stays_text),
        cmocka_unit_test(spans_bound_added_tokens),
        cmocka_unit_test(nfc_is_applied),
        cmocka_unit_test(prefix_space_is_added),
        cmocka_unit_test(long_and_short_pieces_merge_alike),
        cmocka_unit_test(random_bytes_round_trip),
        cmocka_unit_test(tokens_can_be_asked_about),
        cmocka_unit_test(decode_skips_special_and_refuses_unknown),
        cmocka_unit_test(unsupported_is_named),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(post_processors_are_not_run),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
