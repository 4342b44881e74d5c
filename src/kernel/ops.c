#include "kernel/ops.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static ns_ops table[NS_RUNG_COUNT], act8[NS_RUNG_COUNT];
static bool have[NS_RUNG_COUNT], have_act8[NS_RUNG_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void)
{
    ns_ops_fill_ref(&table[NS_RUNG_REF]);
    act8[NS_RUNG_REF] = table[NS_RUNG_REF];
    ns_ops_act8_ref(&act8[NS_RUNG_REF]);
    have[NS_RUNG_REF] = have_act8[NS_RUNG_REF] = true;
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
        act8[NS_RUNG_AVX512] = table[NS_RUNG_AVX512];
        ns_ops_act8_avx512(&act8[NS_RUNG_AVX512]);
        have[NS_RUNG_AVX512] = have_act8[NS_RUNG_AVX512] = true;
    }
#endif
}

const ns_ops *ns_ops_find(enum ns_rung r)
{
    pthread_once(&once, fill);
    return have[r] ? &table[r] : NULL;
}

const ns_ops *ns_ops_find_act8(enum ns_rung r)
{
    pthread_once(&once, fill);
    return have_act8[r] ? &act8[r] : NULL;
}

int ns_ops_select(int act_bits, const ns_ops **out, ns_err *e)
{
    static const char *const names[NS_RUNG_COUNT] = { "ref", "avx2", "avx512" };
    const char *want = getenv("NS_CPU");
    if (act_bits != 0 && act_bits != 8 && act_bits != 16)
        return ns_fail(e, NS_EINVAL, "activations of %d bits: there are 8 and 16", act_bits);
    for (int r = NS_RUNG_COUNT - 1; r >= 0; r--) {
        if (!ns_ops_find((enum ns_rung)r) || (want && strcmp(want, names[r]) != 0))
            continue;
        *out = act_bits == 8 ? ns_ops_find_act8((enum ns_rung)r) : ns_ops_find((enum ns_rung)r);
        return *out ? 0 : ns_fail(e, NS_EUNSUPPORTED, "activations of 8 bits: the %s kernels have none (avx512 and ref do)", names[r]);
    }
    return ns_fail(e, NS_EUNSUPPORTED, "NS_CPU=%s: not one of the kernels of this machine (ref, avx2, avx512)", want);
}
