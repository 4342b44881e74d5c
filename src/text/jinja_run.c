/* Memory and limits of one rendering, scopes, and the entry point. */
#include "text/jinja_run.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 32 * 1024, GRAIN = 16, STEP_BYTES = 32 };

void *ns_jrun_alloc(ns_jrun *r, size_t size)
{
    if (size > r->opts.max_memory || r->mem > r->opts.max_memory - size) {
        ns_jrun_fail(r, NS_ENOMEM, "the template needs more than %zu MiB of values", r->opts.max_memory >> 20);
        return NULL;
    }
    size = (size + GRAIN - 1) / GRAIN * GRAIN;
    r->mem += size;
    if (size > CHUNK / 4) {
        void *big = ns_arena_alloc(&r->arena, size);
        if (!big)
            ns_jrun_fail(r, NS_ENOMEM, "out of memory");
        return big;
    }
    if (size > r->chunk_left) {
        r->chunk = ns_arena_alloc(&r->arena, CHUNK);
        r->chunk_left = r->chunk ? CHUNK : 0;
    }
    if (!r->chunk) {
        ns_jrun_fail(r, NS_ENOMEM, "out of memory");
        return NULL;
    }
    void *p = r->chunk;
    r->chunk += size;
    r->chunk_left -= size;
    return p;
}

void *ns_jrun_array(ns_jrun *r, size_t n, size_t size)
{
    size_t bytes;
    if (!ns_mul_size(n, size, &bytes))
        bytes = SIZE_MAX; /* refused by the limit */
    return ns_jrun_alloc(r, bytes);
}

int ns_jrun_fail(ns_jrun *r, enum ns_code code, const char *fmt, ...)
{
    char text[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ns_fail(r->err, code, "%s:%d: %s", r->tpl->what, r->line, text);
}

int ns_jrun_undefined(ns_jrun *r, ns_jval v)
{
    if (v.aux == NS_JUNDEF_NAME)
        return ns_jrun_fail(r, NS_EINVAL, "'%.100s' is undefined", v.text);
    if (v.aux == NS_JUNDEF_HINT)
        return ns_jrun_fail(r, NS_EINVAL, "%s", v.text);
    if (v.aux == NS_JUNDEF_UNSAFE)
        return ns_jrun_fail(r, NS_EINVAL, "access to attribute '%.100s' is unsafe", v.text);
    ns_jval object = { .kind = v.aux };
    return ns_jrun_fail(r, NS_EINVAL, "'%s' has no attribute '%.100s'", ns_jval_type(object), v.text);
}

int ns_jrun_work(ns_jrun *r, size_t bytes)
{
    r->bytes += bytes;
    r->steps += (int64_t)(r->bytes / STEP_BYTES);
    r->bytes %= STEP_BYTES;
    if (r->steps > r->opts.max_steps)
        return ns_jrun_fail(r, NS_EINVAL, "the template takes more than %lld steps", (long long)r->opts.max_steps);
    return 0;
}

int ns_jrun_step(ns_jrun *r, size_t bytes)
{
    r->steps++;
    return ns_jrun_work(r, bytes);
}

int ns_jrun_enter(ns_jrun *r)
{
    if (r->depth >= NS_JRUN_DEPTH)
        return ns_jrun_fail(r, NS_EINVAL, "evaluation nested deeper than %d", NS_JRUN_DEPTH);
    r->depth++;
    return ns_jrun_step(r, 0);
}

ns_jscope *ns_jscope_push(ns_jrun *r, ns_jscope *parent)
{
    ns_jscope *s = ns_jrun_alloc(r, sizeof *s);
    if (s)
        *s = (ns_jscope){ .parent = parent };
    return s;
}

int ns_jscope_set(ns_jrun *r, ns_jscope *s, int id, ns_jval v)
{
    for (int i = 0; i < s->n; i++) {
        if (s->v[i].id == id) {
            s->v[i].v = v;
            return 0;
        }
    }
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 4;
        ns_jbinding *p = ns_jrun_array(r, (size_t)cap, sizeof *p);
        if (!p)
            return -1;
        if (s->n)
            memcpy(p, s->v, (size_t)s->n * sizeof *p);
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = (ns_jbinding){ id, v };
    return 0;
}

const ns_jval *ns_jscope_find(const ns_jscope *s, int id)
{
    for (; s; s = s->parent)
        for (int i = 0; i < s->n; i++)
            if (s->v[i].id == id)
                return &s->v[i].v;
    return NULL;
}

static bool trusted(const ns_jrun *r, const char *name, const json_t *v, int index)
{
    return r->opts.trust && r->opts.trust(r->opts.trust_ctx, name, v, index);
}

/* A variable; an array's elements are asked about one by one. */
static int bind_variable(ns_jrun *r, int id, const char *name, const json_t *v)
{
    ns_jval out;
    bool all = trusted(r, name, v, -1);
    if (all || !json_is_array(v)) {
        if (ns_jval_from_json(r, v, !all, &out))
            return -1;
        return ns_jscope_set(r, r->scope, id, out);
    }
    ns_jlist *l = ns_jlist_new(r, json_array_size(v), true);
    if (!l)
        return -1;
    for (size_t i = 0; i < l->n; i++) {
        const json_t *item = json_array_get(v, i);
        if (ns_jval_from_json(r, item, !trusted(r, name, item, (int)i), &l->v[i]))
            return -1;
    }
    out = (ns_jval){ .kind = NS_J_LIST, .l = l };
    return ns_jscope_set(r, r->scope, id, out);
}

/* Only what the template names is converted. */
static int bind_variables(ns_jrun *r, const json_t *vars)
{
    for (int id = 0; id < r->tpl->n_names; id++) {
        const json_t *v = json_object_get(vars, r->tpl->names[id]);
        if (v && bind_variable(r, id, r->tpl->names[id], v))
            return -1;
    }
    return 0;
}

ns_jinja_opts ns_jinja_defaults(void)
{
    return (ns_jinja_opts){ .max_output = 64u << 20, .max_memory = 512u << 20, .max_steps = 200000000 };
}

int ns_jinja_render(const ns_jinja *t, const json_t *vars, const ns_jinja_opts *opts, ns_buf *text, ns_buf *taint, ns_err *e)
{
    ns_jbuf out = { 0 };
    ns_err local = { 0 };
    ns_jrun r = { .tpl = t, .opts = opts ? *opts : ns_jinja_defaults(), .out = &out, .line = 1, .err = e ? e : &local };
    int rc = -1;
    r.scope = ns_jscope_push(&r, NULL);
    if (!r.scope || bind_variables(&r, vars))
        goto out;
    r.scope = ns_jscope_push(&r, r.scope);
    if (!r.scope || ns_jrun_exec(&r, t->root) || out.failed)
        goto out;
    ns_buf_add(text, out.p, out.n);
    for (size_t i = 0; !out.t && i < out.n; i++)
        ns_buf_addc(taint, (char)out.untrusted);
    if (out.t)
        ns_buf_add(taint, out.t, out.n);
    rc = text->failed || taint->failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", t->what) : 0;
out:
    ns_arena_release(&r.arena);
    return rc;
}
