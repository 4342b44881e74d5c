/* A session: the tokens, the state they left, and the plan of the size that computes the next.
 * Sampled tokens are computed when something needs it: the last token of an answer costs nothing, and a size change between two
 * tokens takes effect on the very next computation. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "run/session_impl.h"

enum { MARK_BACK = 16 /* tokens before a prompt's end where sync leaves a mark; see ns_session_sync */ };

void ns_session_drop_marks(ns_session *s, int keep)
{
    while (s->n_marks > keep) {
        struct ns_session_mark *m = &s->marks[--s->n_marks];
        ns_mark_free(m->state);
        free(m->logits);
    }
    if (s->auto_mark >= keep)
        s->auto_mark = -1;
}

int ns_session_default_context(const ns_engine *en)
{
    return en->model.arch->max_position > 0 && en->model.arch->max_position < 4096 ? en->model.arch->max_position : 4096;
}

ns_session *ns_session_new(ns_engine *en, const ns_session_opts *opts, ns_err *e)
{
    const ns_session_opts none = { 0 }, *o = opts ? opts : &none;
    int context = o->context > 0 ? o->context : ns_session_default_context(en), vocab = en->model.arch->vocab_size;
    ns_cut cut = { 0 };
    ns_session *s = calloc(1, sizeof *s);
    if (!s) {
        ns_fail(e, NS_ENOMEM, "session: out of memory");
        return NULL;
    }
    s->en = en;
    s->auto_mark = -1;
    if (ns_engine_cut(en, o->size, context, &cut, s->name, sizeof s->name, e) != 0 ||
        ns_sampler_init(&s->sampler, o->sampling ? o->sampling : &en->sampling, vocab, e) != 0)
        goto fail;
    s->ids = malloc((size_t)context * sizeof *s->ids);
    s->logits = malloc((size_t)vocab * sizeof *s->logits);
    s->scratch = ns_scratch_new();
    if (!s->ids || !s->logits || !s->scratch) {
        ns_fail(e, NS_ENOMEM, "session: out of memory");
        goto fail;
    }
    s->plan = ns_plan_new(&en->model, &cut, e);
    s->state = ns_model_state(&en->model, &cut, context, e);
    if (!s->plan || !s->state)
        goto fail;
    ns_cut_release(&cut);
    return s;
fail:
    ns_cut_release(&cut);
    ns_session_free(s);
    return NULL;
}

void ns_session_free(ns_session *s)
{
    if (!s)
        return;
    ns_session_drop_marks(s, 0);
    ns_session_unfollow(s);
    free(s->marks);
    ns_sampler_release(&s->sampler);
    ns_plan_free(s->plan);
    ns_state_free(s->state);
    ns_scratch_free(s->scratch);
    free(s->ids);
    free(s->logits);
    free(s);
}

void ns_session_lose(ns_session *s, ns_err *e)
{
    ns_state_reset(s->state);
    ns_session_drop_marks(s, 0);
    ns_session_unfollow(s);
    s->n = 0;
    s->has_logits = false;
    ns_err found = { 0 };
    if (e && e->code == NS_EFORMAT && ns_ckpt_verify(s->en->ckpt, NULL, NULL, &found) != 0)
        *e = found;
}

int ns_session_compute(ns_session *s, int end, ns_err *e)
{
    while (s->state->len < end) {
        int at = s->state->len, n = end - at < NS_STEP_TOKENS ? end - at : NS_STEP_TOKENS;
        bool last = at + n == s->n;
        if (s->cancel) {
            s->cancel = 0;
            s->n = at; /* what is complete */
            s->has_logits = false;
            if (s->next && ns_follower_asked(s->next) >= at) /* it leaves a token for the change to compute */
                ns_session_unfollow(s);
            return ns_fail(e, NS_ECANCELLED, "cancelled");
        }
        ns_item item = { .state = s->state, .ids = s->ids + at, .n = n, .n_logits = last, .logits = s->logits };
        s->plan->model = s->next ? ns_follower_beside(s->next) : &s->en->model;
        s->has_logits = false;
        if (ns_forward(s->plan, &item, 1, s->scratch, NULL, e) != 0) {
            ns_session_lose(s, e);
            return -1;
        }
        s->has_logits = last;
    }
    return 0;
}

/* `decode`: one sampled token; else a prompt. */
static int catch_up(ns_session *s, bool decode, ns_err *e)
{
    int before = s->state->len;
    double start = ns_now();
    s->cancel = 0; /* cancelling is about a call in progress */
    int rc = ns_session_compute(s, s->n, e);
    size_t done = s->state->len > before ? (size_t)(s->state->len - before) : 0;
    if (decode) {
        s->stats.decode_tokens += done;
        s->stats.decode_seconds += done ? ns_now() - start : 0.0;
    } else {
        s->stats.prefill_tokens += done;
        s->stats.prefill_seconds += ns_now() - start;
    }
    return rc;
}

int ns_session_append(ns_session *s, const int *ids, size_t n, ns_err *e)
{
    if (n > (size_t)(s->state->context - s->n))
        return ns_fail(e, NS_EINVAL, "the context of %d tokens is full: %d are in it, %zu more were to come", s->state->context, s->n, n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->en->model.arch->vocab_size)
            return ns_fail(e, NS_EINVAL, "token id %d is outside the vocabulary of %d", ids[i], s->en->model.arch->vocab_size);
    if (n)
        memcpy(s->ids + s->n, ids, n * sizeof *ids);
    s->n += (int)n;
    return 0;
}

int ns_session_feed(ns_session *s, const int *ids, size_t n, ns_err *e)
{
    return ns_session_append(s, ids, n, e) == 0 ? catch_up(s, false, e) : -1;
}

int ns_session_next(ns_session *s, int *id, ns_err *e)
{
    if (s->n == 0)
        return ns_fail(e, NS_EINVAL, "nothing to continue: feed a prompt first");
    if (!s->has_logits && catch_up(s, true, e) != 0)
        return -1;
    if (!s->has_logits)
        return ns_fail(e, NS_EINVAL, "no logits after the last token: feed one");
    *id = ns_sampler_draw(&s->sampler, s->logits, s->ids, (size_t)s->n);
    if (ns_session_append(s, id, 1, e) != 0)
        return -1;
    s->has_logits = false;
    return 0;
}

const float *ns_session_logits(ns_session *s)
{
    if (s->n && !s->has_logits)
        catch_up(s, true, NULL);
    return s->has_logits ? s->logits : NULL;
}

const int *ns_session_tokens(const ns_session *s, size_t *n)
{
    *n = (size_t)s->n;
    return s->ids;
}

int ns_session_context(const ns_session *s)
{
    return s->state->context;
}

const char *ns_session_size(const ns_session *s)
{
    return s->name;
}

ns_stats ns_session_stats(const ns_session *s)
{
    return s->stats;
}

void ns_session_cancel(ns_session *s)
{
    s->cancel = 1;
}

/* ---- marks ---- */

int ns_session_mark(ns_session *s, int *mark, ns_err *e)
{
    if (catch_up(s, true, e) != 0)
        return -1;
    size_t vocab = (size_t)s->en->model.arch->vocab_size;
    struct ns_session_mark *list = realloc(s->marks, (size_t)(s->n_marks + 1) * sizeof *list);
    if (!list)
        return ns_fail(e, NS_ENOMEM, "mark: out of memory");
    s->marks = list;
    struct ns_session_mark m = { .state = ns_state_mark(s->state, e), .len = s->n };
    if (!m.state)
        return -1;
    if (s->has_logits) {
        if (!(m.logits = malloc(vocab * sizeof *m.logits))) {
            ns_mark_free(m.state);
            return ns_fail(e, NS_ENOMEM, "mark: out of memory");
        }
        memcpy(m.logits, s->logits, vocab * sizeof *m.logits);
    }
    *mark = s->n_marks;
    list[s->n_marks++] = m;
    return 0;
}

int ns_session_rewind(ns_session *s, int mark, ns_err *e)
{
    if (mark < 0 || mark >= s->n_marks)
        return ns_fail(e, NS_EINVAL, "rewind: no mark %d", mark);
    const struct ns_session_mark *m = &s->marks[mark];
    if (ns_state_rewind(s->state, m->state, e) != 0)
        return -1;
    ns_session_unfollow(s);
    s->n = m->len;
    s->has_logits = m->logits;
    if (m->logits)
        memcpy(s->logits, m->logits, (size_t)s->en->model.arch->vocab_size * sizeof *s->logits);
    ns_session_drop_marks(s, mark + 1);
    return 0;
}

int ns_session_sync(ns_session *s, const int *ids, size_t n, ns_err *e)
{
    int common = 0, mark = s->n_marks - 1;
    while (common < s->n && (size_t)common < n && s->ids[common] == ids[common])
        common++;
    if (common < s->n) { /* something must go */
        while (mark >= 0 && s->marks[mark].len > common)
            mark--;
        if (mark >= 0) {
            if (ns_session_rewind(s, mark, e) != 0)
                return -1;
        } else {
            ns_session_drop_marks(s, 0);
            ns_session_unfollow(s);
            ns_state_reset(s->state);
            s->n = 0;
            s->has_logits = false;
        }
    }
    /* The next prompt of a conversation usually parts from this one a few tokens before its end, where the template wrote the
     * opening of the answer: leave a mark there. It replaces the one before it. */
    int back = (int)n - MARK_BACK;
    if (back > s->n) {
        if (ns_session_append(s, ids + s->n, (size_t)(back - s->n), e) != 0 || catch_up(s, false, e) != 0)
            return -1;
        if (s->auto_mark >= 0 && s->auto_mark == s->n_marks - 1)
            ns_session_drop_marks(s, s->auto_mark);
        if (ns_session_mark(s, &s->auto_mark, e) != 0)
            return -1;
    }
    return ns_session_feed(s, ids + s->n, n - (size_t)s->n, e);
}

/* ---- files ---- */

/* The state file's extra bytes: the tokens not yet computed, after a count; then, when there are none, the logits of the last. */
int ns_session_save(const ns_session *s, const char *path, ns_err *e)
{
    ns_buf b = { 0 };
    int32_t pending = s->n - s->state->len;
    ns_buf_add(&b, &pending, sizeof pending);
    ns_buf_add(&b, s->ids + s->state->len, (size_t)pending * sizeof *s->ids);
    if (pending == 0 && s->has_logits)
        ns_buf_add(&b, s->logits, (size_t)s->en->model.arch->vocab_size * sizeof *s->logits);
    int rc = b.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", path) : ns_state_save_with(s->state, s->ids, b.data, b.len, path, e);
    ns_buf_release(&b);
    return rc;
}

static int take_extra(ns_session *s, const char *extra, size_t n, const char *path, ns_err *e)
{
    int32_t pending = -1;
    size_t logits = (size_t)s->en->model.arch->vocab_size * sizeof *s->logits;
    if (n >= sizeof pending)
        memcpy(&pending, extra, sizeof pending);
    if (pending < 0 || (size_t)pending > (n - sizeof pending) / sizeof *s->ids)
        return ns_fail(e, NS_EFORMAT, "%s: not a saved session", path);
    size_t left = n - sizeof pending - (size_t)pending * sizeof *s->ids;
    if (left != 0 && (left != logits || pending != 0))
        return ns_fail(e, NS_EFORMAT, "%s: not a saved session", path);
    int *ids = malloc(((size_t)pending + 1) * sizeof *ids);
    if (!ids)
        return ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    memcpy(ids, extra + sizeof pending, (size_t)pending * sizeof *ids);
    int rc = ns_session_append(s, ids, (size_t)pending, e);
    free(ids);
    if (rc == 0 && left) {
        memcpy(s->logits, extra + n - left, left);
        s->has_logits = true;
    }
    return rc;
}

int ns_session_load(ns_session *s, const char *path, ns_err *e)
{
    int *ids = NULL;
    void *extra = NULL;
    size_t n = 0;
    ns_session_drop_marks(s, 0);
    ns_session_unfollow(s);
    s->n = 0;
    s->has_logits = false;
    s->mixed = true;
    ns_state_reset(s->state);
    int rc = ns_state_load_with(s->state, path, &ids, &extra, &n, e), len = s->state->len;
    if (rc == 0)
        rc = ns_session_append(s, ids, (size_t)len, e);
    if (rc == 0)
        rc = take_extra(s, extra, n, path, e);
    if (rc != 0) {
        ns_state_reset(s->state);
        s->n = 0;
    }
    free(ids);
    free(extra);
    return rc;
}
