/* Problems as lines of training data. */
#include <jansson.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/rng.h"
#include "train/problems.h"

/* The markup up to the opened thought, as the chat template of the bundled text files writes it. */
static void add_prompt(ns_buf *b, const char *question)
{
    ns_buf_addf(b, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n", question);
}

/* The thought breaks off before byte `at`. */
static json_t *cut_line(const ns_problem *p, size_t at)
{
    ns_buf prompt = { 0 };
    json_t *o = NULL;
    add_prompt(&prompt, p->question.data);
    ns_buf_add(&prompt, p->thought.data, at);
    ns_buf_adds(&prompt, "\n</think>\n");
    if (!prompt.failed)
        o = json_pack("{s:s, s:s+}", "prompt", prompt.data, "completion", p->answer.data, "<|im_end|>\n");
    ns_buf_release(&prompt);
    return o;
}

static json_t *messages_line(const ns_problem *p, bool think)
{
    json_t *answer = json_pack("{s:s, s:s}", "role", "assistant", "content", p->answer.data);
    json_t *line = json_pack("{s:[{s:s, s:s}, O]}", "messages", "role", "user", "content", p->question.data, answer);
    if (think)
        json_object_set_new(answer, "reasoning_content", json_string(p->thought.data));
    else /* part of the prompt, then, and not of what is learnt */
        json_object_set_new(line, "enable_thinking", json_false());
    json_decref(answer);
    return line;
}

int ns_problem_line(const ns_problem_opts *o, uint64_t index, ns_problem *p, ns_buf *out, ns_err *e)
{
    ns_rng r; /* its own stream: the shares leave the problems as they are */
    if (ns_problem_make(o, index, p, e) != 0)
        return -1;
    ns_rng_init(&r, ~(o->seed * 0xa0761d6478bd642fu + index * 0xe7037ed1a0b428dbu));
    double u = ns_rng_uniform(&r);
    bool cut = u >= o->no_think && u < o->no_think + o->cut;
    size_t at = 1 + (size_t)(ns_rng_uniform(&r) * (double)(p->thought.len - 1));
    json_t *line = cut ? cut_line(p, at) : messages_line(p, u >= o->no_think);
    json_object_set_new(line, "answer", json_string(p->answer.data));
    json_object_set_new(line, "kind", json_string(ns_problem_kind_name(p->kind)));
    json_object_set_new(line, "level", json_integer(p->level));
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (text) {
        ns_buf_adds(out, text);
        ns_buf_addc(out, '\n');
    }
    int rc = !text || out->failed ? ns_fail(e, NS_ENOMEM, "problems: out of memory") : 0;
    free(text);
    return rc;
}

int ns_problems_write(const ns_problem_opts *o, uint64_t count, const char *path, ns_err *e)
{
    ns_outfile f = { 0 };
    ns_problem p = { 0 };
    ns_buf line = { 0 };
    int rc = ns_outfile_open(&f, path, e);
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        ns_buf_clear(&line);
        rc = ns_problem_line(o, i, &p, &line, e) == 0 ? ns_outfile_write(&f, line.data, line.len, e) : -1;
    }
    if (rc == 0)
        rc = ns_outfile_commit(&f, e);
    ns_outfile_release(&f);
    ns_problem_release(&p);
    ns_buf_release(&line);
    return rc;
}
