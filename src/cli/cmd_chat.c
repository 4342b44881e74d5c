/* nestar chat: a conversation. The history is a list of messages that goes through the chat template anew for every answer; the
 * session keeps what it can of the tokens before. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/answer.h"
#include "cli/cmd.h"
#include "cli/lines.h"

typedef struct chat {
    const char *dir;
    ns_cli_answer_args answer;
    ns_engine *en;
    ns_session *s;
    json_t *messages;
    int budget; /* of thought, where thinking is on */
    bool leave;
} chat;

static const char doc[] =
    "A conversation. Lines that begin with / are commands, /help lists them; a line that ends in \\ goes on in the next. The size may change "
    "at any time and the conversation stays. Ctrl-C ends an answer, and at an empty prompt the conversation.\v"
    "Examples:\n"
    "  nestar chat nano/\n"
    "  nestar chat nano/ --size 12B --system 'You are terse.' --no-think\n"
    "  nestar chat nano/ --think 12B --answer full --think-budget 1024";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    chat *c = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &c->answer; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &c->dir, arg); return 0;
    case ARGP_KEY_END: ns_cli_required(s, c->dir, "CKPT"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Something that does not end the conversation. */
static void complain(const ns_err *e)
{
    fflush(stdout);
    fprintf(stderr, "nestar chat: %s\n", e->msg);
}

static void reset(chat *c)
{
    json_array_clear(c->messages);
    if (c->answer.system)
        json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "system", "content", c->answer.system));
}

/* ---- one turn ---- */

/* Did the template open a thought that the answer goes on with? */
static bool thought_is_open(const ns_prompt *p)
{
    static const char mark[] = "<think>";
    size_t n = p->text.len;
    while (n && strchr(" \n", p->text.data[n - 1]))
        n--;
    return n >= strlen(mark) && memcmp(p->text.data + n - strlen(mark), mark, strlen(mark)) == 0;
}

static int prompt_ids(chat *c, ns_ids *out, bool *thinking, ns_err *e)
{
    ns_prompt p;
    json_t *r = json_pack("{s:O, s:b}", "messages", c->messages, "add_generation_prompt", 1);
    if (r && c->answer.no_think)
        json_object_set_new(r, "enable_thinking", json_false());
    int rc = ns_engine_render(c->en, r, NULL, &p, e);
    json_decref(r);
    if (rc != 0)
        return -1;
    *thinking = thought_is_open(&p);
    rc = ns_engine_prompt_ids(c->en, &p, out, e);
    ns_prompt_release(&p);
    return rc;
}

/* The thought at the front of an answer goes into reasoning_content, where templates look for it. */
static json_t *assistant_message(const ns_buf *text, bool thinking)
{
    static const char open[] = "<think>", close[] = "</think>";
    const char *t = text->data ? text->data : "", *end = t + text->len, *hit = strstr(t, close);
    if (!hit && !thinking)
        return json_pack("{s:s, s:o}", "role", "assistant", "content", json_stringn(t, text->len));
    const char *from = t, *to = hit ? hit : end, *content = hit ? hit + strlen(close) : end;
    if ((size_t)(to - from) >= strlen(open) && memcmp(from, open, strlen(open)) == 0)
        from += strlen(open);
    while (from < to && strchr(" \n", *from))
        from++;
    while (to > from && strchr(" \n", to[-1]))
        to--;
    while (content < end && strchr(" \n", *content))
        content++;
    return json_pack("{s:s, s:o, s:o}", "role", "assistant", "content", json_stringn(content, (size_t)(end - content)),
                     "reasoning_content", json_stringn(from, (size_t)(to - from)));
}

static int sync_once(chat *c, const ns_ids *ids, ns_answer **plan, ns_err *e)
{
    *e = (ns_err){ 0 };
    ns_answer_free(*plan);
    *plan = ns_cli_answer_begin(c->s, &c->answer, 0, e);
    return *plan ? ns_session_sync(c->s, ids->data, ids->len, e) : -1;
}

/* Reads the prompt. A Ctrl-C that came behind the last token of an answer is still in the session and cancels this: then once more. */
static int sync_prompt(chat *c, const ns_ids *ids, ns_answer **plan, ns_err *e)
{
    int rc = sync_once(c, ids, plan, e);
    return rc != 0 && e->code == NS_ECANCELLED && !ns_cli_interrupted() ? sync_once(c, ids, plan, e) : rc;
}

static int respond(chat *c, const ns_ids *ids, bool thinking, ns_err *e)
{
    ns_cli_answer out = { 0 };
    ns_answer *plan = NULL;
    ns_stats before = ns_session_stats(c->s);
    int rc = sync_prompt(c, ids, &plan, e);
    if (rc == 0 && thinking)
        rc = ns_cli_write("<think>\n", 8, e);
    if (rc == 0)
        rc = ns_cli_answer_make(c->en, c->s, plan, &c->answer, true, &out, e);
    if (rc == 0)
        rc = ns_cli_write("\n", 1, e);
    if (rc == 0 && json_array_append_new(c->messages, assistant_message(&out.text, thinking)) != 0)
        rc = ns_fail(e, NS_ENOMEM, "out of memory");
    if (rc == 0 && strcmp(out.reason, "context") == 0)
        fprintf(stderr, "nestar chat: the context of %d tokens is full; /reset starts over\n", ns_session_context(c->s));
    if (rc == 0 && isatty(STDERR_FILENO))
        ns_cli_answer_stats(c->s, &out, &before, stderr);
    ns_answer_free(plan);
    ns_cli_answer_release(&out);
    return rc;
}

/* A failed turn leaves the history as it was. */
static int turn(chat *c, const char *text, size_t n, ns_err *e)
{
    ns_ids ids = { 0 };
    ns_err te = { 0 };
    bool thinking = false;
    size_t before = json_array_size(c->messages);
    json_t *content = json_stringn(text, n);
    if (!content || json_array_append_new(c->messages, json_pack("{s:s, s:o}", "role", "user", "content", content)) != 0) {
        ns_fail(&te, NS_EINVAL, "the line is not UTF-8 text");
        complain(&te);
        return 0;
    }
    ns_cli_interrupt_begin(c->s);
    int rc = prompt_ids(c, &ids, &thinking, &te);
    if (rc == 0)
        rc = respond(c, &ids, thinking, &te);
    ns_cli_interrupt_end();
    ns_ids_release(&ids);
    if (rc == 0)
        return 0;
    while (json_array_size(c->messages) > before)
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    if (ferror(stdout)) { /* nobody reads any more */
        *e = te;
        return -1;
    }
    complain(&te);
    return 0;
}

/* ---- commands ---- */

static int set_plan(chat *c, ns_segments *p, ns_err *e)
{
    for (int i = p->n - 1; i >= 0; i--) /* all are tried, and the first stays */
        if (ns_session_resize(c->s, p->seg[i].size, i ? NS_HANDOVER_AUTO : c->answer.handover, e) != 0)
            return -1;
    ns_segments_release(&c->answer.plan);
    c->answer.plan = *p;
    *p = (ns_segments){ 0 };
    return 0;
}

/* "12B", "12B:200,full", or a plan. */
static int on_size(chat *c, const char *arg, ns_err *e)
{
    ns_segments p = { 0 };
    int rc = 0;
    if (*arg)
        rc = ns_segments_is_plan(arg) ? ns_segments_parse(&p, arg, e) : ns_segments_parse_sizes(&p, arg, e);
    if (rc == 0 && *arg)
        rc = set_plan(c, &p, e);
    ns_segments_release(&p);
    if (rc == 0)
        printf("size %s\n", ns_session_size(c->s));
    return rc;
}

/* "31.6 B", "265.1 K" */
static const char *amount(double x, double unit, const char *const names[4], char out[24])
{
    int i = 3;
    for (double scale = unit * unit * unit; i > 0 && x < scale; i--)
        scale /= unit;
    double scaled = x;
    for (int k = 0; k < i; k++)
        scaled /= unit;
    snprintf(out, 24, "%.1f %s", scaled, names[i]);
    return out;
}

static int on_sizes(chat *c, const char *arg, ns_err *e)
{
    static const char *const counts[] = { "", "K", "M", "B" }, *const bytes[] = { "B", "KiB", "MiB", "GiB" };
    char total[24], active[24], weights[24];
    (void)arg;
    for (int i = 0; i < ns_engine_n_sizes(c->en); i++) {
        ns_size_info z;
        if (ns_engine_size(c->en, i, &z, e) != 0)
            return -1;
        printf("%c %-10s %10s parameters, %10s active, %12s%s\n", strcmp(z.name, ns_session_size(c->s)) == 0 ? '*' : ' ', z.name,
               amount((double)z.params_total, 1000, counts, total), amount((double)z.params_active, 1000, counts, active),
               amount((double)z.weight_bytes, 1024, bytes, weights), z.assumed ? " (assumed)" : "");
    }
    return 0;
}

static int on_reset(chat *c, const char *arg, ns_err *e)
{
    (void)arg;
    (void)e;
    reset(c);
    printf("a new conversation\n");
    return 0;
}

static void set_thinking(chat *c, bool on)
{
    c->answer.no_think = !on;
    if (!on)
        c->answer.think_budget = NS_THINK_NONE;
    else if (c->answer.think_budget == NS_THINK_NONE)
        c->answer.think_budget = c->budget;
}

static int on_think(chat *c, const char *arg, ns_err *e)
{
    if (strcmp(arg, "on") != 0 && strcmp(arg, "off") != 0)
        return ns_fail(e, NS_EINVAL, "/think on, or /think off");
    set_thinking(c, strcmp(arg, "on") == 0);
    printf("thinking is %s\n", arg);
    return 0;
}

/* F is the conversation; F.state, its cache, only saves time. */
static int on_save(chat *c, const char *arg, ns_err *e)
{
    ns_buf state = { 0 };
    json_t *o = json_pack("{s:O, s:b}", "messages", c->messages, "think", !c->answer.no_think);
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    int rc = text ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
    ns_buf_addf(&state, "%s.state", arg);
    if (!*arg)
        rc = ns_fail(e, NS_EINVAL, "/save FILE");
    if (rc == 0 && !state.failed)
        rc = ns_session_save(c->s, state.data, e);
    if (rc == 0)
        rc = ns_file_write(arg, text, strlen(text), e);
    if (rc == 0)
        printf("saved %s\n", arg);
    free(text);
    json_decref(o);
    ns_buf_release(&state);
    return rc;
}

static int on_load(chat *c, const char *arg, ns_err *e)
{
    ns_buf state = { 0 };
    ns_err se = { 0 };
    bool think = true;
    json_t *o = *arg ? ns_json_open(arg, false, e) : NULL, *messages = json_object_get(o, "messages");
    int rc = *arg ? -!o : ns_fail(e, NS_EINVAL, "/load FILE");
    if (rc == 0 && !json_is_array(messages))
        rc = ns_fail(e, NS_EFORMAT, "%s: not a saved conversation", arg);
    if (rc == 0)
        rc = ns_json_bool(o, "think", true, &think, e);
    if (rc == 0) {
        set_thinking(c, think);
        json_decref(c->messages);
        c->messages = json_incref(messages);
        ns_buf_addf(&state, "%s.state", arg);
        if (!state.failed && ns_file_exists(state.data) && ns_session_load(c->s, state.data, &se) != 0)
            complain(&se); /* then the conversation is read again */
        printf("loaded %s, %zu messages\n", arg, json_array_size(c->messages));
    }
    json_decref(o);
    ns_buf_release(&state);
    return rc;
}

static int on_quit(chat *c, const char *arg, ns_err *e)
{
    (void)arg;
    (void)e;
    c->leave = true;
    return 0;
}

static int on_help(chat *c, const char *arg, ns_err *e);

static const struct {
    const char *name, *arg, *help;
    int (*run)(chat *c, const char *arg, ns_err *e);
} commands[] = {
    { "size", "[SIZE]", "change the size (\"12B\", \"think:12B,answer:full\"), or show it", on_size },
    { "sizes", "", "the sizes of this checkpoint", on_sizes },
    { "think", "on|off", "let the model think before it answers", on_think },
    { "reset", "", "forget the conversation", on_reset },
    { "save", "FILE", "save the conversation to FILE, its cache to FILE.state", on_save },
    { "load", "FILE", "go on with a saved conversation", on_load },
    { "help", "", "this list", on_help },
    { "quit", "", "leave (also Ctrl-D)", on_quit },
};

static int on_help(chat *c, const char *arg, ns_err *e)
{
    (void)c;
    (void)arg;
    (void)e;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  /%-6s %-7s %s\n", commands[i].name, commands[i].arg, commands[i].help);
    printf("  //text          a message that begins with /\n");
    return 0;
}

static void command(chat *c, const char *line)
{
    ns_err e = { 0 };
    size_t n = strcspn(line, " ");
    const char *arg = line + n + strspn(line + n, " ");
    int rc = -1;
    size_t i = 0, count = sizeof commands / sizeof *commands;
    while (i < count && (strlen(commands[i].name) != n || strncmp(commands[i].name, line, n) != 0))
        i++;
    if (i < count)
        rc = commands[i].run(c, arg, &e);
    else
        ns_fail(&e, NS_EINVAL, "there is no command /%.*s; /help lists them", (int)n, line);
    if (rc != 0)
        complain(&e);
    fflush(stdout);
}

/* ---- the conversation ---- */

/* A message: lines that end in a backslash go on. 0 at the end of input. */
static int read_message(ns_cli_lines *lines, ns_buf *out)
{
    ns_buf line = { 0 };
    int more = 0;
    ns_buf_clear(out);
    while ((more = ns_cli_lines_get(lines, &line)) == 1) {
        bool goes_on = line.len && line.data[line.len - 1] == '\\';
        ns_buf_add(out, line.data, line.len - goes_on);
        if (!goes_on)
            break;
        ns_buf_addc(out, '\n');
    }
    ns_buf_release(&line);
    return more == 1 || out->len > 0;
}

static int converse(chat *c, ns_err *e)
{
    ns_buf text = { 0 };
    ns_cli_lines *lines = ns_cli_lines_new("> ");
    int rc = lines ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
    while (rc == 0 && !c->leave && read_message(lines, &text)) {
        if (text.len == 0)
            continue;
        bool slash = text.data[0] == '/';
        if (slash && text.data[1] != '/')
            command(c, text.data + 1);
        else
            rc = turn(c, text.data + slash, text.len - slash, e);
    }
    ns_cli_lines_free(lines);
    ns_buf_release(&text);
    return rc;
}

static int open_chat(chat *c, ns_err *e)
{
    uint64_t seed;
    c->messages = json_array();
    c->budget = c->answer.think_budget == NS_THINK_NONE ? NS_THINK_FREE : c->answer.think_budget;
    reset(c);
    if (!(c->en = ns_cli_engine_open(c->dir, &c->answer.engine, false, e)))
        return -1;
    if (!c->en->chat || !c->en->tokenizer)
        return ns_fail(e, NS_EINVAL, "%s: no %s in this checkpoint; `nestar run --raw` may still do", c->dir,
                       c->en->chat ? "tokenizer.json" : "chat template");
    return (c->s = ns_cli_session_new(c->en, &c->answer, &seed, e)) ? 0 : -1;
}

int ns_cmd_chat(int argc, char **argv)
{
    chat c = { 0 };
    ns_err e = { 0 };
    const struct argp_child children[] = { { &ns_cli_answer_argp, 0, NULL, 0 }, { 0 } };
    ns_cli_parse(&(struct argp){ NULL, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &c);
    int rc = open_chat(&c, &e);
    if (rc == 0)
        rc = converse(&c, &e);
    ns_session_free(c.s);
    ns_engine_close(c.en);
    json_decref(c.messages);
    ns_cli_answer_args_release(&c.answer);
    return ns_cli_exit(argv[0], rc, &e);
}
