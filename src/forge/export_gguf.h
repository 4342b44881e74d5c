/* One size of a checkpoint as a GGUF file for llama.cpp (architectures nemotron_h and nemotron_h_moe), tokenizer and chat template
 * inside. Source of names, keys and shapes: llama.cpp's nemotron-h model and gguf constants. */
#ifndef NS_FORGE_EXPORT_GGUF_H
#define NS_FORGE_EXPORT_GGUF_H
#include "ckpt/ckpt.h"

typedef struct ns_gguf_opts {
    /* "auto": as stored (NVFP4 repacked without loss; FP8, which GGUF lacks, as BF16); "f32", "bf16", "f16", "q8_0": every matrix that is
     * quantisable, the embedding and the head. Vectors, convolutions and router gates are F32 always. */
    const char *type;
    const char *name; /* general.name; NULL: the folder's */
    /* tokenizer.ggml.pre: how llama.cpp splits text into words; NULL: found from the tokenizer's regular expression */
    const char *pre;
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; may be NULL */
    void *ctx;
} ns_gguf_opts;

/* Refused by name: a width that the type's block does not divide (NVFP4: 64, Q8_0: 32), layers of different dims, biases and other
 * parts that llama.cpp's model lacks. The file appears when complete. */
int ns_export_gguf(const ns_ckpt *c, const ns_cut *cut, const ns_gguf_opts *o, const char *path, ns_err *e);
#endif
