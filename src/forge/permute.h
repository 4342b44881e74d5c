/* Reordering a checkpoint: rank order becomes storage order on every axis, so that sizes are prefixes. The result computes what the
 * original computes, up to the order of additions. Entries are moved in their stored form; nothing is decoded or rounded. */
#ifndef NS_FORGE_PERMUTE_H
#define NS_FORGE_PERMUTE_H
#include "ckpt/ckpt.h"
#include "forge/orders.h"

typedef struct ns_permute_opts {
    size_t max_shard_bytes; /* 0: the writer's default */
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; may be NULL */
    void *ctx;
} ns_permute_opts;

/* Writes the reordered checkpoint to out_dir, which appears complete or not at all: names, types and fused experts as in `c`; config,
 * quantisation config and text files. nest.json is copied only when nothing moves: its sizes were prefixes of the old order. Multi-token
 * prediction is left out.
 * Inputs of an NVFP4 matrix can move inside a block of 16 or with their whole block; anything else is refused with the tensor's name,
 * as is an order of experts that are not all stored alike. `o` may be NULL. */
int ns_permute(const ns_ckpt *c, const ns_orders *orders, const char *out_dir, const ns_permute_opts *o, ns_err *e);
#endif
