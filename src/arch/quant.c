/* Which linear layer is stored how: hf_quant_config.json {"quantization": {..}} or config.json's "quantization_config", both as
 * ModelOpt writes them. The two differ in names only: exclude_modules / ignore, kv_cache_quant_algo / kv_cache_scheme. */
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "arch/glob.h"

struct ns_quant {
    bool present, strict, per_module;
    ns_scheme fallback;     /* of a module that nothing below names */
    json_t *schemes;        /* {module: ns_scheme}; jansson's objects are hash tables */
    json_t *scheme_globs;   /* [[pattern, ns_scheme]..] */
    json_t *excluded;       /* {module or run of its components: true} */
    json_t *excluded_globs; /* [pattern..] */
    char *kv_algo;
};

enum { MAX_MODULE = 256 }; /* bytes of a module name that is looked up; published ones are under 60 */

/* The names as the manifest has them. */
static const char *canonical(const char *module, char buf[MAX_MODULE])
{
    if (strncmp(module, "language_model.", 15) == 0)
        module += 15;
    bool model = strncmp(module, "model.", 6) == 0;
    size_t n = strlen(model ? module + 6 : module);
    const char *prefix = model ? "backbone." : "";
    if (n + strlen(prefix) >= MAX_MODULE)
        return NULL;
    memcpy(buf, prefix, strlen(prefix));
    memcpy(buf + strlen(prefix), model ? module + 6 : module, n + 1);
    return buf;
}

static int algo_scheme(const char *algo, ns_scheme *out, ns_err *e)
{
    static const struct { const char *name; ns_scheme scheme; } known[] = {
        { "NVFP4", NS_SCHEME_NVFP4 }, { "W4A16_NVFP4", NS_SCHEME_NVFP4 }, { "FP8", NS_SCHEME_FP8 }, { "NONE", NS_SCHEME_NONE },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, algo) == 0) {
            *out = known[i].scheme;
            return 0;
        }
    return ns_fail(e, NS_EUNSUPPORTED, "key \"quant_algo\": \"%.60s\" is not supported", algo);
}

/* quant_algo and group_size of one object. */
static int read_algo(const json_t *obj, const char *dflt, ns_scheme *out, ns_err *e)
{
    const char *algo;
    int64_t group;
    if (ns_json_str(obj, "quant_algo", dflt, &algo, e) < 0 || algo_scheme(algo, out, e) < 0 ||
        ns_json_int(obj, "group_size", 0, 1 << 20, 0, &group, e) < 0)
        return -1;
    if (*out == NS_SCHEME_NVFP4 && group != 0 && group != 16)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"group_size\": NVFP4 blocks of %lld, only 16 are supported", (long long)group);
    return 0;
}

static int oom(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "out of memory");
}

static int add_scheme(ns_quant *q, const char *name, ns_scheme s, ns_err *e)
{
    char buf[MAX_MODULE];
    const char *module = canonical(name, buf);
    if (!module)
        return ns_fail(e, NS_EFORMAT, "a module name of %zu bytes: \"%.60s..\"", strlen(name), name);
    int rc = ns_glob_has_magic(module) ? json_array_append_new(q->scheme_globs, json_pack("[si]", module, (int)s))
                                       : json_object_set_new(q->schemes, module, json_integer(s));
    return rc == 0 ? 0 : oom(e);
}

static int read_layers(ns_quant *q, const json_t *layers, ns_err *e)
{
    const char *name;
    json_t *v;
    if (!layers || json_is_null(layers))
        return 0;
    if (!json_is_object(layers))
        return ns_fail(e, NS_EFORMAT, "key \"quantized_layers\": expected an object");
    json_object_foreach((json_t *)(uintptr_t)layers, name, v) {
        ns_scheme s;
        if (!json_is_object(v))
            return ns_fail(e, NS_EFORMAT, "key \"quantized_layers\": \"%.100s\" is not an object", name);
        if (read_algo(v, "NONE", &s, e) < 0)
            return ns_err_wrap(e, "quantized_layers, %.100s", name);
        if (add_scheme(q, name, s, e) < 0)
            return -1;
    }
    q->per_module = true;
    q->strict |= json_object_size(layers) > 0;
    return 0;
}

static int read_exclusions(ns_quant *q, const json_t *list, const char *key, ns_err *e)
{
    size_t i;
    const json_t *v;
    char buf[MAX_MODULE];
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected a list", key);
    json_array_foreach(list, i, v) {
        const char *name = json_is_string(v) ? canonical(json_string_value(v), buf) : NULL;
        if (!name)
            return ns_fail(e, NS_EFORMAT, "key \"%s\": entry %zu is not a module name", key, i);
        if (strncmp(name, "re:", 3) == 0)
            return ns_fail(e, NS_EUNSUPPORTED, "key \"%s\": entry %zu is a regular expression", key, i);
        int rc = ns_glob_has_magic(name) ? json_array_append_new(q->excluded_globs, json_string(name))
                                         : json_object_set_new(q->excluded, name, json_true());
        if (rc < 0)
            return oom(e);
    }
    q->strict |= json_array_size(list) > 0;
    return 0;
}

/* config_groups {name: {targets, weights {num_bits, type, group_size}}}: read only where no quant_algo says it shorter. */
static int read_group(ns_quant *q, const json_t *group, ns_err *e)
{
    const json_t *w = json_object_get(group, "weights"), *targets = json_object_get(group, "targets"), *t;
    const char *type;
    int64_t bits, size;
    ns_scheme s;
    size_t i;
    if (ns_json_int(w, "num_bits", 1, 64, 16, &bits, e) < 0 || ns_json_str(w, "type", "", &type, e) < 0 ||
        ns_json_int(w, "group_size", 0, 1 << 20, 0, &size, e) < 0)
        return -1;
    if (strcmp(type, "float") == 0 && bits == 8 && size == 0)
        s = NS_SCHEME_FP8;
    else if (strcmp(type, "float") == 0 && bits == 4 && size == 16)
        s = NS_SCHEME_NVFP4;
    else
        return ns_fail(e, NS_EUNSUPPORTED, "weights of %lld bits, type \"%.30s\", group_size %lld are not supported",
                       (long long)bits, type, (long long)size);
    if (!json_is_array(targets))
        return ns_fail(e, NS_EFORMAT, "key \"targets\" is missing");
    json_array_foreach(targets, i, t) {
        const char *name = json_string_value(t);
        if (!name)
            return ns_fail(e, NS_EFORMAT, "key \"targets\": entry %zu is not a string", i);
        if (strcmp(name, "Linear") == 0) {
            q->fallback = s;
            continue;
        }
        if (add_scheme(q, name, s, e) < 0)
            return -1;
        q->per_module = q->strict = true;
    }
    return 0;
}

static int read_groups(ns_quant *q, const json_t *groups, ns_err *e)
{
    const char *name;
    json_t *v;
    if (!json_is_object(groups))
        return ns_fail(e, NS_EFORMAT, "neither \"quant_algo\", \"quantized_layers\" nor \"config_groups\" says how weights are stored");
    json_object_foreach((json_t *)(uintptr_t)groups, name, v)
        if (read_group(q, v, e) < 0)
            return ns_err_wrap(e, "config_groups, %.60s", name);
    return 0;
}

static int read_kv(ns_quant *q, const json_t *obj, ns_err *e)
{
    const json_t *scheme = json_object_get(obj, "kv_cache_scheme");
    const char *algo, *type;
    int64_t bits;
    if (ns_json_str(obj, "kv_cache_quant_algo", NULL, &algo, e) < 0 || ns_json_int(scheme, "num_bits", 1, 64, 0, &bits, e) < 0 ||
        ns_json_str(scheme, "type", "", &type, e) < 0)
        return -1;
    if (!algo && bits == 8 && strcmp(type, "float") == 0)
        algo = "FP8";
    if (!algo || strcmp(algo, "NONE") == 0)
        return 0;
    q->kv_algo = strdup(algo);
    return q->kv_algo ? 0 : oom(e);
}

static int read_body(ns_quant *q, const json_t *obj, ns_err *e)
{
    const char *algo, *method;
    if (!json_is_object(obj))
        return ns_fail(e, NS_EFORMAT, "expected an object");
    if (ns_json_str(obj, "quant_method", "modelopt", &method, e) < 0 || ns_json_str(obj, "quant_algo", NULL, &algo, e) < 0)
        return -1;
    if (strncmp(method, "modelopt", 8) != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"quant_method\": \"%.60s\" is not supported, only \"modelopt\"", method);
    q->present = true;
    if (read_layers(q, json_object_get(obj, "quantized_layers"), e) < 0 ||
        read_exclusions(q, json_object_get(obj, "exclude_modules"), "exclude_modules", e) < 0 ||
        read_exclusions(q, json_object_get(obj, "ignore"), "ignore", e) < 0 || read_kv(q, obj, e) < 0)
        return -1;
    if (algo && strcmp(algo, "MIXED_PRECISION") != 0)
        return read_algo(obj, "NONE", &q->fallback, e);
    return q->per_module ? 0 : read_groups(q, json_object_get(obj, "config_groups"), e);
}

ns_quant *ns_quant_parse(const json_t *hf_quant_config, const json_t *config, ns_err *e)
{
    const json_t *hf = hf_quant_config ? json_object_get(hf_quant_config, "quantization") : NULL;
    const json_t *own = json_object_get(config, "quantization_config");
    ns_quant *q = calloc(1, sizeof *q);
    if (!q || !(q->schemes = json_object()) || !(q->scheme_globs = json_array()) || !(q->excluded = json_object()) ||
        !(q->excluded_globs = json_array())) {
        oom(e);
        goto fail;
    }
    if (hf_quant_config) {
        /* some writers leave the outer object out */
        if (read_body(q, hf ? hf : hf_quant_config, e) < 0) {
            ns_err_wrap(e, "hf_quant_config.json");
            goto fail;
        }
    } else if (own && !json_is_null(own) && read_body(q, own, e) < 0) {
        ns_err_wrap(e, "config.json, quantization_config");
        goto fail;
    }
    return q;
fail:
    ns_quant_free(q);
    return NULL;
}

void ns_quant_free(ns_quant *q)
{
    if (!q)
        return;
    json_decref(q->schemes);
    json_decref(q->scheme_globs);
    json_decref(q->excluded);
    json_decref(q->excluded_globs);
    free(q->kv_algo);
    free(q);
}

/* An exclusion names a module, a folder of modules, or any run of components ("lm_head", "conv1d", "mixer.gate"): older files
 * count on substring matching. `name` is cut and mended while the runs are looked up. */
static bool is_excluded(const ns_quant *q, char *name)
{
    size_t i;
    const json_t *v;
    for (char *from = name; from && json_object_size(q->excluded) > 0; from = strchr(from, '.'), from = from ? from + 1 : NULL)
        for (char *dot = strchr(from, '.');; dot = strchr(dot + 1, '.')) {
            if (dot)
                *dot = 0;
            bool hit = json_object_get(q->excluded, from) != NULL;
            if (dot)
                *dot = '.';
            if (hit)
                return true;
            if (!dot)
                break;
        }
    json_array_foreach(q->excluded_globs, i, v)
        if (ns_glob_match(json_string_value(v), name))
            return true;
    return false;
}

/* The module's own entry, a pattern's, or that of the nearest module around it ("..mixer.experts" for fused experts). */
static ns_scheme listed_scheme(const ns_quant *q, char *name)
{
    size_t i;
    const json_t *v = json_object_get(q->schemes, name), *pair;
    if (v)
        return (ns_scheme)json_integer_value(v);
    json_array_foreach(q->scheme_globs, i, pair)
        if (ns_glob_match(json_string_value(json_array_get(pair, 0)), name))
            return (ns_scheme)json_integer_value(json_array_get(pair, 1));
    for (char *dot = strrchr(name, '.'); dot; dot = strrchr(name, '.')) {
        *dot = 0;
        v = json_object_get(q->schemes, name);
        if (v)
            return (ns_scheme)json_integer_value(v);
    }
    return q->fallback;
}

ns_scheme ns_quant_scheme(const ns_quant *q, const char *module)
{
    char name[MAX_MODULE];
    if (!q->present || !canonical(module, name) || is_excluded(q, name))
        return NS_SCHEME_NONE;
    return listed_scheme(q, name);
}

bool ns_quant_present(const ns_quant *q)
{
    return q->present;
}

bool ns_quant_strict(const ns_quant *q)
{
    return q->strict;
}

const char *ns_quant_kv_algo(const ns_quant *q)
{
    return q->kv_algo;
}
