/* A change of size in training is the engine's: beginnings by one size, their state handed over, the rest by another. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "block/carry.h"
#include "block/net.h"
#include "nestar.h"
#include "tiny/tiny.h"
#include "train/folder_io.h"
#include "train/split.h"

enum { TOKENS = 150, VOCAB = 96 };

static void must(int rc, const ns_err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

/* Logits of tokens cut .. TOKENS - 1 by a session that changes its size before token `cut`. */
static void by_engine(const char *dir, const char *from, const char *to, const int *ids, int cut, float *out)
{
    ns_err e = { 0 };
    ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .no_text = true, .n_threads = 1 }, &e);
    ns_session *s = en ? ns_session_new(en, &(ns_session_opts){ .size = from, .context = TOKENS }, &e) : NULL;
    must(s ? 0 : -1, &e);
    if (cut > 0)
        must(ns_session_feed(s, ids, (size_t)cut, &e), &e);
    must(ns_session_resize(s, to, NS_HANDOVER_CACHE, &e), &e);
    for (int t = cut; t < TOKENS; t++) {
        must(ns_session_feed(s, ids + t, 1, &e), &e);
        memcpy(out + (size_t)(t - cut) * VOCAB, ns_session_logits(s), (size_t)VOCAB * sizeof *out);
    }
    ns_session_free(s);
    ns_engine_close(en);
}

static void set_mask(const ns_ckpt *c, const char *size, ns_net_mask *m)
{
    ns_err e = { 0 };
    ns_cut cut;
    char name[64];
    must(ns_mask_init(c->arch, m, &e), &e);
    must(ns_ckpt_size(c, size, &cut, name, sizeof name, &e), &e);
    ns_mask_set_cut(c->arch, &cut, m);
    ns_cut_release(&cut);
}

/* The same by the network in training. */
static void by_net(const ns_ckpt *c, const char *from, const char *to, const int *ids, int cut, float *out)
{
    ns_err e = { 0 };
    ns_params p;
    ns_net_mask mask[2];
    ns_carry carry = { 0 };
    ns_blas *blas = ns_blas_open(&e);
    must(blas ? ns_params_plan(c->arch, &p, &e) : -1, &e);
    float *w = calloc(p.count, sizeof *w);
    assert_non_null(w);
    must(ns_params_load(&p, c, w, &e), &e);
    ns_net *net = ns_net_new(&p, blas, &(ns_net_opts){ .max_tokens = TOKENS, .max_seqs = 1, .forward_only = true }, &e);
    must(net ? ns_carry_reserve(&carry, c->arch, cut, 1, &e) : -1, &e);
    set_mask(c, from, &mask[0]);
    set_mask(c, to, &mask[1]);
    const ns_seqs head = { .n_tokens = cut, .n_seqs = 1, .ids = ids, .start = (const int[]){ 0, cut }, .leave = &carry };
    const ns_seqs tail = { .n_tokens = TOKENS - cut, .n_seqs = 1, .ids = ids + cut, .start = (const int[]){ 0, TOKENS - cut }, .from = &carry };
    ns_net_forward(net, w, &mask[0], &head);
    ns_net_forward(net, w, &mask[1], &tail);
    ns_net_logits(net, w, &mask[1], 0, tail.n_tokens, out);
    ns_mask_release(&mask[0]);
    ns_mask_release(&mask[1]);
    ns_carry_release(&carry);
    ns_net_free(net);
    ns_params_release(&p);
    ns_blas_close(blas);
    free(w);
}

static double far(const float *a, const float *b, size_t n)
{
    double diff = 0, max = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]) && isfinite(b[i]));
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        max = fmax(max, fabs((double)b[i]));
    }
    return diff / max;
}

static void is_the_engines(void **state)
{
    static const char *const size[] = { "full", "hidden=32,expert_ffn=32", "hidden=48,experts=6,shared_ffn=48,dense_ffn=64,attn_heads=4" };
    static const int cuts[] = { 0, 1, 2, 64, 70, 147 };
    (void)state;
    tiny_opts o = tiny_defaults();
    ns_rng r;
    int ids[TOKENS];
    float *a = calloc(TOKENS * VOCAB, sizeof *a), *b = calloc(TOKENS * VOCAB, sizeof *b);
    assert_true(a && b);
    ns_rng_init(&r, 12);
    o.biases = true;
    ns_ckpt *c = tiny_open(tiny_base, "sizes", &o);
    char *dir = tiny_path(tiny_base, "sizes");
    for (int i = 0; i < 3 * 3 * 2; i++) {
        const char *from = size[i % 3], *to = size[i / 3 % 3];
        const int cut = cuts[i % 6];
        for (int t = 0; t < TOKENS; t++)
            ids[t] = (int)(ns_rng_u64(&r) % VOCAB);
        by_engine(dir, from, to, ids, cut, a);
        by_net(c, from, to, ids, cut, b);
        const double d = far(b, a, (size_t)(TOKENS - cut) * VOCAB);
        if (!(d < 1e-4))
            fail_msg("%s, then %s after %d tokens: logits differ by %.2e", from, to, cut, d);
        by_net(c, to, to, ids, cut, a); /* and the beginning's size is seen */
        assert_true(cut == 0 || from == to || far(b, a, VOCAB) > 1e-3);
    }
    ns_ckpt_close(c);
    free(dir);
    free(a);
    free(b);
}

/* ---- packs cut in two ---- */

static void fill(ns_pack *p, const int *length, int n, ns_rng *r)
{
    ns_pack_clear(p, 7);
    for (int i = 0; i < n; i++) {
        for (int t = 0; t < length[i]; t++) {
            const int at = p->seqs.n_tokens++;
            p->ids[at] = (int)(ns_rng_u64(r) % VOCAB);
            p->target[at] = at;
            p->weight[at] = t + 1 == length[i] - (i % 2) || (t > 2 && t % 3 == 0 && t < length[i] - 2) ? 1.5f : 0;
            p->weight_sum += (double)p->weight[at];
        }
        p->start[++p->seqs.n_seqs] = p->seqs.n_tokens;
    }
}

/* Both parts together are the pack; a counted token follows every cut; the same generator makes the same cuts. */
static void splits(void **state)
{
    static const int length[] = { 1, 2, 3, 40, 17, 9 };
    (void)state;
    ns_err e = { 0 };
    ns_rng r, again;
    ns_pack p;
    ns_split s, z;
    int seen[40] = { 0 };
    ns_rng_init(&r, 5);
    must(ns_pack_init(&p, 72, &e) || ns_split_init(&s, 72, &e) || ns_split_init(&z, 72, &e), &e);
    fill(&p, length, 6, &r);
    for (int round = 0; round < 401; round++) {
        again = r;
        ns_split_make(&s, &p, round ? &r : NULL);
        ns_split_make(&z, &p, round ? &again : NULL);
        assert_true(s.head.seqs.n_seqs == 6 && s.tail.seqs.n_seqs == 6);
        assert_memory_equal(s.head.start, z.head.start, 7 * sizeof *s.head.start);
        double weight = 0;
        for (int i = 0; i < 6; i++) {
            const int h = s.head.start[i + 1] - s.head.start[i], n = s.tail.start[i + 1] - s.tail.start[i], from = p.start[i];
            double counted = 0;
            assert_int_equal(h + n, length[i]);
            assert_memory_equal(s.head.ids + s.head.start[i], p.ids + from, (size_t)h * sizeof *p.ids);
            for (int t = 0; t < n; t++) {
                const int at = s.tail.start[i] + t, in = s.row[at];
                assert_int_equal(in, from + h + t);
                assert_true(s.tail.ids[at] == p.ids[in] && s.tail.target[at] == p.target[in] && s.tail.weight[at] == p.weight[in]);
                counted += (double)p.weight[in];
            }
            assert_true(counted > 0);
            weight += counted;
            if (round == 0 && i == 3)
                assert_int_equal(h, 20);
            if (round > 0 && i == 3)
                seen[h]++;
        }
        assert_true(fabs(weight - s.tail.weight_sum) < 1e-9);
    }
    assert_int_equal(seen[0] + seen[39], 0); /* the document's last counted token is its 39th */
    for (int h = 1; h <= 38; h++)
        assert_true(seen[h] > 0);
    ns_split_release(&s);
    ns_split_release(&z);
    ns_pack_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(is_the_engines), cmocka_unit_test(splits) };
    return cmocka_run_group_tests_name("switch", tests, tiny_setup, tiny_teardown);
}
