#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/json.h"
#include "serve/server_impl.h"

/* ---- sizes ---- */

/* The name of a size as a client writes it, checked, as the scheduler takes it. */
static int size_of(const ns_server *s, const char *name, const char *param, char out[64], ns_api_error *e)
{
    ns_cut cut = { 0 };
    ns_err why = { 0 };
    char resolved[64];
    const char *size = name;
    if (!name[0] || strcmp(name, s->o.model) == 0)
        size = s->o.size ? s->o.size : "auto";
    int rc = strcmp(size, "auto") == 0 ? 0 : ns_engine_cut(s->en, size, s->o.sched.context, &cut, resolved, sizeof resolved, &why);
    ns_cut_release(&cut);
    if (rc != 0 || strlen(size) >= 64)
        return ns_api_fail(e, 404, "model_not_found", param, "no size \"%s\" here: GET /v1/models lists them", name);
    memcpy(out, size, strlen(size) + 1);
    return 0;
}

static int choose_sizes(ns_call_job *j, const ns_server *s, const ns_api_request *r, ns_api_error *e)
{
    if (size_of(s, r->model, "model", j->size, e) != 0)
        return -1;
    j->job.size = j->size;
    if (!r->think[0] && !r->answer[0])
        return 0;
    if (size_of(s, r->think[0] ? r->think : r->model, "nestar.think", j->think, e) != 0 ||
        size_of(s, r->answer[0] ? r->answer : r->model, "nestar.answer", j->answer, e) != 0)
        return -1;
    j->segment[0] = (ns_segment){ NS_PHASE_THINK, 0, j->think };
    j->segment[1] = (ns_segment){ NS_PHASE_ANSWER, 0, j->answer };
    j->job.answer.segment = j->segment;
    j->job.answer.n_segments = 2;
    return 0;
}

static enum ns_handover handover_of(const char *name)
{
    int how = ns_handover_find(name, strlen(name)); /* -1 where the request says nothing: what is no name, its parser refused */
    return how < 0 ? NS_HANDOVER_AUTO : (enum ns_handover)how;
}

/* ---- the prompt ---- */

/* Tokens that this many bytes are at least: no token is longer than the longest of the vocabulary, and none there is over 512 bytes. */
enum { LONGEST_TOKEN = 512 };

static int too_long(const ns_server *s, const ns_api_request *r, size_t tokens, ns_api_error *e)
{
    return ns_api_fail(e, 400, "context_length_exceeded", r->chat ? "messages" : "prompt", "a prompt of %zu tokens or more: the context has %d",
                       tokens, s->o.sched.context);
}

/* The prompt's ids; more than the context has stand for a text that cannot fit, which then is not looked at any further. */
static int chat_ids(ns_call_job *j, const ns_server *s, const ns_api_request *r, size_t *least, ns_err *why)
{
    ns_prompt prompt;
    if (ns_server_render(s, r->chat, &prompt, why) != 0)
        return -1;
    *least = prompt.text.len / LONGEST_TOKEN;
    int rc = *least >= (size_t)s->o.sched.context ? 0 : ns_engine_prompt_ids(s->en, &prompt, &j->prompt, why);
    ns_prompt_release(&prompt);
    return rc;
}

static int text_ids(ns_call_job *j, const ns_server *s, const ns_api_request *r, size_t *least, ns_err *why)
{
    if (!s->en->tokenizer)
        return ns_fail(why, NS_EINVAL, "this checkpoint has no tokenizer: give ids");
    *least = r->n_prompt / LONGEST_TOKEN;
    return *least >= (size_t)s->o.sched.context ? 0 : ns_tokenizer_encode(s->en->tokenizer, r->prompt, r->n_prompt, true, &j->prompt, why);
}

static int read_prompt(ns_call_job *j, const ns_server *s, const ns_api_request *r, ns_api_error *e)
{
    ns_err why = { 0 };
    size_t least = 0;
    int rc = 0;
    if (r->chat)
        rc = chat_ids(j, s, r, &least, &why);
    else if (r->prompt)
        rc = text_ids(j, s, r, &least, &why);
    else
        ns_ids_append(&j->prompt, r->ids, r->n_ids);
    if (rc != 0)
        return ns_api_fail(e, why.code == NS_ENOMEM ? 500 : 400, NULL, r->chat ? "messages" : "prompt", "%s", why.msg);
    if (j->prompt.failed)
        return ns_api_fail(e, 500, NULL, NULL, "out of memory");
    least = j->prompt.len > least ? j->prompt.len : least;
    if (least >= (size_t)s->o.sched.context)
        return too_long(s, r, least, e);
    if (least == 0)
        return ns_api_fail(e, 400, NULL, "prompt", "the prompt is empty");
    j->job.ids = j->prompt.data;
    j->job.n_ids = j->prompt.len;
    return 0;
}

/* ---- the rest ---- */

static uint64_t fresh_seed(void)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint32_t)time(NULL);
    return seed; /* 32 bits: short enough to be typed again */
}

static ns_sampling sampling_of(const ns_server *s, const ns_api_request *r)
{
    ns_sampling a = ns_engine_sampling(s->en);
    a.temperature = isnan(r->temperature) ? a.temperature : r->temperature;
    a.top_p = isnan(r->top_p) ? a.top_p : r->top_p;
    a.min_p = isnan(r->min_p) ? a.min_p : r->min_p;
    a.repetition_penalty = isnan(r->repetition_penalty) ? a.repetition_penalty : r->repetition_penalty;
    a.top_k = r->top_k < 0 ? a.top_k : r->top_k;
    a.seed = r->has_seed ? r->seed : fresh_seed();
    return a;
}

static int read_grammar(ns_call_job *j, const ns_server *s, const ns_api_request *r, ns_api_error *e)
{
    const bool call = r->tool_choice == NS_API_TOOLS_REQUIRED || r->tool_choice == NS_API_TOOLS_NAMED;
    ns_err why = { 0 };
    if (!call && r->format == NS_API_TEXT)
        return 0;
    if (!s->vocab)
        return ns_api_fail(e, 400, NULL, "response_format", "this checkpoint has no tokenizer that fits its vocabulary: answers cannot be constrained");
    if (call)
        j->grammar = ns_grammar_call(r->tools, r->tool_choice == NS_API_TOOLS_NAMED ? r->tool_name : NULL, &why);
    else
        j->grammar = r->format == NS_API_JSON_OBJECT ? ns_grammar_object(&why) : ns_grammar_schema(r->schema, &why);
    return j->grammar ? 0 : ns_api_fail(e, 400, NULL, call ? "tools" : "response_format", "%s", why.msg);
}

static bool has_thoughts(const ns_server *s)
{
    return s->en->tokenizer && ns_tokenizer_find(s->en->tokenizer, "</think>", strlen("</think>")) >= 0;
}

int ns_call_job_init(ns_call_job *j, const ns_server *s, const ns_api_request *r, ns_api_error *e)
{
    *j = (ns_call_job){ 0 };
    j->job.answer = (ns_answer_opts){ .handover = handover_of(r->handover), .max_tokens = r->max_tokens, .deadline = r->deadline_ms / 1e3,
                                         .ignore_stop = r->ignore_eos };
    if (has_thoughts(s))
        j->job.answer.think_budget = !r->thinks ? NS_THINK_NONE : r->think_budget > 0 ? r->think_budget : NS_THINK_FREE;
    j->job.sampling = sampling_of(s, r);
    j->job.top_logprobs = r->logprobs ? r->top_logprobs : -1;
    if (choose_sizes(j, s, r, e) == 0 && read_prompt(j, s, r, e) == 0 && read_grammar(j, s, r, e) == 0)
        return 0;
    ns_call_job_release(j);
    return -1;
}

void ns_call_job_release(ns_call_job *j)
{
    ns_ids_release(&j->prompt);
    ns_grammar_free(j->grammar);
    *j = (ns_call_job){ 0 };
}
