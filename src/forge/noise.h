/* Inside forge/: seeded Gaussian numbers straight in the stored formats, through tables, at memory speed.
 * A stream belongs to one tensor: (seed, name) decides every byte of it, whatever is generated before or beside it. */
#ifndef NS_FORGE_NOISE_H
#define NS_FORGE_NOISE_H
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "tensor/dtype.h"

enum { NS_NOISE_CHUNK = 1 << 20 }; /* generate in pieces of this many bytes: the pieces are then the same for everyone */

typedef struct ns_noise ns_noise;

ns_noise *ns_noise_new(void); /* NULL when memory is out */
void ns_noise_free(ns_noise *n);

void ns_noise_seed(ns_rng *r, uint64_t seed, const char *name);
/* n bytes of F32, F16 or BF16 values with mean 0 and the given deviation. */
void ns_noise_floats(ns_noise *t, ns_rng *r, ns_dtype dtype, float deviation, void *out, size_t n);
/* n bytes of FP8 codes; times ns_noise_e4m3_scale they have deviation 1. */
void ns_noise_e4m3(const ns_noise *t, ns_rng *r, void *out, size_t n);
float ns_noise_e4m3_scale(const ns_noise *t);
/* n bytes of nibble pairs, and n block scales; their product times ns_noise_nvfp4_scale has deviation 1. */
void ns_noise_nibbles(const ns_noise *t, ns_rng *r, void *out, size_t n);
void ns_noise_block_scales(const ns_noise *t, ns_rng *r, void *out, size_t n);
float ns_noise_nvfp4_scale(const ns_noise *t);
#endif
