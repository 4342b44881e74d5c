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

/* A set of activation vectors x [m, cols] and its packed forms, made when a dtype first asks. The pieces of the columns, segments of the
 * cut or panels of the matrices that they meet, are packed one after the other: all vectors' piece 0, then piece 1. */
typedef struct ns_acts {
    const float *x;
    size_t ldx;
    int m;
    ns_segs cols; /* total columns live; for a prefix, one segment {0, n} */
    const ns_panels *panels; /* of a prefix: those of all matrices that it meets; known when it is packed */
    void *packed[NS_NVFP4 + 1];
    struct ns_acts *joint; /* a set of several sizes' vectors that these are among, from the place `base` on; see products.c */
    int base;
} ns_acts;

ns_acts ns_acts_of(const float *x, size_t ldx, int m, int cols);
ns_acts ns_acts_of_segs(const float *x, size_t ldx, int m, const ns_segs *cols);
int ns_acts_pieces(const ns_acts *a);
ns_seg ns_acts_piece(const ns_acts *a, int s); /* the columns of piece s, as the full model counts them */
/* In the form that products with w want. */
void ns_acts_pack(const ns_model *m, ns_scratch *s, ns_acts *a, const ns_mat *w);

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
    bool joint;          /* its vectors are met as part of x->joint; ns_products_run says so */
} ns_product;

/* All products at once, sharing the threads; the result does not depend on how many there are. With `shared`, several products may have the
 * same matrix: what of it they have in common is then read, and decoded, once for all their vectors. */
void ns_products_run(const ns_model *m, ns_scratch *s, ns_product *p, int n, bool shared);
/* f(ctx, i) for i in 0..n-1 over the threads. */
void ns_parallel(const ns_model *m, int n, ns_task_fn *fn, void *ctx);
#endif
