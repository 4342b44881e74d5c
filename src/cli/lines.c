#include "cli/lines.h"

#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ns_cli_lines {
    const char *prompt;
    EditLine *el; /* NULL: plain reading */
    History *history;
    bool dropped; /* Ctrl-C gave up the line */
    char *plain;
    size_t plain_cap;
};

static char *prompt_of(EditLine *el)
{
    ns_cli_lines *l = NULL;
    el_get(el, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

/* Ctrl-C and Ctrl-Z arrive as keys: the terminal is told to make no signals of them while a line is edited. */
static unsigned char on_ctrl_c(EditLine *el, int key)
{
    (void)key;
    ns_cli_lines *l = NULL;
    const LineInfo *line = el_line(el);
    el_get(el, EL_CLIENTDATA, &l);
    if (line->lastchar == line->buffer)
        return CC_EOF;
    l->dropped = true;
    return CC_NEWLINE;
}

static unsigned char on_ctrl_z(EditLine *el, int key)
{
    (void)key;
    el_set(el, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    el_set(el, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
}

static int open_editor(ns_cli_lines *l)
{
    HistEvent ev;
    l->el = el_init("nestar", stdin, stdout, stderr);
    l->history = history_init();
    if (!l->el || !l->history)
        return -1;
    history(l->history, &ev, H_SETSIZE, 1000);
    history(l->history, &ev, H_SETUNIQUE, 1);
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_PROMPT, prompt_of);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_HIST, history, l->history);
    el_set(l->el, EL_ADDFN, "nestar-ctrl-c", "Give up the line, or leave", on_ctrl_c);
    el_set(l->el, EL_BIND, "^C", "nestar-ctrl-c", NULL);
    el_set(l->el, EL_ADDFN, "nestar-ctrl-z", "Suspend", on_ctrl_z);
    el_set(l->el, EL_BIND, "^Z", "nestar-ctrl-z", NULL);
    el_set(l->el, EL_SETTY, "-d", "-isig", NULL);
    return 0;
}

ns_cli_lines *ns_cli_lines_new(const char *prompt)
{
    ns_cli_lines *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->prompt = prompt;
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && open_editor(l) != 0) {
        ns_cli_lines_free(l);
        return NULL;
    }
    return l;
}

static const char *edited(ns_cli_lines *l, size_t *n)
{
    HistEvent ev;
    for (;;) {
        int count = 0;
        l->dropped = false;
        const char *text = el_gets(l->el, &count);
        if (!l->dropped) {
            if (!text || count <= 0) {
                putchar('\n');
                return NULL;
            }
            if (text[0] != '\n')
                history(l->history, &ev, H_ENTER, text);
            *n = (size_t)count;
            return text;
        }
        puts("^C");
    }
}

int ns_cli_lines_get(ns_cli_lines *l, ns_buf *out)
{
    const char *text;
    size_t n = 0;
    ns_buf_clear(out);
    if (l->el) {
        text = edited(l, &n);
    } else {
        ssize_t got = getline(&l->plain, &l->plain_cap, stdin);
        text = got < 0 ? NULL : l->plain;
        n = got < 0 ? 0 : (size_t)got;
    }
    if (!text)
        return 0;
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    ns_buf_add(out, text, n);
    return 1;
}

void ns_cli_lines_free(ns_cli_lines *l)
{
    if (!l)
        return;
    if (l->el)
        el_end(l->el);
    if (l->history)
        history_end(l->history);
    free(l->plain);
    free(l);
}
