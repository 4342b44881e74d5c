/* Drawing a token from logits. */
#ifndef NS_RUN_SAMPLER_H
#define NS_RUN_SAMPLER_H
#include "base/err.h"
#include "base/rng.h"

typedef struct ns_sampler {
    ns_sampling opts;
    ns_rng rng;
    int vocab;
    double *p;  /* [vocab] weights */
    int *heap;  /* [vocab] */
} ns_sampler;

int ns_sampling_check(const ns_sampling *o, ns_err *e);
int ns_sampler_init(ns_sampler *s, const ns_sampling *opts, int vocab, ns_err *e);
void ns_sampler_release(ns_sampler *s);
/* seen[0..n) are the tokens the repetition penalty is about. */
int ns_sampler_draw(ns_sampler *s, const float *logits, const int *seen, size_t n);
#endif
