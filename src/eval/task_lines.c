/* Readers of tasks that come as JSONL. */
#include <limits.h>
#include <string.h>

#include "eval/task_kind.h"

static int missing(const char *keys, ns_err *e)
{
    return ns_fail(e, NS_EFORMAT, "key %s is missing", keys);
}

static bool is_assistant(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

/* The messages without the solution. */
static json_t *asked(const json_t *messages, ns_err *e)
{
    if (!json_is_array(messages)) {
        ns_fail(e, NS_EFORMAT, "expected \"messages\" (an array) or \"question\" (a string)");
        return NULL;
    }
    json_t *copy = json_copy((json_t *)(uintptr_t)messages);
    while (json_array_size(copy) && is_assistant(json_array_get(copy, json_array_size(copy) - 1)))
        json_array_remove(copy, json_array_size(copy) - 1);
    if (json_array_size(copy))
        return copy;
    ns_fail(e, NS_EFORMAT, "\"messages\" asks nothing");
    json_decref(copy);
    return NULL;
}

int ns_read_own(ns_task_reader *r, const json_t *line, ns_err *e)
{
    ns_problem p = { 0 };
    int64_t level;
    if (ns_json_str(line, "answer", NULL, &p.answer, e) != 0 || ns_json_str(line, "kind", NULL, &p.kind, e) != 0 ||
        ns_json_int(line, "level", 0, INT_MAX, -1, &level, e) != 0)
        return -1;
    if (!p.answer)
        return missing("\"answer\"", e);
    if (ns_answer_trim(p.answer, strlen(p.answer)).n == 0)
        return ns_fail(e, NS_EFORMAT, "key \"answer\" is empty");
    p.level = (int)level;
    p.question = json_string_value(json_object_get(line, "question"));
    json_t *messages = p.question ? NULL : asked(json_object_get(line, "messages"), e);
    if (!p.question && !messages)
        return -1;
    p.messages = messages;
    int rc = ns_task_add(r, &p, e);
    json_decref(messages);
    return rc;
}

/* "id", "key", "unique_id" or "question_id", a string or a number. */
static const char *key_of(const json_t *line, char *buf, size_t cap)
{
    static const char *const names[] = { "id", "key", "unique_id", "question_id" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = json_object_get(line, names[i]);
        if (json_is_string(v))
            return json_string_value(v);
        if (json_is_integer(v)) {
            snprintf(buf, cap, "%lld", (long long)json_integer_value(v));
            return buf;
        }
    }
    return NULL;
}

int ns_read_gsm8k(ns_task_reader *r, const json_t *line, ns_err *e)
{
    const char *solution;
    ns_problem p = { .level = -1 };
    ns_buf number = { 0 };
    if (ns_json_str(line, "question", NULL, &p.question, e) != 0 || ns_json_str(line, "answer", NULL, &solution, e) != 0)
        return -1;
    if (!p.question || !solution)
        return missing("\"question\" or \"answer\"", e);
    const char *mark = strstr(solution, "####");
    if (!mark || !ns_number_canonical((ns_text){ mark + 4, strlen(mark + 4) }, &number)) {
        ns_buf_release(&number);
        return ns_fail(e, NS_EFORMAT, "key \"answer\": no number behind ####");
    }
    p.answer = number.data;
    int rc = ns_task_add(r, &p, e);
    ns_buf_release(&number);
    return rc;
}

static const char *first(const json_t *line, const char *const *names)
{
    for (; *names; names++)
        if (json_is_string(json_object_get(line, *names)) && *json_string_value(json_object_get(line, *names)))
            return json_string_value(json_object_get(line, *names));
    return NULL;
}

int ns_read_aime(ns_task_reader *r, const json_t *line, ns_err *e)
{
    static const char *const questions[] = { "problem", "question", NULL }, *const answers[] = { "answer", "expected_answer", NULL };
    char key[32], number[32];
    ns_problem p = { .level = -1, .question = first(line, questions), .answer = first(line, answers), .key = key_of(line, key, sizeof key) };
    const json_t *n = json_object_get(line, "answer");
    if (!p.answer && json_is_integer(n)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(n));
        p.answer = number;
    }
    if (!p.question || !p.answer)
        return missing("\"problem\" or \"answer\"", e);
    ns_text t = ns_answer_trim(p.answer, strlen(p.answer));
    if (t.n < 1 || t.n > 3 || strspn(t.p, "0123456789") < t.n)
        return ns_fail(e, NS_EFORMAT, "key \"answer\": \"%s\" is no integer from 0 to 999", p.answer);
    return ns_task_add(r, &p, e);
}

/* "answer" is the answer, or a solution with a box in it. */
int ns_read_math(ns_task_reader *r, const json_t *line, ns_err *e)
{
    static const char *const questions[] = { "problem", "question", NULL }, *const answers[] = { "answer", "solution", NULL };
    char key[32];
    ns_buf boxed = { 0 };
    int64_t level;
    ns_problem p = { .question = first(line, questions), .answer = first(line, answers), .key = key_of(line, key, sizeof key) };
    if (ns_json_str(line, "subject", NULL, &p.kind, e) != 0)
        return -1;
    const json_t *l = json_object_get(line, "level");
    if (ns_json_int(json_is_integer(l) ? line : NULL, "level", 0, INT_MAX, -1, &level, e) != 0)
        return -1;
    p.level = (int)level;
    if (!p.question || !p.answer)
        return missing("\"problem\" or \"answer\"", e);
    ns_text box = ns_boxed_last((ns_text){ p.answer, strlen(p.answer) });
    ns_buf_add(&boxed, box.p ? box.p : p.answer, box.p ? box.n : strlen(p.answer));
    p.answer = boxed.data;
    int rc = boxed.failed ? ns_fail(e, NS_ENOMEM, "out of memory") : ns_task_add(r, &p, e);
    ns_buf_release(&boxed);
    return rc;
}

int ns_read_mmlu_pro(ns_task_reader *r, const json_t *line, ns_err *e)
{
    char key[32];
    ns_problem p = { .level = -1, .key = key_of(line, key, sizeof key) };
    const char *question;
    const json_t *options = json_object_get(line, "options");
    size_t n = json_array_size(options), i;
    json_t *o;
    ns_buf text = { 0 };
    if (ns_json_str(line, "question", NULL, &question, e) != 0 || ns_json_str(line, "answer", NULL, &p.answer, e) != 0 ||
        ns_json_str(line, "category", NULL, &p.kind, e) != 0)
        return -1;
    if (!question || !p.answer)
        return missing("\"question\" or \"answer\"", e);
    if (n < 1 || n > 10) /* the published list has a few with one */
        return ns_fail(e, NS_EFORMAT, "key \"options\": %zu choices, expected 1 to 10", n);
    if (strlen(p.answer) != 1 || *p.answer < 'A' || *p.answer >= 'A' + (int)n)
        return ns_fail(e, NS_EFORMAT, "key \"answer\": \"%s\" is not the letter of one of %zu choices", p.answer, n);
    ns_buf_addf(&text, "%s\n", question);
    json_array_foreach((json_t *)(uintptr_t)options, i, o) {
        if (!json_is_string(o)) {
            ns_buf_release(&text);
            return ns_fail(e, NS_EFORMAT, "key \"options\": choice %zu is no string", i + 1);
        }
        ns_buf_addf(&text, "\n(%c) %s", (char)('A' + (int)i), json_string_value(o));
    }
    p.question = text.data;
    int rc = text.failed ? ns_fail(e, NS_ENOMEM, "out of memory") : ns_task_add(r, &p, e);
    ns_buf_release(&text);
    return rc;
}

/* IFEval and IFBench: the instructions are part of the prompt, and listed beside it for the grader. */
int ns_read_instructions(ns_task_reader *r, const json_t *line, ns_err *e)
{
    char key[32];
    ns_problem p = { .level = -1, .key = key_of(line, key, sizeof key) };
    json_t *ids = json_object_get(line, "instruction_id_list"), *kwargs = json_object_get(line, "kwargs"), *id;
    size_t i;
    if (ns_json_str(line, "prompt", NULL, &p.question, e) != 0)
        return -1;
    if (!p.question)
        return missing("\"prompt\"", e);
    if (!json_array_size(ids) || json_array_size(kwargs) != json_array_size(ids))
        return ns_fail(e, NS_EFORMAT, "keys \"instruction_id_list\" and \"kwargs\": expected arrays of one length");
    json_array_foreach(ids, i, id)
        if (!json_is_string(id) || !json_is_object(json_array_get(kwargs, i)))
            return ns_fail(e, NS_EFORMAT, "instruction %zu: expected an id and an object of arguments", i + 1);
    json_t *check = json_pack("{s:s, s:O, s:O}", "prompt", p.question, "ids", ids, "kwargs", kwargs);
    p.check = check;
    p.kind = json_array_size(ids) == 1 ? json_string_value(json_array_get(ids, 0)) : "several instructions";
    int rc = check ? ns_task_add(r, &p, e) : ns_fail(e, NS_ENOMEM, "out of memory");
    json_decref(check);
    return rc;
}
