/* What quantising makes of each weight, and what it refuses, before anything is written. */
#include <string.h>

#include "forge/quantize.h"

typedef struct checker {
    const ns_ckpt *c;
    const ns_formats *formats;
    ns_err *e;
} checker;

static int check_weight(void *ctx, int layer, ns_role r, int expert)
{
    const checker *k = ctx;
    const ns_bound *b = ns_ckpt_weight(k->c, layer, r, expert);
    char name[300];
    ns_weight_name(layer, r, expert, name, sizeof name);
    if (b->mat.dtype == NS_NVFP4 || b->mat.dtype == NS_F8_E4M3)
        return ns_fail(k->e, NS_EINVAL, "%s: is %s already; quantise from the plain checkpoint", name, ns_dtype_name(b->mat.dtype));
    if (ns_formats_get(k->formats, layer, r, expert).dtype == NS_NVFP4 && b->mat.cols % 16 != 0)
        return ns_fail(k->e, NS_EINVAL, "%s: %d columns cannot be stored as NVFP4, they must be a multiple of 16 (--keep leaves it as it is)",
                       name, b->mat.cols);
    return 0;
}

static int write_config(const ns_arch *a, const ns_quantize_opts *o, json_t **out, ns_err *e)
{
    const bool fp8 = strcmp(o->format, "fp8") == 0;
    if (!(*out = ns_formats_config(a, fp8 ? "FP8" : o->calib ? "NVFP4" : "W4A16_NVFP4", o->all, e)))
        return -1;
    json_t *in = json_object_get(*out, "quantization"), *exclude = json_object_get(in, "exclude_modules");
    if (!fp8)
        json_object_set_new(in, "group_size", json_integer(16));
    json_object_set_new(in, "kv_cache_quant_algo", o->kv_fp8 ? json_string("FP8") : json_null());
    for (int i = 0; i < o->n_keep; i++)
        if (json_array_append_new(exclude, json_string(o->keep[i])) != 0)
            return ns_fail(e, NS_ENOMEM, "quantize: out of memory");
    return 0;
}

int ns_quantize_plan(const ns_ckpt *c, const ns_quantize_opts *o, json_t **hf_quant, ns_formats *formats, ns_err *e)
{
    if (strcmp(o->format, "fp8") != 0 && strcmp(o->format, "nvfp4") != 0)
        return ns_fail(e, NS_EINVAL, "unknown format \"%s\": fp8 or nvfp4", o->format);
    if (o->kv_fp8 && !o->calib)
        return ns_fail(e, NS_EINVAL, "an FP8 KV cache needs the statistics of a calibration");
    if (write_config(c->arch, o, hf_quant, e) != 0 || ns_formats_open(formats, *hf_quant, c->arch->config, e) != 0)
        return -1;
    return ns_manifest_each(c->arch, check_weight, &(checker){ c, formats, e });
}
