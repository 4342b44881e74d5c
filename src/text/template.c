#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/jinja.h"

enum { FILE_LIMIT = 1 << 20 };

struct ns_template {
    ns_jinja *jinja;
};

ns_template_opts ns_template_defaults(void)
{
    ns_jinja_opts o = ns_jinja_defaults();
    return (ns_template_opts){ true, o.now, o.max_output, o.max_memory, o.max_steps };
}

ns_template *ns_template_parse(const char *src, size_t n, const char *what, ns_err *e)
{
    ns_template *t = calloc(1, sizeof *t);
    if (!t) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
        return NULL;
    }
    t->jinja = ns_jinja_parse(src, n, what, e);
    if (t->jinja)
        return t;
    free(t);
    return NULL;
}

ns_template *ns_template_open(const char *path, ns_err *e)
{
    ns_buf b = { 0 };
    ns_template *t = NULL;
    const char *slash = strrchr(path, '/');
    if (ns_file_read(path, FILE_LIMIT, &b, e) == 0)
        t = ns_template_parse(b.data ? b.data : "", b.len, slash ? slash + 1 : path, e);
    ns_buf_release(&b);
    return t;
}

void ns_template_free(ns_template *t)
{
    if (!t)
        return;
    ns_jinja_free(t->jinja);
    free(t);
}

static bool special_token(const char *name)
{
    static const char *const names[] = { "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token",
                                         "mask_token" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static bool trusted(void *ctx, const char *name, const json_t *v, int index)
{
    const ns_template_opts *o = ctx;
    if (index < 0)
        return special_token(name);
    const char *role = json_string_value(json_object_get(v, "role"));
    return o->trust_assistant && strcmp(name, "messages") == 0 && role && strcmp(role, "assistant") == 0;
}

/* The variables with transformers' defaults behind them. */
static json_t *with_defaults(const json_t *vars)
{
    json_t *all = json_pack("{s:n, s:n, s:b}", "tools", "documents", "add_generation_prompt", 0);
    if (all && json_object_update(all, (json_t *)vars) == 0) /* takes references, copies nothing */
        return all;
    json_decref(all);
    return NULL;
}

static int make_spans(const char *taint, ns_prompt *out)
{
    size_t n = out->text.len, count = 0;
    for (size_t i = 0; i < n; i++)
        count += i == 0 || taint[i] != taint[i - 1];
    out->spans = count ? malloc(count * sizeof *out->spans) : NULL;
    if (count && !out->spans)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || taint[i] != taint[i - 1])
            out->spans[out->n_spans++] = (ns_prompt_span){ .offset = i, .trusted = !taint[i] };
        out->spans[out->n_spans - 1].len++;
    }
    return 0;
}

int ns_template_render(const ns_template *t, const json_t *vars, const ns_template_opts *opts, ns_prompt *out, ns_err *e)
{
    ns_template_opts o = opts ? *opts : ns_template_defaults();
    ns_jinja_opts jo = { trusted, &o, o.now, o.max_output, o.max_memory, o.max_steps };
    ns_buf taint = { 0 };
    int rc = -1;
    *out = (ns_prompt){ 0 };
    json_t *all = json_is_object(vars) ? with_defaults(vars) : NULL;
    if (!all) {
        ns_fail(e, NS_EINVAL, "chat template: the variables are not an object, or memory is out");
        goto out;
    }
    if (ns_jinja_render(t->jinja, all, &jo, &out->text, &taint, e))
        goto out;
    rc = make_spans(taint.data, out);
    if (rc)
        ns_fail(e, NS_ENOMEM, "chat template: out of memory");
out:
    if (rc)
        ns_prompt_release(out);
    json_decref(all);
    ns_buf_release(&taint);
    return rc;
}

void ns_prompt_release(ns_prompt *p)
{
    ns_buf_release(&p->text);
    free(p->spans);
    *p = (ns_prompt){ 0 };
}
