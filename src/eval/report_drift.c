/* What `nestar compare --json` printed: an array with a row for each size. */
#include <string.h>

#include "base/json.h"
#include "eval/report.h"

static int read_row(ns_report *r, const char *file, const json_t *row, ns_report_drift *d, ns_err *e)
{
    const char *size = NULL;
    const json_t *layers = json_object_get(row, "layers");
    if (!json_is_object(row) || !json_is_array(layers))
        return ns_fail(e, NS_EFORMAT, "expected objects with \"layers\", as nestar compare --json prints");
    if (ns_json_str(row, "size", NULL, &size, e) != 0 || ns_json_real(row, "tokens", 0, &d->tokens, e) != 0 ||
        ns_json_real(row, "kl", NAN, &d->kl, e) != 0 || ns_json_real(row, "worst_kl", NAN, &d->worst_kl, e) != 0 ||
        ns_json_real(row, "agree", NAN, &d->agree, e) != 0 || ns_json_real(row, "perplexity_a", NAN, &d->perplexity_a, e) != 0 ||
        ns_json_real(row, "perplexity_b", NAN, &d->perplexity_b, e) != 0)
        return -1;
    if (!size || isnan(d->kl) || isnan(d->agree))
        return ns_fail(e, NS_EFORMAT, "keys \"size\", \"kl\" and \"agree\" are needed");
    d->n_layers = (int)json_array_size(layers);
    d->layer = ns_arena_array(&r->arena, (size_t)d->n_layers + 1, sizeof *d->layer);
    d->size = ns_arena_strdup(&r->arena, size);
    d->file = ns_arena_strdup(&r->arena, file);
    if (!d->layer || !d->size || !d->file)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    for (int i = 0; i < d->n_layers; i++) {
        const json_t *v = json_array_get(layers, (size_t)i);
        if (!json_is_number(v))
            return ns_fail(e, NS_EFORMAT, "\"layers\" holds something other than numbers");
        d->layer[i] = json_number_value(v);
    }
    return 0;
}

int ns_report_read_drift(ns_report *r, const char *file, ns_err *e)
{
    json_t *rows = ns_json_open(file, false, e);
    if (!rows)
        return -1;
    const size_t n = json_array_size(rows), old = (size_t)r->n_drifts;
    ns_report_drift *list = ns_arena_array(&r->arena, old + n + 1, sizeof *list);
    int rc = list ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
    if (rc == 0 && n == 0)
        rc = ns_fail(e, NS_EFORMAT, "expected an array of rows, as nestar compare --json prints");
    if (rc == 0 && old)
        memcpy(list, r->drift, old * sizeof *list);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = read_row(r, file, json_array_get(rows, i), &list[old + i], e);
    json_decref(rows);
    if (rc != 0)
        return ns_err_wrap(e, "%s", file);
    r->drift = list;
    r->n_drifts = (int)(old + n);
    return 0;
}
