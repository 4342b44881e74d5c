/* Exported GGUF files against llama.cpp: the fixture has the logits that llama.cpp computed from files whose tensors had this digest.
 * So: the export still writes those tensors, and the engine agrees with llama.cpp at the size that was exported. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "forge/export_gguf.h"
#include "forge/synth.h"
#include "model/model.h"
#include "run/engine.h"
#include "store/gguf.h"
#include "tiny/tiny.h"

static char *fixture(const char *name)
{
    const char *src = getenv("NS_TEST_SRC");
    char *out = malloc(1000);
    snprintf(out, 1000, "%s/tests/golden/llama/%s", src ? src : ".", name);
    return out;
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t digest(const char *path)
{
    ns_map m;
    ns_gguf g;
    ns_err e = { 0 };
    uint64_t h = 0xcbf29ce484222325u;
    if (ns_map_open(&m, path, &e) != 0 || ns_gguf_parse(m.data, m.size, path, &g, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < g.n_tensors; i++) {
        const ns_gguf_tensor *t = &g.tensor[i];
        h = fnv(fnv(fnv(h, t->name, strlen(t->name)), t->ne, sizeof t->ne), t->data, t->bytes);
    }
    ns_gguf_release(&g);
    ns_map_close(&m);
    return h;
}

static int read_ids(int *ids)
{
    char *path = fixture("ids.txt");
    FILE *f = fopen(path, "r");
    int n = 0;
    assert_non_null(f);
    while (n < 64 && fscanf(f, "%d", &ids[n]) == 1)
        n++;
    fclose(f);
    free(path);
    return n;
}

static void check_size(ns_engine *en, const char *size, const float *want, const int *ids, int n)
{
    ns_err e = { 0 };
    char name[64];
    ns_cut cut;
    const int vocab = ns_engine_vocab_size(en);
    float *got = malloc((size_t)n * (size_t)vocab * sizeof *got);
    if (ns_engine_cut(en, size, n, &cut, name, sizeof name, &e) != 0)
        fail_msg("%s", e.msg);
    ns_plan *plan = ns_plan_new(&en->model, &cut, &e);
    ns_state *state = ns_model_state(&en->model, &cut, n, &e);
    ns_scratch *scratch = ns_scratch_new();
    ns_item item = { .state = state, .ids = ids, .n = n, .n_logits = n, .logits = got };
    assert_int_equal(ns_forward(plan, &item, 1, scratch, NULL, &e), 0);
    float worst = 0, largest = 0;
    for (int i = 0; i < n * vocab; i++) {
        worst = fmaxf(worst, fabsf(got[i] - want[i]));
        largest = fmaxf(largest, fabsf(want[i]));
    }
    printf("# %s: relative difference %.2g\n", size, (double)(worst / largest));
    assert_true(worst < 2e-6f * largest);
    ns_scratch_free(scratch);
    ns_state_free(state);
    ns_plan_free(plan);
    ns_cut_release(&cut);
    free(got);
}

static void llama_cpp_computes_the_same(void **state)
{
    (void)state;
    ns_err e = { 0 };
    int ids[64];
    char *config = fixture("config.json"), *stored = fixture("logits.safetensors"), *dir = tiny_path(tiny_base, "model");
    char *out = tiny_path(tiny_base, "x.gguf");
    ns_synth_opts so = ns_synth_defaults();
    so.dtype = "f32";
    so.seed = 5;
    const int n = read_ids(ids);
    if (ns_synth(config, &so, dir, &e) != 0)
        fail_msg("%s", e.msg);
    ns_store *s = ns_store_open(stored, NS_LOAD_MMAP, &e);
    ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .no_text = true }, &e);
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!s || !en || !c)
        fail_msg("%s", e.msg);
    for (int i = 1; i <= 3; i++) {
        char key[32], name[64], hex[32];
        ns_cut cut;
        snprintf(key, sizeof key, "size.%d", i);
        const char *size = ns_store_meta(s, key);
        snprintf(key, sizeof key, "logits.%d", i);
        const ns_tensor *want = ns_store_find(s, key);
        assert_true(size && want && want->shape[0] == n);
        assert_int_equal(ns_ckpt_size(c, size, &cut, name, sizeof name, &e), 0);
        if (ns_export_gguf(c, &cut, &(ns_gguf_opts){ .type = "auto" }, out, &e) != 0)
            fail_msg("%s", e.msg);
        snprintf(key, sizeof key, "tensors.%d", i);
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)digest(out));
        assert_string_equal(hex, ns_store_meta(s, key));
        check_size(en, size, (const float *)(const void *)want->data, ids, n);
        ns_cut_release(&cut);
    }
    ns_ckpt_close(c);
    ns_engine_close(en);
    ns_store_close(s);
    free(config);
    free(stored);
    free(dir);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(llama_cpp_computes_the_same, tiny_setup, tiny_teardown) };
    return cmocka_run_group_tests_name("gguf_golden", tests, NULL, NULL);
}
