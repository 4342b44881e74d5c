/* A small seeded generator (xoshiro256**, Blackman and Vigna 2018, seeded by splitmix64). Same seed, same stream, everywhere. */
#ifndef NS_BASE_RNG_H
#define NS_BASE_RNG_H
#include <stdint.h>

typedef struct ns_rng {
    uint64_t s[4];
} ns_rng;

void ns_rng_init(ns_rng *r, uint64_t seed);
uint64_t ns_rng_u64(ns_rng *r);
double ns_rng_uniform(ns_rng *r); /* [0, 1) with 53 bits */
double ns_rng_normal(ns_rng *r);  /* N(0, 1), Box-Muller */
#endif
