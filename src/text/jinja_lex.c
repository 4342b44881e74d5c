/* The lexer follows jinja2/lexer.py: text up to the next tag, whitespace control on the way in and out, then the tag's
 * tokens. A tag's end is looked for only while no bracket is open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_lex_string.h"
#include "text/jinja_parse.h"
#include "text/jinja_text.h"

enum { BRACKETS = 250 };

typedef struct lexer {
    ns_arena *a;
    const char *what, *s;
    size_t n, pos;
    int line;
    bool line_start; /* the last match ended a line */
    ns_jtok *tok;
    size_t n_tok, cap;
    char open[BRACKETS];
    int n_open;
    ns_err *err;
} lexer;

static int fail(lexer *lx, const char *msg)
{
    return ns_fail(lx->err, NS_EFORMAT, "%s:%d: %s", lx->what, lx->line, msg);
}

static ns_jtok *emit(lexer *lx, enum ns_jtok_kind kind, const char *p, size_t n)
{
    if (lx->n_tok == lx->cap) {
        size_t cap = lx->cap ? 2 * lx->cap : 256;
        ns_jtok *t = realloc(lx->tok, cap * sizeof *t);
        if (!t) {
            ns_fail(lx->err, NS_ENOMEM, "%s: out of memory", lx->what);
            return NULL;
        }
        lx->tok = t;
        lx->cap = cap;
    }
    ns_jtok *t = &lx->tok[lx->n_tok++];
    *t = (ns_jtok){ .kind = (uint8_t)kind, .line = lx->line, .p = p, .n = n };
    return t;
}

static bool at(const lexer *lx, size_t i, const char *lit)
{
    size_t k = strlen(lit);
    return i <= lx->n && lx->n - i >= k && memcmp(lx->s + i, lit, k) == 0;
}

static void count_lines(lexer *lx, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        lx->line += lx->s[i] == '\n';
}

static size_t skip_space(const lexer *lx, size_t i)
{
    const char *p = lx->s + i, *end = lx->s + lx->n;
    while (p < end) {
        const char *q = p;
        if (!ns_jtext_space(ns_jtext_next(&q, end)))
            break;
        p = q;
    }
    return (size_t)(p - lx->s);
}

static size_t rstrip(const lexer *lx, size_t from, size_t to)
{
    const char *begin = lx->s + from, *p = lx->s + to;
    while (p > begin) {
        const char *q = p;
        if (!ns_jtext_space(ns_jtext_prev(&q, begin)))
            break;
        p = q;
    }
    return (size_t)(p - lx->s);
}

/* Text in front of a tag: "-" strips it, and a tag alone on its line loses the blanks before it unless it says "+". */
static int emit_text(lexer *lx, size_t from, size_t to, char sign, bool variable)
{
    size_t end = to;
    if (sign == '-')
        end = rstrip(lx, from, to);
    else if (sign != '+' && !variable) {
        size_t bol = to;
        while (bol > from && lx->s[bol - 1] != '\n')
            bol--;
        if ((bol > from || lx->line_start) && rstrip(lx, bol, to) == bol)
            end = bol;
    }
    if (end > from && !emit(lx, NS_JT_DATA, lx->s + from, end - from))
        return -1;
    count_lines(lx, from, to);
    return 0;
}

static size_t after_sign(const lexer *lx, size_t i, char *sign)
{
    *sign = i < lx->n && (lx->s[i] == '-' || lx->s[i] == '+') ? lx->s[i] : '\0';
    return *sign ? i + 1 : i;
}

/* The end of a tag at i, "%}" or "#}": returns the position behind it and the blanks it eats, or 0. */
static size_t match_end(const lexer *lx, size_t i, const char *close, bool plus, bool newline)
{
    char minus_form[4] = { '-', close[0], close[1], '\0' }, plus_form[4] = { '+', close[0], close[1], '\0' };
    if (plus && at(lx, i, plus_form))
        return i + 3;
    if (at(lx, i, minus_form))
        return skip_space(lx, i + 3);
    if (!at(lx, i, close))
        return 0;
    return i + 2 + (newline && at(lx, i + 2, "\n"));
}

static void finish_match(lexer *lx, size_t end)
{
    count_lines(lx, lx->pos, end);
    lx->line_start = end > 0 && lx->s[end - 1] == '\n';
    lx->pos = end;
}

static int lex_comment(lexer *lx)
{
    for (size_t i = lx->pos; i < lx->n; i++) {
        size_t end = match_end(lx, i, "#}", true, true);
        if (end) {
            finish_match(lx, end);
            return 0;
        }
    }
    return fail(lx, "missing end of comment");
}

/* "{% raw %}" with its blanks and signs: the position behind it, or 0. */
static size_t match_raw(const lexer *lx, size_t i, const char *word, char *sign, bool is_end)
{
    i = skip_space(lx, after_sign(lx, i + 2, sign));
    if (!at(lx, i, word))
        return 0;
    return match_end(lx, skip_space(lx, i + strlen(word)), "%}", is_end, is_end);
}

static int lex_raw(lexer *lx)
{
    for (size_t i = lx->pos; i < lx->n; i++) {
        char sign;
        size_t end = at(lx, i, "{%") ? match_raw(lx, i, "endraw", &sign, true) : 0;
        if (!end)
            continue;
        if (emit_text(lx, lx->pos, i, sign, false))
            return -1;
        lx->pos = i;
        finish_match(lx, end);
        return 0;
    }
    return fail(lx, "missing end of raw block");
}

static int lex_number(lexer *lx)
{
    size_t i = lx->pos;
    int64_t iv = 0;
    double fv = 0;
    int kind = ns_jlex_number(lx->s, lx->n, &i, i > 0 && lx->s[i - 1] == '.', &iv, &fv);
    if (kind < 0)
        return fail(lx, "number does not fit 64 bits");
    ns_jtok *t = emit(lx, kind ? NS_JT_FLOAT : NS_JT_INT, lx->s + lx->pos, i - lx->pos);
    if (!t)
        return -1;
    if (kind)
        t->f = fv;
    else
        t->i = iv;
    lx->pos = i;
    return 0;
}

static bool word_byte(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static int lex_name(lexer *lx)
{
    size_t i = lx->pos;
    while (i < lx->n && word_byte(lx->s[i]))
        i++;
    char *copy = ns_arena_strndup(lx->a, lx->s + lx->pos, i - lx->pos);
    if (!copy)
        return ns_fail(lx->err, NS_ENOMEM, "%s: out of memory", lx->what);
    if (!emit(lx, NS_JT_NAME, copy, i - lx->pos))
        return -1;
    lx->pos = i;
    return 0;
}

static int lex_string(lexer *lx)
{
    char quote = lx->s[lx->pos];
    size_t i = lx->pos + 1, begin = i;
    while (i < lx->n && lx->s[i] != quote)
        i += lx->s[i] == '\\' ? 2 : 1;
    if (i >= lx->n)
        return fail(lx, "string without an end");
    char *out = ns_arena_alloc(lx->a, i - begin + 1);
    size_t len = 0;
    if (!out)
        return ns_fail(lx->err, NS_ENOMEM, "%s: out of memory", lx->what);
    const char *bad = ns_jlex_unescape(lx->s + begin, i - begin, out, &len);
    if (bad)
        return fail(lx, bad);
    if (!emit(lx, NS_JT_STR, out, len))
        return -1;
    count_lines(lx, begin, i);
    lx->pos = i + 1;
    return 0;
}

static int balance(lexer *lx, char c)
{
    char msg[60];
    if (c == '(' || c == '[' || c == '{') {
        if (lx->n_open == BRACKETS)
            return fail(lx, "too many open brackets");
        lx->open[lx->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (lx->n_open == 0 || lx->open[--lx->n_open] != c) {
            snprintf(msg, sizeof msg, "unexpected '%c'", c);
            return fail(lx, msg);
        }
    }
    return 0;
}

static int lex_operator(lexer *lx)
{
    static const char pairs[][3] = { "//", "**", "==", "!=", ">=", "<=" };
    char msg[60];
    unsigned char c = (unsigned char)lx->s[lx->pos];
    int op = 0;
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
        if (at(lx, lx->pos, pairs[k]))
            op = NS_JOP(pairs[k][0], pairs[k][1]);
    if (!op && c && strchr("+-/*%~[](){}><=.:|,;", c))
        op = c;
    if (!op) {
        snprintf(msg, sizeof msg, c > 0x20 && c < 0x7f ? "unexpected character '%c'" : "unexpected byte 0x%02x", c);
        return fail(lx, msg);
    }
    if (balance(lx, (char)c))
        return -1;
    ns_jtok *t = emit(lx, NS_JT_OP, lx->s + lx->pos, op > 255 ? 2 : 1);
    if (!t)
        return -1;
    t->op = (uint16_t)op;
    lx->pos += t->n;
    return 0;
}

static int lex_token(lexer *lx)
{
    char c = lx->s[lx->pos];
    size_t blank = skip_space(lx, lx->pos);
    if (blank > lx->pos) {
        count_lines(lx, lx->pos, blank);
        lx->pos = blank;
        return 0;
    }
    if (c >= '0' && c <= '9')
        return lex_number(lx);
    if (word_byte(c))
        return lex_name(lx);
    if (c == '"' || c == '\'')
        return lex_string(lx);
    return lex_operator(lx);
}

static int lex_tag(lexer *lx, bool variable)
{
    lx->n_open = 0;
    while (lx->pos < lx->n) {
        size_t end = lx->n_open ? 0 : match_end(lx, lx->pos, variable ? "}}" : "%}", !variable, !variable);
        if (end) {
            if (!emit(lx, variable ? NS_JT_VAR_END : NS_JT_BLOCK_END, lx->s + lx->pos, 0))
                return -1;
            finish_match(lx, end);
            return 0;
        }
        if (lex_token(lx))
            return -1;
    }
    return fail(lx, variable ? "unexpected end of template inside {{" : "unexpected end of template inside {%");
}

/* One run of text and the tag behind it. */
static int lex_root(lexer *lx)
{
    size_t i = lx->pos;
    while (i < lx->n && !at(lx, i, "{%") && !at(lx, i, "{{") && !at(lx, i, "{#"))
        i++;
    if (i == lx->n) {
        ns_jtok *t = emit(lx, NS_JT_DATA, lx->s + lx->pos, i - lx->pos);
        lx->pos = i;
        return t ? 0 : -1;
    }
    char kind = lx->s[i + 1], sign, raw_sign;
    size_t inside = after_sign(lx, i + 2, &sign);
    size_t raw = kind == '%' ? match_raw(lx, i, "raw", &raw_sign, false) : 0;
    if (emit_text(lx, lx->pos, i, sign, kind == '{'))
        return -1;
    if (raw) {
        lx->pos = i;
        finish_match(lx, raw);
        return lex_raw(lx);
    }
    lx->pos = inside;
    lx->line_start = false;
    if (kind == '#')
        return lex_comment(lx);
    if (!emit(lx, kind == '{' ? NS_JT_VAR_BEGIN : NS_JT_BLOCK_BEGIN, lx->s + i, 2))
        return -1;
    return lex_tag(lx, kind == '{');
}

/* \r\n and \r become \n, and one newline at the very end goes. */
static char *normalize(ns_arena *a, const char *src, size_t n, size_t *len)
{
    char *s = ns_arena_alloc(a, n + 1);
    size_t k = 0;
    for (size_t i = 0; s && i < n; i++) {
        if (src[i] == '\r' && i + 1 < n && src[i + 1] == '\n')
            continue;
        s[k++] = src[i] == '\r' ? '\n' : src[i];
    }
    *len = k > 0 && s[k - 1] == '\n' ? k - 1 : k;
    return s;
}

ns_jtok *ns_jlex(ns_arena *a, const char *what, const char *src, size_t n, ns_err *e)
{
    lexer lx = { .a = a, .what = what, .line = 1, .line_start = true, .err = e };
    lx.s = normalize(a, src, n, &lx.n);
    if (!lx.s) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
        return NULL;
    }
    while (lx.pos < lx.n)
        if (lex_root(&lx))
            goto fail;
    if (emit(&lx, NS_JT_EOF, "", 0))
        return lx.tok;
fail:
    free(lx.tok);
    return NULL;
}
