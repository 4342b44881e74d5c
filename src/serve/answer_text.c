#include "serve/answer_text.h"

#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t spaces_before(const char *p, size_t n)
{
    size_t k = 0;
    while (k < n && is_space(p[n - 1 - k]))
        k++;
    return k;
}

static void drop(ns_buf *b, size_t n)
{
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
    b->data[b->len] = '\0';
}

static void give(ns_answer_text *t, enum ns_piece_kind kind, const char *p, size_t n, size_t at)
{
    if (n > 0)
        t->o.piece(t->o.ctx, &(ns_piece){ .kind = kind, .text = p, .n = n, .at = at });
}

/* ---- stop strings ---- */

static int stop_init(ns_stop *s, const char *text, ns_err *e)
{
    s->s = text;
    s->n = strlen(text);
    s->border = calloc(s->n, sizeof *s->border);
    if (!s->border)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    for (size_t i = 1, k = 0; i < s->n; i++) {
        while (k > 0 && text[i] != text[k])
            k = s->border[k - 1];
        k += text[i] == text[k];
        s->border[i] = k;
    }
    return 0;
}

/* True at the stop string's last byte. */
static bool stop_take(ns_stop *s, char c)
{
    while (s->k > 0 && s->s[s->k] != c)
        s->k = s->border[s->k - 1];
    s->k += s->s[s->k] == c;
    return s->k == s->n;
}

static void give_held(ns_answer_text *t, size_t n)
{
    if (n == 0)
        return;
    give(t, NS_PIECE_CONTENT, t->held.data, n, t->held_at);
    drop(&t->held, n);
    t->held_at += n;
}

/* Content that is content; of stop strings that end at the same byte the longest counts. */
static void take_content(ns_answer_text *t, const char *p, size_t n, size_t at)
{
    size_t keep = 0;
    if (t->over || n == 0)
        return;
    if (t->held.len == 0)
        t->held_at = at;
    for (size_t i = 0; i < n; i++) {
        size_t stop = 0;
        ns_buf_addc(&t->held, p[i]);
        for (int s = 0; s < t->n_stops; s++)
            if (stop_take(&t->stop[s], p[i]) && t->stop[s].n > stop)
                stop = t->stop[s].n;
        if (t->held.failed)
            return;
        if (stop) {
            give_held(t, t->held.len - stop);
            t->stopped = t->over = true;
            return;
        }
    }
    for (int s = 0; s < t->n_stops; s++)
        keep = t->stop[s].k > keep ? t->stop[s].k : keep;
    give_held(t, t->held.len - keep);
}

/* ---- tool calls ---- */

/* Where a call may begin: its opening tag, or the beginning of that at the end of the text; n: nowhere. */
static size_t find_open(const char *p, size_t n)
{
    size_t len = sizeof NS_CALL_OPEN - 1;
    for (size_t i = 0; i < n; i++) {
        const char *lt = memchr(p + i, '<', n - i);
        if (!lt)
            return n;
        i = (size_t)(lt - p);
        if (memcmp(lt, NS_CALL_OPEN, n - i < len ? n - i : len) == 0)
            return i;
    }
    return n;
}

static void pass_markup(ns_answer_text *t, size_t n)
{
    if (n == 0)
        return;
    take_content(t, t->markup.data, n, t->markup_at);
    drop(&t->markup, n);
    t->markup_at += n;
}

static void give_call(ns_answer_text *t)
{
    const char *p = t->markup.data + t->call_at;
    ns_buf name = { 0 }, args = { 0 };
    ns_buf_add(&name, p + t->call.name.at, t->call.name.n);
    ns_call_arguments(&t->call, p, t->o.tools, &args);
    give_held(t, t->held.len); /* a stop string does not reach across a call */
    for (int s = 0; s < t->n_stops; s++)
        t->stop[s].k = 0;
    if (name.failed || args.failed)
        t->failed = true;
    else
        t->o.piece(t->o.ctx, &(ns_piece){ .kind = NS_PIECE_CALL, .text = args.data, .n = args.len, .name = name.data });
    ns_buf_release(&name);
    ns_buf_release(&args);
    t->n_calls++;
    t->over = t->o.one_call;
}

/* Goes on with the call in the markup; false: it needs more text. */
static bool take_call(ns_answer_text *t)
{
    enum ns_call_read r = ns_call_read(&t->call, t->markup.data + t->call_at, t->markup.len - t->call_at);
    if (r == NS_CALL_MORE)
        return false;
    size_t end = t->call_at + t->call.pos;
    if (r == NS_CALL_WHOLE) {
        give_call(t);
        drop(&t->markup, end);
        t->markup_at += end;
    } else
        pass_markup(t, end);
    t->failed |= t->call.failed;
    ns_call_release(&t->call);
    t->calling = false;
    return true;
}

static void take_markup(ns_answer_text *t)
{
    while (!t->over && !t->failed && t->markup.len > 0) {
        if (t->calling) {
            if (!take_call(t))
                return;
            continue;
        }
        size_t open = find_open(t->markup.data, t->markup.len), spaces = spaces_before(t->markup.data, open);
        pass_markup(t, open - spaces);
        if (t->markup.len - spaces < sizeof NS_CALL_OPEN - 1)
            return;
        t->calling = true;
        t->call_at = spaces;
    }
}

/* ---- thought and content ---- */

static void take_thought(ns_answer_text *t, const char *p, size_t n)
{
    size_t spaces = spaces_before(p, n);
    if (spaces < n) {
        give(t, NS_PIECE_THOUGHT, t->gap.data, t->gap.len, 0);
        give(t, NS_PIECE_THOUGHT, p, n - spaces, 0);
        ns_buf_clear(&t->gap);
    }
    ns_buf_add(&t->gap, p + n - spaces, spaces);
}

static void take_text(ns_answer_text *t, const char *p, size_t n)
{
    if (t->over)
        return;
    if (t->thinking) {
        take_thought(t, p, n);
        return;
    }
    size_t at = t->len;
    t->len += n;
    for (; t->leading && n > 0 && is_space(*p); p++, at++)
        n--;
    t->leading = t->leading && n == 0;
    if (!t->o.tools) {
        take_content(t, p, n, at);
        return;
    }
    if (t->markup.len == 0)
        t->markup_at = at;
    ns_buf_add(&t->markup, p, n);
    if (!t->markup.failed)
        take_markup(t);
}

/* The detokenizer's bytes go on as one piece. */
static void flush(ns_answer_text *t, ns_buf *text)
{
    if (text->len > 0)
        take_text(t, text->data, text->len);
    t->failed |= text->failed || t->gap.failed || t->markup.failed || t->held.failed;
    t->over |= t->failed;
    ns_buf_release(text);
}

bool ns_answer_text_add(ns_answer_text *t, const char *bytes, size_t n, bool thought)
{
    ns_buf text = { 0 };
    if (t->over)
        return false;
    if (thought != t->thinking) { /* no character spans both */
        ns_detok_finish(&t->detok, &text);
        flush(t, &text);
        t->leading = !thought;
        t->thinking = thought;
        ns_buf_clear(&t->gap);
    }
    ns_detok_push_bytes(&t->detok, bytes, n, &text);
    flush(t, &text);
    return !t->over;
}

void ns_answer_text_end(ns_answer_text *t)
{
    ns_buf text = { 0 };
    if (t->over)
        return;
    ns_detok_finish(&t->detok, &text);
    flush(t, &text);
    if (t->n_calls > 0 && spaces_before(t->markup.data, t->markup.len) == t->markup.len)
        ns_buf_clear(&t->markup);
    pass_markup(t, t->markup.len);
    if (!t->over)
        give_held(t, t->held.len);
    t->over = true;
}

int ns_answer_text_init(ns_answer_text *t, const ns_answer_text_opts *o, ns_err *e)
{
    *t = (ns_answer_text){ .o = *o };
    ns_detok_init(&t->detok);
    for (int i = 0; i < o->n_stops && t->n_stops < NS_ANSWER_STOPS; i++)
        if (o->stop[i][0] && stop_init(&t->stop[t->n_stops++], o->stop[i], e) != 0)
            return -1;
    return 0;
}

void ns_answer_text_release(ns_answer_text *t)
{
    for (int i = 0; i < t->n_stops; i++)
        free(t->stop[i].border);
    ns_call_release(&t->call);
    ns_buf_release(&t->gap);
    ns_buf_release(&t->markup);
    ns_buf_release(&t->held);
    *t = (ns_answer_text){ 0 };
}
