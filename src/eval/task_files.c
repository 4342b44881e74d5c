/* Readers of tasks whose files are not JSONL: MMLU (CSV) and BIG-Bench Hard (one JSON object a file). */
#include <stdlib.h>
#include <string.h>

#include "eval/task_kind.h"

/* The file's name without folder, extension and `suffix`; malloc'ed. */
static char *stem(const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    size_t n = dot ? (size_t)(dot - base) : strlen(base), s = strlen(suffix);
    if (n > s && memcmp(base + n - s, suffix, s) == 0)
        n -= s;
    return strndup(base, n);
}

int ns_read_bbh(ns_task_reader *r, const char *text, size_t n, ns_err *e)
{
    json_t *file = ns_json_parse(text, n, false, r->file, e), *examples = json_object_get(file, "examples"), *x;
    char *kind = stem(r->file, "");
    size_t i;
    int rc = !file ? -1 : json_is_array(examples) ? 0 : ns_fail(e, NS_EFORMAT, "%s: key \"examples\": expected an array", r->file);
    if (rc == 0)
        json_array_foreach(examples, i, x) {
            ns_problem p = { .level = -1, .kind = kind, .question = json_string_value(json_object_get(x, "input")),
                             .answer = json_string_value(json_object_get(x, "target")) };
            if (ns_task_full(r) || rc != 0)
                break;
            rc = p.question && p.answer && *p.answer ? ns_task_add(r, &p, e)
                                                      : ns_fail(e, NS_EFORMAT, "%s: example %zu: expected \"input\" and \"target\"", r->file, i + 1);
        }
    json_decref(file);
    free(kind);
    return rc;
}

/* ---- MMLU ---- */

enum { FIELDS = 6 };

/* One record of CSV (RFC 4180) into its fields; a quoted field may hold commas, line breaks and doubled quotes. Returns the number of
 * fields (at most `cap` are kept), -1 for a quote that is not closed; *at and *line go on. */
static int record(const char *text, size_t n, size_t *at, int *line, ns_buf *field, int cap)
{
    int k = 0;
    for (;;) {
        ns_buf spare = { 0 }, *f = k < cap ? &field[k] : &spare;
        bool quoted = *at < n && text[*at] == '"';
        ns_buf_clear(f);
        ns_buf_add(f, "", 0);
        *at += quoted;
        for (;; ++*at) {
            if (*at >= n) {
                ns_buf_release(&spare);
                return quoted ? -1 : k + 1;
            }
            char c = text[*at];
            if (quoted && c == '"') {
                if (*at + 1 < n && text[*at + 1] == '"')
                    ++*at;
                else {
                    quoted = false;
                    continue;
                }
            } else if (!quoted && (c == ',' || c == '\n' || c == '\r')) {
                break;
            }
            *line += c == '\n';
            ns_buf_addc(f, c);
        }
        ns_buf_release(&spare);
        k++;
        if (text[*at] == ',') {
            ++*at;
            continue;
        }
        *at += *at + 1 < n && text[*at] == '\r' && text[*at + 1] == '\n';
        ++*at;
        ++*line;
        return k;
    }
}

static const char *str(const ns_buf *b)
{
    return b->data ? b->data : "";
}

/* question, four choices, answer as A .. D or 0 .. 3. */
static int add_row(ns_task_reader *r, const char *kind, const ns_buf *f, ns_err *e)
{
    ns_buf text = { 0 };
    const char *a = str(&f[5]);
    char letter[2] = { *a >= '0' && *a <= '3' ? (char)(*a - '0' + 'A') : *a, '\0' };
    if (strlen(a) != 1 || *letter < 'A' || *letter > 'D')
        return ns_fail(e, NS_EFORMAT, "the answer \"%s\" is none of A to D or 0 to 3", a);
    ns_buf_addf(&text, "%s\n", str(&f[0]));
    for (int i = 0; i < 4; i++)
        ns_buf_addf(&text, "\n(%c) %s", 'A' + i, str(&f[1 + i]));
    ns_problem p = { .level = -1, .kind = kind, .question = str(&text), .answer = letter };
    int rc = text.failed ? ns_fail(e, NS_ENOMEM, "out of memory") : ns_task_add(r, &p, e);
    ns_buf_release(&text);
    return rc;
}

int ns_read_mmlu(ns_task_reader *r, const char *text, size_t n, ns_err *e)
{
    ns_buf field[FIELDS] = { 0 };
    char *kind = stem(r->file, "_test");
    int rc = 0, line = 1;
    for (size_t at = 0; rc == 0 && at < n && !ns_task_full(r);) {
        int start = line, k = record(text, n, &at, &line, field, FIELDS);
        if (k == 1 && field[0].len == 0)
            continue;
        if (k == FIELDS && start == 1 && strcmp(str(&field[0]), "question") == 0)
            continue;
        rc = k == FIELDS ? add_row(r, kind, field, e)
                         : ns_fail(e, NS_EFORMAT, k < 0 ? "a quote is not closed" : "%d fields, expected a question, four choices and the answer", k);
        if (rc != 0)
            ns_err_wrap(e, "%s:%d", r->file, start);
    }
    for (int i = 0; i < FIELDS; i++)
        ns_buf_release(&field[i]);
    free(kind);
    return rc;
}
