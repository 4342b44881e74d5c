/* The report of inspect.c as text. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "forge/inspect.h"

static double get_real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static long long get_int(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static const char *get_str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* "18.02 GiB", "47.2 MiB", "912 B" */
static void size_text(double bytes, char out[32])
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
    int u = -1;
    while (bytes >= 1024 && u < 3) {
        bytes /= 1024;
        u++;
    }
    if (u < 0)
        snprintf(out, 32, "%.0f B", bytes);
    else
        snprintf(out, 32, "%.*f %s", u >= 2 ? 2 : 1, bytes, units[u]);
}

/* "31.578 B", "912.4 M", "17.0 K" */
static void count_text(double n, char out[32])
{
    if (n >= 1e9)
        snprintf(out, 32, "%.3f B", n / 1e9);
    else if (n >= 1e6)
        snprintf(out, 32, "%.1f M", n / 1e6);
    else
        snprintf(out, 32, "%.1f K", n / 1e3);
}

static void print_architecture(const json_t *a, FILE *out)
{
    const json_t *l = json_object_get(a, "layers"), *moe = json_object_get(a, "moe");
    fprintf(out, "  layers     %lld: %lld mamba, %lld attention, %lld MoE, %lld MLP\n", get_int(a, "num_layers"), get_int(l, "mamba"),
            get_int(l, "attention"), get_int(l, "moe"), get_int(l, "mlp"));
    fprintf(out, "  pattern    %s\n", get_str(a, "pattern"));
    fprintf(out, "  hidden     %lld, vocabulary %lld%s, positions up to %lld\n", get_int(a, "hidden_size"), get_int(a, "vocab_size"),
            json_is_true(json_object_get(a, "tied_embeddings")) ? " (tied)" : "", get_int(a, "max_position"));
    if (get_int(moe, "latent_size"))
        fprintf(out, "  latent     %lld\n", get_int(moe, "latent_size"));
}

static void print_storage(const json_t *s, FILE *out)
{
    char bytes[32];
    if (!s)
        return;
    size_text(get_real(s, "bytes"), bytes);
    fprintf(out, "  stored     %s in %lld tensors, %lld file%s", bytes, get_int(s, "tensors"), get_int(s, "shards"), get_int(s, "shards") == 1 ? "" : "s");
    if (get_int(s, "ignored_tensors"))
        fprintf(out, ", %lld of them not used", get_int(s, "ignored_tensors"));
    fprintf(out, "\n");
}

static void print_mix(const json_t *by_dtype, double total, FILE *out)
{
    const char *name;
    json_t *v;
    char bytes[32];
    fprintf(out, "  formats   ");
    json_object_foreach((json_t *)(uintptr_t)by_dtype, name, v) {
        size_text(json_number_value(v), bytes);
        fprintf(out, " %s %s (%.1f %%)", name, bytes, total > 0 ? 100 * json_number_value(v) / total : 0);
    }
    fprintf(out, "\n");
}

static void print_widths(const json_t *widths, ns_buf *b)
{
    const char *axis;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)widths, axis, v) {
        if (json_is_array(v))
            ns_buf_addf(b, " %s %lld..%lld", axis, (long long)json_integer_value(json_array_get(v, 0)),
                        (long long)json_integer_value(json_array_get(v, 1)));
        else
            ns_buf_addf(b, " %s %lld", axis, (long long)json_integer_value(v));
    }
}

/* Of a smaller size, only the widths in which it differs from the full one. */
static json_t *changed(const json_t *widths, const json_t *full)
{
    json_t *o = json_object(), *v;
    const char *axis;
    json_object_foreach((json_t *)(uintptr_t)widths, axis, v)
        if (!json_equal(v, json_object_get(full, axis)))
            json_object_set(o, axis, v);
    return o;
}

static void print_variant(const json_t *v, FILE *out)
{
    char total[32], active[32], weights[32], read[32], kv[32], state[32], budget[16] = "-";
    count_text(get_real(v, "params_total"), total);
    count_text(get_real(v, "params_active"), active);
    size_text(get_real(v, "weight_bytes"), weights);
    size_text(get_real(v, "active_bytes"), read);
    size_text(get_real(v, "kv_bytes"), kv);
    size_text(get_real(v, "state_bytes"), state);
    if (json_is_number(json_object_get(v, "budget")))
        snprintf(budget, sizeof budget, "%.3f", get_real(v, "budget"));
    fprintf(out, "  %-10s %6s %6lld %10s %10s %11s %11s %11s %11s\n", get_str(v, "name"), budget, get_int(v, "layers"), total, active, weights, read,
            kv, state);
}

static void print_variants(const json_t *report, FILE *out)
{
    const json_t *vs = json_object_get(report, "variants"), *list = json_object_get(vs, "list"), *v;
    const json_t *full = json_object_get(json_array_get(list, 0), "widths");
    size_t i;
    const char *source = get_str(vs, "source");
    fprintf(out, "\nsizes (%s%s), KV for %lld tokens, %s\n", strcmp(source, "none") == 0 ? "none stated" : source,
            json_is_true(json_object_get(vs, "assumed")) ? ", assumed" : "", get_int(report, "context"),
            strcmp(get_str(report, "kv"), "F32") == 0 ? "F32 caches" : "in FP8; states F32");
    fprintf(out, "  %-10s %6s %6s %10s %10s %11s %11s %11s %11s\n", "name", "budget", "layers", "params", "active", "weights", "per token", "KV",
            "state");
    json_array_foreach(list, i, v)
        print_variant(v, out);
    json_array_foreach(list, i, v) {
        ns_buf b = { 0 };
        json_t *diff = i ? changed(json_object_get(v, "widths"), full) : json_incref((json_t *)(uintptr_t)full);
        print_widths(diff, &b);
        fprintf(out, "  %-10s%s\n", get_str(v, "name"), b.data ? b.data : " as the first");
        json_decref(diff);
        ns_buf_release(&b);
    }
}

/* One nested file beside a file for each size, by format. */
static void print_families(const json_t *list, FILE *out)
{
    size_t i;
    const json_t *f;
    const char *name;
    json_t *bytes;
    char text[32];
    if (json_array_size(list) == 0)
        return;
    fprintf(out, "\nweights by format (quantised with the published exclusions)\n  %-8s %11s %11s ", "", "one nested", "separate");
    json_object_foreach(json_object_get(json_array_get(list, 0), "sizes"), name, bytes) fprintf(out, " %11s", name);
    fputc('\n', out);
    json_array_foreach(list, i, f) {
        size_text(get_real(f, "nested_bytes"), text);
        fprintf(out, "  %-8s %11s", get_str(f, "format"), text);
        size_text(get_real(f, "separate_bytes"), text);
        fprintf(out, " %11s ", json_is_null(json_object_get(f, "separate_bytes")) ? "-" : text);
        json_object_foreach(json_object_get(f, "sizes"), name, bytes) {
            size_text(json_number_value(bytes), text);
            fprintf(out, " %11s", json_is_null(bytes) ? "-" : text);
        }
        fputc('\n', out);
    }
}

static void print_largest(const json_t *list, FILE *out)
{
    size_t i;
    const json_t *t;
    char bytes[32];
    if (json_array_size(list) == 0)
        return;
    fprintf(out, "\nlargest tensors\n");
    json_array_foreach(list, i, t) {
        char *shape = json_dumps(json_object_get(t, "shape"), 0);
        size_text(get_real(t, "bytes"), bytes);
        fprintf(out, "  %11s  %-8s %-20s %s\n", bytes, get_str(t, "dtype"), shape ? shape : "", get_str(t, "name"));
        free(shape);
    }
}

void ns_inspect_print(const json_t *report, FILE *out)
{
    const json_t *first = json_array_get(json_object_get(json_object_get(report, "variants"), "list"), 0);
    fprintf(out, "%s\n", get_str(report, "path"));
    print_architecture(json_object_get(report, "architecture"), out);
    print_storage(json_object_get(report, "storage"), out);
    print_mix(json_object_get(first, "weight_bytes_by_dtype"), get_real(first, "weight_bytes"), out);
    print_variants(report, out);
    print_families(json_object_get(report, "families"), out);
    print_largest(json_object_get(report, "largest"), out);
}
