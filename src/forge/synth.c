#include "forge/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "base/file.h"
#include "forge/folder.h"
#include "forge/formats.h"
#include "forge/noise.h"
#include "store/writer.h"
#include "tensor/format.h"

/* What is to be made: a config (already cut), a quantisation config, and what follows from them. */
typedef struct synth {
    const ns_synth_opts *o;
    json_t *config, *hf_quant; /* hf_quant may be NULL */
    ns_arch *arch;
    ns_formats formats;
    ns_noise *noise;
    ns_writer *w;
    size_t next; /* number of the next tensor, in declaring and in writing */
    uint8_t *buffer; /* NS_NOISE_CHUNK bytes */
    ns_err *e;
} synth;

ns_synth_opts ns_synth_defaults(void)
{
    return (ns_synth_opts){ .dtype = "config", .max_shard_bytes = ns_writer_defaults().max_shard_bytes };
}

static int no_memory(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "synth: out of memory");
}

/* ---- the configs ---- */

int ns_synth_find_quant(const char *config_path, json_t **out, ns_err *e)
{
    ns_buf path = { 0 };
    const char *slash = strrchr(config_path, '/'), *base = slash ? slash + 1 : config_path;
    size_t n = strlen(base), k = strlen("config.json");
    int rc = 0;
    *out = NULL;
    if (n >= k && strcmp(base + n - k, "config.json") == 0) /* "config.json" and "X_config.json" alike */
        ns_buf_addf(&path, "%.*shf_quant_config.json", (int)(strlen(config_path) - k), config_path);
    if (path.failed)
        rc = no_memory(e);
    else if (path.data && ns_file_exists(path.data) && !(*out = ns_json_open(path.data, true, e)))
        rc = -1;
    ns_buf_release(&path);
    return rc;
}

/* Writes the base type where the config keeps it. */
static int set_base(synth *s, const char *name)
{
    json_t *text = (json_t *)(uintptr_t)ns_config_text(s->config);
    const char *key = json_object_get(text, "dtype") ? "dtype" : "torch_dtype";
    return json_object_set_new(text, key, json_string(name)) == 0 ? 0 : no_memory(s->e);
}

/* Turns the configs as read into those that o->dtype asks for. */
static int choose_formats(synth *s)
{
    static const struct { const char *name, *base, *algo; bool all; } choices[] = {
        { "f32", "float32", NULL, false }, { "f16", "float16", NULL, false }, { "bf16", "bfloat16", NULL, false },
        { "fp8", NULL, "FP8", false },     { "fp8-all", NULL, "FP8", true },
        { "nvfp4", NULL, "NVFP4", false }, { "nvfp4-all", NULL, "NVFP4", true } };
    const char *want = s->o->dtype ? s->o->dtype : "config";
    if (strcmp(want, "config") == 0)
        return 0;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (strcmp(choices[i].name, want) != 0)
            continue;
        json_object_del(s->config, "quantization_config");
        json_decref(s->hf_quant);
        s->hf_quant = choices[i].algo ? ns_formats_config(s->arch, choices[i].algo, choices[i].all, s->e) : NULL;
        if (choices[i].algo && !s->hf_quant)
            return -1;
        return choices[i].base ? set_base(s, choices[i].base) : 0;
    }
    return ns_fail(s->e, NS_EINVAL, "unknown dtype \"%s\": config, f32, f16, bf16, fp8, fp8-all, nvfp4 or nvfp4-all", want);
}

/* Replaces arch and the configs by those of the size. */
static int apply_size(synth *s, const ns_variants *v)
{
    char name[64];
    ns_cut cut = { 0 };
    json_t *config = NULL;
    ns_arch *arch = NULL;
    int rc = -1;
    if (ns_size_parse(s->arch, v, s->o->size, &cut, name, sizeof name, s->e) != 0)
        return -1;
    if (!(config = ns_cut_config(s->arch, &cut, s->e)) || !(arch = ns_arch_parse(config, "the cut's config", s->e)))
        goto out;
    if (s->hf_quant && ns_formats_renumber(s->hf_quant, s->arch, &cut, s->e) != 0)
        goto out;
    json_t *q = json_object_get(config, "quantization_config");
    if (q && ns_formats_renumber(q, s->arch, &cut, s->e) != 0)
        goto out;
    json_decref(s->config);
    ns_arch_free(s->arch);
    s->config = config;
    s->arch = arch;
    config = NULL;
    arch = NULL;
    rc = 0;
out:
    json_decref(config);
    ns_arch_free(arch);
    ns_cut_release(&cut);
    return rc == 0 ? 0 : ns_err_wrap(s->e, "size %s", s->o->size);
}

static int read_size(synth *s)
{
    ns_variants v = { 0 };
    json_t *nest = NULL;
    if (!s->o->size)
        return 0;
    if (s->o->nest_path && !(nest = ns_json_open(s->o->nest_path, false, s->e)))
        return -1;
    int rc = ns_variants_parse(s->arch, nest, s->o->nest_path ? s->o->nest_path : "nest.json", &v, s->e);
    if (rc == 0) {
        rc = apply_size(s, &v);
        ns_variants_release(&v);
    }
    json_decref(nest);
    return rc;
}

static int read_configs(synth *s, const char *config_path)
{
    s->config = ns_json_open(config_path, true, s->e);
    if (!s->config)
        return -1;
    ns_formats_drop_mtp(s->config);
    s->arch = ns_arch_parse(s->config, config_path, s->e);
    if (!s->arch)
        return -1;
    if (s->o->hf_quant_path && !(s->hf_quant = ns_json_open(s->o->hf_quant_path, true, s->e)))
        return -1;
    if (!s->o->hf_quant_path && ns_synth_find_quant(config_path, &s->hf_quant, s->e) != 0)
        return -1;
    if (choose_formats(s) != 0 || read_size(s) != 0)
        return -1;
    return ns_formats_open(&s->formats, s->hf_quant, s->config, s->e);
}

/* ---- declaring ---- */

static int declare(synth *s, const char *weight, const char *part, ns_dtype dtype, int n_dims, const int64_t *shape)
{
    char name[300];
    size_t stem = strlen(weight), k = strlen("weight");
    if (part && stem >= k && strcmp(weight + stem - k, "weight") == 0)
        stem -= k; /* "..in_proj.weight" -> "..in_proj.weight_scale" */
    snprintf(name, sizeof name, "%.*s%s", (int)stem, weight, part ? part : "");
    return ns_writer_declare(s->w, name, dtype, n_dims, shape, s->e);
}

static int full_shape(const synth *s, int layer, ns_role r, int64_t *shape)
{
    const ns_weight_def *def = ns_weight_get(r);
    for (int i = 0; i < def->n_dims; i++) {
        ns_dim d = ns_arch_dim(s->arch, layer, def->dim[i]);
        shape[i] = ns_dim_size(&d);
    }
    return def->n_dims;
}

static int declare_weight(void *ctx, int layer, ns_role r, int expert)
{
    synth *s = ctx;
    const ns_format f = ns_formats_get(&s->formats, layer, r, expert);
    int64_t shape[NS_MAX_DIMS] = { 0 };
    char name[256];
    const int n = full_shape(s, layer, r, shape);
    const int64_t cols = shape[n - 1];
    const bool nvfp4 = f.dtype == NS_NVFP4, fp8 = f.dtype == NS_F8_E4M3;
    ns_weight_name(layer, r, expert, name, sizeof name);
    if (nvfp4 && cols % 16 != 0)
        return ns_fail(s->e, NS_EINVAL, "%s: a width of %d cannot be stored as NVFP4, it must be a multiple of 16", name, (int)cols);
    shape[n - 1] = nvfp4 ? cols / 2 : cols;
    if (declare(s, name, NULL, nvfp4 ? NS_U8 : f.dtype, n, shape) != 0)
        return -1;
    shape[n - 1] = cols / 16;
    if (nvfp4 && (declare(s, name, "weight_scale", NS_F8_E4M3, n, shape) != 0 || declare(s, name, "weight_scale_2", NS_F32, 0, NULL) != 0))
        return -1;
    if (fp8 && declare(s, name, "weight_scale", NS_F32, 0, NULL) != 0)
        return -1;
    if (f.input_scale && declare(s, name, "input_scale", NS_F32, fp8 ? 1 : 0, (int64_t[]){ 1 }) != 0)
        return -1;
    return f.kv_scale ? declare(s, name, r == NS_W_K ? "k_scale" : "v_scale", NS_F32, 1, (int64_t[]){ 1 }) : 0;
}

/* ---- values ---- */

/* Branches write to the residual stream 1/sqrt(layers) of its size, so that the sum of all stays of order one. */
static bool writes_residual(const ns_arch *a, ns_role r)
{
    return r == NS_W_OUT_PROJ || r == NS_W_O || r == NS_W_SHARED_DOWN || r == NS_W_DOWN || r == NS_W_LATENT_OUT ||
           (r == NS_W_EXPERT_DOWN && !a->latent_size);
}

static float deviation_of(const ns_arch *a, ns_role r, int64_t cols)
{
    double d = r == NS_W_EMBED ? 1 : 1 / sqrt((double)cols);
    if (writes_residual(a, r))
        d /= sqrt(2.0 * a->n_layers);
    return (float)d;
}

/* Vectors, by their meaning. Gains and D vary around 1: equal values would hide a wrong permutation or slice. */
static double vector_value(ns_role r, ns_rng *g)
{
    switch (r) {
    case NS_W_NORM:
    case NS_W_GATED_NORM:
    case NS_W_FINAL_NORM:
    case NS_W_D:
        return 1 + 0.1 * ns_rng_normal(g);
    case NS_W_A_LOG:
        return log(1 + 15 * ns_rng_uniform(g));
    case NS_W_DT_BIAS: {
        /* softplus of it is dt, log-uniform in time_step_min .. time_step_max of the published config */
        double dt = exp(log(1e-3) + ns_rng_uniform(g) * (log(1e-1) - log(1e-3)));
        return dt + log(-expm1(-dt));
    }
    case NS_W_GATE_CORRECTION:
        return 0.05 * ns_rng_normal(g);
    default: /* biases */
        return 0.1 * ns_rng_normal(g);
    }
}

static void put_float(ns_dtype t, float x, uint8_t *out)
{
    uint16_t h = t == NS_F16 ? ns_f32_to_f16(x) : ns_f32_to_bf16(x);
    memcpy(out, t == NS_F32 ? (const void *)&x : (const void *)&h, t == NS_F32 ? 4 : 2);
}

static void fill_vector(ns_rng *g, ns_role r, ns_dtype t, uint8_t *out, size_t n)
{
    const size_t width = ns_dtype_bits(t) / 8;
    for (size_t i = 0; i < n; i += width)
        put_float(t, (float)vector_value(r, g), out + i);
}

/* ---- writing ---- */

typedef enum part_kind { PART_VECTOR, PART_FLOATS, PART_E4M3, PART_NIBBLES, PART_BLOCK_SCALES } part_kind;

/* A tensor of `total` bytes of one kind, in pieces. */
static int write_part(synth *s, part_kind kind, const char *name, ns_role r, ns_dtype t, float deviation, size_t total)
{
    ns_rng g;
    char key[300];
    snprintf(key, sizeof key, "%s%s", name, kind == PART_BLOCK_SCALES ? "_scale" : "");
    ns_noise_seed(&g, s->o->seed, key);
    if (ns_writer_tensor_begin(s->w, s->next++, s->e) != 0)
        return -1;
    for (size_t done = 0; done < total;) {
        size_t n = total - done < NS_NOISE_CHUNK ? total - done : NS_NOISE_CHUNK;
        switch (kind) {
        case PART_VECTOR: fill_vector(&g, r, t, s->buffer, n); break;
        case PART_FLOATS: ns_noise_floats(s->noise, &g, t, deviation, s->buffer, n); break;
        case PART_E4M3: ns_noise_e4m3(s->noise, &g, s->buffer, n); break;
        case PART_NIBBLES: ns_noise_nibbles(s->noise, &g, s->buffer, n); break;
        case PART_BLOCK_SCALES: ns_noise_block_scales(s->noise, &g, s->buffer, n); break;
        }
        if (ns_writer_append(s->w, s->buffer, n, s->e) != 0)
            return -1;
        done += n;
    }
    return 0;
}

static int write_scalar(synth *s, float x)
{
    if (ns_writer_tensor_begin(s->w, s->next++, s->e) != 0)
        return -1;
    return ns_writer_append(s->w, &x, sizeof x, s->e);
}

static int write_weight(void *ctx, int layer, ns_role r, int expert)
{
    synth *s = ctx;
    const ns_format f = ns_formats_get(&s->formats, layer, r, expert);
    int64_t shape[NS_MAX_DIMS] = { 0 };
    char name[256];
    size_t count = 1;
    const int n = full_shape(s, layer, r, shape);
    for (int i = 0; i < n; i++)
        count *= (size_t)shape[i]; /* the writer has checked the product */
    const float deviation = deviation_of(s->arch, r, shape[n - 1]);
    ns_weight_name(layer, r, expert, name, sizeof name);
    int rc;
    if (f.dtype == NS_NVFP4) {
        rc = write_part(s, PART_NIBBLES, name, r, f.dtype, deviation, count / 2);
        rc = rc ? rc : write_part(s, PART_BLOCK_SCALES, name, r, f.dtype, deviation, count / 16);
        rc = rc ? rc : write_scalar(s, deviation * ns_noise_nvfp4_scale(s->noise));
    } else if (f.dtype == NS_F8_E4M3) {
        rc = write_part(s, PART_E4M3, name, r, f.dtype, deviation, count);
        rc = rc ? rc : write_scalar(s, deviation * ns_noise_e4m3_scale(s->noise));
    } else {
        rc = write_part(s, n == 1 ? PART_VECTOR : PART_FLOATS, name, r, f.dtype, deviation, count * ns_dtype_bits(f.dtype) / 8);
    }
    /* as if calibration had seen activations up to 6 */
    if (rc == 0 && f.input_scale)
        rc = write_scalar(s, f.dtype == NS_NVFP4 ? 6.0f / (6 * 448) : 6.0f / 448);
    return rc == 0 && f.kv_scale ? write_scalar(s, 6.0f / 448) : rc;
}

static int write_weights(synth *s, const char *dir)
{
    ns_writer_options wo = ns_writer_defaults();
    wo.max_shard_bytes = s->o->max_shard_bytes ? s->o->max_shard_bytes : wo.max_shard_bytes;
    wo.progress = s->o->progress;
    wo.ctx = s->o->ctx;
    s->buffer = malloc(NS_NOISE_CHUNK);
    s->noise = ns_noise_new();
    if (!s->buffer || !s->noise)
        return no_memory(s->e);
    s->w = ns_writer_new(dir, &wo, s->e);
    if (!s->w || ns_manifest_each(s->arch, declare_weight, s) != 0 || ns_manifest_each(s->arch, write_weight, s) != 0)
        return -1;
    return ns_writer_finish(s->w, s->e);
}

/* The named sizes. A router is learned: random weights have none. */
static int copy_nest(synth *s, const char *dir)
{
    if (!s->o->nest_path || s->o->size)
        return 0;
    json_t *nest = ns_json_open(s->o->nest_path, false, s->e);
    json_object_del(nest, "router");
    int rc = nest ? ns_folder_json(dir, "nest.json", nest, s->e) : -1;
    json_decref(nest);
    return rc;
}

static int write_folder(synth *s, const char *dir)
{
    if (ns_folder_json(dir, "config.json", s->config, s->e) != 0)
        return -1;
    if (s->hf_quant && ns_folder_json(dir, "hf_quant_config.json", s->hf_quant, s->e) != 0)
        return -1;
    if (s->o->text_dir && ns_folder_copy_text(s->o->text_dir, dir, s->e) != 0)
        return -1;
    return copy_nest(s, dir) == 0 ? write_weights(s, dir) : -1;
}

int ns_synth(const char *config_path, const ns_synth_opts *o, const char *out_dir, ns_err *e)
{
    const ns_synth_opts defaults = ns_synth_defaults();
    synth s = { .o = o ? o : &defaults, .e = e };
    ns_outdir dir = { 0 };
    int rc = read_configs(&s, config_path);
    if (rc == 0)
        rc = ns_outdir_open(&dir, out_dir, e);
    if (rc == 0)
        rc = write_folder(&s, dir.tmp);
    ns_writer_free(s.w);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, e);
    ns_outdir_release(&dir);
    ns_noise_free(s.noise);
    free(s.buffer);
    ns_formats_close(&s.formats);
    json_decref(s.config);
    json_decref(s.hf_quant);
    ns_arch_free(s.arch);
    return rc;
}
