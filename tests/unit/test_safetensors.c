/* Reading and writing safetensors: what the reference implementation accepts and refuses, folders, and the writer. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "store/safetensors.h"
#include "store/writer.h"

static char dir[64];

static int enter(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/ns_test_st_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static const char *at(const char *name)
{
    static char path[4][300];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

/* A fresh folder under the temporary one. */
static const char *folder(const char *name)
{
    const char *p = at(name);
    assert_int_equal(mkdir(p, 0700), 0);
    return p;
}

/* ---- one file from memory --------------------------------------------------------------------------------------- */

/* The bytes of a file with this header and `data` zero bytes; exactly sized, so that ASan sees every overrun. */
static uint8_t *make(const char *header, size_t data, size_t *n)
{
    size_t h = strlen(header);
    *n = 8 + h + data;
    uint8_t *p = calloc(1, *n);
    assert_non_null(p);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(h >> 8 * i);
    memcpy(p + 8, header, h);
    return p;
}

static int parse(const char *header, size_t data, ns_err *e)
{
    size_t n;
    ns_st st;
    uint8_t *p = make(header, data, &n);
    *e = (ns_err){ 0 };
    int rc = ns_st_parse(p, n, "f.safetensors", &st, e);
    assert_int_equal(rc != 0, e->code != NS_OK);
    if (rc != 0)
        assert_true(st.n_tensors == 0 && st.tensors == NULL && st.mem.head == NULL);
    ns_st_release(&st);
    free(p);
    return rc;
}

#define T(name, dtype, shape, a, b) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static void accepted(void **state)
{
    (void)state;
    static const struct { const char *header; size_t data; } ok[] = {
        { "{}", 0 },
        { "\t\r\n {} \n", 0 },
        { "{\"__metadata__\":null}", 0 },
        { "{" T("a", "F32", "[]", 0, 4) "}", 4 },
        { "{" T("a", "F32", "[2,2]", 0, 16) "," T("b", "U8", "[3]", 16, 19) "}", 19 },
        { "{" T("b", "U8", "[3]", 16, 19) "," T("a", "F32", "[2,2]", 0, 16) "}", 19 }, /* any order in the header */
        { "{" T("b", "U8", "[3]", 0, 3) "," T("a", "F32", "[1]", 3, 7) "}", 7 },       /* no alignment */
        { "{" T("a", "F32", "[2,0]", 0, 0) "," T("b", "U8", "[1]", 0, 1) "," T("c", "I64", "[0]", 1, 1) "}", 1 },
        { "{" T("a", "BF16", "[1,1,1,1,1,1,1,2]", 0, 4) "}", 4 },
        { "{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1],\"extra\":[{}]}}", 1 }, /* the reference ignores it */
        { "{" T("", "BOOL", "[1]", 0, 1) "}", 1 },
    };
    ns_err e;
    for (size_t i = 0; i < sizeof ok / sizeof *ok; i++)
        if (parse(ok[i].header, ok[i].data, &e) != 0)
            fail_msg("%s: %s", ok[i].header, e.msg);
}

static void refused(void **state)
{
    (void)state;
    static const struct { const char *header; size_t data; const char *why; } bad[] = {
        { "", 0, "JSON" },
        { "[]", 0, "not a JSON object" },
        { "3", 0, "not a JSON object" },
        { "{}x", 0, "JSON" },
        { "{}", 1, "1 bytes after the last tensor" },
        { "{" T("t", "F32", "[1]", 0, 4) "," T("t", "F32", "[1]", 4, 8) "}", 8, "duplicate" },
        { "{" T("t", "F32", "[1]", 0, 4) "," T("u", "F32", "[1]", 0, 4) "}", 4, "\"u\" overlaps \"t\"" },
        { "{" T("t", "F32", "[2]", 0, 8) "," T("u", "F32", "[2]", 4, 12) "}", 12, "\"u\" overlaps \"t\"" },
        { "{" T("t", "F32", "[1]", 0, 4) "," T("u", "F32", "[1]", 5, 9) "}", 9, "1 bytes before tensor \"u\"" },
        { "{" T("t", "F32", "[1]", 1, 5) "}", 5, "1 bytes before tensor \"t\"" },
        { "{" T("t", "F32", "[1]", 0, 4) "}", 5, "1 bytes after" },
        { "{" T("t", "F32", "[1]", 0, 4) "}", 3, "outside the 3 bytes" },
        { "{" T("t", "F32", "[1]", 0, 8) "}", 8, "span 8 bytes, dtype and shape need 4" },
        { "{" T("t", "F32", "[1]", 4, 0) "}", 4, "outside" },
        { "{" T("t", "F32", "[1]", -4, 0) "}", 4, "outside" },
        { "{" T("t", "F32", "[1]", 0, 9223372036854775807) "}", 4, "outside" },
        { "{" T("t", "F32", "[1]", 0, 18446744073709551620) "}", 4, "JSON" },
        { "{" T("t", "F32", "[-1]", 0, 4) "}", 4, "non-negative" },
        { "{" T("t", "F32", "[1.0]", 0, 4) "}", 4, "non-negative" },
        { "{" T("t", "F32", "[\"1\"]", 0, 4) "}", 4, "non-negative" },
        { "{" T("t", "F32", "[4611686018427387904]", 0, 0) "}", 0, "overflows" },
        { "{" T("t", "I8", "[4294967296,4294967296]", 0, 0) "}", 0, "overflows" },
        { "{" T("t", "I8", "[4294967296,4294967296,0]", 0, 0) "}", 0, "overflows" },
        { "{" T("t", "I8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, "9 dimensions" },
        { "{" T("t", "F4", "[2]", 0, 1) "}", 1, "unknown dtype \"F4\"" },
        { "{" T("t", "NVFP4", "[2]", 0, 1) "}", 1, "unknown dtype \"NVFP4\"" },
        { "{" T("t", "f32", "[1]", 0, 4) "}", 4, "unknown dtype" },
        { "{" T("t", "F32\\u0000", "[1]", 0, 4) "}", 4, "unknown dtype" },
        { "{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no \"dtype\"" },
        { "{\"t\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no \"dtype\"" },
        { "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no \"shape\"" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "no \"shape\"" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "data_offsets" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, "data_offsets" },
        { "{\"t\":[]}", 0, "not an object" },
        { "{\"__metadata__\":[]}", 0, "__metadata__ is not an object" },
        { "{\"__metadata__\":{\"k\":1}}", 0, "\"k\" is not a string" },
    };
    ns_err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i].header, bad[i].data, &e) == 0)
            fail_msg("accepted: %s", bad[i].header);
        if (strstr(e.msg, "f.safetensors: ") != e.msg || !strstr(e.msg, bad[i].why))
            fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].header, e.msg, bad[i].why);
        bool of_tensor = strstr(bad[i].header, "{\"t\"") && !strstr(e.msg, "JSON") && !strstr(e.msg, "after");
        if (of_tensor && !strstr(e.msg, "tensor \"t\"") && !strstr(e.msg, "tensor \"u\""))
            fail_msg("%s: \"%s\" does not name the tensor", bad[i].header, e.msg);
    }
}

static void header_lengths(void **state)
{
    (void)state;
    ns_err e;
    ns_st st;
    uint8_t p[16] = { 0 };
    for (size_t n = 0; n < 8; n++) {
        e = (ns_err){ 0 };
        assert_int_equal(ns_st_parse(p, n, "f", &st, &e), -1);
        assert_non_null(strstr(e.msg, "too short"));
    }
    const uint64_t lengths[] = { 9, 100000000, 100000001, UINT64_MAX, UINT64_MAX - 7 };
    for (size_t i = 0; i < 5; i++) {
        memcpy(p, &lengths[i], 8);
        e = (ns_err){ 0 };
        assert_int_equal(ns_st_parse(p, 16, "f", &st, &e), -1);
        assert_non_null(strstr(e.msg, i < 2 ? "truncated" : "limit"));
    }
}

/* Every proper prefix of a valid file is refused. */
static void truncated(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = make("{\"__metadata__\":{\"a\":\"b\"}," T("a", "F32", "[2,2]", 0, 16) "," T("b", "U8", "[3]", 16, 19) "}", 19, &n);
    ns_st st;
    for (size_t k = 0; k < n; k++) {
        uint8_t *cut = malloc(k ? k : 1);
        assert_non_null(cut);
        memcpy(cut, p, k);
        assert_int_equal(ns_st_parse(cut, k, "f", &st, NULL), -1);
        free(cut);
    }
    assert_int_equal(ns_st_parse(p, n, "f", &st, NULL), 0);
    assert_int_equal(st.n_tensors, 2);
    assert_int_equal(st.n_meta, 1);
    assert_string_equal(st.meta[0].value, "b");
    assert_ptr_equal(st.tensors[1].data, p + n - 3);
    ns_buf b = { 0 };
    ns_tensor_print(&st.tensors[0], &b);
    assert_string_equal(b.data, "F32 [2, 2]");
    ns_buf_release(&b);
    ns_st_release(&st);
    ns_st_release(&st);
    free(p);
}

static void reference_vectors(void **state)
{
    (void)state;
    const char *data = getenv("NS_TEST_DATA");
    char base[500], path[800];
    if (!data || !*data)
        skip();
    snprintf(base, sizeof base, "%s/vectors/safetensors", data);
    snprintf(path, sizeof path, "%s/manifest.json", base);
    ns_err e = { 0 };
    json_t *manifest = ns_json_open(path, false, &e), *c;
    size_t i, ok = 0, bad = 0;
    assert_non_null(manifest);
    json_array_foreach(json_object_get(manifest, "cases"), i, c) {
        const char *expect = json_string_value(json_object_get(c, "expect"));
        bool accept = strcmp(expect, "ok") == 0;
        snprintf(path, sizeof path, "%s/%s", base, json_string_value(json_object_get(c, "file")));
        e = (ns_err){ 0 };
        ns_store *s = ns_store_open(path, i % 2 ? NS_LOAD_HUGE : NS_LOAD_MMAP, &e);
        if ((s != NULL) != accept)
            fail_msg("%s: %s, expected %s", path, s ? "accepted" : e.msg, expect);
        accept ? ok++ : bad++;
        ns_store_close(s);
    }
    assert_true(ok == 6 && bad == 11);
    json_decref(manifest);
}

/* ---- folders ---------------------------------------------------------------------------------------------------- */

static void put(const char *name, const char *header, size_t data)
{
    size_t n;
    uint8_t *p = make(header, data, &n);
    assert_int_equal(ns_file_write(at(name), p, n, NULL), 0);
    free(p);
}

static void put_text(const char *name, const char *text)
{
    assert_int_equal(ns_file_write(at(name), text, strlen(text), NULL), 0);
}

static void check_open_fails(const char *name, const char *why)
{
    ns_err e = { 0 };
    ns_store *s = ns_store_open(at(name), NS_LOAD_MMAP, &e);
    if (s || !strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", s ? "accepted" : e.msg, why);
}

static void folders(void **state)
{
    (void)state;
    ns_err e = { 0 };
    folder("f");
    check_open_fails("f", "no safetensors files");
    check_open_fails("nowhere", "nowhere: No such file");
    put("f/b.safetensors", "{" T("x", "U8", "[1]", 0, 1) "}", 1);
    put("f/a.safetensors", "{" T("y", "U8", "[2]", 0, 2) "}", 2);
    put("f/.hidden.safetensors", "junk", 2);
    put("f/notes.txt", "junk", 2);
    ns_store *s = ns_store_open(at("f"), NS_LOAD_MMAP, &e);
    assert_non_null(s);
    assert_int_equal(ns_store_n_shards(s), 2);
    assert_string_equal(ns_store_shard(s, 0), "a.safetensors");
    assert_null(ns_store_shard(s, 2));
    assert_int_equal(ns_store_count(s), 2);
    assert_int_equal(ns_store_bytes(s), 3);
    assert_string_equal(ns_store_at(s, 0)->name, "y");
    assert_int_equal(ns_store_find(s, "x")->shard, 1);
    assert_null(ns_store_find(s, "z"));
    assert_null(ns_store_at(s, 2));
    assert_null(ns_store_get(s, "z", &e));
    assert_non_null(strstr(e.msg, "no tensor \"z\""));
    ns_store_close(s);
    put("f/c.safetensors", "{" T("x", "U8", "[1]", 0, 1) "}", 1);
    check_open_fails("f", "tensor \"x\" is in both b.safetensors and c.safetensors");
    put("f/model.safetensors", "{" T("m", "U8", "[1]", 0, 1) "}", 1); /* goes before the listing */
    s = ns_store_open(at("f"), NS_LOAD_HUGE, NULL);
    assert_non_null(s);
    assert_int_equal(ns_store_count(s), 1);
    assert_string_equal(ns_store_path(s), at("f"));
    ns_store_close(s);
    ns_store_close(NULL);
}

static void put_index(const char *weight_map)
{
    char text[500];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":3},\"weight_map\":%s}", weight_map);
    put_text("i/model.safetensors.index.json", text);
}

static void indexes(void **state)
{
    (void)state;
    folder("i");
    put("i/p.safetensors", "{" T("x", "U8", "[1]", 0, 1) "," T("both", "U8", "[1]", 1, 2) "}", 2);
    put("i/q.safetensors", "{" T("y", "U8", "[1]", 0, 1) "," T("both", "U8", "[1]", 1, 2) "}", 2);
    put_index("{\"y\":\"q.safetensors\",\"x\":\"p.safetensors\",\"both\":\"q.safetensors\"}");
    ns_store *s = ns_store_open(at("i"), NS_LOAD_MMAP, NULL);
    assert_non_null(s);
    assert_int_equal(ns_store_count(s), 3); /* the other copy of "both" is not listed */
    assert_int_equal(ns_store_find(s, "both")->shard, 1);
    ns_store_close(s);
    static const struct { const char *map, *why; } bad[] = {
        { "{\"x\":\"p.safetensors\",\"gone\":\"p.safetensors\"}", "\"gone\" is not in p.safetensors" },
        { "{\"x\":\"q.safetensors\",\"both\":\"p.safetensors\"}", "\"x\" is not in q.safetensors" },
        { "{\"x\":\"r.safetensors\"}", "i/r.safetensors: No such file" },
        { "{\"x\":\"../i/p.safetensors\"}", "not a shard's file name" },
        { "{\"x\":\"..\"}", "not a shard's file name" },
        { "{\"x\":\"\"}", "not a shard's file name" },
        { "{\"x\":\"p.safetensors\\u0000\"}", "not a shard's file name" },
        { "{\"x\":\"/etc/passwd\"}", "tensor \"x\"" },
        { "{\"x\":1}", "not a shard's file name" },
        { "[]", "no \"weight_map\" object" },
        { "{", "JSON" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_index(bad[i].map);
        check_open_fails("i", bad[i].why);
    }
    put_index("{}");
    s = ns_store_open(at("i"), NS_LOAD_MMAP, NULL); /* an index of nothing is a store of nothing */
    assert_non_null(s);
    assert_int_equal(ns_store_count(s), 0);
    assert_null(ns_store_find(s, "x"));
    assert_null(ns_store_meta(s, "format"));
    ns_store_close(s);
    put("i/p.safetensors", "{}", 1);
    put_index("{\"x\":\"p.safetensors\"}");
    check_open_fails("i", "p.safetensors: 1 bytes after");
}

static void many_tensors(void **state)
{
    (void)state;
    enum { N = 5000 };
    folder("many");
    ns_writer_options o = ns_writer_defaults();
    o.max_shard_bytes = 500;
    ns_writer *w = ns_writer_new(at("many"), &o, NULL);
    char name[60];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "backbone.layers.%d.mixer.experts.%d.weight", i / 128, i % 128);
        assert_int_equal(ns_writer_declare(w, name, NS_U8, 1, (int64_t[]){ 1 }, NULL), 0);
    }
    for (int i = 0; i < N; i++) {
        uint8_t b = (uint8_t)(i * 7);
        assert_int_equal(ns_writer_tensor_begin(w, (size_t)i, NULL), 0);
        assert_int_equal(ns_writer_append(w, &b, 1, NULL), 0);
    }
    assert_int_equal(ns_writer_finish(w, NULL), 0);
    ns_writer_free(w);
    ns_store *s = ns_store_open(at("many"), NS_LOAD_MMAP, NULL);
    assert_non_null(s);
    assert_int_equal(ns_store_n_shards(s), 10);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "backbone.layers.%d.mixer.experts.%d.weight", i / 128, i % 128);
        const ns_tensor *t = ns_store_find(s, name);
        assert_non_null(t);
        assert_int_equal(*t->data, (uint8_t)(i * 7));
        assert_ptr_equal(t, ns_store_at(s, (size_t)i));
    }
    ns_store_close(s);
}

/* ---- the writer ------------------------------------------------------------------------------------------------- */

enum { N_SAMPLES = 7 };
static const struct { const char *name; ns_dtype dtype; int n_dims; int64_t shape[3]; size_t bytes; } samples[N_SAMPLES] = {
    { "emb.weight", NS_BF16, 2, { 5, 3 }, 30 },   { "empty", NS_F32, 2, { 0, 4 }, 0 },
    { "scalar", NS_F32, 0, { 0 }, 4 },            { "q.weight", NS_U8, 2, { 3, 7 }, 21 },
    { "q.scale", NS_F8_E4M3, 2, { 3, 1 }, 3 },    { "name \"quoted\" \xc3\xa9\n", NS_I64, 1, { 2 }, 16 },
    { "last", NS_F16, 3, { 1, 1, 6 }, 12 },
};

static uint8_t content(size_t tensor, size_t i)
{
    return (uint8_t)(tensor * 37 + i * 11 + 1);
}

/* Declares and writes the samples in pieces of `piece` bytes. */
static int write_samples(ns_writer *w, size_t piece, ns_err *e)
{
    for (int i = 0; i < N_SAMPLES; i++)
        if (ns_writer_declare(w, samples[i].name, samples[i].dtype, samples[i].n_dims, samples[i].shape, e) != 0)
            return -1;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        uint8_t bytes[64];
        for (size_t j = 0; j < samples[i].bytes; j++)
            bytes[j] = content(i, j);
        if (ns_writer_tensor_begin(w, i, e) != 0)
            return -1;
        for (size_t j = 0; j < samples[i].bytes; j += piece)
            if (ns_writer_append(w, bytes + j, samples[i].bytes - j < piece ? samples[i].bytes - j : piece, e) != 0)
                return -1;
    }
    return ns_writer_finish(w, e);
}

static void check_samples(const char *path)
{
    ns_err e = { 0 };
    ns_store *s = ns_store_open(path, NS_LOAD_MMAP, &e);
    if (!s)
        fail_msg("%s", e.msg);
    assert_int_equal(ns_store_count(s), N_SAMPLES);
    assert_int_equal(ns_store_bytes(s), 86);
    assert_string_equal(ns_store_meta(s, "format"), "pt");
    for (size_t i = 0; i < N_SAMPLES; i++) {
        const ns_tensor *t = ns_store_get(s, samples[i].name, &e);
        assert_non_null(t);
        assert_int_equal(t->dtype, samples[i].dtype);
        assert_int_equal(t->n_dims, samples[i].n_dims);
        assert_memory_equal(t->shape, samples[i].shape, (size_t)t->n_dims * sizeof *t->shape);
        assert_int_equal(t->bytes, samples[i].bytes);
        for (size_t j = 0; j < t->bytes; j++)
            assert_int_equal(t->data[j], content(i, j));
    }
    ns_store_close(s);
}

/* The data starts at a multiple of 8, and the header is padded with spaces only. */
static void check_padding(const char *path)
{
    ns_buf b = { 0 };
    assert_int_equal(ns_file_read(path, 1 << 20, &b, NULL), 0);
    uint64_t h;
    memcpy(&h, b.data, 8);
    assert_int_equal(h % 8, 0);
    for (const char *p = b.data + 8 + h - 1; *p != '}'; p--)
        assert_int_equal(*p, ' ');
    ns_buf_release(&b);
}

static void one_file(void **state)
{
    (void)state;
    folder("one");
    for (size_t piece = 1; piece < 40; piece += 13) {
        ns_err e = { 0 };
        ns_writer *w = ns_writer_new(at("one"), NULL, &e);
        assert_non_null(w);
        assert_int_equal(write_samples(w, piece, &e), 0);
        assert_int_equal(ns_writer_total(w), 86);
        assert_int_equal(ns_writer_finish(w, &e), -1); /* only once */
        ns_writer_free(w);
        assert_true(ns_file_exists(at("one/model.safetensors")));
        assert_false(ns_file_exists(at("one/model.safetensors.index.json")));
        check_samples(at("one"));
        check_padding(at("one/model.safetensors"));
    }
}

static void count_progress(void *ctx, size_t done, size_t total)
{
    size_t *last = ctx;
    assert_true(done >= *last && done <= total && total == 86);
    *last = done;
}

static void sharding(void **state)
{
    (void)state;
    size_t last = 0;
    ns_writer_options o = ns_writer_defaults();
    o.max_shard_bytes = 30;
    o.progress = count_progress;
    o.ctx = &last;
    ns_writer *w = ns_writer_new(folder("sharded"), &o, NULL);
    assert_int_equal(write_samples(w, 8, NULL), 0);
    ns_writer_free(w);
    assert_int_equal(last, 86);
    check_samples(at("sharded"));
    /* 30 + 0 | 4 + 21 + 3 | 16 + 12 */
    ns_store *s = ns_store_open(at("sharded"), NS_LOAD_MMAP, NULL);
    assert_int_equal(ns_store_n_shards(s), 3);
    static const int shard[N_SAMPLES] = { 0, 0, 1, 1, 1, 2, 2 };
    for (int i = 0; i < N_SAMPLES; i++)
        assert_int_equal(ns_store_find(s, samples[i].name)->shard, shard[i]);
    assert_string_equal(ns_store_shard(s, 1), "model-00002-of-00003.safetensors");
    ns_store_close(s);
    check_padding(at("sharded/model-00003-of-00003.safetensors"));
    json_t *index = ns_json_open(at("sharded/model.safetensors.index.json"), false, NULL);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), 86);
    json_decref(index);
    o.max_shard_bytes = 1; /* larger tensors get shards of their own; the empty one rides along */
    w = ns_writer_new(folder("single"), &o, NULL);
    last = 0;
    assert_int_equal(write_samples(w, 100, NULL), 0);
    ns_writer_free(w);
    check_samples(at("single"));
    assert_true(ns_file_exists(at("single/model-00006-of-00006.safetensors")));
}

static void misuse(void **state)
{
    (void)state;
    const int64_t two[] = { 2 }, negative[] = { -1 }, huge[] = { INT64_MAX };
    ns_err e = { 0 };
    folder("misuse");
    ns_writer *w = ns_writer_new(at("misuse"), NULL, NULL);
    assert_int_equal(ns_writer_declare(w, "a", NS_F32, 1, negative, NULL), -1);
    assert_int_equal(ns_writer_declare(w, "a", NS_F32, 1, huge, NULL), -1);
    assert_int_equal(ns_writer_declare(w, "a", NS_NVFP4, 1, two, NULL), -1);
    assert_int_equal(ns_writer_declare(w, "a", NS_F32, 9, two, NULL), -1);
    assert_int_equal(ns_writer_declare(w, "__metadata__", NS_F32, 1, two, NULL), -1);
    assert_int_equal(ns_writer_declare(w, "a", NS_U8, 1, two, NULL), 0);
    assert_int_equal(ns_writer_declare(w, "b", NS_U8, 1, two, NULL), 0);
    assert_int_equal(ns_writer_append(w, "x", 1, NULL), -1);
    assert_int_equal(ns_writer_finish(w, NULL), -1);
    assert_int_equal(ns_writer_tensor_begin(w, 1, NULL), -1); /* out of turn */
    assert_int_equal(ns_writer_tensor_begin(w, 0, NULL), 0);
    assert_int_equal(ns_writer_declare(w, "c", NS_U8, 1, two, NULL), -1);
    assert_int_equal(ns_writer_append(w, "xyz", 3, &e), -1);
    assert_non_null(strstr(e.msg, "tensor \"a\" gets 1 bytes more"));
    assert_int_equal(ns_writer_append(w, "x", 1, NULL), 0);
    e = (ns_err){ 0 };
    assert_int_equal(ns_writer_tensor_begin(w, 1, &e), -1);
    assert_non_null(strstr(e.msg, "tensor \"a\" still lacks 1 bytes"));
    assert_int_equal(ns_writer_append(w, "y", 1, NULL), 0);
    e = (ns_err){ 0 };
    assert_int_equal(ns_writer_finish(w, &e), -1);
    assert_non_null(strstr(e.msg, "tensor \"b\" was declared but not written"));
    ns_writer_free(w);
    assert_false(ns_file_exists(at("misuse/model.safetensors"))); /* nothing half-done remains */
    assert_false(ns_file_exists(at("misuse/model.safetensors.partial")));

    e = (ns_err){ 0 };
    w = ns_writer_new(at("misuse"), NULL, NULL);
    assert_int_equal(ns_writer_declare(w, "a", NS_U8, 1, two, NULL), 0);
    assert_int_equal(ns_writer_declare(w, "a", NS_U8, 1, two, NULL), 0);
    assert_int_equal(ns_writer_tensor_begin(w, 0, &e), -1);
    assert_non_null(strstr(e.msg, "tensor \"a\" is declared twice"));
    ns_writer_free(w);
    w = ns_writer_new(at("misuse"), NULL, NULL);
    assert_int_equal(ns_writer_declare(w, "\xff", NS_U8, 1, two, NULL), 0);
    assert_int_equal(ns_writer_tensor_begin(w, 0, NULL), -1); /* no JSON form */
    assert_int_equal(ns_writer_tensor_begin(w, 0, NULL), -1);
    ns_writer_free(w);
    w = ns_writer_new(at("misuse/absent"), NULL, NULL);
    assert_int_equal(ns_writer_finish(w, NULL), -1);
    ns_writer_free(w);
    w = ns_writer_new(at("misuse"), NULL, NULL); /* no tensors: an empty file */
    assert_int_equal(ns_writer_finish(w, NULL), 0);
    ns_writer_free(w);
    ns_store *s = ns_store_open(at("misuse"), NS_LOAD_HUGE, NULL);
    assert_non_null(s);
    assert_int_equal(ns_store_count(s), 0);
    ns_store_close(s);
}

/* In a child, since the limit on file sizes is the process's. */
static int write_beyond_limit(void)
{
    struct rlimit lim = { 200000, 200000 };
    static uint8_t block[10000];
    ns_err e = { 0 };
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &lim);
    ns_writer *w = ns_writer_new(at("disk"), NULL, NULL);
    int rc = ns_writer_declare(w, "a", NS_U8, 1, (int64_t[]){ 1000000 }, NULL);
    rc |= ns_writer_tensor_begin(w, 0, NULL);
    if (rc != 0)
        return 1;
    for (int i = 0; rc == 0 && i < 100; i++)
        rc = ns_writer_append(w, block, sizeof block, &e);
    bool said = strstr(e.msg, "disk/model.safetensors.partial: write: File too large") != NULL;
    ns_writer_free(w);
    return rc == -1 && said ? 0 : 2;
}

static void disk_full(void **state)
{
    (void)state;
    int status = -1;
    folder("disk");
    pid_t child = fork();
    if (child == 0)
        _exit(write_beyond_limit());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(rmdir(at("disk")), 0); /* it is empty */
}

static void small_file(void **state)
{
    (void)state;
    const float logits[6] = { 1, -2, 3, 0.5f, 0, 7 };
    const int64_t count = 42;
    ns_tensor t[] = {
        { .name = "logits", .dtype = NS_F32, .n_dims = 2, .shape = { 2, 3 }, .data = (const uint8_t *)logits },
        { .name = "count", .dtype = NS_I64, .data = (const uint8_t *)&count },
    };
    const ns_st_meta meta[] = { { "model", "tiny \"x\"" }, { "n", "2" } };
    ns_err e = { 0 };
    assert_int_equal(ns_st_write_file(at("small.safetensors"), t, 2, meta, 2, &e), 0);
    ns_store *s = ns_store_open(at("small.safetensors"), NS_LOAD_HUGE, &e);
    assert_non_null(s);
    assert_string_equal(ns_store_shard(s, 0), "small.safetensors");
    assert_string_equal(ns_store_meta(s, "model"), "tiny \"x\"");
    assert_null(ns_store_meta(s, "none"));
    assert_memory_equal(ns_store_find(s, "logits")->data, logits, sizeof logits);
    assert_memory_equal(ns_store_find(s, "count")->data, &count, sizeof count);
    ns_store_close(s);
    assert_int_equal(ns_st_write_file(at("none.safetensors"), NULL, 0, NULL, 0, &e), 0);
    s = ns_store_open(at("none.safetensors"), NS_LOAD_MMAP, &e);
    assert_non_null(s);
    ns_store_close(s);
    t[1].name = "logits";
    assert_int_equal(ns_st_write_file(at("twice.safetensors"), t, 2, NULL, 0, &e), -1);
    assert_false(ns_file_exists(at("twice.safetensors")) || ns_file_exists(at("twice.safetensors.partial")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),  cmocka_unit_test(refused),      cmocka_unit_test(header_lengths),
        cmocka_unit_test(truncated), cmocka_unit_test(reference_vectors), cmocka_unit_test(folders),
        cmocka_unit_test(indexes),   cmocka_unit_test(many_tensors), cmocka_unit_test(one_file),
        cmocka_unit_test(sharding),  cmocka_unit_test(misuse),       cmocka_unit_test(disk_full),
        cmocka_unit_test(small_file),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
