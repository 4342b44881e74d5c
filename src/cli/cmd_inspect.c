/* nestar inspect: a thin face on forge/inspect. */
#include <stdlib.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/inspect.h"

typedef struct args {
    const char *path, *nest;
    long long context;
    ns_dtype kv;
    bool verify, json;
} args;

enum { KEY_CONTEXT = NS_CLI_KEY_COMMAND, KEY_KV, KEY_NEST, KEY_VERIFY, KEY_JSON };

static const struct argp_option options[] = {
    { "context", KEY_CONTEXT, "N", 0, "Count the key-value cache for N tokens (default 4096)", 0 },
    { "kv", KEY_KV, "f32|fp8", 0, "Count keys and values kept in F32 (default) or FP8", 0 },
    { "nest", KEY_NEST, "FILE", 0, "Named sizes from FILE instead of the nest.json beside the config", 0 },
    { "verify", KEY_VERIFY, NULL, 0, "Also read every weight and look for infinities and NaN", 0 },
    { "json", KEY_JSON, NULL, 0, "The report as JSON", 0 },
    { 0 }
};

static const char doc[] =
    "What is in a checkpoint: the layers, how they are stored, and for every size its parameters, bytes and costs. With a config.json "
    "alone the same is computed from the formats that it states; no weights are needed.\v"
    "Examples:\n"
    "  nestar inspect nano/\n"
    "  nestar inspect --context 131072 nano/config.json\n"
    "  nestar inspect --verify nano/\n"
    "  nestar inspect --json nano/ | jq '.variants.list[] | {name, weight_bytes}'";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_CONTEXT: a->context = ns_cli_int(s, "--context", arg, 1, INT32_MAX); return 0;
    case KEY_KV: a->kv = ns_cli_kv(s, "--kv", arg) == NS_KV_FP8 ? NS_F8_E4M3 : NS_F32; return 0;
    case KEY_NEST: a->nest = arg; return 0;
    case KEY_VERIFY: a->verify = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END: ns_cli_required(s, a->path, "CKPT"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int verify(const ns_ckpt *c, json_t *report, ns_err *e)
{
    ns_cli_progress p = ns_cli_progress_start("verify", false);
    int rc = ns_ckpt_verify(c, ns_cli_progress_update, &p, e);
    ns_cli_progress_end(&p);
    return rc == 0 && json_object_set_new(report, "verified", json_true()) != 0 ? ns_fail(e, NS_ENOMEM, "out of memory") : rc;
}

static json_t *inspect_folder(const args *a, ns_err *e)
{
    ns_ckpt *c = ns_ckpt_open(a->path, &(ns_ckpt_opts){ .nest_path = a->nest }, e);
    json_t *report = c ? ns_inspect(c, a->context, a->kv, e) : NULL;
    if (report && a->verify && verify(c, report, e) != 0) {
        json_decref(report);
        report = NULL;
    }
    ns_ckpt_close(c);
    return report;
}

static json_t *inspect_config(const args *a, ns_err *e)
{
    if (!a->verify)
        return ns_inspect_config(a->path, a->nest, a->context, a->kv, e);
    ns_fail(e, NS_EINVAL, "%s: not a checkpoint folder; there are no weights to verify", a->path);
    return NULL;
}

int ns_cmd_inspect(int argc, char **argv)
{
    args a = { .context = 4096 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT|config.json", doc, NULL, NULL, NULL }, argc, argv, &a);
    json_t *report = ns_dir_exists(a.path) ? inspect_folder(&a, &e) : inspect_config(&a, &e);
    int rc = report ? 0 : -1;
    if (report && a.json)
        rc = ns_cli_json(report, true, &e);
    else if (report)
        ns_inspect_print(report, stdout);
    if (report && !a.json && a.verify)
        printf("  verified   every weight is finite\n");
    json_decref(report);
    return ns_cli_exit(argv[0], rc, &e);
}
