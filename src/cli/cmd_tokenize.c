/* nestar tokenize: text to ids and back. */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "text/tokenizer.h"

typedef struct args {
    const char *path;
    bool decode, plain, jsonl;
} args;

enum { KEY_DECODE = NS_CLI_KEY_COMMAND, KEY_PLAIN, KEY_JSONL };

static const struct argp_option options[] = {
    { "decode", KEY_DECODE, NULL, 0, "Ids to text: ids between white space, or a JSON array", 0 },
    { "plain", KEY_PLAIN, NULL, 0, "All of the text is text: special tokens written in it stay spelled out", 0 },
    { "jsonl", KEY_JSONL, NULL, 0, "One JSON object a line: {\"text\": ..} to {\"ids\": [..]}, with --decode {\"ids\": [..]} to {\"text\": ..}", 0 },
    { 0 }
};

static const char doc[] =
    "Text on standard input to token ids on standard output, as Hugging Face's tokenizers do with add_special_tokens off: nothing is added, "
    "and special tokens that the text spells out are found.\v"
    "Examples:\n"
    "  echo -n 'Hello' | nestar tokenize nano/\n"
    "  nestar tokenize --plain nano/tokenizer.json < chapter.txt\n"
    "  echo 1 22 333 | nestar tokenize --decode nano/\n"
    "  nestar tokenize --jsonl nano/ < lines.jsonl";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_DECODE: a->decode = true; return 0;
    case KEY_PLAIN: a->plain = true; return 0;
    case KEY_JSONL: a->jsonl = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "CKPT");
        if (a->decode && a->plain)
            argp_error(s, "--plain is about encoding");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static ns_tokenizer *open_tokenizer(const char *path, ns_err *e)
{
    ns_buf b = { 0 };
    const char *file = ns_dir_exists(path) ? ns_path_join(&b, path, "tokenizer.json") : path;
    ns_tokenizer *t = ns_tokenizer_open(file, e);
    ns_buf_release(&b);
    return t;
}

typedef struct work {
    const args *a;
    const ns_tokenizer *t;
} work;

/* ---- a line at a time ---- */

static json_t *encode_line(void *ctx, const json_t *object, ns_err *e)
{
    const work *w = ctx;
    const json_t *text = json_object_get(object, "text");
    ns_ids ids = { 0 };
    json_t *list = NULL;
    if (!json_is_string(text)) {
        ns_fail(e, NS_EFORMAT, "key \"text\": expected a string");
        return NULL;
    }
    if (ns_tokenizer_encode(w->t, json_string_value(text), json_string_length(text), !w->a->plain, &ids, e) == 0) {
        list = json_array();
        for (size_t i = 0; i < ids.len; i++)
            json_array_append_new(list, json_integer(ids.data[i]));
    }
    ns_ids_release(&ids);
    return list ? json_pack("{s:o}", "ids", list) : NULL;
}

static json_t *decode_line(void *ctx, const json_t *object, ns_err *e)
{
    const work *w = ctx;
    ns_detok d;
    ns_buf raw = { 0 }, text = { 0 };
    json_t *v, *answer = NULL;
    size_t i;
    int rc = json_is_array(json_object_get(object, "ids")) ? 0 : ns_fail(e, NS_EFORMAT, "key \"ids\": expected a list");
    json_array_foreach(json_object_get(object, "ids"), i, v) {
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        int one = id < 0 || id > INT32_MAX ? -1 : (int)id;
        if (rc == 0)
            rc = ns_tokenizer_decode(w->t, &one, 1, false, &raw, e);
    }
    if (rc == 0) {
        ns_detok_init(&d);
        ns_detok_push_bytes(&d, raw.data, raw.len, &text);
        ns_detok_finish(&d, &text);
        answer = json_pack("{s:o}", "text", json_stringn(text.data ? text.data : "", text.len));
    }
    ns_buf_release(&raw);
    ns_buf_release(&text);
    return answer;
}

/* ---- all of standard input ---- */

static int encode_all(const work *w, const ns_buf *in, ns_buf *out, ns_err *e)
{
    ns_ids ids = { 0 };
    int rc = ns_tokenizer_encode(w->t, in->data ? in->data : "", in->len, !w->a->plain, &ids, e);
    for (size_t i = 0; rc == 0 && i < ids.len; i++)
        ns_buf_addf(out, i ? " %d" : "%d", ids.data[i]);
    ns_buf_addc(out, '\n');
    ns_ids_release(&ids);
    return rc;
}

static int decode_all(const work *w, const ns_buf *in, ns_buf *out, ns_err *e)
{
    ns_ids ids = { 0 };
    int rc = ns_cli_ids_parse(in->data, in->len, "standard input", &ids, e);
    if (rc == 0)
        rc = ns_tokenizer_decode(w->t, ids.data, ids.len, false, out, e);
    ns_ids_release(&ids);
    return rc;
}

static int whole(const work *w, ns_err *e)
{
    ns_buf in = { 0 }, out = { 0 };
    int rc = ns_cli_read(NULL, &in, e);
    if (rc == 0)
        rc = w->a->decode ? decode_all(w, &in, &out, e) : encode_all(w, &in, &out, e);
    if (rc == 0 && out.failed)
        rc = ns_fail(e, NS_ENOMEM, "out of memory");
    if (rc == 0 && out.len)
        rc = ns_cli_write(out.data, out.len, e);
    ns_buf_release(&in);
    ns_buf_release(&out);
    return rc;
}

int ns_cmd_tokenize(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT|tokenizer.json", doc, NULL, NULL, NULL }, argc, argv, &a);
    ns_tokenizer *t = open_tokenizer(a.path, &e);
    work w = { &a, t };
    int rc = t ? 0 : -1;
    if (rc == 0)
        rc = a.jsonl ? ns_cli_jsonl(a.decode ? decode_line : encode_line, &w, &e) : whole(&w, &e);
    ns_tokenizer_free(t);
    return ns_cli_exit(argv[0], rc, &e);
}
