#include "forge/folder.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

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
