/* The inference engine's logits, for tests of other parts of the house: without the engine's own headers, whose names are its own. */
#ifndef PROP_LOGITS_H
#define PROP_LOGITS_H
#include "ckpt/ckpt.h"
#include "tiny/tiny.h"

/* Of n tokens from an empty sequence, by the reference kernels, as a view: [n, vocab]; free() it. */
float *prop_logits(const char *dir, const ns_cut *cut, const int *ids, int n);

enum { PROP_FLOAT_VARIANTS = 6 };
/* Variants with plain weights on which training is compared with the engine: name, and what differs from tiny_defaults. */
typedef struct prop_float {
    const char *name;
    tiny_opts o;
} prop_float;
void prop_float_variants(prop_float v[PROP_FLOAT_VARIANTS]);
#endif
