#include "eval/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* One sequence being answered. `feed` holds the tokens not yet computed, from `fed` on; the last of them is followed by a draw. */
struct slot {
    int prompt;         /* -1: free */
    int budget;         /* index of the next budget that the thought can reach */
    bool answering, closed;
    ns_state *state;
    ns_mark *mark;      /* where a closed thought goes on, NULL */
    ns_ids feed, thought, answer;
    size_t fed;
    float *logits;      /* [vocab] */
    int n;              /* tokens in this step */
};

struct run {
    const ns_engine *en;
    const ns_cut *cut;
    const ns_gen_opts *o;
    const ns_gen_io *io;
    ns_gen_stats *stats;
    ns_plan *plan;
    ns_scratch *scratch;
    struct slot *slot;  /* [batch] */
    ns_item *item;      /* [batch] */
    float *logits;      /* [batch, vocab] */
    ns_ids close;       /* what closes a thought */
    int close_id;       /* "</think>" itself */
    int next;           /* prompt */
};

static int out_of_memory(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "answers: out of memory");
}

static int longest_thought(const struct run *r)
{
    return r->o->n_budgets ? r->o->budget[r->o->n_budgets - 1] : 0;
}

/* Puts the next prompt into a free slot. */
static int begin(struct run *r, struct slot *s, ns_err *e)
{
    const ns_arch *a = r->en->model.arch;
    s->prompt = r->next++;
    s->budget = 0;
    s->answering = r->o->n_budgets == 0;
    s->closed = false;
    s->fed = 0;
    ns_ids_clear(&s->feed);
    ns_ids_clear(&s->thought);
    ns_ids_clear(&s->answer);
    if (r->io->prompt(r->io->ctx, s->prompt, &s->feed, e) != 0)
        return -1;
    if (s->feed.failed)
        return out_of_memory(e);
    int64_t need = (int64_t)s->feed.len + longest_thought(r) + (int64_t)r->close.len + r->o->max_answer;
    if (s->feed.len == 0)
        return ns_fail(e, NS_EINVAL, "prompt %d is empty", s->prompt);
    if (need > (a->max_position > 0 ? a->max_position : INT32_MAX))
        return ns_fail(e, NS_EINVAL, "prompt %d of %zu tokens, %d of thought and %d of answer are more than the model's %d positions",
                       s->prompt, s->feed.len, longest_thought(r), r->o->max_answer, a->max_position);
    r->stats->prompt_tokens += s->feed.len;
    if (s->state && s->state->context >= need) {
        ns_state_reset(s->state);
        return 0;
    }
    ns_state_free(s->state);
    return (s->state = ns_model_state(&r->en->model, r->cut, (int)need, e)) ? 0 : -1;
}

/* One answer for the budgets first .. last. */
static int report(struct run *r, const struct slot *s, int first, int last, bool ended, ns_err *e)
{
    ns_gen_answer a = { .prompt = s->prompt, .thought = s->thought.data, .ids = s->answer.data, .n_thought = (int)s->thought.len,
                        .n_ids = (int)s->answer.len, .closed = s->closed, .ended = ended };
    for (a.budget = first; a.budget <= last; a.budget++)
        if (r->io->answer(r->io->ctx, &a, e) != 0)
            return -1;
    return 0;
}

/* The answer is complete. */
static int finish(struct run *r, struct slot *s, bool ended, ns_err *e)
{
    int last = r->o->n_budgets ? r->o->n_budgets - 1 : 0, upto = s->closed ? s->budget : last;
    if (report(r, s, s->budget, upto, ended, e) != 0)
        return -1;
    if (upto == last) {
        s->prompt = -1;
        return 0;
    }
    if (ns_state_rewind(s->state, s->mark, e) != 0) /* and thinks on */
        return -1;
    ns_mark_free(s->mark);
    s->mark = NULL;
    s->budget = upto + 1;
    s->answering = s->closed = false;
    s->fed = 0;
    ns_ids_clear(&s->answer);
    ns_ids_clear(&s->feed);
    ns_ids_add(&s->feed, s->thought.data[s->thought.len - 1]);
    return 0;
}

static void follow(struct slot *s, int id)
{
    s->fed = 0;
    ns_ids_clear(&s->feed);
    ns_ids_add(&s->feed, id);
}

/* The thought is as long as its budget: the last token of it and the closing marks are to be computed; the mark lies before them. */
static int close_thought(struct run *r, struct slot *s, ns_err *e)
{
    if (s->budget + 1 < r->o->n_budgets && !(s->mark = ns_state_mark(s->state, e)))
        return -1;
    ns_ids_append(&s->feed, r->close.data, r->close.len);
    r->stats->tokens += r->close.len;
    s->answering = s->closed = true;
    return 0;
}

/* A token was drawn. */
static int take(struct run *r, struct slot *s, int id, ns_err *e)
{
    bool stop = ns_engine_is_stop(r->en, id);
    r->stats->tokens++;
    if (stop)
        return finish(r, s, true, e);
    follow(s, id);
    if (s->answering) {
        ns_ids_add(&s->answer, id);
        if ((int)s->answer.len >= r->o->max_answer)
            return finish(r, s, false, e);
    } else if (id == r->close_id) {
        s->answering = true;
    } else {
        ns_ids_add(&s->thought, id);
        if ((int)s->thought.len == r->o->budget[s->budget] && close_thought(r, s, e) != 0)
            return -1;
    }
    return s->feed.failed || s->answer.failed || s->thought.failed ? out_of_memory(e) : 0;
}

/* The first of the largest. */
static int greedy(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* One forward pass over all sequences, as far as a step's tokens reach. */
static int compute(struct run *r, ns_err *e)
{
    int room = NS_STEP_TOKENS, n = 0;
    for (int i = 0; i < r->o->batch; i++) {
        struct slot *s = &r->slot[i];
        size_t left = s->feed.len - s->fed;
        s->n = s->prompt < 0 ? 0 : left < (size_t)room ? (int)left : room;
        room -= s->n;
        if (s->n > 0)
            r->item[n++] = (ns_item){ .state = s->state, .ids = s->feed.data + s->fed, .n = s->n, .n_logits = (size_t)s->n == left,
                                      .logits = s->logits };
    }
    if (ns_forward(r->plan, r->item, n, r->scratch, NULL, e) != 0)
        return -1;
    for (int i = 0; i < r->o->batch; i++) {
        struct slot *s = &r->slot[i];
        if (s->n == 0)
            continue;
        s->fed += (size_t)s->n;
        if (s->fed == s->feed.len && take(r, s, greedy(s->logits, r->en->model.arch->vocab_size), e) != 0)
            return -1;
    }
    return 0;
}

static int work(struct run *r, ns_err *e)
{
    for (;;) {
        int busy = 0;
        for (int i = 0; i < r->o->batch; i++) {
            if (r->slot[i].prompt < 0 && r->next < r->io->n_prompts && begin(r, &r->slot[i], e) != 0)
                return -1;
            busy += r->slot[i].prompt >= 0;
        }
        r->stats->interrupted = r->o->interrupted && *r->o->interrupted;
        if (!busy || r->stats->interrupted)
            return 0;
        if (compute(r, e) != 0)
            return -1;
    }
}

static int prepare_close(struct run *r, ns_err *e)
{
    static const char close[] = "\n</think>\n";
    if (!r->en->tokenizer)
        return ns_fail(e, NS_EINVAL, "%s: no tokenizer.json in this checkpoint", r->en->ckpt->dir);
    r->close_id = ns_tokenizer_find(r->en->tokenizer, "</think>", 8);
    if (r->close_id < 0)
        return ns_fail(e, NS_EINVAL, "%s/tokenizer.json: no token </think>, thoughts cannot be measured", r->en->ckpt->dir);
    return ns_tokenizer_encode(r->en->tokenizer, close, sizeof close - 1, true, &r->close, e);
}

static int prepare(struct run *r, ns_err *e)
{
    size_t batch = (size_t)r->o->batch, vocab = (size_t)r->en->model.arch->vocab_size, bytes;
    if (r->o->n_budgets && prepare_close(r, e) != 0)
        return -1;
    if (!(r->plan = ns_plan_new(&r->en->model, r->cut, e)))
        return -1;
    r->slot = calloc(batch, sizeof *r->slot);
    r->item = calloc(batch, sizeof *r->item);
    r->logits = ns_mul_size(vocab, batch * sizeof *r->logits, &bytes) ? malloc(bytes) : NULL;
    r->scratch = ns_scratch_new();
    if (!r->slot || !r->item || !r->logits || !r->scratch)
        return out_of_memory(e);
    for (size_t i = 0; i < batch; i++) {
        r->slot[i].prompt = -1;
        r->slot[i].logits = r->logits + i * vocab;
    }
    return 0;
}

static void release(struct run *r)
{
    for (int i = 0; r->slot && i < r->o->batch; i++) {
        struct slot *s = &r->slot[i];
        ns_mark_free(s->mark);
        ns_state_free(s->state);
        ns_ids_release(&s->feed);
        ns_ids_release(&s->thought);
        ns_ids_release(&s->answer);
    }
    free(r->slot);
    free(r->item);
    free(r->logits);
    ns_scratch_free(r->scratch);
    ns_plan_free(r->plan);
    ns_ids_release(&r->close);
}

static int check(const ns_gen_opts *o, ns_err *e)
{
    if (o->batch < 1 || o->batch > NS_STEP_TOKENS)
        return ns_fail(e, NS_EINVAL, "batch %d: expected 1..%d sequences", o->batch, NS_STEP_TOKENS);
    if (o->max_answer < 1)
        return ns_fail(e, NS_EINVAL, "an answer of at most %d tokens is none", o->max_answer);
    for (int i = 0; i < o->n_budgets; i++)
        if (o->budget[i] < 1 || (i && o->budget[i] <= o->budget[i - 1]))
            return ns_fail(e, NS_EINVAL, "budgets of thought must ascend from 1 on; number %d is %d", i, o->budget[i]);
    return 0;
}

int ns_gen_run(const ns_engine *en, const ns_cut *cut, const ns_gen_opts *o, const ns_gen_io *io, ns_gen_stats *stats, ns_err *e)
{
    struct run r = { .en = en, .cut = cut, .o = o, .io = io, .stats = stats };
    double start = ns_now();
    *stats = (ns_gen_stats){ 0 };
    if (check(o, e) != 0)
        return -1;
    int rc = prepare(&r, e);
    if (rc == 0)
        rc = work(&r, e);
    stats->seconds = ns_now() - start;
    release(&r);
    return rc;
}
