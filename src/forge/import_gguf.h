/* A GGUF file of the architectures nemotron_h and nemotron_h_moe to a Hugging Face folder. */
#ifndef NS_FORGE_IMPORT_GGUF_H
#define NS_FORGE_IMPORT_GGUF_H
#include <stddef.h>

#include "base/err.h"

typedef struct ns_import_opts {
    size_t max_shard_bytes; /* 0: the writer's default */
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; may be NULL */
    void *ctx;
} ns_import_opts;

/* Matrices keep their type: NVFP4 becomes ModelOpt's layout without loss, Q8_0, which safetensors lacks, becomes BF16. Vectors take the
 * config's torch_dtype, where that loses nothing, else F32. config.json comes from the file's keys, completed by the config that `nestar
 * export` left inside. The tokenizer is the one inside, or is made from tokens and merges. The folder appears complete or not at all. */
int ns_import_gguf(const char *path, const ns_import_opts *o, const char *out_dir, ns_err *e);
#endif
