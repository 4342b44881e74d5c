/* Zero-shot slicing: a smaller checkpoint out of a nested one, as an ordinary Hugging Face folder.
 * Nothing is decoded: rows and columns are copied in their stored form, block scales with them, per-tensor scales as they are. On
 * request every weight is decoded row by row to one plain type instead, for engines that do not know the stored one. */
#ifndef NS_FORGE_SLICE_H
#define NS_FORGE_SLICE_H
#include "ckpt/ckpt.h"

typedef struct ns_slice_opts {
    size_t max_shard_bytes;
    const char *name; /* of the size; noted in the files' __metadata__ as "nestar.size"; NULL */
    const char *dtype; /* "f32", "bf16" or "f16": decoded to it, the router's correction to F32; NULL: as stored */
    bool keep_nest;    /* copies nest.json and the router too, where the cut is the whole model */
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; may be NULL */
    void *ctx;
} ns_slice_opts;

ns_slice_opts ns_slice_defaults(void);

/* Writes the weights that `cut` keeps to out_dir, with config.json, the quantisation config, and the tokenizer's files.
 * Layers and experts are renumbered; the names' spelling and fused experts stay. The folder appears complete or not at all;
 * multi-token prediction is left out. The cut is validated first. With `dtype` there is no quantisation config and no scale, and a weight
 * that the type cannot hold is refused by name. `o` may be NULL. */
int ns_slice(const ns_ckpt *c, const ns_cut *cut, const char *out_dir, const ns_slice_opts *o, ns_err *e);
#endif
