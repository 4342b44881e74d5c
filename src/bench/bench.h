/* Speed of a checkpoint at its sizes, beside the machine's own limits measured in the same run. */
#ifndef NS_BENCH_BENCH_H
#define NS_BENCH_BENCH_H
#include <stdio.h>

#include "run/engine.h"

typedef struct ns_bench_opts {
    const char *const *sizes; /* --size texts; NULL with n_sizes 0: every named size */
    int n_sizes;
    int prompt;    /* tokens of prefill; 0: none */
    int gen;       /* decode steps; 0: none */
    int depth;     /* tokens in the cache before decoding */
    int sequences; /* decoded together */
    int repeats;   /* of prefill; the median counts. Decode takes the median over its steps */
    bool switches; /* also change size live, between the first two sizes */
    bool mix;      /* also decode all sizes, `sequences` each, in one step, beside each size in one of its own */
    void (*progress)(void *ctx, const char *what); /* may be NULL */
    void *ctx;
} ns_bench_opts;

ns_bench_opts ns_bench_defaults(void); /* prompt 512, gen 32, depth 32, 1 sequence, 3 repeats */

/* {"machine": {..}, "roofs": {..}, "sizes": [{..}]}; keys as the functions of bench.c write them. NULL on error. */
json_t *ns_bench_run(ns_engine *en, const ns_bench_opts *o, ns_err *e);
/* Every matrix product of the op table by dtype and batch, and the other kernels: {"ops": [{..}]}. */
json_t *ns_bench_ops(ns_pool *pool, const ns_ops *ops, ns_err *e);
/* {"sizes": [..], "sequences_each", "depth", "together_ms", "apart_ms", "ratio"}: what the mix of ns_bench_run reports. */
json_t *ns_bench_mix(ns_engine *en, const ns_bench_opts *o, ns_err *e);
double ns_bench_median(double *v, int n); /* sorts v */
void ns_bench_print(const json_t *report, FILE *out);

/* GB/s of reading the checkpoint's own weights, in blocks of an expert matrix's size in random order, all threads; the pages are
 * touched once before. */
double ns_bench_bandwidth(const ns_engine *en, ns_err *e);
/* GFLOP/s of the F32 gemm kernel on data that stays in the first-level cache, all threads. */
double ns_bench_flops(ns_pool *pool, const ns_ops *ops);
#endif
