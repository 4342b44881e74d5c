#include "eval/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "run/sampler.h"
#include "run/thought.h"

/* One sequence being answered. `text` is all of it: prompt, thought, what closed it, answer. `feed` holds the tokens not yet computed, from
 * `fed` on; the last of them is followed by a draw. */
struct slot {
    int prompt;         /* -1: free */
    int budget;         /* index of the next budget that the thought can reach */
    ns_thought thought, then; /* `then`: as it was when the budget closed it */
    ns_rng rng;         /* the same of the sampler's stream */
    ns_state *state, *second; /* `second` reads again what answers at another size; NULL while the cache is handed over */
    ns_mark *mark;      /* where a closed thought goes on, NULL */
    size_t mark_at;     /* length of the feed behind which the second state takes its mark; 0: none is to be taken */
    ns_mark *second_mark; /* the second state behind the thought but for its last token; NULL: it has read nothing */
    ns_ids text, feed;
    size_t n_prompt, answer_at, fed;
    float *logits;      /* [vocab] */
    ns_sampler sampler; /* idle when greedy */
    int n;              /* tokens in this step */
};

struct run {
    const ns_engine *en;
    const ns_cut *cut, *answer; /* the same pointer for one size */
    const ns_gen_opts *o;
    const ns_gen_io *io;
    ns_gen_stats *stats;
    ns_plan *plan, *answer_plan; /* answer_plan NULL: plan */
    bool again;         /* answers read their prefix again */
    ns_scratch *scratch;
    struct slot *slot;  /* [batch] */
    ns_item *item;      /* [batch] */
    float *logits;      /* [batch, vocab] */
    ns_thought_rule rule;
    int next;           /* prompt */
};

static int out_of_memory(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "answers: out of memory");
}

static int longest_thought(const struct run *r)
{
    return r->o->n_budgets ? r->o->budget[r->o->n_budgets - 1] + r->o->grace : 0;
}

/* ---- a sequence begins ---- */

/* An empty state with room for `need` tokens, kept from the prompt before where that had it. */
static int renew(const struct run *r, ns_state **s, const ns_cut *cut, int need, ns_err *e)
{
    if (*s && (*s)->context >= need) {
        ns_state_reset(*s);
        return 0;
    }
    ns_state_free(*s);
    return (*s = ns_state_new(r->en->model.arch, cut, need, e)) ? 0 : -1;
}

static int read_prompt(struct run *r, struct slot *s, int *need, ns_err *e)
{
    const ns_arch *a = r->en->model.arch;
    ns_ids_clear(&s->text);
    if (r->io->prompt(r->io->ctx, s->prompt, &s->text, e) != 0)
        return -1;
    if (s->text.failed)
        return out_of_memory(e);
    int64_t n = (int64_t)s->text.len + longest_thought(r) + (int64_t)r->rule.text.len + r->o->max_answer;
    if (s->text.len == 0)
        return ns_fail(e, NS_EINVAL, "prompt %d is empty", s->prompt);
    if (n > (a->max_position > 0 ? a->max_position : INT32_MAX))
        return ns_fail(e, NS_EINVAL, "prompt %d of %zu tokens, %d of thought and %d of answer are more than the model's %d positions",
                       s->prompt, s->text.len, longest_thought(r), r->o->max_answer, a->max_position);
    *need = (int)n;
    return 0;
}

static int turn_to_answer(struct run *r, struct slot *s, bool comes_back, ns_err *e);

static int start_sampler(struct run *r, struct slot *s, ns_err *e)
{
    if (!r->o->sampling)
        return 0;
    ns_sampling o = *r->o->sampling;
    o.seed += (uint64_t)s->prompt;
    ns_sampler_release(&s->sampler);
    return ns_sampler_init(&s->sampler, &o, r->en->model.arch->vocab_size, e);
}

static void forget_marks(struct slot *s)
{
    ns_mark_free(s->mark);
    ns_mark_free(s->second_mark);
    s->mark = s->second_mark = NULL;
    s->mark_at = 0;
}

/* Puts the next prompt into a free slot. */
static int begin(struct run *r, struct slot *s, ns_err *e)
{
    int need;
    s->prompt = r->next++;
    s->budget = 0;
    s->fed = 0;
    forget_marks(s);
    if (read_prompt(r, s, &need, e) != 0 || start_sampler(r, s, e) != 0 || renew(r, &s->state, r->cut, need, e) != 0 ||
        (r->again && renew(r, &s->second, r->answer, need, e) != 0))
        return -1;
    r->stats->prompt_tokens += s->text.len;
    s->n_prompt = s->answer_at = s->text.len;
    ns_ids_clear(&s->feed);
    ns_ids_append(&s->feed, s->text.data, s->text.len);
    s->thought = (ns_thought){ .phase = NS_PHASE_ANSWER };
    if (r->o->n_budgets)
        ns_thought_begin(&s->thought, &r->rule, r->en->tokenizer, r->o->budget[0], s->text.data, s->text.len);
    if (s->thought.phase == NS_PHASE_ANSWER && !s->thought.may_open) /* the prompt left no thought open */
        return turn_to_answer(r, s, false, e);
    return s->feed.failed ? out_of_memory(e) : 0;
}

/* ---- a sequence ends, or comes back ---- */

/* One answer for the budgets first .. last. */
static int report(struct run *r, const struct slot *s, int first, int last, bool ended, ns_err *e)
{
    ns_gen_answer a = { .prompt = s->prompt, .thought = s->text.data + s->n_prompt, .ids = s->text.data + s->answer_at,
                        .n_thought = s->thought.n, .n_ids = (int)(s->text.len - s->answer_at), .closed = s->thought.closed, .ended = ended };
    for (a.budget = first; a.budget <= last; a.budget++)
        if (r->io->answer(r->io->ctx, &a, e) != 0)
            return -1;
    return 0;
}

/* The last budget that the thought, as it was, has come to the end of: with a grace one line break can be the end of several. */
static int last_due(const struct run *r, const struct slot *s)
{
    int i = s->budget;
    while (i + 1 < r->o->n_budgets && ns_thought_due(&s->then, &r->rule, r->o->budget[i + 1]))
        i++;
    return i;
}

/* Back to the mark, to think on towards the budget `next`. */
static int think_on(struct run *r, struct slot *s, int next, ns_err *e)
{
    if (ns_state_rewind(s->state, s->mark, e) != 0)
        return -1;
    ns_mark_free(s->mark);
    s->mark = NULL;
    if (s->second_mark && ns_state_rewind(s->second, s->second_mark, e) != 0)
        return -1;
    ns_mark_free(s->second_mark);
    s->second_mark = NULL;
    s->mark_at = 0;
    s->thought = s->then;
    s->thought.budget = r->o->budget[next];
    s->budget = next;
    s->sampler.rng = s->rng;
    s->text.len = s->n_prompt + (size_t)s->thought.n;
    s->fed = 0;
    ns_ids_clear(&s->feed);
    ns_ids_add(&s->feed, s->text.data[s->text.len - 1]);
    return 0;
}

/* The answer is complete. */
static int finish(struct run *r, struct slot *s, bool ended, ns_err *e)
{
    int last = r->o->n_budgets ? r->o->n_budgets - 1 : 0, upto = s->thought.closed ? last_due(r, s) : last;
    if (report(r, s, s->budget, upto, ended, e) != 0)
        return -1;
    if (upto < last)
        return think_on(r, s, upto + 1, e);
    s->prompt = -1;
    return 0;
}

/* ---- from the thought to the answer ---- */

/* What is not computed yet goes to the size that answers; where that reads for itself, all that its state lacks goes before it. If the
 * sequence comes back, marks are taken: of the thought's state now, of the second one when it has read the thought but for its last token. */
static int turn_to_answer(struct run *r, struct slot *s, bool comes_back, ns_err *e)
{
    if (comes_back && !(s->mark = ns_state_mark(s->state, e)))
        return -1;
    if (r->again) {
        size_t has = (size_t)s->second->len, thought = s->n_prompt + (size_t)s->thought.n;
        s->fed = 0;
        ns_ids_clear(&s->feed);
        ns_ids_append(&s->feed, s->text.data + has, s->text.len - has);
        s->mark_at = comes_back ? thought - 1 - has : 0;
        if (comes_back && s->mark_at == 0 && !(s->second_mark = ns_state_mark(s->second, e)))
            return -1;
    }
    return s->feed.failed ? out_of_memory(e) : 0;
}

/* The thought has come to the end of its budget: its last token and the closing marks are to be computed; the mark lies before them. */
static int close_thought(struct run *r, struct slot *s, ns_err *e)
{
    const int *ids;
    size_t n;
    s->then = s->thought;
    s->rng = s->sampler.rng;
    ns_thought_close(&s->thought, &r->rule, &ids, &n);
    ns_ids_append(&s->text, ids, n);
    ns_ids_append(&s->feed, ids, n);
    if (s->text.failed)
        return out_of_memory(e);
    s->answer_at = s->text.len;
    r->stats->tokens += n;
    return turn_to_answer(r, s, last_due(r, s) + 1 < r->o->n_budgets, e);
}

/* A token was drawn. */
static int take(struct run *r, struct slot *s, int id, ns_err *e)
{
    const char *bytes = "";
    size_t n = 0;
    bool answering = s->thought.phase == NS_PHASE_ANSWER, open = s->thought.may_open;
    r->stats->tokens++;
    if (ns_engine_is_stop(r->en, id)) {
        s->answer_at = answering ? s->answer_at : s->text.len;
        return finish(r, s, true, e);
    }
    s->fed = 0;
    ns_ids_clear(&s->feed);
    ns_ids_add(&s->feed, id);
    ns_ids_add(&s->text, id);
    if (s->feed.failed || s->text.failed)
        return out_of_memory(e);
    if (r->o->n_budgets)
        ns_tokenizer_bytes(r->en->tokenizer, id, &bytes, &n);
    enum ns_thought_step step = r->o->n_budgets ? ns_thought_take(&s->thought, &r->rule, id, bytes, n) : NS_THOUGHT_ON;
    if (step == NS_THOUGHT_CLOSE)
        return close_thought(r, s, e);
    if (answering && s->thought.phase == NS_PHASE_THINK) { /* the model opened a thought itself: what led to it counts as prompt */
        s->n_prompt = s->text.len;
        return 0;
    }
    if (step == NS_THOUGHT_OVER)
        s->answer_at = s->text.len;
    if (answering && (int)(s->text.len - s->answer_at) >= r->o->max_answer)
        return finish(r, s, false, e);
    return step == NS_THOUGHT_OVER || (open && !s->thought.may_open) ? turn_to_answer(r, s, false, e) : 0;
}

/* ---- steps ---- */

/* The first of the largest. */
static int greedy(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static int draw(struct run *r, struct slot *s)
{
    return r->o->sampling ? ns_sampler_draw(&s->sampler, s->logits, s->text.data, s->text.len) : greedy(s->logits, r->en->model.arch->vocab_size);
}

static bool answers(const struct slot *s)
{
    return s->thought.phase == NS_PHASE_ANSWER && !s->thought.may_open;
}

/* Tokens of the feed that go into one step: a mark to be taken ends it. */
static size_t stretch(const struct slot *s)
{
    return (s->fed < s->mark_at ? s->mark_at : s->feed.len) - s->fed;
}

/* One forward pass over the sequences that think, or over those that answer, as far as a step's tokens reach. */
static int forward(struct run *r, const ns_plan *plan, bool all, bool answering, ns_err *e)
{
    int room = NS_STEP_TOKENS, n = 0;
    for (int i = 0; i < r->o->batch; i++) {
        struct slot *s = &r->slot[i];
        if (s->prompt < 0 || room == 0 || !(all || answers(s) == answering))
            continue;
        size_t left = stretch(s);
        s->n = left < (size_t)room ? (int)left : room;
        room -= s->n;
        r->item[n++] = (ns_item){ .state = answers(s) && r->again ? s->second : s->state, .ids = s->feed.data + s->fed, .n = s->n,
                                  .n_logits = s->fed + (size_t)s->n == s->feed.len, .logits = s->logits };
    }
    return n ? ns_forward(plan, r->item, n, r->scratch, NULL, e) : 0;
}

/* What a step led to. */
static int follow(struct run *r, struct slot *s, ns_err *e)
{
    s->fed += (size_t)s->n;
    if (s->mark_at && s->fed == s->mark_at) {
        s->mark_at = 0;
        if (!(s->second_mark = ns_state_mark(s->second, e)))
            return -1;
    }
    return s->fed == s->feed.len ? take(r, s, draw(r, s), e) : 0;
}

static int compute(struct run *r, ns_err *e)
{
    for (int i = 0; i < r->o->batch; i++)
        r->slot[i].n = 0;
    if (forward(r, r->plan, !r->answer_plan, false, e) != 0 || (r->answer_plan && forward(r, r->answer_plan, false, true, e) != 0))
        return -1;
    for (int i = 0; i < r->o->batch; i++)
        if (r->slot[i].n > 0 && follow(r, &r->slot[i], e) != 0)
            return -1;
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

/* ---- before and after ---- */

static int prepare_close(struct run *r, ns_err *e)
{
    ns_buf text = { 0 };
    if (!r->en->tokenizer)
        return ns_fail(e, NS_EINVAL, "%s: no tokenizer.json in this checkpoint", r->en->ckpt->dir);
    int rc = r->o->close ? 0 : ns_engine_close_text(r->en, &text, e);
    if (rc == 0)
        rc = ns_thought_rule_init(&r->rule, r->en->tokenizer, r->o->close ? r->o->close : text.data, r->o->grace, e);
    ns_buf_release(&text);
    if (rc == 0 && r->rule.close < 0)
        rc = ns_fail(e, NS_EINVAL, "%s/tokenizer.json: no token </think>, thoughts cannot be measured", r->en->ckpt->dir);
    return rc;
}

static int prepare_sizes(struct run *r, ns_err *e)
{
    enum ns_handover how = r->o->handover;
    if (r->o->answer && !r->o->n_budgets)
        r->cut = r->o->answer;
    if (!(r->plan = ns_plan_new(&r->en->model, r->cut, e)))
        return -1;
    r->answer = r->o->answer && !ns_cut_equal(r->o->answer, r->cut) ? r->o->answer : r->cut;
    if (r->answer == r->cut)
        return 0;
    if (ns_engine_handover(r->en, r->cut, r->answer, how, &how, e) != 0)
        return ns_err_wrap(e, "the size that answers");
    r->again = how != NS_HANDOVER_CACHE;
    r->stats->handover = r->again ? NS_HANDOVER_PREFILL : NS_HANDOVER_CACHE;
    return (r->answer_plan = ns_plan_new(&r->en->model, r->answer, e)) ? 0 : -1;
}

static int prepare(struct run *r, ns_err *e)
{
    size_t batch = (size_t)r->o->batch, vocab = (size_t)r->en->model.arch->vocab_size, bytes;
    if ((r->o->n_budgets && prepare_close(r, e) != 0) || prepare_sizes(r, e) != 0)
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
        forget_marks(s);
        ns_state_free(s->state);
        ns_state_free(s->second);
        ns_sampler_release(&s->sampler);
        ns_ids_release(&s->feed);
        ns_ids_release(&s->text);
    }
    free(r->slot);
    free(r->item);
    free(r->logits);
    ns_scratch_free(r->scratch);
    ns_plan_free(r->plan);
    ns_plan_free(r->answer_plan);
    ns_thought_rule_release(&r->rule);
}

static int check(const ns_gen_opts *o, ns_err *e)
{
    if (o->batch < 1 || o->batch > NS_STEP_TOKENS)
        return ns_fail(e, NS_EINVAL, "batch %d: expected 1..%d sequences", o->batch, NS_STEP_TOKENS);
    if (o->max_answer < 1)
        return ns_fail(e, NS_EINVAL, "an answer of at most %d tokens is none", o->max_answer);
    if (o->grace < 0)
        return ns_fail(e, NS_EINVAL, "a grace of %d tokens", o->grace);
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
