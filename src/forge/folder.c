#include "forge/folder.h"

#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "base/file.h"
#include "forge/formats.h"

/* The shortest of 15, 16 or 17 digits that reads back as the same numbers: 1e-05 rather than 1.0000000000000001e-05. */
static char *dump(const json_t *v)
{
    for (size_t digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(v, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(back, (json_t *)(uintptr_t)v);
        json_decref(back);
        if (!text || same || digits == 17)
            return text;
        free(text);
    }
    return NULL;
}

static void add_with_infinity(ns_buf *out, const char *text)
{
    static const char largest[] = "1.7976931348623157e308";
    for (const char *hit; (hit = strstr(text, largest)); text = hit + strlen(largest)) {
        ns_buf_add(out, text, (size_t)(hit - text));
        ns_buf_adds(out, "Infinity");
    }
    ns_buf_adds(out, text);
    ns_buf_addc(out, '\n');
}

int ns_folder_json(const char *dir, const char *name, const json_t *v, ns_err *e)
{
    ns_buf path = { 0 }, out = { 0 };
    char *text = dump(v);
    int rc = -1;
    ns_path_join(&path, dir, name);
    if (text)
        add_with_infinity(&out, text);
    if (!text || out.failed || path.failed)
        ns_fail(e, NS_ENOMEM, "%s/%s: out of memory", dir, name);
    else
        rc = ns_file_write(path.data, out.data, out.len, e);
    free(text);
    ns_buf_release(&path);
    ns_buf_release(&out);
    return rc;
}

static int copy_present(const char *from, const char *to, const char *const *names, size_t n, ns_err *e)
{
    ns_buf a = { 0 }, b = { 0 };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        ns_path_join(&a, from, names[i]);
        ns_path_join(&b, to, names[i]);
        if (a.failed || b.failed)
            rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", to);
        else if (ns_file_exists(a.data))
            rc = ns_file_copy(a.data, b.data, e);
    }
    ns_buf_release(&a);
    ns_buf_release(&b);
    return rc;
}

int ns_folder_copy_text(const char *from, const char *to, ns_err *e)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                         "chat_template.jinja", "generation_config.json" };
    return copy_present(from, to, names, sizeof names / sizeof *names, e);
}

int ns_folder_copy_nest(const char *from, const char *to, ns_err *e)
{
    static const char *const names[] = { "nest.json", "router.safetensors" };
    return copy_present(from, to, names, sizeof names / sizeof *names, e);
}

/* Sets those of the keys that state the type which are there. */
static int set_type_keys(json_t *o, const char *name)
{
    static const char *const keys[] = { "dtype", "torch_dtype" };
    int rc = 0;
    for (int i = 0; i < 2; i++)
        if (json_object_get(o, keys[i]))
            rc |= json_object_set_new(o, keys[i], json_string(name));
    return rc;
}

/* The config of plain weights. Readers differ in which key they look at, so none may be left with the old type.
 * transformers takes time_step_min, 0.001 where it is absent, as the lower bound of dt in a prompt, though not in decoding, and nothing
 * trained or served the weights so: with a bound that no dt meets all agree. (Not 0: its logarithm is taken.) */
static int state_type(json_t *cfg, const ns_arch *a, const char *plain)
{
    const char *name = strcmp(plain, "F32") == 0 ? "float32" : strcmp(plain, "F16") == 0 ? "float16" : "bfloat16";
    json_t *text = (json_t *)(uintptr_t)ns_config_text(cfg); /* of a config that is ours */
    json_object_del(cfg, "quantization_config");
    json_object_del(text, "quantization_config");
    int rc = json_object_get(text, "dtype") ? 0 : json_object_set_new(text, "torch_dtype", json_string(name));
    rc |= json_object_set_new(text, "time_step_min", json_real(a->dt_min > 1e-20 ? (double)a->dt_min : 1e-20));
    return rc | set_type_keys(text, name) | set_type_keys(cfg, name);
}

static int write_config(const ns_ckpt *c, const ns_cut *cut, const char *plain, const char *dir, ns_err *e)
{
    json_t *cfg = ns_cut_config(c->arch, cut, e);
    int rc = cfg ? 0 : -1;
    if (rc == 0 && plain && state_type(cfg, c->arch, plain) != 0)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
    json_t *q = json_object_get(cfg, "quantization_config");
    if (q)
        rc = ns_formats_renumber(q, c->arch, cut, e);
    if (rc == 0) {
        ns_formats_drop_mtp(cfg);
        json_object_del(cfg, "auto_map"); /* names Python files beside the config, which are not copied */
        rc = ns_folder_json(dir, "config.json", cfg, e);
    }
    json_decref(cfg);
    return rc;
}

static int write_hf_quant(const ns_ckpt *c, const ns_cut *cut, const char *dir, ns_err *e)
{
    if (!c->hf_quant)
        return 0;
    json_t *q = json_deep_copy(c->hf_quant);
    int rc = q ? ns_formats_renumber(q, c->arch, cut, e) : ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
    if (rc == 0)
        rc = ns_folder_json(dir, "hf_quant_config.json", q, e);
    json_decref(q);
    return rc;
}

int ns_folder_describe(const ns_ckpt *c, const ns_cut *cut, const char *plain, const char *dir, ns_err *e)
{
    int rc = write_config(c, cut, plain, dir, e);
    if (rc == 0 && !plain)
        rc = write_hf_quant(c, cut, dir, e);
    return rc == 0 ? ns_folder_copy_text(c->dir, dir, e) : rc;
}

int ns_folder_check(const char *dir, ns_err *e)
{
    ns_ckpt *c = ns_ckpt_open(dir, NULL, e);
    ns_ckpt_close(c);
    return c ? 0 : ns_err_wrap(e, "checking what was written");
}
