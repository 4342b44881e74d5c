/* Synthetic checkpoints: seeded random weights for any config, in any stored form, so that everything can be tested, measured
 * and tried without a download. Activations stay of order one at any depth; what the model says is noise.
 * Same options, same bytes: each tensor's bytes follow from (seed, its name) alone. */
#ifndef NS_FORGE_SYNTH_H
#define NS_FORGE_SYNTH_H
#include "nest/variants.h"

typedef struct ns_synth_opts {
    uint64_t seed;
    /* "config": as the config and the quantisation config say; "f32", "f16", "bf16": not quantised; "fp8", "nvfp4": quantised with
     * the published exclusions; "fp8-all", "nvfp4-all": every linear layer quantised, lm_head too */
    const char *dtype;
    const char *hf_quant_path; /* for "config"; NULL: hf_quant_config.json beside the config, or X_hf_quant_config.json beside X_config.json */
    const char *size;          /* as --size: the checkpoint of a cut of the config; NULL: all of it */
    const char *nest_path;     /* nest.json: what `size` may name; copied when there is no `size`; NULL */
    const char *text_dir;      /* folder to copy the tokenizer's files from; NULL */
    size_t max_shard_bytes;
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes; may be NULL */
    void *ctx;
} ns_synth_opts;

ns_synth_opts ns_synth_defaults(void); /* seed 0, "config" */

/* The folder appears complete or not at all. `o` may be NULL. */
int ns_synth(const char *config_path, const ns_synth_opts *o, const char *out_dir, ns_err *e);
/* The quantisation config that goes with a config.json, by the rule of hf_quant_path; *out is NULL when there is none. */
int ns_synth_find_quant(const char *config_path, json_t **out, ns_err *e);
#endif
