/* Quantising: a checkpoint of plain floats to one in ModelOpt's FP8 or NVFP4 layout, tensor by tensor in bounded memory.
 * FP8: E4M3 weights, weight_scale = amax / 448. NVFP4: E2M1 nibbles, one E4M3 scale per 16 inputs, weight_scale_2 = amax / (6 * 448).
 * The scales are those of the whole (widest) tensor, so a slice of the result is a copy of its bytes: every size inside a nested
 * checkpoint stays valid. */
#ifndef NS_FORGE_QUANTIZE_H
#define NS_FORGE_QUANTIZE_H
#include "ckpt/ckpt.h"
#include "forge/formats.h"

typedef struct ns_quantize_opts {
    const char *format;      /* "fp8" or "nvfp4" */
    bool all;                /* every linear layer, the head too; else the published exclusions (formats.h) */
    const char *const *keep; /* shell patterns over module names ("backbone.layers.3.*") that stay as they are */
    int n_keep;
    /* A safetensors file of F32 scalars, as eval/calibrate writes: MODULE.input_amax of each quantised module's input, each expert's too,
     * and for kv_fp8 MODULE.output_amax of the key and value projections. NULL: weights only, no input_scale is written. */
    const char *calib;
    bool kv_fp8;             /* k_scale and v_scale, and kv_cache_quant_algo FP8; needs calib */
    bool search;             /* NVFP4: of the block scales near amax/6, the one with the least squared error */
    bool bf16;               /* what is not quantised is rounded to BF16; else it is copied */
    int threads;             /* 0: the cores */
    size_t max_shard_bytes;  /* 0: the writer's default */
    void (*progress)(void *ctx, size_t done, size_t total); /* bytes written; may be NULL */
    void *ctx;
} ns_quantize_opts;

/* What the rounding cost, over all quantised weights. */
typedef struct ns_quantize_report {
    int64_t n_weights, n_tensors;  /* elements and matrices quantised */
    double sum_squares, sum_error; /* of the weights, and of their errors: sqrt(error / squares) is the relative error */
    size_t bytes_in, bytes_out;
} ns_quantize_report;

/* What becomes of each weight: a new quantisation config, and the formats that it asks for (which borrow from it). Refused by name: a
 * checkpoint that is quantised already, and rows that a block would split. */
int ns_quantize_plan(const ns_ckpt *c, const ns_quantize_opts *o, json_t **hf_quant, ns_formats *formats, ns_err *e);
/* The folder appears complete or not at all; nest.json and the text files are copied. A checkpoint that is quantised already, a cut that a
 * block would split, and a weight that is not finite are refused by name. `report` may be NULL. */
int ns_quantize(const ns_ckpt *c, const ns_quantize_opts *o, const char *out_dir, ns_quantize_report *report, ns_err *e);
#endif
