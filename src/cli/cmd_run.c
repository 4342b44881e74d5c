/* nestar run: one prompt, one answer. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/answer.h"
#include "cli/cmd.h"

typedef struct args {
    const char *dir, *prompt, *ids_file, *save, *load;
    bool raw, json;
    ns_cli_answer_args answer;
} args;

enum { KEY_RAW = NS_CLI_KEY_COMMAND, KEY_IDS, KEY_SAVE, KEY_LOAD, KEY_JSON };

static const struct argp_option options[] = {
    { "prompt", 'p', "TEXT", 0, "The prompt (default: standard input)", 1 },
    { "raw", KEY_RAW, NULL, 0, "Continue the text as it stands, without the chat template; special tokens written in it count", 1 },
    { "ids-file", KEY_IDS, "FILE", 0, "The prompt as token ids, from FILE (\"-\": standard input)", 1 },
    { "load-state", KEY_LOAD, "FILE", 0, "Start from a saved state. With --raw or --ids-file the prompt, if any, is appended to it; else the saved tokens "
      "serve as far as the rendered prompt begins with them", 1 },
    { "save-state", KEY_SAVE, "FILE", 0, "Save tokens and cache at the end", 1 },
    { "json", KEY_JSON, NULL, 0, "Instead of the text, one JSON object: text, ids (with the token that ended the answer), reason (stop, stop_string, "
      "length, context, deadline, cancelled), seed, sizes with their tokens, stats, thought", 1 },
    { 0 }
};

static const char doc[] =
    "Answers one prompt. The text goes to standard output as it is made, a line with speeds and sizes to standard error. Ctrl-C ends the "
    "answer; the exit status is then 130.\v"
    "Examples:\n"
    "  nestar run nano/ -p 'Why is the sky blue?'\n"
    "  nestar run nano/ --size 12B --no-think -n 200 < question.txt\n"
    "  nestar run nano/ --think 12B --answer full --think-budget 2048 -p 'Think cheaply, answer well.'\n"
    "  nestar run nano/ --deadline 20s -p 'Think as long as there is time.'\n"
    "  nestar run nano/ --sizes 12B:200,full -p 'Begin cheaply.'\n"
    "  nestar run nano/ --fit 16GiB --raw -p 'Once upon a time' --temp 0 --json";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->answer; return 0;
    case 'p': a->prompt = arg; return 0;
    case KEY_RAW: a->raw = true; return 0;
    case KEY_IDS: a->ids_file = arg; return 0;
    case KEY_SAVE: a->save = arg; return 0;
    case KEY_LOAD: a->load = arg; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->dir, "CKPT");
        if (a->ids_file && (a->prompt || a->raw))
            argp_error(s, "--ids-file goes without -p and --raw");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the prompt ---- */

static json_t *request(const args *a, const char *text, size_t n)
{
    json_t *messages = json_array(), *content = json_stringn(text ? text : "", n);
    if (a->answer.system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", a->answer.system));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    json_t *o = json_pack("{s:o, s:b}", "messages", messages, "add_generation_prompt", 1);
    if (a->answer.no_think)
        json_object_set_new(o, "enable_thinking", json_false());
    return o;
}

static int chat_ids(const ns_engine *en, const args *a, const char *text, size_t n, ns_ids *out, ns_err *e)
{
    ns_prompt prompt;
    json_t *r = request(a, text, n); /* NULL for text that is not UTF-8, too */
    if (!r)
        return ns_fail(e, NS_EINVAL, "the prompt is not UTF-8 text; --raw takes any bytes");
    int rc = ns_engine_render(en, r, NULL, &prompt, e);
    json_decref(r);
    if (rc != 0)
        return en->chat ? -1 : ns_err_wrap(e, "without --raw");
    rc = ns_engine_prompt_ids(en, &prompt, out, e);
    ns_prompt_release(&prompt);
    return rc;
}

static int raw_ids(const ns_engine *en, const char *text, size_t n, ns_ids *out, ns_err *e)
{
    int *ids = NULL, rc;
    size_t n_ids = 0;
    if ((rc = ns_engine_tokenize(en, text ? text : "", n, true, &ids, &n_ids, e)) == 0)
        ns_ids_append(out, ids, n_ids);
    free(ids);
    return rc;
}

static int read_prompt(const ns_engine *en, const args *a, ns_ids *out, ns_err *e)
{
    ns_buf text = { 0 };
    int rc = 0;
    if (a->ids_file)
        rc = ns_cli_read(a->ids_file, &text, e);
    else if (a->prompt)
        ns_buf_adds(&text, a->prompt);
    else if (!a->load) /* a saved state may go on without anything new */
        rc = ns_cli_read(NULL, &text, e);
    if (rc != 0)
        goto out;
    if (a->ids_file)
        rc = ns_cli_ids_parse(text.data, text.len, a->ids_file, out, e);
    else if (a->raw)
        rc = text.len ? raw_ids(en, text.data, text.len, out, e) : 0;
    else if (a->prompt || !a->load)
        rc = chat_ids(en, a, text.data, text.len, out, e);
    if (rc == 0 && out->len == 0 && !a->load && en->model.arch->bos_id >= 0)
        ns_ids_add(out, en->model.arch->bos_id); /* an empty text still has a beginning */
    if (rc == 0 && out->len == 0 && !a->load)
        rc = ns_fail(e, NS_EINVAL, "the prompt is empty");
    if (rc == 0 && (text.failed || out->failed))
        rc = ns_fail(e, NS_ENOMEM, "prompt: out of memory");
out:
    ns_buf_release(&text);
    return rc;
}

static int feed_prompt(ns_session *s, const args *a, const ns_ids *ids, ns_err *e)
{
    if (a->load && ns_session_load(s, a->load, e) != 0)
        return -1;
    if (!ids->len)
        return 0;
    return a->load && !a->raw && !a->ids_file ? ns_session_sync(s, ids->data, ids->len, e) : ns_session_feed(s, ids->data, ids->len, e);
}

/* ---- the answer ---- */

static json_t *sizes_json(const ns_cli_answer *a)
{
    json_t *list = json_array();
    for (int i = 0; i < a->n_used; i++)
        json_array_append_new(list, json_pack("{s:s, s:I}", "size", a->used[i].size, "tokens", (json_int_t)a->used[i].tokens));
    return list;
}

static json_t *thought_json(const ns_answer_info *i)
{
    return json_pack("{s:i, s:b, s:f, s:i, s:f}", "tokens", i->thought, "closed", i->closed, "seconds", i->thought_seconds, "answer_tokens", i->answer,
                     "answer_seconds", i->answer_seconds);
}

static int print_json(const ns_engine *en, ns_session *s, const ns_cli_answer *a, size_t n_prompt, uint64_t seed, ns_err *e)
{
    ns_stats t = ns_session_stats(s);
    json_t *ids = json_array();
    for (size_t i = 0; i < a->ids.len; i++)
        json_array_append_new(ids, json_integer(a->ids.data[i]));
    json_t *o = json_pack("{s:o, s:o, s:s, s:I, s:I, s:o, s:{s:I, s:f, s:I, s:f, s:i, s:f, s:s}, s:o, s:s, s:i}",
                          "text", json_stringn(a->text.data ? a->text.data : "", a->text.len), "ids", ids, "reason", a->reason,
                          "prompt_tokens", (json_int_t)n_prompt, "seed", (json_int_t)seed, "sizes", sizes_json(a), "stats",
                          "prefill_tokens", (json_int_t)t.prefill_tokens, "prefill_seconds", t.prefill_seconds,
                          "decode_tokens", (json_int_t)t.decode_tokens, "decode_seconds", t.decode_seconds,
                          "switches", t.switches, "switch_seconds", t.switch_seconds, "handover", ns_handover_name(t.handover), "thought",
                          thought_json(&a->info),
                          "kernels", ns_engine_kernels(en), "threads", ns_engine_threads(en));
    int rc = ns_cli_json(o, true, e);
    json_decref(o);
    return rc;
}

static int answer(ns_engine *en, ns_session *s, ns_answer *plan, const args *a, size_t n_prompt, uint64_t seed, bool *cancelled, ns_err *e)
{
    ns_cli_answer out;
    const ns_stats before = { 0 };
    int rc = ns_cli_answer_make(en, s, plan, &a->answer, !a->json, &out, e);
    if (rc == 0) {
        *cancelled = strcmp(out.reason, "cancelled") == 0;
        if (a->json)
            rc = print_json(en, s, &out, n_prompt, seed, e);
        else if (out.text.len && out.text.data[out.text.len - 1] != '\n')
            rc = ns_cli_write("\n", 1, e);
    }
    if (rc == 0 && !a->json)
        ns_cli_answer_stats(s, &out, &before, stderr);
    if (rc == 0 && !a->json && !a->answer.has_seed)
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    ns_cli_answer_release(&out);
    return rc;
}

static int run(const args *a, bool *cancelled, ns_err *e)
{
    ns_ids ids = { 0 };
    ns_session *s = NULL;
    ns_answer *plan = NULL;
    uint64_t seed = 0;
    int rc = -1;
    double start = ns_now();
    ns_engine *en = ns_cli_engine_open(a->dir, &a->answer.engine, false, e);
    if (!en || read_prompt(en, a, &ids, e) != 0 || !(s = ns_cli_session_new(en, &a->answer, &seed, e)))
        goto out;
    ns_cli_interrupt_begin(s);
    plan = ns_cli_answer_begin(s, &a->answer, start, e);
    rc = plan ? feed_prompt(s, a, &ids, e) : -1;
    if (rc == 0)
        rc = answer(en, s, plan, a, ids.len, seed, cancelled, e);
    ns_cli_interrupt_end();
    if (rc == 0 && a->save)
        rc = ns_session_save(s, a->save, e);
    *cancelled = *cancelled || (rc != 0 && e->code == NS_ECANCELLED);
out:
    ns_ids_release(&ids);
    ns_answer_free(plan);
    ns_session_free(s);
    ns_engine_close(en);
    return rc;
}

int ns_cmd_run(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    bool cancelled = false;
    const struct argp_child children[] = { { &ns_cli_answer_argp, 0, NULL, 0 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    int rc = run(&a, &cancelled, &e);
    ns_cli_answer_args_release(&a.answer);
    int status = ns_cli_exit(argv[0], rc, &e);
    return cancelled ? 130 : status;
}
