#include "cli/common.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "run/engine.h"

/* ---- options ---- */

void ns_cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    argp_err_exit_status = 2;
    argp_parse(argp, argc, argv, 0, NULL, input); /* ends the process on a usage error and after --help */
}

void ns_cli_positional(struct argp_state *s, const char **slot, const char *arg)
{
    if (*slot)
        argp_error(s, "one argument too many: \"%s\"", arg);
    *slot = arg;
}

void ns_cli_required(struct argp_state *s, const char *value, const char *name)
{
    if (!value)
        argp_error(s, "%s is missing", name);
}

long long ns_cli_int(struct argp_state *s, const char *option, const char *arg, long long lo, long long hi)
{
    char *end;
    errno = 0;
    long long v = strtoll(arg, &end, 10);
    if (end == arg || *end || errno == ERANGE || v < lo || v > hi)
        argp_error(s, hi == INT_MAX ? "%s: \"%s\" is not a whole number from %lld on" : "%s: \"%s\" is not a whole number in %lld..%lld",
                   option, arg, lo, hi);
    return v;
}

double ns_cli_real(struct argp_state *s, const char *option, const char *arg, double lo, double hi)
{
    char *end;
    double v = strtod(arg, &end);
    if (end == arg || *end || !(v >= lo && v <= hi))
        argp_error(s, isinf(hi) ? "%s: \"%s\" is not a number from %g on" : "%s: \"%s\" is not a number in %g..%g", option, arg, lo, hi);
    return v;
}

uint64_t ns_cli_u64(struct argp_state *s, const char *option, const char *arg)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end || errno == ERANGE || v > INT64_MAX) /* what JSON reports can hold */
        argp_error(s, "%s: \"%s\" is not a whole number in 0..%lld", option, arg, (long long)INT64_MAX);
    return v;
}

size_t ns_cli_bytes(struct argp_state *s, const char *option, const char *arg)
{
    ns_err e = { 0 };
    int64_t v = 0;
    if (ns_bytes_parse(arg, &v, &e) != 0)
        argp_error(s, "%s: %s", option, e.msg);
    if (v <= 0)
        argp_error(s, "%s: \"%s\" is no size", option, arg);
    return (size_t)v;
}

enum ns_kv ns_cli_kv(struct argp_state *s, const char *option, const char *arg)
{
    if (strcmp(arg, "f32") != 0 && strcmp(arg, "fp8") != 0)
        argp_error(s, "%s: \"%s\" is neither f32 nor fp8", option, arg);
    return strcmp(arg, "fp8") == 0 ? NS_KV_FP8 : NS_KV_F32;
}

enum { KEY_THREADS = NS_CLI_KEY_ENGINE, KEY_LOAD, KEY_NEST, KEY_KV, KEY_ACTIVATIONS };

static error_t parse_engine(int key, char *arg, struct argp_state *s)
{
    ns_cli_engine *a = s->input;
    switch (key) {
    case KEY_THREADS:
        a->threads = (int)ns_cli_int(s, "--threads", arg, 1, 1024);
        return 0;
    case KEY_LOAD:
        if (strcmp(arg, "mmap") != 0 && strcmp(arg, "huge") != 0)
            argp_error(s, "--load: \"%s\" is neither mmap nor huge", arg);
        a->huge = strcmp(arg, "huge") == 0;
        return 0;
    case KEY_NEST:
        a->nest = arg;
        return 0;
    case KEY_KV:
        a->kv = ns_cli_kv(s, "--kv", arg);
        return 0;
    case KEY_ACTIVATIONS:
        if (strcmp(arg, "8") != 0 && strcmp(arg, "16") != 0)
            argp_error(s, "--activations: \"%s\" is neither 8 nor 16", arg);
        a->act_bits = strcmp(arg, "8") == 0 ? 8 : 16;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option engine_options[] = {
    { "nest", KEY_NEST, "FILE", 0, "Named sizes from FILE instead of CKPT/nest.json", 90 },
    { "threads", KEY_THREADS, "N", 0, "Threads (default: NS_THREADS, else all cores this process may use)", 90 },
    { "load", KEY_LOAD, "mmap|huge", 0, "Map the files (default), or read them into memory, on huge pages and laid out for the sizes: a slow start, then smaller sizes decode faster", 90 },
    { "kv", KEY_KV, "f32|fp8", 0, "Keep keys and values in F32 (default) or FP8, a quarter of the bytes", 90 },
    { "activations", KEY_ACTIVATIONS, "16|8", 0, "Bits of activations that meet NVFP4 weights (default: 16); 8 is faster and much less exact", 90 },
    { 0 }
};
const struct argp ns_cli_engine_argp = { .options = engine_options, .parser = parse_engine };

ns_engine *ns_cli_engine_open(const char *dir, const ns_cli_engine *a, bool no_text, ns_err *e)
{
    ns_engine_opts o = { .nest_path = a->nest, .n_threads = a->threads, .huge_pages = a->huge, .no_text = no_text, .kv = a->kv,
                         .act_bits = a->act_bits };
    return ns_engine_open(dir, &o, e);
}

/* ---- input ---- */

int ns_cli_read(const char *path, ns_buf *out, ns_err *e)
{
    char chunk[65536];
    size_t n;
    if (path && strcmp(path, "-") != 0)
        return ns_file_read(path, SIZE_MAX, out, e);
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        ns_buf_add(out, chunk, n);
    if (ferror(stdin))
        return ns_fail_errno(e, "standard input");
    return out->failed ? ns_fail(e, NS_ENOMEM, "standard input: out of memory") : 0;
}

static int ids_from_json(const char *text, size_t n, const char *what, ns_ids *out, ns_err *e)
{
    json_t *v = ns_json_parse(text, n, false, what, e), *id;
    size_t i;
    int rc = v ? 0 : -1;
    json_array_foreach(v, i, id) {
        if (rc == 0 && (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT_MAX))
            rc = ns_fail(e, NS_EFORMAT, "%s: entry %zu is not a token id", what, i);
        ns_ids_add(out, (int)json_integer_value(id));
    }
    json_decref(v);
    return rc;
}

static int ids_from_text(const char *text, size_t n, const char *what, ns_ids *out, ns_err *e)
{
    for (size_t i = 0; i < n;) {
        size_t from = i;
        long long v = 0;
        while (i < n && text[i] >= '0' && text[i] <= '9' && v <= INT_MAX)
            v = 10 * v + (text[i++] - '0');
        if (i > from && v <= INT_MAX && (i == n || strchr(" \t\r\n", text[i])))
            ns_ids_add(out, (int)v);
        else if (i < n && i == from && strchr(" \t\r\n", text[i]) && text[i])
            i++;
        else
            return ns_fail(e, NS_EFORMAT, "%s: entry %zu is not a token id", what, out->len);
    }
    return 0;
}

int ns_cli_ids_parse(const char *text, size_t n, const char *what, ns_ids *out, ns_err *e)
{
    size_t at = 0;
    while (at < n && strchr(" \t\r\n", text[at]) && text[at])
        at++;
    int rc = at < n && text[at] == '[' ? ids_from_json(text, n, what, out, e) : ids_from_text(text, n, what, out, e);
    return rc == 0 && out->failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", what) : rc;
}

static bool blank(const char *p, ssize_t n)
{
    for (ssize_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", p[i]) || !p[i])
            return false;
    return true;
}

/* The answer to one line; NULL only when memory is out. */
static json_t *answer_line(ns_cli_line *line, void *ctx, const char *text, size_t n, size_t number)
{
    char what[48];
    ns_err le = { 0 };
    snprintf(what, sizeof what, "line %zu", number);
    json_t *answer = NULL, *object = ns_json_parse(text, n, false, what, &le);
    if (object && !json_is_object(object))
        ns_fail(&le, NS_EFORMAT, "%s: not a JSON object", what);
    else if (object)
        answer = line(ctx, object, &le);
    json_decref(object);
    return answer ? answer : json_pack("{s:o}", "error", json_stringn_nocheck(le.msg, strlen(le.msg)));
}

int ns_cli_jsonl(ns_cli_line *line, void *ctx, ns_err *e)
{
    char *text = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    int rc = 0;
    while (rc == 0 && (n = getline(&text, &cap, stdin)) >= 0) {
        number++;
        if (blank(text, n))
            continue;
        json_t *answer = answer_line(line, ctx, text, (size_t)n, number);
        rc = ns_cli_json(answer, false, e);
        json_decref(answer);
    }
    if (rc == 0 && ferror(stdin))
        rc = ns_fail_errno(e, "standard input");
    free(text);
    return rc;
}

/* ---- output ---- */

int ns_cli_write(const void *p, size_t n, ns_err *e)
{
    if (fwrite(p, 1, n, stdout) != n || fflush(stdout) != 0)
        return ns_fail_errno(e, "standard output");
    return 0;
}

int ns_cli_json(const json_t *v, bool indent, ns_err *e)
{
    char *text = v ? json_dumps(v, (indent ? JSON_INDENT(2) : 0) | JSON_REAL_PRECISION(15) | JSON_ENCODE_ANY) : NULL;
    if (!text)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    int rc = puts(text) >= 0 ? 0 : ns_fail_errno(e, "standard output");
    free(text);
    return rc;
}

/* The kernel knows whether anyone still reads, also when the errno of the failed write is long gone. */
static bool stdout_closed(void)
{
    struct pollfd p = { .fd = STDOUT_FILENO };
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}

int ns_cli_exit(const char *argv0, int rc, const ns_err *e)
{
    bool bad = fflush(stdout) != 0;
    int why = errno;
    bad = ferror(stdout) != 0 || bad;
    if (bad && stdout_closed())
        return 0;
    if (rc != 0)
        fprintf(stderr, "%s: %s\n", argv0, e->msg);
    else if (bad)
        fprintf(stderr, "%s: standard output: %s\n", argv0, why ? strerror(why) : "write failed");
    return rc != 0 || bad;
}

/* ---- progress ---- */

ns_cli_progress ns_cli_progress_start(const char *what, bool always)
{
    bool tty = isatty(STDERR_FILENO) != 0;
    return (ns_cli_progress){ .what = what, .on = tty || always, .tty = tty, .start = ns_now() };
}

/* "12 %  1200 of 10000 tokens  350 tokens/s  25 s left" */
static void print_count(const ns_cli_progress *p, size_t done, size_t total, double seconds)
{
    double rate = seconds > 0 ? (double)done / seconds : 0.0;
    fprintf(stderr, "%s%s %3.0f %%  %zu of %zu %s  %.0f %s/s  %.0f s left%s", p->tty ? "\r" : "", p->what,
            total ? 100.0 * (double)done / (double)total : 100.0, done, total, p->unit, rate, p->unit,
            rate > 0 ? (double)(total - done) / rate : 0.0, p->tty ? "\033[K" : "\n");
}

void ns_cli_progress_update(void *progress, size_t done, size_t total)
{
    ns_cli_progress *p = progress;
    double now = ns_now(), seconds = now - p->start;
    if (!p->on || (done < total && now - p->last < (p->tty ? 0.1 : 1.0)))
        return;
    p->last = now;
    if (p->unit) {
        print_count(p, done, total, seconds);
        return;
    }
    double unit = total < 1000000000 ? 1e6 : 1e9;
    fprintf(stderr, "%s%s %3.0f %%  %.2f of %.2f %s  %.0f MB/s%s", p->tty ? "\r" : "", p->what, total ? 100.0 * (double)done / (double)total : 100.0,
            (double)done / unit, (double)total / unit, unit < 1e9 ? "MB" : "GB", seconds > 0 ? (double)done / 1e6 / seconds : 0.0,
            p->tty ? "\033[K" : "\n");
}

void ns_cli_progress_end(ns_cli_progress *p)
{
    if (p->on && p->tty && p->last > 0)
        fprintf(stderr, "\n");
    p->on = false;
}
