#include "text/pretok.h"

#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/pretok_regex.h"

enum { MAX_STEPS = 16 };

/* The pattern inside Hugging Face's ByteLevel, from GPT-2. */
static const char gpt2_pattern[] =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct step {
    pcre2_code *code;                 /* NULL: a prefix step, which puts a space in front of what has none */
    bool drop_matches, drop_between;  /* Removed; Removed with invert */
} step;

struct ns_pretok {
    step steps[MAX_STEPS];
    size_t n;
};

typedef struct run {
    const ns_pretok *p;
    ns_pretok_scratch *s;
    bool start;
    ns_piece_fn *fn;
    void *ctx;
    ns_err *e;
} run;

static int compile(const char *pattern, size_t n, uint32_t options, pcre2_code **out, ns_err *e)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[200];
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (!ctx)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF); /* what "." stops at, as in Ruby, however the library was built */
    *out = pcre2_compile((PCRE2_SPTR)pattern, n, PCRE2_UTF | options, &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    if (!*out) {
        pcre2_get_error_message(code, why, sizeof why);
        return ns_fail(e, NS_EFORMAT, "regular expression: %s, at byte %zu of \"%.*s\"", (const char *)why, (size_t)at,
                       (int)(n < 400 ? n : 400), pattern);
    }
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter matches the same, slower */
    return 0;
}

/* Adds a step and returns it for its behaviour to be set; NULL with e filled. */
static step *add_split(ns_pretok *p, const char *pattern, size_t n, bool literal, ns_err *e)
{
    ns_buf b = { 0 };
    step *s = NULL;
    if (p->n == MAX_STEPS) {
        ns_fail(e, NS_EUNSUPPORTED, "more than %d steps", MAX_STEPS);
        goto out;
    }
    if (n == 0) {
        ns_fail(e, NS_EUNSUPPORTED, "an empty pattern is not supported");
        goto out;
    }
    if (literal)
        ns_buf_add(&b, pattern, n);
    else if (ns_regex_translate(pattern, n, &b, e) != 0)
        goto out;
    if (b.failed)
        ns_fail(e, NS_ENOMEM, "out of memory");
    else if (compile(b.data, b.len, literal ? PCRE2_LITERAL : PCRE2_UCP, &p->steps[p->n].code, e) == 0)
        s = &p->steps[p->n++];
out:
    ns_buf_release(&b);
    return s;
}

static int parse_split(ns_pretok *p, const json_t *o, ns_err *e)
{
    const json_t *pattern = json_object_get(o, "pattern"), *regex = json_object_get(pattern, "Regex");
    const json_t *text = regex ? regex : json_object_get(pattern, "String");
    const char *behavior;
    bool invert;
    if (ns_json_str(o, "behavior", "", &behavior, e) != 0 || ns_json_bool(o, "invert", false, &invert, e) != 0)
        return -1;
    bool removed = strcmp(behavior, "Removed") == 0;
    if (!removed && strcmp(behavior, "Isolated") != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "Split behavior \"%.100s\" is not supported", behavior);
    if (!json_is_string(text))
        return ns_fail(e, NS_EFORMAT, "Split: expected a pattern with \"Regex\" or \"String\"");
    step *s = add_split(p, json_string_value(text), json_string_length(text), !regex, e);
    if (!s)
        return ns_err_wrap(e, "Split");
    s->drop_matches = removed && !invert;
    s->drop_between = removed && invert;
    return 0;
}

static int parse_digits(ns_pretok *p, const json_t *o, ns_err *e)
{
    bool each;
    if (ns_json_bool(o, "individual_digits", false, &each, e) != 0)
        return -1;
    const char *pattern = each ? "\\p{N}" : "\\p{N}+";
    return add_split(p, pattern, strlen(pattern), false, e) ? 0 : -1;
}

static int parse_byte_level(ns_pretok *p, const json_t *o, ns_err *e)
{
    bool prefix, regex;
    if (ns_json_bool(o, "add_prefix_space", true, &prefix, e) != 0 || ns_json_bool(o, "use_regex", true, &regex, e) != 0)
        return -1;
    if (prefix && p->n == MAX_STEPS)
        return ns_fail(e, NS_EUNSUPPORTED, "more than %d steps", MAX_STEPS);
    if (prefix)
        p->n++;
    return !regex || add_split(p, gpt2_pattern, sizeof gpt2_pattern - 1, false, e) ? 0 : -1;
}

static int parse_step(ns_pretok *p, const json_t *o, bool last, ns_err *e)
{
    const char *type;
    if (ns_json_str(o, "type", "null", &type, e) != 0)
        return -1;
    if (strcmp(type, "ByteLevel") == 0 && last)
        return parse_byte_level(p, o, e);
    if (last)
        return ns_fail(e, NS_EUNSUPPORTED, "type \"%.100s\" where only ByteLevel, at the end, is supported", type);
    if (strcmp(type, "Split") == 0)
        return parse_split(p, o, e);
    if (strcmp(type, "Digits") == 0)
        return parse_digits(p, o, e);
    return ns_fail(e, NS_EUNSUPPORTED, "type \"%.100s\" is not supported%s", type,
                   strcmp(type, "ByteLevel") == 0 ? " before other steps" : "");
}

ns_pretok *ns_pretok_parse(const json_t *spec, ns_err *e)
{
    const char *type = "";
    ns_pretok *p = calloc(1, sizeof *p);
    if (!p) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        return NULL;
    }
    if (ns_json_str(spec, "type", "null", &type, e) != 0)
        goto fail;
    bool sequence = strcmp(type, "Sequence") == 0;
    const json_t *list = json_object_get(spec, "pretokenizers");
    size_t n = sequence ? json_array_size(list) : 1;
    if (n == 0)
        ns_fail(e, NS_EUNSUPPORTED, "an empty Sequence is not supported");
    for (size_t i = 0; i < n; i++)
        if (parse_step(p, sequence ? json_array_get(list, i) : spec, i + 1 == n, e) != 0)
            goto fail;
    if (n > 0)
        return p;
fail:
    ns_err_wrap(e, "pre_tokenizer");
    ns_pretok_free(p);
    return NULL;
}

void ns_pretok_free(ns_pretok *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        pcre2_code_free(p->steps[i].code);
    free(p);
}

int ns_pretok_scratch_init(ns_pretok_scratch *s, ns_err *e)
{
    *s = (ns_pretok_scratch){ .match = pcre2_match_data_create(1, NULL) };
    return s->match ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
}

void ns_pretok_scratch_release(ns_pretok_scratch *s)
{
    pcre2_match_data_free(s->match);
    ns_buf_release(&s->prefixed);
    *s = (ns_pretok_scratch){ 0 };
}

/* The first match at or after `from`: 1 and its bounds, 0 without one, -1 on an error. */
static int next_match(run *r, const step *s, const char *text, size_t n, size_t from, size_t *begin, size_t *end)
{
    pcre2_match_data *m = r->s->match;
    int rc = pcre2_match(s->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(s->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m, NULL);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        PCRE2_UCHAR why[200];
        pcre2_get_error_message(rc, why, sizeof why);
        return ns_fail(r->e, NS_EUNSUPPORTED, "pre_tokenizer: matching failed: %s", (const char *)why);
    }
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m);
    *begin = o[0];
    *end = o[1];
    return 1;
}

static int run_step(run *r, size_t i, const char *text, size_t n);

static int run_split(run *r, size_t i, const char *text, size_t n)
{
    const step *s = &r->p->steps[i];
    size_t done = 0, from = 0, begin = 0, end = 0;
    int rc = 0;
    while (from <= n && (rc = next_match(r, s, text, n, from, &begin, &end)) > 0) {
        if (begin > done && !s->drop_between && run_step(r, i + 1, text + done, begin - done) != 0)
            return -1;
        if (end > begin && !s->drop_matches && run_step(r, i + 1, text + begin, end - begin) != 0)
            return -1;
        done = from = end;
        if (end == begin) /* an empty match only cuts; look for the next one after the following character */
            do
                from++;
            while (from < n && ((unsigned char)text[from] & 0xc0) == 0x80);
    }
    if (rc < 0)
        return -1;
    return done < n && !s->drop_between ? run_step(r, i + 1, text + done, n - done) : 0;
}

static int run_prefix(run *r, size_t i, const char *text, size_t n)
{
    ns_buf *b = &r->s->prefixed; /* one is enough: at most one step of a sequence is a prefix step */
    if (!r->start || text[0] == ' ')
        return run_step(r, i + 1, text, n);
    ns_buf_clear(b);
    ns_buf_addc(b, ' ');
    ns_buf_add(b, text, n);
    if (b->failed)
        return ns_fail(r->e, NS_ENOMEM, "out of memory");
    return run_step(r, i + 1, b->data, b->len);
}

static int run_step(run *r, size_t i, const char *text, size_t n)
{
    if (n == 0)
        return 0;
    if (i == r->p->n)
        return r->fn(r->ctx, text, n);
    return r->p->steps[i].code ? run_split(r, i, text, n) : run_prefix(r, i, text, n);
}

int ns_pretok_run(const ns_pretok *p, ns_pretok_scratch *s, const char *text, size_t n, bool start, ns_piece_fn *fn, void *ctx,
                  ns_err *e)
{
    run r = { .p = p, .s = s, .start = start, .fn = fn, .ctx = ctx, .e = e };
    return run_step(&r, 0, text, n);
}
