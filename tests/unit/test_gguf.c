/* GGUF: what is exported comes back, and broken files are refused by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "forge/export_gguf.h"
#include "forge/gguf_names.h"
#include "forge/import_gguf.h"
#include "forge/quantize.h"
#include "forge/slice.h"
#include "store/gguf.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

static ns_ckpt *need_open(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    return c;
}

/* Dims that every block divides, and no dense layer beside the experts. */
static tiny_opts opts(const char *pattern, const char *dtype)
{
    tiny_opts o = tiny_defaults();
    o.pattern = pattern;
    o.dtype = dtype;
    o.hidden = 64;
    o.expert_ffn = o.shared_ffn = o.dense_ffn = 64;
    return o;
}

static ns_ckpt *round_trip(const ns_ckpt *c, const ns_cut *cut, const char *type)
{
    ns_err e = { 0 };
    char *file = tiny_path(tiny_base, "x.gguf"), *dir = tiny_path(tiny_base, "back");
    tiny_remove(dir);
    if (ns_export_gguf(c, cut, &(ns_gguf_opts){ .type = type }, file, &e) != 0 || ns_import_gguf(file, NULL, dir, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *back = need_open(dir);
    free(file);
    free(dir);
    return back;
}

static void same_tensors(const ns_ckpt *a, const ns_ckpt *b)
{
    size_t dropped = 0;
    for (size_t i = 0; i < ns_store_count(a->store); i++) {
        const ns_tensor *x = ns_store_at(a->store, i), *y = ns_store_find(b->store, x->name);
        if (strstr(x->name, ".k_scale") || strstr(x->name, ".v_scale")) { /* GGUF has no place for them */
            dropped++;
            continue;
        }
        if (!y || x->dtype != y->dtype || x->bytes != y->bytes)
            fail_msg("%s: is not what it was", x->name);
        if (x->dtype == NS_F32 && strstr(x->name, "A_log")) { /* log(exp(x)) */
            for (size_t k = 0; k < x->bytes / 4; k++)
                assert_true(fabsf(((const float *)(const void *)x->data)[k] - ((const float *)(const void *)y->data)[k]) < 1e-6f);
        } else if (memcmp(x->data, y->data, x->bytes) != 0) {
            fail_msg("%s: other bytes", x->name);
        }
    }
    assert_int_equal(ns_store_count(a->store), ns_store_count(b->store) + dropped);
}

static void comes_back_bit_for_bit(void **state)
{
    (void)state;
    static const char *const patterns[] = { "ME*M", "M-*-M", "MEM*E" }, *const dtypes[] = { "f32", "bf16", "f16", "nvfp4", "nvfp4-all" };
    for (size_t p = 0; p < 3; p++)
        for (size_t d = 0; d < 5; d++) {
            char name[16];
            tiny_opts o = opts(patterns[p], dtypes[d]);
            o.tied = p == 1;
            o.n_group = o.topk_group = 1;
            snprintf(name, sizeof name, "m%zu%zu", p, d);
            ns_ckpt *c = tiny_open(tiny_base, name, &o);
            ns_cut full;
            ns_err e = { 0 };
            assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
            if (strcmp(dtypes[d], "f16") != 0) { /* vectors of F16 come back as F32: the same numbers in another type */
                ns_ckpt *back = round_trip(c, &full, "auto");
                same_tensors(c, back);
                ns_ckpt_close(back);
            }
            ns_cut_release(&full);
            ns_ckpt_close(c);
        }
}

/* export of a size == export of its slice */
static void a_size_is_its_slice(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = opts("MEM*E", "bf16");
    ns_ckpt *c = tiny_open(tiny_base, "whole", &o);
    char name[64], *dir = tiny_path(tiny_base, "slice");
    ns_cut cut;
    if (ns_ckpt_size(c, "hidden=32,expert_ffn=32,mamba_heads=4,attn_heads=4,experts=4,layers=0-3", &cut, name, sizeof name, &e) != 0 ||
        ns_slice(c, &cut, dir, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *slice = need_open(dir), *back = round_trip(c, &cut, "auto");
    same_tensors(slice, back);
    ns_ckpt_close(back);
    ns_ckpt_close(slice);
    ns_cut_release(&cut);
    ns_ckpt_close(c);
    free(dir);
}

static void q8_0_is_near(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = opts("ME*M", "f32");
    ns_ckpt *c = tiny_open(tiny_base, "plain", &o);
    ns_cut full;
    assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
    ns_ckpt *back = round_trip(c, &full, "q8_0");
    const ns_mat *a = &ns_ckpt_weight(c, 1, NS_W_EXPERT_UP, 3)->mat, *b = &ns_ckpt_weight(back, 1, NS_W_EXPERT_UP, 3)->mat;
    float x[64], y[64];
    for (int r = 0; r < a->rows; r++) {
        ns_row_decode(a, r, 0, 64, x);
        ns_row_decode(b, r, 0, 64, y);
        for (int k = 0; k < 64; k += 32) {
            float amax = 0;
            for (int i = k; i < k + 32; i++)
                amax = fmaxf(amax, fabsf(x[i]));
            for (int i = k; i < k + 32; i++) /* half a step of 127, the scale's rounding to F16, the value's to BF16 */
                assert_true(fabsf(x[i] - y[i]) <= amax * (0.5f / 127 + 0x1p-11f) + fabsf(x[i]) * 0x1p-8f);
        }
    }
    ns_ckpt_close(back);
    ns_cut_release(&full);
    ns_ckpt_close(c);
}

static void nibbles_move_and_return(void **state)
{
    (void)state;
    uint8_t q[64], s[8], packed[72], q2[64], s2[8];
    ns_rng g;
    ns_rng_init(&g, 3);
    for (int i = 0; i < 64; i++)
        q[i] = (uint8_t)ns_rng_u64(&g);
    for (int i = 0; i < 8; i++)
        s[i] = (uint8_t)ns_rng_u64(&g);
    ns_gguf_pack_nvfp4(q, s, 128, packed);
    /* element k of a block of 16 is nibble k/8 of byte k%8 */
    for (int k = 0; k < 128; k++) {
        const int u = k / 64, b = k / 16 % 4, j = k % 16;
        assert_int_equal(packed[36 * u + 4 + 8 * b + j % 8] >> 4 * (j / 8) & 15, q[k / 2] >> 4 * (k % 2) & 15);
        assert_int_equal(packed[36 * u + b], s[k / 16]);
    }
    ns_gguf_unpack_nvfp4(packed, 128, q2, s2);
    assert_memory_equal(q, q2, 64);
    assert_memory_equal(s, s2, 8);
}

static void not_exported(const char *name, tiny_opts o, const char *size, const char *type, const char *why)
{
    ns_err e = { 0 };
    char cut_name[64], *file = tiny_path(tiny_base, "no.gguf");
    ns_ckpt *c = tiny_open(tiny_base, name, &o);
    ns_cut cut;
    assert_int_equal(ns_ckpt_size(c, size, &cut, cut_name, sizeof cut_name, &e), 0);
    assert_int_equal(ns_export_gguf(c, &cut, &(ns_gguf_opts){ .type = type }, file, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_int_not_equal(access(file, F_OK), 0);
    ns_cut_release(&cut);
    ns_ckpt_close(c);
    free(file);
}

static void what_gguf_cannot_hold(void **state)
{
    (void)state;
    tiny_opts both = opts("ME-", "f32"), odd = opts("ME", "nvfp4-all"), biased = opts("ME", "f32");
    biased.biases = true;
    not_exported("a", both, "full", "auto", "dense FFN");
    not_exported("b", odd, "hidden=48", "auto", "multiples of 64");
    not_exported("c", opts("ME", "f32"), "hidden=48", "q8_0", "multiples of 32");
    not_exported("d", biased, "full", "auto", "biases");
    not_exported("e", opts("MEME", "f32"), "expert_ffn@1=32", "auto", "different widths");
    not_exported("f", opts("ME", "f32"), "full", "q3", "unknown type");
}

/* ---- broken files ---- */

static void refused(const uint8_t *p, size_t n, const char *why)
{
    ns_gguf g;
    ns_err e = { 0 };
    uint8_t *copy = malloc(n ? n : 1); /* of its own size: reading past it is seen */
    memcpy(copy, p, n);
    assert_int_equal(ns_gguf_parse(copy, n, "x.gguf", &g, &e), -1);
    if (!strstr(e.msg, why) || !strstr(e.msg, "x.gguf"))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    free(copy);
}

static void broken_files(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_buf b = { 0 };
    char *file = tiny_path(tiny_base, "t.gguf");
    ns_gguf_writer *w = ns_gguf_writer_new(file, &e);
    const float data[4] = { 1, 2, 3, 4 };
    ns_gguf_put_u32(w, "a", 7);
    ns_gguf_put_str(w, "s", "text", 4);
    assert_int_equal(ns_gguf_declare(w, "one", NS_GGUF_F32, 1, (uint64_t[]){ 4 }, &e), 0);
    assert_int_equal(ns_gguf_declare(w, "two", NS_GGUF_F32, 2, (uint64_t[]){ 2, 2 }, &e), 0);
    assert_int_equal(ns_gguf_append(w, data, 16, &e) || ns_gguf_append(w, data, 8, &e), 0);
    assert_int_equal(ns_gguf_finish(w, &e), -1);
    e = (ns_err){ 0 };
    assert_int_equal(ns_gguf_append(w, data + 2, 8, &e) || ns_gguf_finish(w, &e), 0);
    ns_gguf_writer_free(w);
    assert_int_equal(ns_file_read(file, 1 << 20, &b, &e), 0);
    uint8_t *p = (uint8_t *)b.data;
    ns_gguf g;
    assert_int_equal(ns_gguf_parse(p, b.len, "x.gguf", &g, &e), 0);
    assert_int_equal(ns_gguf_find_tensor(&g, "two")->ne[1], 2);
    assert_memory_equal(ns_gguf_find_tensor(&g, "two")->data, data, 16);
    const size_t info = (size_t)(strstr((char *)memmem(p, b.len, "one", 3), "one") - (char *)p);
    ns_gguf_release(&g);
    for (size_t n = 0; n < b.len - 16; n++) /* any cut, up to the padding behind the last tensor */
        refused(p, n, n < 4 ? "ends inside" : "x.gguf");
    refused((const uint8_t *)"GGML....................", 24, "not a GGUF");
    p[4] = 2;
    refused(p, b.len, "version 2");
    p[4] = 3;
    p[8 + 7] = 0x10;
    refused(p, b.len, "tensors in");
    p[8 + 7] = 0;
    p[info + 3] = 9; /* dimensions */
    refused(p, b.len, "9 dimensions");
    p[info + 3] = 1;
    p[info + 3 + 4 + 8] = 77; /* type */
    refused(p, b.len, "type 77");
    p[info + 3 + 4 + 8] = 0;
    p[info + 3 + 4 + 8 + 4] = 32; /* offset: where `two` is */
    refused(p, b.len, "overlap");
    p[info + 3 + 4 + 8 + 4] = 1;
    refused(p, b.len, "not in the file");
    ns_buf_release(&b);
    free(file);
}

/* ---- hostile files, written by hand ---- */

static void put(ns_buf *b, uint64_t v, int bytes)
{
    ns_buf_add(b, &v, (size_t)bytes); /* little-endian, as the host is */
}

static void put_name(ns_buf *b, const char *s, size_t n)
{
    put(b, n, 8);
    ns_buf_add(b, s, n);
}

static void put_head(ns_buf *b, uint64_t n_tensors, uint64_t n_kv)
{
    ns_buf_clear(b);
    ns_buf_add(b, "GGUF", 4);
    put(b, 3, 4);
    put(b, n_tensors, 8);
    put(b, n_kv, 8);
}

static void put_u32_key(ns_buf *b, const char *key, uint32_t v)
{
    put_name(b, key, strlen(key));
    put(b, NS_GGUF_U32, 4);
    put(b, v, 4);
}

static void put_array(ns_buf *b, const char *key, ns_gguf_value item, uint64_t n)
{
    put_name(b, key, strlen(key));
    put(b, NS_GGUF_ARRAY, 4);
    put(b, item, 4);
    put(b, n, 8);
}

static void put_tensor(ns_buf *b, const char *name, int n_dims, const uint64_t *ne, ns_gguf_type t, uint64_t offset)
{
    put_name(b, name, strlen(name));
    put(b, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++)
        put(b, ne[i], 8);
    put(b, t, 4);
    put(b, offset, 8);
}

static void refused_buf(ns_buf *b, const char *why)
{
    for (int i = 0; i < 256; i++) /* room, so that counts are not refused for the file's size alone */
        put(b, 0, 1);
    refused((const uint8_t *)b->data, b->len, why);
}

static void hostile_keys(void **state)
{
    (void)state;
    ns_buf b = { 0 };
    put_head(&b, 0, 2);
    put_u32_key(&b, "general.alignment", 32);
    put_u32_key(&b, "general.alignment", 64);
    refused_buf(&b, "two keys \"general.alignment\"");
    for (int i = 0; i < 4; i++) { /* zero, no power of two, too small, too large */
        put_head(&b, 0, 1);
        put_u32_key(&b, "general.alignment", (uint32_t[]){ 0, 24, 4, 1u << 30 }[i]);
        refused_buf(&b, "general.alignment is");
    }
    put_head(&b, 0, UINT64_MAX);
    refused_buf(&b, "keys and");
    put_head(&b, UINT64_MAX, 0);
    refused_buf(&b, "tensors in");
    put_head(&b, 0, 5000); /* that many fit: it is no model's number */
    for (int i = 0; i < 5000; i++) {
        char name[16];
        snprintf(name, sizeof name, "k%d", i);
        put_u32_key(&b, name, 0);
    }
    refused_buf(&b, "5000 keys");
    put_head(&b, 0, 1); /* count x 8 bytes wraps to 8 */
    put_array(&b, "wraps", NS_GGUF_U64, (UINT64_MAX >> 3) + 2);
    refused_buf(&b, "ends inside wraps");
    put_head(&b, 0, 1);
    put_array(&b, "strings", NS_GGUF_STRING, UINT64_MAX);
    refused_buf(&b, "ends inside strings");
    put_head(&b, 0, 1);
    put_array(&b, "one", NS_GGUF_STRING, 1);
    put(&b, UINT64_MAX - 3, 8);
    refused_buf(&b, "ends inside one");
    put_head(&b, 0, 1);
    put_array(&b, "deep", NS_GGUF_ARRAY, 1);
    for (int i = 0; i < 1000; i++) { /* arrays in arrays are not followed at all */
        put(&b, NS_GGUF_ARRAY, 4);
        put(&b, 1, 8);
    }
    refused_buf(&b, "array of arrays");
    put_head(&b, 0, 1);
    put(&b, UINT64_MAX, 8);
    refused_buf(&b, "a key of");
    put_head(&b, 0, 1);
    put_name(&b, "a\0b", 3);
    put(&b, NS_GGUF_U32, 4);
    put(&b, 0, 4);
    refused_buf(&b, "holds a NUL");
    put_head(&b, 0, 1);
    put_name(&b, "typed", 5);
    put(&b, 99, 4);
    refused_buf(&b, "unknown type 99");
    ns_buf_release(&b);
}

static void hostile_tensors(void **state)
{
    static const uint64_t two[] = { 2 }, zero[] = { 4, 0 }, wide[] = { 1ull << 32 }, wraps[] = { INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX },
                          odd[] = { 33 }, large[] = { INT32_MAX, INT32_MAX };
    static const struct { int n; const uint64_t *ne; ns_gguf_type type; uint64_t offset; const char *why; } cases[] = {
        { 2, zero, NS_GGUF_F32, 0, "extent 0" },        { 1, wide, NS_GGUF_F32, 0, "extent 4294967296" },
        { 4, wraps, NS_GGUF_F32, 0, "tensor t" },       { 1, odd, NS_GGUF_Q8_0, 0, "rows of 33 as Q8_0" },
        { 1, two, NS_GGUF_NVFP4, 0, "rows of 2" },      { 2, large, NS_GGUF_F32, 0, "not in the file" },
        { 1, two, NS_GGUF_F32, UINT64_MAX - 31, "not in the file" }, { 1, two, NS_GGUF_F32, 4, "not in the file" },
        { 1, two, (ns_gguf_type)2, 0, "type 2 is not supported" } };
    (void)state;
    ns_buf b = { 0 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_head(&b, 1, 0);
        put_tensor(&b, "t", cases[i].n, cases[i].ne, cases[i].type, cases[i].offset);
        refused_buf(&b, cases[i].why);
    }
    put_head(&b, 2, 0);
    put_tensor(&b, "twin", 1, two, NS_GGUF_F32, 0);
    put_tensor(&b, "twin", 1, two, NS_GGUF_F32, 32);
    refused_buf(&b, "two tensors twin");
    put_head(&b, 1, 0);
    put_tensor(&b, "t", 0, two, NS_GGUF_F32, 0);
    refused_buf(&b, "0 dimensions");
    ns_buf_release(&b);
}

/* Keys that parse, and lie about the model. Replaces all of `from` in an exported file by `to` of the same length. */
static void not_imported(const char *file, const char *from, const char *to, size_t n, size_t skip, const char *why)
{
    ns_err e = { 0 };
    ns_buf b = { 0 };
    char *bad = tiny_path(tiny_base, "bad.gguf"), *dir = tiny_path(tiny_base, "from-bad");
    assert_int_equal(ns_file_read(file, 1 << 24, &b, &e), 0);
    uint8_t *at = memmem(b.data, b.len, from, strlen(from));
    assert_non_null(at);
    memcpy(at + strlen(from) + skip, to, n);
    assert_int_equal(ns_file_write(bad, b.data, b.len, &e), 0);
    assert_int_equal(ns_import_gguf(bad, NULL, dir, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_false(ns_dir_exists(dir));
    ns_buf_release(&b);
    free(bad);
    free(dir);
}

static void files_that_lie(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = opts("ME*M", "bf16");
    ns_ckpt *c = tiny_open(tiny_base, "plain", &o);
    char *file = tiny_path(tiny_base, "x.gguf");
    ns_cut full;
    assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
    if (ns_export_gguf(c, &full, &(ns_gguf_opts){ 0 }, file, &e) != 0)
        fail_msg("%s", e.msg);
    /* behind a key: its type (4 bytes), then the value */
    not_imported(file, "nemotron_h_moe.block_count", "\xff\xff\xff\x7f", 4, 4, "block_count");
    not_imported(file, "nemotron_h_moe.block_count", "\0\0\0\0", 4, 4, "block_count");
    not_imported(file, "nemotron_h_moe.expert_count", "\xff\xff\xff\x7f", 4, 4, "expert");
    not_imported(file, "nemotron_h_moe.expert_count", "\x07\0\0\0", 4, 4, "extent");
    not_imported(file, "nemotron_h_moe.embedding_length", "\x40\x00\x00\x40", 4, 4, "hidden_size");
    not_imported(file, "nemotron_h_moe.embedding_length", "\x80\0\0\0", 4, 4, "extent");
    not_imported(file, "nemotron_h_moe.ssm.group_count", "\0\0\0\0", 4, 4, "n_groups");
    not_imported(file, "nemotron_h_moe.ssm.time_step_rank", "\0\0\0\0", 4, 4, "Mamba heads");
    not_imported(file, "nemotron_h_moe.attention.key_length", "\0\0\0\0", 4, 4, "head_dim");
    not_imported(file, "nemotron_h_moe.attention.layer_norm_rms_epsilon", "\0\0\xc0\x7f", 4, 4, "not finite");
    not_imported(file, "general.architecture", "x", 1, 12, "architecture");
    ns_cut_release(&full);
    ns_ckpt_close(c);
    free(file);
}

#define T(f) cmocka_unit_test_setup_teardown(f, tiny_setup, tiny_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = { T(comes_back_bit_for_bit), T(a_size_is_its_slice), T(q8_0_is_near), T(nibbles_move_and_return),
                                        T(what_gguf_cannot_hold), T(broken_files), T(hostile_keys), T(hostile_tensors),
                                        T(files_that_lie) };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
