#include "eval/task.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/score.h"

static bool is_assistant(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

static json_t *asked(const json_t *line, ns_err *e)
{
    json_t *messages = json_object_get(line, "messages"), *question = json_object_get(line, "question");
    if (json_is_string(question))
        return json_pack("[{s:s, s:O}]", "role", "user", "content", question);
    if (!json_is_array(messages)) {
        ns_fail(e, NS_EFORMAT, "expected \"messages\" (an array) or \"question\" (a string)");
        return NULL;
    }
    json_t *copy = json_copy(messages);
    while (json_array_size(copy) && is_assistant(json_array_get(copy, json_array_size(copy) - 1)))
        json_array_remove(copy, json_array_size(copy) - 1);
    if (!json_array_size(copy)) {
        ns_fail(e, NS_EFORMAT, "\"messages\" asks nothing");
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static int read_item(const json_t *line, ns_task_item *out, ns_err *e)
{
    const char *answer, *kind;
    int64_t level;
    if (!json_is_object(line))
        return ns_fail(e, NS_EFORMAT, "expected an object");
    if (ns_json_str(line, "answer", NULL, &answer, e) != 0 || ns_json_str(line, "kind", NULL, &kind, e) != 0 ||
        ns_json_int(line, "level", 0, INT_MAX, -1, &level, e) != 0)
        return -1;
    if (!answer)
        return ns_fail(e, NS_EFORMAT, "key \"answer\" is missing");
    ns_text t = ns_answer_trim(answer, strlen(answer));
    if (t.n == 0)
        return ns_fail(e, NS_EFORMAT, "key \"answer\" is empty");
    if (!(out->messages = asked(line, e)))
        return -1;
    out->level = (int)level;
    out->answer = strndup(t.p, t.n);
    out->kind = kind ? strdup(kind) : NULL;
    return !out->answer || (kind && !out->kind) ? ns_fail(e, NS_ENOMEM, "out of memory") : 0;
}

static int add_line(ns_task *t, const char *text, size_t n, ns_err *e)
{
    if (ns_answer_trim(text, n).n == 0)
        return 0;
    ns_task_item *list = realloc(t->item, (size_t)(t->n + 1) * sizeof *list);
    if (!list)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    t->item = list;
    list[t->n] = (ns_task_item){ 0 };
    json_t *line = ns_json_parse(text, n, false, "JSON", e);
    if (!line)
        return -1;
    int rc = read_item(line, &list[t->n++], e);
    json_decref(line);
    return rc;
}

int ns_task_open(const char *path, int limit, ns_task *t, ns_err *e)
{
    char *text = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    int rc = 0;
    *t = (ns_task){ 0 };
    FILE *f = fopen(path, "re");
    if (!f)
        return ns_fail_errno(e, "%s", path);
    while (rc == 0 && (limit == 0 || t->n < limit) && (n = getline(&text, &cap, f)) >= 0) {
        number++;
        if ((rc = add_line(t, text, (size_t)n, e)) != 0)
            ns_err_wrap(e, "%s:%zu", path, number);
    }
    if (rc == 0 && ferror(f))
        rc = ns_fail_errno(e, "%s", path);
    if (rc == 0 && t->n == 0)
        rc = ns_fail(e, NS_EFORMAT, "%s: no problem in it", path);
    free(text);
    fclose(f);
    if (rc != 0)
        ns_task_release(t);
    return rc;
}

void ns_task_release(ns_task *t)
{
    for (int i = 0; i < t->n; i++) {
        json_decref(t->item[i].messages);
        free(t->item[i].answer);
        free(t->item[i].kind);
    }
    free(t->item);
    *t = (ns_task){ 0 };
}
