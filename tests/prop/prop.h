/* What the property tests share: a checkpoint with kernels and threads, runs that record everything they compute, comparisons. */
#ifndef PROP_H
#define PROP_H
#include "base/rng.h"
#include "model/model.h"
#include "tiny/tiny.h"

/* Aborts on failure, as the tiny helpers do: what is tested comes later. */
typedef struct prop_model {
    ns_ckpt *ck;
    ns_pool *pool;
    ns_model m;
} prop_model;

prop_model prop_open(ns_ckpt *ck, const ns_ops *ops, int n_threads); /* takes the checkpoint over */
void prop_close(prop_model *p);

enum { PROP_MAX_STEPS = 300 };

/* How a sequence is fed: tokens per step. */
typedef struct prop_feed {
    int n, step[PROP_MAX_STEPS];
} prop_feed;
prop_feed prop_whole(int n);                         /* in one step */
prop_feed prop_steps(int n);                         /* one by one */
prop_feed prop_random_feed(int n, ns_rng *r);        /* cut at random places */
prop_feed prop_prefill_decode(int prefill, int decode);

/* Everything a run computed. */
typedef struct prop_trace {
    float *x;      /* [step][kept layer][token of the step][hidden]: the residual stream */
    float *logits; /* [token][vocab] */
    size_t n_x, n_logits;
    ns_state *state; /* as the run left it; owned */
} prop_trace;
void prop_trace_release(prop_trace *t);

/* Feeds ids from an empty state that has the shape of the plan's cut. Of each residual vector the first `hidden` entries are kept (0: all). */
prop_trace prop_run(const ns_plan *p, const int *ids, const prop_feed *f, int hidden);
/* Goes on from a state; not traced. logits [sum of steps, vocab] may be NULL. */
void prop_continue(const ns_plan *p, ns_state *s, const int *ids, const prop_feed *f, float *logits);

ns_plan *prop_plan(const prop_model *m, const ns_cut *c);
ns_plan *prop_plan_masked(const prop_model *m, const ns_cut *c);
int *prop_ids(const prop_model *m, int n, ns_rng *r); /* free() it */
int prop_pick(ns_rng *r, int n);                      /* 0 .. n-1 */

/* max |a - b| / max |b|; infinite where a is not finite. */
double prop_diff(const float *a, const float *b, size_t n);
/* Fails the test when a bit differs. */
void prop_same(const float *a, const float *b, size_t n, const char *what);
void prop_same_trace(const prop_trace *a, const prop_trace *b, const char *what);
/* The same for what two states remember; lengths and shapes must agree too. */
void prop_same_state(const ns_state *a, const ns_state *b, const char *what);
double prop_state_diff(const ns_state *a, const ns_state *b);

/* The variants every property is tried on: name, and what differs from tiny_defaults. */
typedef struct prop_variant {
    const char *name;
    tiny_opts o;
} prop_variant;
enum { PROP_VARIANTS = 11 };
void prop_variants(prop_variant v[PROP_VARIANTS]);
bool prop_quantised(const tiny_opts *o); /* activations are rounded by the vector rungs */
#endif
