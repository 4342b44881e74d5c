/* Which format each weight has or gets, as quantisation configs say it. */
#ifndef NS_FORGE_FORMATS_H
#define NS_FORGE_FORMATS_H
#include "nest/cut.h"

/* Moves every module name inside a quantisation config (hf_quant_config.json or config.json's quantization_config) to where
 * the cut puts it: kept layers and experts are renumbered, names of dropped ones and of multi-token prediction go away. */
int ns_formats_renumber(json_t *q, const ns_arch *a, const ns_cut *cut, ns_err *e);

/* A new hf_quant_config.json for `algo` ("NVFP4", "FP8"). Left out as in the published checkpoints: conv1d, lm_head, the
 * attention projections, and in_proj and out_proj of the Mamba layer before each attention layer; with `all` only conv1d. */
json_t *ns_formats_config(const ns_arch *a, const char *algo, bool all, ns_err *e);

/* How a weight that does not exist yet is to be stored. */
typedef struct ns_format {
    ns_dtype dtype;
    bool input_scale, kv_scale; /* the companions that ModelOpt writes beside it */
} ns_format;

/* The formats that a config asks for. quantized_layers is borrowed from the config given to open. */
typedef struct ns_formats {
    ns_quant *quant;
    ns_dtype base; /* "dtype" or "torch_dtype", BF16 where the config names none; the router's correction is F32 all the same */
    const json_t *quantized_layers;
} ns_formats;
int ns_formats_open(ns_formats *f, const json_t *hf_quant, const json_t *config, ns_err *e);
void ns_formats_close(ns_formats *f);
ns_format ns_formats_get(const ns_formats *f, int layer, ns_role r, int expert);
/* An ns_dtype_of_fn with an ns_formats as its context. */
ns_stored ns_formats_dtype_of(void *formats, int layer, ns_role r, int expert);
/* Takes multi-token prediction out of a config: its tensors are neither copied nor made. */
void ns_formats_drop_mtp(json_t *config);
#endif
