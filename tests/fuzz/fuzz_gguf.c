/* The reader of GGUF, and what import makes of its keys: any bytes give a result or an error. */
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "forge/gguf_config.h"
#include "store/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned touch(const ns_gguf *g)
{
    unsigned sum = 0;
    for (size_t i = 0; i < g->n_tensors; i++)
        for (size_t k = 0; k < g->tensor[i].bytes; k += 61)
            sum += g->tensor[i].data[k];
    for (size_t i = 0; i < g->n_kv; i++) {
        ns_gguf_cursor c = { 0 };
        const char *s;
        size_t n;
        int64_t v;
        double d;
        ns_err e = { 0 };
        for (uint64_t k = 0; k < g->kv[i].n && k < 100; k++) {
            if (ns_gguf_string(g, g->kv[i].key, k, &c, &s, &n, &e) == 0)
                sum += n ? (unsigned char)s[n - 1] : 0;
            sum += ns_gguf_int(g, g->kv[i].key, k, &v, &e) == 0 ? (unsigned)v : 0;
        }
        sum += ns_gguf_real(g, g->kv[i].key, &d, &e) == 0;
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ns_gguf g;
    ns_err e = { 0 };
    if (ns_gguf_parse(data, size, "fuzz.gguf", &g, &e) != 0)
        return 0;
    volatile unsigned sink = touch(&g);
    (void)sink;
    json_t *cfg = ns_gguf_config(&g, &e);
    ns_arch *a = cfg ? ns_arch_parse(cfg, "fuzz", &e) : NULL;
    ns_arch_free(a);
    json_decref(cfg);
    ns_gguf_release(&g);
    return 0;
}
