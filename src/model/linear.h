/* Linear layers over views: activations packed once per stored dtype, products split over threads by rows. */
#ifndef NS_MODEL_LINEAR_H
#define NS_MODEL_LINEAR_H
#include "model/model.h"

/* Bump allocation of a step. Failure is sticky; ns_forward checks after each layer. Memory is uninitialised, 64-byte aligned. */
void *ns_scratch_get(ns_scratch *s, size_t n, size_t size);      /* until the layer ends */
void *ns_scratch_get_step(ns_scratch *s, size_t n, size_t size); /* until the step ends */
/* What was handed out for a layer, or for a step and its layers, is void; the memory is kept. */
void ns_scratch_reset(ns_scratch *s);
void ns_scratch_reset_step(ns_scratch *s);
bool ns_scratch_failed(const ns_scratch *s);

/* A set of activation vectors x [m, cols] and its packed forms, made when a dtype first asks. Column segments (more than one)
 * are packed one after the other: all vectors of segment 0, then of segment 1. */
typedef struct ns_acts {
    const float *x;
    size_t ldx;
    int m;
    ns_segs cols; /* total columns live; for a prefix, one segment {0, n} */
    void *packed[NS_NVFP4 + 1];
} ns_acts;

ns_acts ns_acts_of(const float *x, size_t ldx, int m, int cols);
ns_acts ns_acts_of_segs(const float *x, size_t ldx, int m, const ns_segs *cols);

/* y_i = W[rows, cols] x_i (+ bias), y [m, rows live] with rows ldy apart. */
typedef struct ns_product {
    const ns_mat *w;
    const ns_segs *rows; /* live rows of w; NULL: the first n_rows */
    int n_rows;
    ns_acts *x;
    const int *idx;      /* vectors of x to take, in order; NULL: the first m */
    int m;
    float *y;
    size_t ldy;
    const float *bias;   /* indexed like the live rows; may be NULL */
} ns_product;

/* All products at once, sharing the threads; the result does not depend on how many there are. With `shared`, several products may have the
 * same matrix: the rows that they have in common are then read from memory once, and used by one after the other from the cache. */
void ns_products_run(const ns_model *m, ns_scratch *s, ns_product *p, int n, bool shared);
/* f(ctx, i) for i in 0..n-1 over the threads. */
void ns_parallel(const ns_model *m, int n, ns_task_fn *fn, void *ctx);
#endif
