/* Seeded tiny checkpoints for tests, with every layer kind and every axis, and the means to make them wrong. */
#ifndef TINY_H
#define TINY_H
#include "ckpt/ckpt.h"

typedef struct tiny_opts {
    const char *pattern; /* of M E * - */
    const char *dtype;   /* as ns_synth_opts.dtype: "f32", "f16", "bf16", "fp8", "nvfp4", "fp8-all", "nvfp4-all" */
    uint64_t seed;
    int hidden, vocab;
    int experts, topk, n_group, topk_group, expert_ffn, shared_ffn, latent; /* latent 0: none */
    int dense_ffn;
    int mamba_heads, mamba_groups, mamba_head_dim, state, conv_kernel, chunk;
    int heads, kv_heads, head_dim;
    bool tied, biases;
    const char *nest; /* text of nest.json; NULL */
} tiny_opts;

/* "MEM*E-ME" in f32: hidden 64, 8 experts of 48 (2 picked), shared 80, dense 96, Mamba 8 heads x 16 in 2 groups, state 16,
 * attention 8 heads x 16 on 2 kv heads, vocabulary 96. Every width is a multiple of 16, so any dtype fits. */
tiny_opts tiny_defaults(void);

/* Makes the checkpoint; `dir` must not exist (or be an empty folder). `o` may be NULL. Prints the reason to stderr and returns
 * -1 on failure. */
int tiny_make(const char *dir, const tiny_opts *o);
/* Only the config, as a file. */
int tiny_config(const char *path, const tiny_opts *o);

/* A fresh folder under TMPDIR; free() the name. Aborts when it cannot be made. */
char *tiny_dir(void);
/* "base/name"; free() it. */
char *tiny_path(const char *base, const char *name);
/* Removes a folder and everything in it. */
void tiny_remove(const char *dir);
/* tiny_make in base/name and open it; aborts on failure. */
ns_ckpt *tiny_open(const char *base, const char *name, const tiny_opts *o);

/* A random valid cut: widths per model or per layer, sometimes with layers dropped. Same seed, same cut; release it. */
int tiny_random_cut(const ns_ckpt *c, uint64_t seed, ns_cut *out);

/* ---- a checkpoint's tensors in memory, to be changed and saved again ---- */

typedef struct tiny_tensor {
    char *name; /* owned; NULL: removed */
    ns_dtype dtype;
    int n_dims;
    int64_t shape[NS_MAX_DIMS];
    uint8_t *data; /* owned */
    size_t bytes;
} tiny_tensor;

typedef struct tiny_file {
    tiny_tensor *t;
    size_t n;
} tiny_file;

/* These abort on failure: a broken fixture is no test result. */
void tiny_load(tiny_file *f, const char *dir);
void tiny_save(const tiny_file *f, const char *dir); /* as one model.safetensors, replacing what is there */
void tiny_release(tiny_file *f);
tiny_tensor *tiny_find(tiny_file *f, const char *name); /* aborts when absent */
void tiny_drop(tiny_file *f, const char *name);
void tiny_add(tiny_file *f, const char *name, ns_dtype dtype, int n_dims, const int64_t *shape, const void *data);
/* Replaces a tensor's numbers by the same ones in another plain type. */
void tiny_cast(tiny_file *f, const char *name, ns_dtype dtype);
void tiny_rename_prefix(tiny_file *f, const char *from, const char *to);
/* Per-expert tensors to fused ones: "..experts.up_proj" with "..experts.up_proj<glue>weight_scale", or with `suffix`
 * "..experts.up_proj.weight". Per-tensor scales become [experts]. */
void tiny_fuse(tiny_file *f, const char *glue, bool suffix);
/* A group's folder: cmocka's group setup makes it, its teardown removes it with all that is in it. */
extern char *tiny_base;
int tiny_setup(void **state);
int tiny_teardown(void **state);
#endif
