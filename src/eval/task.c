#include "eval/task.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "eval/task_kind.h"

enum { MAX_FILE = 1 << 30 };

const ns_task_kind ns_task_kinds[] = {
    { "plain", "jsonl", NULL, ns_read_own, NULL, ns_grade_exact, "all that is said, compared exactly" },
    { "gsm8k", "jsonl", "Work it out step by step. End with a last line that holds #### and the number alone.", ns_read_gsm8k, NULL,
      ns_grade_number, "the number behind ####, else the last number" },
    { "aime", "jsonl", "Reason step by step. The answer is a whole number from 0 to 999; give it at the end as \\boxed{N}.", ns_read_aime, NULL,
      ns_grade_aime, "the last \\boxed{}, else the last number; 0 to 999" },
    { "math", "jsonl", "Reason step by step and put the final answer into \\boxed{}.", ns_read_math, NULL, ns_grade_math,
      "the last \\boxed{}, LaTeX normalised" },
    { "mmlu", "csv", "Think about it and end with: The answer is (X), where X is the letter of the right choice.", NULL, ns_read_mmlu,
      ns_grade_letter4, "the letter behind \"answer is\", A to D" },
    { "mmlu-pro", "jsonl", "Think about it step by step and end with: The answer is (X), where X is the letter of the right choice.",
      ns_read_mmlu_pro, NULL, ns_grade_letter10, "the letter behind \"answer is\", A to J" },
    { "bbh", "json", "Think about it step by step and end with: So the answer is X., where X is the answer alone.", NULL, ns_read_bbh,
      ns_grade_bbh, "what follows \"answer is\", in the form of the target" },
    { "ifeval", "jsonl", NULL, ns_read_instructions, NULL, ns_grade_instructions, "every verifiable instruction followed" },
    { "ifbench", "jsonl", NULL, ns_read_instructions, NULL, ns_grade_instructions, "every verifiable instruction followed" },
    { 0 },
};

const char *ns_task_names(void)
{
    return "plain, gsm8k, aime, math, mmlu, mmlu-pro, bbh, ifeval, ifbench";
}

/* ---- what readers share ---- */

bool ns_task_full(const ns_task_reader *r)
{
    return r->limit && r->task->n >= r->limit;
}

static char *copy(const char *s)
{
    return s ? strdup(s) : NULL;
}

static json_t *asked(const ns_task_reader *r, const char *question)
{
    return r->ask ? json_pack("[{s:s, s:s++}]", "role", "user", "content", question, "\n\n", r->ask)
                  : json_pack("[{s:s, s:s}]", "role", "user", "content", question);
}

int ns_task_add(ns_task_reader *r, const ns_problem *p, ns_err *e)
{
    ns_task *t = r->task;
    const char *answer = p->answer ? p->answer : "";
    ns_text trimmed = ns_answer_trim(answer, strlen(answer));
    ns_task_item *list = realloc(t->item, (size_t)(t->n + 1) * sizeof *list);
    if (!list)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    t->item = list;
    list[t->n] = (ns_task_item){ .messages = p->messages ? json_deep_copy(p->messages) : asked(r, p->question), .kind = copy(p->kind), .level = p->level,
                                 .answer = strndup(trimmed.p, trimmed.n), .key = copy(p->key), .check = p->check ? json_deep_copy(p->check) : NULL };
    const ns_task_item *i = &list[t->n++];
    if (!i->messages || !i->answer || (p->kind && !i->kind) || (p->key && !i->key) || (p->check && !i->check))
        return ns_fail(e, NS_ENOMEM, "out of memory");
    return 0;
}

/* ---- files ---- */

static int read_lines(ns_task_reader *r, ns_err *e)
{
    char *text = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    int rc = 0;
    FILE *f = fopen(r->file, "re");
    if (!f)
        return ns_fail_errno(e, "%s", r->file);
    while (rc == 0 && !ns_task_full(r) && (n = getline(&text, &cap, f)) >= 0) {
        number++;
        if (ns_answer_trim(text, (size_t)n).n == 0)
            continue;
        json_t *line = ns_json_parse(text, (size_t)n, false, "JSON", e);
        rc = !line ? -1 : json_is_object(line) ? r->task->kind->line(r, line, e) : ns_fail(e, NS_EFORMAT, "expected an object");
        json_decref(line);
        if (rc != 0)
            ns_err_wrap(e, "%s:%zu", r->file, number);
    }
    if (rc == 0 && ferror(f))
        rc = ns_fail_errno(e, "%s", r->file);
    free(text);
    fclose(f);
    return rc;
}

static int read_file(ns_task_reader *r, ns_err *e)
{
    ns_buf text = { 0 };
    size_t n = strlen(r->file);
    if (n > 3 && (strcmp(r->file + n - 3, ".xz") == 0 || strcmp(r->file + n - 3, ".gz") == 0))
        return ns_fail(e, NS_EUNSUPPORTED, "%s is packed: unpack it first (xz -dk, gzip -dk)", r->file);
    if (r->task->kind->line)
        return read_lines(r, e);
    int rc = ns_file_read(r->file, MAX_FILE, &text, e);
    if (rc == 0)
        rc = r->task->kind->file(r, text.data ? text.data : "", text.len, e);
    ns_buf_release(&text);
    return rc;
}

static bool has_ext(const char *name, const char *ext)
{
    const char *dot = strrchr(name, '.');
    return dot && dot > name && strcmp(dot + 1, ext) == 0;
}

/* The files of a folder with the task's extension, in the order of their names. */
static int read_folder(ns_task_reader *r, const char *path, ns_err *e)
{
    struct dirent **entry = NULL;
    int rc = 0, n = scandir(path, &entry, NULL, alphasort);
    ns_buf file = { 0 };
    if (n < 0)
        return ns_fail_errno(e, "%s", path);
    for (int i = 0; i < n; i++) {
        if (rc == 0 && !ns_task_full(r) && has_ext(entry[i]->d_name, r->task->kind->ext)) {
            r->file = ns_path_join(&file, path, entry[i]->d_name);
            rc = read_file(r, e);
        }
        free(entry[i]);
    }
    free(entry);
    ns_buf_release(&file);
    return rc;
}

/* FNV-1a, 64 bits; every part with the NUL behind it. */
static uint64_t mix(uint64_t h, const char *s)
{
    do
        h = (h ^ (unsigned char)*s) * 0x100000001b3;
    while (*s++);
    return h;
}

static uint64_t mix_json(uint64_t h, const json_t *v)
{
    char *s = v ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    h = mix(h, s ? s : "");
    free(s);
    return h;
}

static void hash(ns_task *t)
{
    uint64_t h = mix(0xcbf29ce484222325, t->kind->name);
    for (int i = 0; i < t->n; i++)
        h = mix_json(mix(mix_json(h, t->item[i].messages), t->item[i].answer), t->item[i].check);
    snprintf(t->hash, sizeof t->hash, "%016llx", (unsigned long long)h);
}

/* The row that `spec` names, and the path behind it. A file whose name has a colon is still a file of own problems. */
static const ns_task_kind *kind_of(const char *spec, const char **path)
{
    for (const ns_task_kind *k = ns_task_kinds; k->name; k++) {
        size_t n = strlen(k->name);
        if (strncmp(spec, k->name, n) == 0 && spec[n] == ':') {
            *path = spec + n + 1;
            return k;
        }
    }
    *path = spec;
    return ns_task_kinds;
}

int ns_task_open(const char *spec, int limit, ns_task *t, ns_err *e)
{
    const char *path, *colon = strchr(spec, ':');
    *t = (ns_task){ .kind = kind_of(spec, &path) };
    ns_task_reader r = { .task = t, .limit = limit, .file = path, .ask = t->kind->ask };
    if (path == spec && colon && !ns_file_exists(path) && !memchr(spec, '/', (size_t)(colon - spec)))
        return ns_fail(e, NS_EINVAL, "%s: no task of that name; there are %s", spec, ns_task_names());
    int rc = ns_dir_exists(path) ? read_folder(&r, path, e) : read_file(&r, e);
    if (rc == 0 && t->n == 0)
        rc = ns_fail(e, NS_EFORMAT, "%s: no problem in it", path);
    if (rc != 0)
        ns_task_release(t);
    else
        hash(t);
    return rc;
}

void ns_task_release(ns_task *t)
{
    for (int i = 0; i < t->n; i++) {
        json_decref(t->item[i].messages);
        json_decref(t->item[i].check);
        free(t->item[i].answer);
        free(t->item[i].kind);
        free(t->item[i].key);
    }
    free(t->item);
    *t = (ns_task){ 0 };
}
