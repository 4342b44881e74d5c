#include "kernel/ops.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static ns_ops table[NS_RUNG_COUNT];
static bool have[NS_RUNG_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void)
{
    ns_ops_fill_ref(&table[NS_RUNG_REF]);
    have[NS_RUNG_REF] = true;
#ifdef __x86_64__
    __builtin_cpu_init();
    /* f16c came before avx2 in every processor; clang 14 cannot be asked for it */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        table[NS_RUNG_AVX2] = table[NS_RUNG_REF];
        ns_ops_fill_avx2(&table[NS_RUNG_AVX2]);
        have[NS_RUNG_AVX2] = true;
    }
    if (have[NS_RUNG_AVX2] && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
        table[NS_RUNG_AVX512] = table[NS_RUNG_AVX2];
        ns_ops_fill_avx512(&table[NS_RUNG_AVX512]);
        have[NS_RUNG_AVX512] = true;
    }
#endif
}

const ns_ops *ns_ops_find(enum ns_rung r)
{
    pthread_once(&once, fill);
    return have[r] ? &table[r] : NULL;
}

int ns_ops_select(const ns_ops **out, ns_err *e)
{
    static const char *const names[NS_RUNG_COUNT] = { "ref", "avx2", "avx512" };
    const char *want = getenv("NS_CPU");
    for (int r = NS_RUNG_COUNT - 1; r >= 0; r--) {
        const ns_ops *o = ns_ops_find((enum ns_rung)r);
        if (o && (!want || strcmp(want, names[r]) == 0)) {
            *out = o;
            return 0;
        }
    }
    return ns_fail(e, NS_EUNSUPPORTED, "NS_CPU=%s: not one of the kernels of this machine (ref, avx2, avx512)", want);
}
