/* nestar plot: curves of training logs, drawn by gnuplot. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/gnuplot.h"
#include "base/json.h"
#include "cli/cmd.h"
#include "cli/common.h"

enum { MAX_FILES = 64, MAX_KEYS = 8 };

typedef struct args {
    const char *file[MAX_FILES], *out, *x;
    char *y;
    int n_files;
    bool log_scale;
} args;

enum { KEY_Y = NS_CLI_KEY_COMMAND, KEY_X, KEY_LOG };

static const struct argp_option options[] = {
    { "output", 'o', "FILE", 0, "The picture, .svg or .png (default: drawn in characters, on standard output)", 0 },
    { "y", KEY_Y, "NAME,..", 0, "What is drawn, a panel for each (default: loss)", 0 },
    { "x", KEY_X, "NAME", 0, "Over what (default: step)", 0 },
    { "log", KEY_LOG, NULL, 0, "Logarithmic scale upwards", 0 },
    { 0 }
};

static const char doc[] =
    "Draws numbers of training logs (log.jsonl of `nestar train`), a curve for each file. Needs gnuplot.\v"
    "Examples:\n"
    "  nestar plot stories.train/log.jsonl\n"
    "  nestar plot a.train/log.jsonl b.train/log.jsonl --y loss,eval_loss,lr -o curves.svg";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o':
        if (!ns_ends_with(arg, ".svg") && !ns_ends_with(arg, ".png"))
            argp_error(s, "-o: \"%s\" ends in neither .svg nor .png", arg);
        a->out = arg;
        return 0;
    case KEY_Y: a->y = arg; return 0;
    case KEY_X: a->x = arg; return 0;
    case KEY_LOG: a->log_scale = true; return 0;
    case ARGP_KEY_ARG:
        if (a->n_files == MAX_FILES)
            argp_error(s, "more than %d files", MAX_FILES);
        a->file[a->n_files++] = arg;
        return 0;
    case ARGP_KEY_END: ns_cli_required(s, a->file[0], "LOG.jsonl"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the logs ---- */

/* Which numbers the log has, for an error. */
static void list_keys(const json_t *lines, ns_buf *out)
{
    json_t *seen = json_object(), *line, *v;
    const char *key;
    size_t i;
    json_array_foreach(lines, i, line)
        json_object_foreach(line, key, v)
            if (json_is_number(v) && !json_object_get(seen, key)) {
                json_object_set(seen, key, v);
                ns_buf_addf(out, "%s%s", out->len ? ", " : "", key);
            }
    json_decref(seen);
}

/* "X Y" lines of gnuplot's inline data. */
static int add_points(const json_t *lines, const char *file, const char *x, const char *y, ns_buf *script, ns_err *e)
{
    int n = 0;
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line) {
        const json_t *vx = json_object_get(line, x), *vy = json_object_get(line, y);
        if (json_is_number(vx) && json_is_number(vy) && ++n)
            ns_buf_addf(script, "%.10g %.10g\n", json_number_value(vx), json_number_value(vy));
    }
    if (n)
        return 0;
    ns_buf keys = { 0 };
    list_keys(lines, &keys);
    ns_fail(e, NS_EINVAL, "%s: no line has the numbers \"%s\" and \"%s\"; there are: %s", file, x, y, keys.len ? keys.data : "none");
    ns_buf_release(&keys);
    return -1;
}

static json_t *read_log(const char *path, ns_err *e)
{
    ns_buf text = { 0 };
    char what[1100];
    size_t number = 0;
    json_t *lines = json_array();
    int rc = lines ? ns_cli_read(path, &text, e) : ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    for (char *p = text.data, *next; rc == 0 && p && *p; p = next) {
        char *end = strchr(p, '\n');
        const size_t n = end ? (size_t)(end - p) : strlen(p);
        next = p + n + (end != NULL);
        number++;
        if (strspn(p, " \t\r") >= n)
            continue;
        snprintf(what, sizeof what, "%.1000s:%zu", path, number);
        json_t *line = ns_json_parse(p, n, false, what, e);
        if (!line || json_array_append_new(lines, line) != 0)
            rc = -1;
        else if (!json_is_object(line))
            rc = ns_fail(e, NS_EFORMAT, "%s: not a JSON object", what);
    }
    ns_buf_release(&text);
    if (rc == 0)
        return lines;
    json_decref(lines);
    return NULL;
}

/* ---- the script ---- */

static int split_keys(char *text, char **key)
{
    int n = 0;
    char *rest = NULL;
    for (char *k = strtok_r(text, ",", &rest); k && n < MAX_KEYS; k = strtok_r(NULL, ",", &rest))
        key[n++] = k;
    return n;
}

static void add_panel(const args *a, const char *key, int k, ns_buf *b)
{
    ns_buf_adds(b, "set ylabel ");
    ns_gnuplot_quote(b, key);
    ns_buf_adds(b, " noenhanced\nplot ");
    for (int f = 0; f < a->n_files; f++) {
        ns_buf_addf(b, "%s$d%d_%d with lines title ", f ? ", " : "", f, k);
        if (a->n_files > 1)
            ns_gnuplot_quote(b, a->file[f]);
        ns_buf_adds(b, a->n_files > 1 ? " noenhanced" : "''");
    }
    ns_buf_addc(b, '\n');
}

static int write_script(const args *a, const char *out, char **key, int n_keys, ns_buf *b, ns_err *e)
{
    for (int f = 0; f < a->n_files; f++) {
        json_t *lines = read_log(a->file[f], e);
        int rc = lines ? 0 : -1;
        for (int k = 0; k < n_keys && rc == 0; k++) {
            ns_buf_addf(b, "$d%d_%d << EOD\n", f, k);
            rc = add_points(lines, a->file[f], a->x, key[k], b, e);
            ns_buf_adds(b, "EOD\n");
        }
        json_decref(lines);
        if (rc != 0)
            return -1;
    }
    const int height = 360 * n_keys;
    if (!out)
        ns_buf_addf(b, "set terminal dumb size 100, %d\n", 24 * n_keys);
    else
        ns_gnuplot_output(b, a->out, out, 900, height, "");
    ns_buf_adds(b, "set grid\nset xlabel ");
    ns_gnuplot_quote(b, a->x);
    ns_buf_addf(b, " noenhanced\n%sset multiplot layout %d, 1\n", a->log_scale ? "set logscale y\n" : "", n_keys);
    for (int k = 0; k < n_keys; k++)
        add_panel(a, key[k], k, b);
    ns_buf_adds(b, "unset multiplot\n");
    return b->failed ? ns_fail(e, NS_ENOMEM, "plot: out of memory") : 0;
}

static int plot(const args *a, ns_err *e)
{
    ns_buf script = { 0 };
    ns_outfile out = { 0 };
    char loss[] = "loss", *key[MAX_KEYS];
    const int n_keys = split_keys(a->y ? a->y : loss, key);
    int rc = n_keys ? 0 : ns_fail(e, NS_EINVAL, "--y names nothing");
    if (rc == 0 && a->out)
        rc = ns_outfile_open(&out, a->out, e);
    if (rc == 0)
        rc = write_script(a, out.tmp, key, n_keys, &script, e);
    if (rc == 0)
        rc = ns_gnuplot_run(&script, e);
    if (rc == 0 && a->out)
        rc = ns_outfile_commit(&out, e);
    ns_outfile_release(&out);
    ns_buf_release(&script);
    return rc;
}

int ns_cmd_plot(int argc, char **argv)
{
    args a = { .x = "step" };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "LOG.jsonl..", doc, NULL, NULL, NULL }, argc, argv, &a);
    int rc = plot(&a, &e);
    return ns_cli_exit(argv[0], rc, &e);
}
