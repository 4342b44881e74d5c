/* nestar template: a conversation to its prompt. tools/check_templates.py speaks to its --jsonl. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "text/template.h"

typedef struct args {
    const char *path;
    bool jsonl;
} args;

enum { KEY_JSONL = NS_CLI_KEY_COMMAND };

static const struct argp_option options[] = {
    { "jsonl", KEY_JSONL, NULL, 0, "One conversation a line; each is answered with {\"prompt\": ..} or {\"error\": ..}", 0 },
    { 0 }
};

static const char doc[] =
    "Renders a conversation, a JSON object on standard input, through a chat template. The object has messages and perhaps tools, documents "
    "and add_generation_prompt; any other key is a variable of the template, and so is every key of an object \"kwargs\" in it. With a "
    "checkpoint bos_token and its like come from the checkpoint.\v"
    "Examples:\n"
    "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}' | nestar template nano/\n"
    "  nestar template --jsonl chat_template.jinja < conversations.jsonl";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_JSONL: a->jsonl = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END: ns_cli_required(s, a->path, "CKPT"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

typedef struct work {
    ns_template *t;
    json_t *special; /* bos_token ..; an empty object without a checkpoint */
} work;

/* A JSON file of the folder; NULL without error where there is none. */
static json_t *folder_json(const char *dir, const char *name, ns_err *e)
{
    ns_buf path = { 0 };
    ns_path_join(&path, dir, name);
    json_t *v = ns_file_exists(path.data ? path.data : "") ? ns_json_open(path.data, true, e) : NULL;
    ns_buf_release(&path);
    return v;
}

static void take_special(json_t *special, const json_t *from)
{
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *v = json_object_get(from, keys[i]);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        if (json_is_string(v))
            json_object_set(special, keys[i], v);
    }
}

/* No weights are opened: a folder with the text files alone will do. */
static int open_folder(const char *dir, work *w, ns_err *e)
{
    ns_buf path = { 0 };
    json_t *map = folder_json(dir, "special_tokens_map.json", e), *config = e->code ? NULL : folder_json(dir, "tokenizer_config.json", e);
    const char *text = json_string_value(json_object_get(config, "chat_template")); /* the older place */
    if (e->code)
        goto out;
    take_special(w->special, map);
    take_special(w->special, config);
    ns_path_join(&path, dir, "chat_template.jinja");
    if (!text || ns_file_exists(path.data ? path.data : ""))
        w->t = ns_template_open(path.data ? path.data : "", e);
    else
        w->t = ns_template_parse(text, strlen(text), "tokenizer_config.json: chat_template", e);
out:
    json_decref(map);
    json_decref(config);
    ns_buf_release(&path);
    return w->t ? 0 : -1;
}

static int render(const work *w, const json_t *object, ns_prompt *out, ns_err *e)
{
    json_t *vars = json_copy(w->special), *given = (json_t *)(uintptr_t)object, *kwargs = json_object_get(object, "kwargs");
    int rc = -1;
    if (kwargs && !json_is_object(kwargs))
        ns_fail(e, NS_EFORMAT, "key \"kwargs\": expected an object");
    else if (!vars || json_object_update(vars, given) != 0 || (kwargs && json_object_update(vars, kwargs) != 0))
        ns_fail(e, NS_ENOMEM, "out of memory");
    else {
        json_object_del(vars, "kwargs");
        rc = ns_template_render(w->t, vars, NULL, out, e);
    }
    json_decref(vars);
    return rc;
}

static json_t *render_line(void *ctx, const json_t *object, ns_err *e)
{
    ns_prompt p;
    if (render(ctx, object, &p, e) != 0)
        return NULL;
    json_t *answer = json_pack("{s:o}", "prompt", json_stringn(p.text.data ? p.text.data : "", p.text.len));
    ns_prompt_release(&p);
    return answer;
}

static int render_one(work *w, ns_err *e)
{
    ns_buf in = { 0 };
    ns_prompt p;
    json_t *object = NULL;
    int rc = ns_cli_read(NULL, &in, e);
    if (rc == 0)
        rc = (object = ns_json_parse(in.data, in.len, false, "standard input", e)) ? 0 : -1;
    if (rc == 0 && !json_is_object(object))
        rc = ns_fail(e, NS_EFORMAT, "standard input: not a JSON object");
    if (rc == 0 && (rc = render(w, object, &p, e)) == 0) {
        rc = p.text.len ? ns_cli_write(p.text.data, p.text.len, e) : 0;
        ns_prompt_release(&p);
    }
    json_decref(object);
    ns_buf_release(&in);
    return rc;
}

int ns_cmd_template(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT|TEMPLATE.jinja", doc, NULL, NULL, NULL }, argc, argv, &a);
    work w = { .special = json_object() };
    int rc = ns_dir_exists(a.path) ? open_folder(a.path, &w, &e) : (w.t = ns_template_open(a.path, &e)) ? 0 : -1;
    if (rc == 0)
        rc = a.jsonl ? ns_cli_jsonl(render_line, &w, &e) : render_one(&w, &e);
    ns_template_free(w.t);
    json_decref(w.special);
    return ns_cli_exit(argv[0], rc, &e);
}
