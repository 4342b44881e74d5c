/* Writing safetensors: a checkpoint folder in Hugging Face's sharding, streamed, or one small file at once.
 * All tensors are declared first, then their bytes are appended tensor by tensor in declared order, in pieces of any size.
 * Memory use is the names and one stdio buffer. Shards are model.safetensors, or model-00001-of-000NN.safetensors with
 * model.safetensors.index.json when one file of max_shard_bytes does not hold all. Each file appears under its name only
 * when it is complete; write into an ns_outdir's tmp for a folder that appears as a whole. */
#ifndef NS_STORE_WRITER_H
#define NS_STORE_WRITER_H
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/safetensors.h"

typedef struct ns_writer_options {
    size_t max_shard_bytes;  /* of tensor data; a larger tensor gets a shard of its own */
    const ns_st_meta *meta;  /* __metadata__ of every shard; borrowed until ns_writer_finish */
    size_t n_meta;
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; after every append; may be NULL */
    void *ctx;
} ns_writer_options;

/* 5 GB shards, {"format": "pt"}, which transformers requires. */
ns_writer_options ns_writer_defaults(void);

typedef struct ns_writer ns_writer;

ns_writer *ns_writer_new(const char *dir, const ns_writer_options *o, ns_err *e); /* o may be NULL */
/* The name and shape are copied. Tensors are numbered 0, 1, .. in the order of declaration. Not after the first begin. */
int ns_writer_declare(ns_writer *w, const char *name, ns_dtype dtype, int n_dims, const int64_t *shape, ns_err *e);
/* Starts tensor i, which must be the next one; the one before must be complete. */
int ns_writer_tensor_begin(ns_writer *w, size_t i, ns_err *e);
int ns_writer_append(ns_writer *w, const void *p, size_t n, ns_err *e);
/* Every tensor must be complete. Closes the last shard and writes the index. */
int ns_writer_finish(ns_writer *w, ns_err *e);
void ns_writer_free(ns_writer *w); /* without finish: removes the shard being written, leaves complete ones */
size_t ns_writer_total(const ns_writer *w);   /* bytes declared so far */

/* One file, atomically. Of each tensor name, dtype, n_dims, shape and data are used. */
int ns_st_write_file(const char *path, const ns_tensor *tensors, size_t n, const ns_st_meta *meta, size_t n_meta, ns_err *e);
#endif
