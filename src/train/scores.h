/* Named vectors of scores: what importance measures, and its file. */
#ifndef NS_TRAIN_SCORES_H
#define NS_TRAIN_SCORES_H
#include "base/mem.h"
#include "store/safetensors.h"

typedef struct ns_score {
    const char *name; /* "layers.3.mamba_heads" */
    int n;
    const float *x;
} ns_score;

typedef struct ns_scores {
    int n;
    ns_score *s;
    int64_t tokens, depth_tokens; /* that were run */
    int cap;
    ns_arena arena;
} ns_scores;

/* An array of n entries to be filled; NULL with an error when memory is out. */
float *ns_scores_add(ns_scores *s, int n, ns_err *e, const char *fmt, ...) NS_PRINTF(4, 5);
const ns_score *ns_scores_find(const ns_scores *s, const char *name); /* NULL when absent */
/* A safetensors file of F32 vectors. */
int ns_scores_write(const ns_scores *s, const ns_st_meta *meta, size_t n_meta, const char *path, ns_err *e);
void ns_scores_release(ns_scores *s);
#endif
