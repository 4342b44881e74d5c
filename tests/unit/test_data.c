/* Training data: what a line becomes, how documents are packed, and in which order they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "tiny/tiny.h"
#include "train/data.h"

enum { VOCAB = 273, EOS = 2, IM_END = 4 }; /* of tests/cli/tokenizer.json: bytes, and a few pairs of letters */
static ns_tokenizer *tok;
static char *text_dir;
static ns_buf notes;

static void on_log(void *ctx, const char *line)
{
    ns_buf_adds(ctx, line);
    ns_buf_addc(ctx, '\n');
}

/* A folder with this chat template. */
static char *template_dir(const char *name, const char *source)
{
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name), *path = tiny_path(dir, "chat_template.jinja");
    if (mkdir(dir, 0777) != 0 || ns_file_write(path, source, strlen(source), &e) != 0)
        abort();
    free(path);
    return dir;
}

static int setup(void **state)
{
    const char *src = getenv("NS_TEST_SRC");
    ns_err e = { 0 };
    char *path = tiny_path(src ? src : ".", "tests/cli/tokenizer.json");
    tok = ns_tokenizer_open(path, &e);
    if (!tok)
        fprintf(stderr, "%s\n", e.msg);
    free(path);
    ns_log_sink(on_log, &notes);
    if (!tok || ns_tokenizer_vocab_size(tok) != VOCAB || tiny_setup(state) != 0)
        return -1;
    text_dir = template_dir("chat", "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
                                    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}");
    return 0;
}

static int teardown(void **state)
{
    ns_tokenizer_free(tok);
    free(text_dir);
    ns_buf_release(&notes);
    return tiny_teardown(state);
}

static char *file(const char *name, const char *text)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, name);
    assert_int_equal(ns_file_write(path, text, strlen(text), &e), 0);
    return path;
}

static ns_data *open_paths(const char *const *paths, int n, ns_data_opts o, ns_err *e)
{
    o.paths = paths;
    o.n_paths = n;
    o.vocab_size = o.vocab_size ? o.vocab_size : VOCAB;
    o.max_doc = o.max_doc ? o.max_doc : 64;
    ns_buf_clear(&notes);
    return ns_data_open(&o, tok, e);
}

static ns_data *open_text(const char *name, const char *text, ns_data_opts o, ns_err *e)
{
    char *path = file(name, text);
    ns_data *d = open_paths((const char *const[]){ path }, 1, o, e);
    free(path);
    return d;
}

static ns_data *need(const char *name, const char *text, ns_data_opts o)
{
    ns_err e = { 0 };
    ns_data *d = open_text(name, text, o, &e);
    if (!d)
        fail_msg("%s", e.msg);
    return d;
}

static const ns_data_opts plain = { .eos_id = EOS };

/* The first pack of `d`. */
static ns_pack first_pack(ns_data *d, int room)
{
    ns_err e = { 0 };
    ns_pack p;
    assert_int_equal(ns_pack_init(&p, room, &e), 0);
    ns_data_seek(d, 0);
    ns_data_next(d, &p);
    return p;
}

static void assert_ids(const int *got, const int *want, int n)
{
    for (int i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("token %d is %d, expected %d", i, got[i], want[i]);
}

static void test_text_shifts_by_one(void **state)
{
    (void)state;
    /* bytes have their own tokens in this vocabulary; a document holds 64 rows, so all of a pack is this one, again and again */
    ns_data *d = need("shift.jsonl", "{\"text\": \"abc\"}\n", (ns_data_opts){ .eos_id = EOS, .max_doc = 4 });
    ns_ids abc = { 0 };
    ns_err e = { 0 };
    assert_int_equal(ns_tokenizer_encode(tok, "abc", 3, false, &abc, &e), 0);
    ns_pack p = first_pack(d, 4);
    assert_int_equal(p.seqs.n_seqs, 1);
    assert_int_equal(p.seqs.n_tokens, 3);
    assert_ids(p.seqs.ids, abc.data, 3);
    assert_ids(p.target, (int[]){ abc.data[1], abc.data[2], EOS }, 3);
    assert_float_equal(p.weight_sum, 3, 0);
    assert_int_equal(p.seqs.start[1], 3);
    assert_int_equal(ns_data_tokens(d), 4);
    assert_int_equal(ns_data_docs(d), 1);
    assert_int_equal(ns_data_position(d), 1);
    ns_ids_release(&abc);
    ns_pack_release(&p);
    ns_data_free(d);
}

static void assert_weights(const ns_pack *p, const char *pattern)
{
    assert_int_equal(p->seqs.n_tokens, strlen(pattern));
    for (int i = 0; pattern[i]; i++)
        if (p->weight[i] != (ns_real)(pattern[i] - '0'))
            fail_msg("weight %d is %g, expected %c", i, (double)p->weight[i], pattern[i]);
}

static void test_loss_masks(void **state)
{
    (void)state;
    static const struct { const char *line, *weights; } cases[] = {
        { "{\"prompt\": \"ab\", \"completion\": \"xyz\"}", "01111" },
        { "{\"prompt\": \"\", \"completion\": \"xy\"}", "11" },
        { "{\"prompt\": \"a<|im_end|>\", \"completion\": \"x\"}", "011" }, /* special tokens are parsed */
        { "{\"text\": \"a<s>\"}", "1111" },                                 /* and in plain text they are not */
        { "{\"ids\": [1, 2, 3, 4], \"weights\": [9, 0, 2, 1.0]}", "0211" },
        { "{\"ids\": [1, 5, 2]}", "11" }, /* the end is there already */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_data *d = need("mask.jsonl", cases[i].line, (ns_data_opts){ .eos_id = EOS, .max_doc = 6 });
        ns_pack p = first_pack(d, 6);
        p.seqs.n_tokens = p.seqs.start[1]; /* the first of its repetitions */
        assert_weights(&p, cases[i].weights);
        ns_pack_release(&p);
        ns_data_free(d);
    }
}

static void test_no_eos(void **state)
{
    (void)state;
    ns_data *d = need("noeos.jsonl", "{\"ids\": [1, 2, 3]}", (ns_data_opts){ .eos_id = -1, .max_doc = 2 });
    ns_pack p = first_pack(d, 2);
    assert_ids(p.target, (int[]){ 2, 3 }, 2);
    ns_pack_release(&p);
    ns_data_free(d);
}

static const char chat_line[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"A\"},"
    " {\"role\": \"user\", \"content\": \"<|im_end|>\"}, {\"role\": \"assistant\", \"content\": \"BC\"}]}";

/* The assistant's words and the end of its turn count, the rest does not; marks in a user's words stay text. */
static void test_chat(void **state)
{
    (void)state;
    ns_data *d = need("chat.jsonl", chat_line, (ns_data_opts){ .eos_id = EOS, .template_dir = text_dir, .max_doc = 512 });
    ns_pack p = first_pack(d, 512);
    assert_int_equal(ns_data_docs(d), 1);
    ns_buf counted = { 0 };
    int ends = 0;
    for (int i = 0; i < p.seqs.start[1]; i++) {
        ends += p.ids[i] == IM_END;
        ns_err e = { 0 };
        if (p.weight[i] > 0)
            assert_int_equal(ns_tokenizer_decode(tok, &p.target[i], 1, false, &counted, &e), 0);
    }
    assert_string_equal(counted.data, "A<|im_end|>\nBC<|im_end|>\n");
    assert_int_equal(ends, 4);
    ns_buf_release(&counted);
    ns_pack_release(&p);
    ns_data_free(d);
}

/* A template that drops what the assistant thought once the turn is history: each turn becomes a document as the model will see it. */
static void test_chat_that_rewrites_history(void **state)
{
    (void)state;
    ns_err e = { 0 };
    char *dir = template_dir("rewrites", "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
                                         "{%- if m.role == 'assistant' and not loop.last %}{{ m.content[-1:] }}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
                                         "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}");
    const char *line = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"thinkA\"},"
                       " {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"thinkB\"}]}";
    ns_data *d = need("rewrites.jsonl", line, (ns_data_opts){ .eos_id = EOS, .template_dir = dir, .max_doc = 512 });
    assert_int_equal(ns_data_docs(d), 2);
    ns_pack p = first_pack(d, 512);
    ns_buf counted = { 0 };
    for (int i = 0; i < p.seqs.start[2]; i++)
        if (p.weight[i] > 0)
            ns_tokenizer_decode(tok, &p.target[i], 1, false, &counted, &e);
    assert_true(strcmp(counted.data, "thinkA<|im_end|>thinkB<|im_end|>") == 0 ||
                strcmp(counted.data, "thinkB<|im_end|>thinkA<|im_end|>") == 0);
    ns_buf_release(&counted);
    ns_pack_release(&p);
    ns_data_free(d);
    free(dir);
}

static void test_paragraphs(void **state)
{
    (void)state;
    ns_data *d = need("some.txt", "\n\nabc\nabd\n  \n\r\nxyz\n\n\n\nwwwww", plain);
    assert_int_equal(ns_data_docs(d), 3);
    assert_int_equal(ns_data_tokens(d), 8 + 4 + 6);
    ns_data_free(d);
}

static void test_bad_lines_are_named(void **state)
{
    (void)state;
    static const char text[] =
        "{\"text\": \"good\"}\n"
        "\n"
        "not json\n"
        "[1]\n"
        "{\"txt\": \"x\"}\n"
        "{\"text\": 5}\n"
        "{\"prompt\": \"p\"}\n"
        "{\"ids\": [1, 273]}\n"
        "{\"ids\": [1, -1]}\n"
        "{\"ids\": [1, 2], \"weights\": [1]}\n"
        "{\"ids\": [1, 2], \"weights\": [1, -2]}\n"
        "{\"ids\": []}\n"
        "{\"text\": \"\"}\n"
        "{\"messages\": []}\n"
        "{\"text\": \"\xff\"}\n"
        "{\"text\": \"cut";
    static const char *const says[] = {
        ":3: left out: ", ":4: left out: not a JSON object", ":5: left out: none of", ":6: left out: none of",
        ":7: left out: \"prompt\" and",
        ":8: left out: entry 1 of \"ids\"", ":9: left out: entry 1 of \"ids\"", ":10: left out: \"weights\" is not an array of 2",
        ":11: left out: entry 1 of \"weights\"", ":12: left out: no token counts", "14 bad lines left out in all" };
    ns_data *d = need("bad.jsonl", text, plain);
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (!strstr(notes.data, says[i]))
            fail_msg("\"%s\" does not say \"%s\"", notes.data, says[i]);
    assert_null(strstr(notes.data, ":13:"));
    assert_int_equal(ns_data_bad_lines(d), 14);
    assert_int_equal(ns_data_docs(d), 1);
    ns_data_free(d);
}

static void refused(const char *name, const char *text, ns_data_opts o, const char *says)
{
    ns_err e = { 0 };
    assert_null(open_text(name, text, o, &e));
    if (!strstr(e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
}

static void test_refusals(void **state)
{
    (void)state;
    ns_err e = { 0 };
    refused("none.jsonl", "", plain, "none.jsonl: no document");
    refused("allbad.jsonl", "{}\n{}\n", plain, "every line was left out");
    refused("chat2.jsonl", chat_line, plain, "every line was left out");
    assert_non_null(strstr(notes.data, "no chat template"));
    assert_null(open_paths((const char *const[]){ "/nonexistent.jsonl" }, 1, plain, &e));
    assert_non_null(strstr(e.msg, "/nonexistent.jsonl"));
    char *a = file("a.jsonl", "{\"ids\": [1, 2]}"), *b = tiny_path(tiny_base, "a.jsonl:2"), *c = tiny_path(tiny_base, "a.jsonl:0");
    e = (ns_err){ 0 };
    assert_null(open_paths((const char *const[]){ a, b }, 2, plain, &e));
    assert_non_null(strstr(e.msg, "all or to none"));
    e = (ns_err){ 0 };
    assert_null(open_paths((const char *const[]){ c }, 1, plain, &e));
    assert_non_null(strstr(e.msg, "share"));
    ns_data *d = need("three.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [3, 4]}\n", plain);
    e = (ns_err){ 0 };
    assert_int_equal(ns_data_hold_out(d, 2, &e), -1);
    assert_non_null(strstr(e.msg, "must stay"));
    ns_data_free(d);
    free(a);
    free(b);
    free(c);
}

/* n documents of random lengths up to `longest` ids; document i begins with id i. */
static char *numbered(const char *name, int n, int longest, uint64_t seed)
{
    ns_buf b = { 0 };
    ns_rng g;
    ns_rng_init(&g, seed);
    for (int i = 0; i < n; i++) {
        const int len = 2 + (int)(ns_rng_uniform(&g) * (longest - 1));
        ns_buf_addf(&b, "{\"ids\": [%d", i);
        for (int k = 1; k < len; k++)
            ns_buf_addf(&b, ", %d", 200 + k % 50);
        ns_buf_adds(&b, "]}\n");
    }
    char *path = file(name, b.data);
    ns_buf_release(&b);
    return path;
}

static ns_data *numbered_data(int n, int longest, uint64_t seed)
{
    ns_err e = { 0 };
    char *path = numbered("numbered.jsonl", n, longest, 5);
    ns_data *d = open_paths((const char *const[]){ path }, 1, (ns_data_opts){ .eos_id = -1, .seed = seed, .max_doc = 40 }, &e);
    if (!d)
        fail_msg("%s", e.msg);
    free(path);
    return d;
}

/* Every document comes once in an epoch, whole, and epochs differ; packs are never over their room. */
static void test_epochs(void **state)
{
    (void)state;
    enum { DOCS = 100 };
    ns_data *d = numbered_data(DOCS, 40, 1);
    int order[2 * DOCS + DOCS], n = 0, seen[DOCS] = { 0 };
    ns_pack p;
    ns_err e = { 0 };
    ns_pack_init(&p, 64, &e);
    while (n < 2 * DOCS) {
        assert_int_equal(ns_data_position(d), n);
        ns_data_next(d, &p);
        assert_int_equal(p.first_doc, n);
        assert_true(p.seqs.n_tokens <= 64 && p.seqs.n_seqs > 0);
        for (int s = 0; s < p.seqs.n_seqs; s++)
            order[n++] = p.ids[p.start[s]];
    }
    for (int i = 0; i < DOCS; i++)
        seen[order[i]]++;
    for (int i = 0; i < DOCS; i++)
        assert_int_equal(seen[i], 1);
    assert_memory_not_equal(order, order + DOCS, DOCS * sizeof *order);
    ns_pack_release(&p);
    ns_data_free(d);
}

static void assert_same_pack(const ns_pack *a, const ns_pack *b)
{
    const size_t n = (size_t)a->seqs.n_tokens;
    assert_int_equal(a->seqs.n_tokens, b->seqs.n_tokens);
    assert_int_equal(a->seqs.n_seqs, b->seqs.n_seqs);
    assert_memory_equal(a->ids, b->ids, n * sizeof *a->ids);
    assert_memory_equal(a->target, b->target, n * sizeof *a->target);
    assert_memory_equal(a->weight, b->weight, n * sizeof *a->weight);
    assert_memory_equal(a->start, b->start, (size_t)(a->seqs.n_seqs + 1) * sizeof *a->start);
}

static void test_seek(void **state)
{
    (void)state;
    char *one = numbered("one.jsonl", 37, 40, 1), *two = numbered("two.jsonl", 11, 20, 2);
    char *a = malloc(strlen(one) + 9), *b = malloc(strlen(two) + 9);
    ns_err e = { 0 };
    ns_pack p, q;
    sprintf(a, "%s:2", one);
    sprintf(b, "%s:0.5", two);
    for (int mode = 0; mode < 2; mode++) { /* one file; two with shares */
        const char *const paths[] = { mode ? a : one, b };
        ns_data *x = open_paths(paths, 1 + mode, (ns_data_opts){ .eos_id = EOS, .seed = 3, .max_doc = 40 }, &e);
        ns_data *y = open_paths(paths, 1 + mode, (ns_data_opts){ .eos_id = EOS, .seed = 3, .max_doc = 40 }, &e);
        assert_true(x && y);
        assert_true(ns_data_hash(x) == ns_data_hash(y));
        ns_pack_init(&p, 64, &e);
        ns_pack_init(&q, 64, &e);
        for (int i = 0; i < 100; i++) {
            const int64_t at = ns_data_position(x);
            ns_data_next(x, &p);
            ns_data_seek(y, at + 17); /* away and back */
            ns_data_next(y, &q);
            ns_data_seek(y, at);
            ns_data_next(y, &q);
            assert_same_pack(&p, &q);
        }
        ns_pack_release(&p);
        ns_pack_release(&q);
        ns_data_free(x);
        ns_data_free(y);
    }
    free(one);
    free(two);
    free(a);
    free(b);
}

/* Shares are of tokens drawn, whatever the files' sizes. */
static void test_shares(void **state)
{
    (void)state;
    char *one = file("share1.jsonl", "{\"ids\": [1,1,1,1,1,1,1,1,1]}\n{\"ids\": [1,1,1]}\n"), *two = numbered("share2.jsonl", 90, 40, 2);
    char *a = malloc(strlen(one) + 9), *b = malloc(strlen(two) + 9);
    ns_err e = { 0 };
    ns_pack p;
    sprintf(a, "%s:3", one);
    sprintf(b, "%s:1", two);
    ns_data *d = open_paths((const char *const[]){ a, b }, 2, (ns_data_opts){ .eos_id = -1, .max_doc = 64 }, &e);
    assert_non_null(d);
    double from_one = 0, all = 0;
    ns_pack_init(&p, 64, &e);
    for (int i = 0; i < 400; i++) {
        ns_data_next(d, &p);
        for (int t = 0; t < p.seqs.n_tokens; t++)
            from_one += p.target[t] == 1;
        all += p.seqs.n_tokens;
    }
    assert_float_equal((float)(from_one / all), 0.75, 0.01);
    ns_pack_release(&p);
    ns_data_free(d);
    free(one);
    free(two);
    free(a);
    free(b);
}

/* Pieces of a long document overlap by the token that the first does not predict from: no target is lost, none comes twice. */
static void test_long_documents(void **state)
{
    (void)state;
    ns_buf b = { 0 };
    int targets[64] = { 0 };
    ns_err e = { 0 };
    ns_pack p;
    ns_buf_adds(&b, "{\"ids\": [0");
    for (int i = 1; i < 30; i++)
        ns_buf_addf(&b, ", %d", i);
    ns_buf_adds(&b, "]}");
    ns_data *d = need("long.jsonl", b.data, (ns_data_opts){ .eos_id = -1, .max_doc = 8 });
    ns_pack_init(&p, 8, &e);
    for (int i = 0; i < 4; i++) {
        ns_data_next(d, &p);
        for (int t = 0; t < p.seqs.n_tokens; t++) {
            assert_int_equal(p.target[t], p.ids[t] + 1);
            targets[p.target[t]]++;
        }
    }
    for (int i = 1; i < 30; i++)
        assert_int_equal(targets[i], 1);
    assert_int_equal(ns_data_docs(d), 1);
    assert_int_equal(ns_data_position(d), 4);
    ns_pack_release(&p);
    ns_data_free(d);
    ns_buf_release(&b);
}

static void test_hold_out(void **state)
{
    (void)state;
    enum { DOCS = 60, HELD = 13 };
    ns_data *d = numbered_data(DOCS, 60, 9), *again = numbered_data(DOCS, 60, 9);
    ns_err e = { 0 };
    ns_pack p, q;
    int held[DOCS] = { 0 }, n = 0;
    int64_t at = 0, at2 = 0;
    const uint64_t before = ns_data_hash(d);
    assert_int_equal(ns_data_hold_out(d, HELD, &e), 0);
    assert_int_equal(ns_data_hold_out(again, HELD, &e), 0);
    assert_true(ns_data_hash(d) != before && ns_data_hash(d) == ns_data_hash(again));
    ns_pack_init(&p, 40, &e);
    ns_pack_init(&q, 40, &e);
    while (ns_data_eval(d, &at, &p)) {
        assert_true(ns_data_eval(again, &at2, &q));
        assert_same_pack(&p, &q);
        for (int s = 0; s < p.seqs.n_seqs; s++)
            if (p.ids[p.start[s]] < DOCS) /* not the second piece of a long one */
                held[p.ids[p.start[s]]] = 1;
    }
    for (int i = 0; i < DOCS; i++)
        n += held[i];
    assert_int_equal(n, HELD);
    for (int i = 0; i < 200; i++) {
        ns_data_next(d, &p);
        for (int s = 0; s < p.seqs.n_seqs; s++)
            assert_true(p.ids[p.start[s]] >= DOCS || !held[p.ids[p.start[s]]]);
    }
    ns_pack_release(&p);
    ns_pack_release(&q);
    ns_data_free(d);
    ns_data_free(again);
}

/* Lines with random bytes changed: whatever happens, what is kept is in range. */
static void test_mutations(void **state)
{
    (void)state;
    static const char good[] = "{\"prompt\": \"ab\\u00e9\", \"completion\": \"c<think>d\"}\n"
                               "{\"ids\": [5, 6, 7], \"weights\": [1, 0.5, 1]}\n"
                               "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}\n{\"text\": \"plain\"}\n";
    ns_rng g;
    ns_rng_init(&g, 77);
    for (int round = 0; round < 300; round++) {
        char text[sizeof good];
        ns_err e = { 0 };
        memcpy(text, good, sizeof good);
        for (int k = 0; k < 1 + round % 8; k++)
            text[ns_rng_u64(&g) % (sizeof good - 1)] = (char)(1 + ns_rng_u64(&g) % 255);
        ns_data *d = open_text("mutated.jsonl", text, (ns_data_opts){ .eos_id = EOS, .template_dir = text_dir, .max_doc = 16 }, &e);
        assert_true(d || e.code == NS_EFORMAT);
        if (!d)
            continue;
        ns_pack p = first_pack(d, 32);
        for (int t = 0; t < p.seqs.n_tokens; t++)
            assert_true(p.ids[t] >= 0 && p.ids[t] < VOCAB && p.target[t] >= 0 && p.target[t] < VOCAB && p.weight[t] >= 0);
        ns_pack_release(&p);
        ns_data_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_shifts_by_one),
        cmocka_unit_test(test_loss_masks),
        cmocka_unit_test(test_no_eos),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_chat_that_rewrites_history),
        cmocka_unit_test(test_paragraphs),
        cmocka_unit_test(test_bad_lines_are_named),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_seek),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_long_documents),
        cmocka_unit_test(test_hold_out),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
