/* nestar serve: the OpenAI API over every size of one checkpoint. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "run/engine.h"
#include "serve/notify.h"
#include "serve/server.h"

typedef struct args {
    const char *dir, *key_file, *cert, *cert_key, *name;
    bool no_key, no_measure, quiet;
    double drain;
    ns_server_opts o;
    ns_cli_engine engine;
} args;

enum {
    KEY_HOST = NS_CLI_KEY_COMMAND, KEY_PORT, KEY_KEYS, KEY_NO_KEY, KEY_CERT, KEY_CERT_KEY, KEY_CONNECTIONS, KEY_BODY, KEY_CTX, KEY_PARALLEL,
    KEY_QUEUE, KEY_CHUNK, KEY_STATES, KEY_PREFIXES, KEY_FIRST, KEY_RATE, KEY_SIZE, KEY_NAME, KEY_LOG_PROMPTS, KEY_QUIET, KEY_NO_MEASURE, KEY_DRAIN
};

static const struct argp_option options[] = {
    { NULL, 0, NULL, 0, "Network:", 1 },
    { "host", KEY_HOST, "ADDRESS", 0, "Listen here (default 127.0.0.1: this machine only)", 1 },
    { "port", KEY_PORT, "N", 0, "Port (default 8080; 0: any that is free)", 1 },
    { "api-key-file", KEY_KEYS, "FILE", 0, "Ask for a key; FILE has one a line", 1 },
    { "no-key", KEY_NO_KEY, NULL, 0, "Listen beyond this machine, or behind a proxy, without a key", 1 },
    { "cert", KEY_CERT, "FILE", 0, "Certificate (PEM), for TLS", 1 },
    { "cert-key", KEY_CERT_KEY, "FILE", 0, "Its key (PEM)", 1 },
    { "max-connections", KEY_CONNECTIONS, "N", 0, "Open connections at most (default 1024)", 1 },
    { "max-body", KEY_BODY, "BYTES", 0, "Largest request (default 8MiB)", 1 },
    { NULL, 0, NULL, 0, "Requests:", 2 },
    { "ctx", KEY_CTX, "N", 0, "Tokens of one request, prompt and answer (default: 4096, or the model's maximum if that is less)", 2 },
    { "parallel", KEY_PARALLEL, "N", 0, "Requests computed together (default 8)", 2 },
    { "queue", KEY_QUEUE, "N", 0, "Requests that may wait behind them; then 429 (default 64)", 2 },
    { "chunk", KEY_CHUNK, "N", 0, "Prompt tokens read in one step beside answers being made; a multiple of 64 (default 128)", 2 },
    { "state-memory", KEY_STATES, "BYTES", 0, "Caches of running requests (default: room for --parallel full contexts)", 2 },
    { "prefix-memory", KEY_PREFIXES, "BYTES", 0, "Prefixes kept between requests (default 1GiB; 0: none)", 2 },
    { "size", KEY_SIZE, "SIZE", 0, "What the model's own name stands for (default auto)", 2 },
    { "model", KEY_NAME, "NAME", 0, "The model's own name (default: that of the folder)", 2 },
    { NULL, 0, NULL, 0, "Load: what the model \"auto\" holds, by thinking and answering at smaller sizes when it must", 3 },
    { "target-first-token", KEY_FIRST, "SECONDS", 0, "Time to the first token", 3 },
    { "target-rate", KEY_RATE, "N", 0, "Tokens/s of one request", 3 },
    { NULL, 0, NULL, 0, "Operation:", 4 },
    { "drain", KEY_DRAIN, "SECONDS", 0, "On SIGTERM, what runs has this long (default 30)", 4 },
    { "no-measure", KEY_NO_MEASURE, NULL, 0, "Do not time the sizes at the start", 4 },
    { "log-prompts", KEY_LOG_PROMPTS, NULL, 0, "Log the texts too", 4 },
    { "quiet", KEY_QUIET, NULL, 0, "No line per request", 4 },
    { 0 }
};

static const char doc[] =
    "Serves every size of CKPT from one copy of the weights: the OpenAI API (chat completions, completions, responses, models), each size a "
    "model name, \"auto\" the size that the load allows; a page to try it at /. Requests of different sizes are computed together. SIGTERM lets "
    "what runs come to its end.\v"
    "Examples:\n"
    "  nestar serve nano/\n"
    "  nestar serve nano/ --ctx 32768 --parallel 4 --target-first-token 2\n"
    "  nestar serve nano/ --host 0.0.0.0 --api-key-file keys.txt --cert cert.pem --cert-key key.pem\n"
    "  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{\"model\": \"12B\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'";

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static void check(struct argp_state *s, const args *a)
{
    ns_cli_required(s, a->dir, "CKPT");
    if (!a->cert != !a->cert_key)
        argp_error(s, "--cert and --cert-key go together");
    if (!is_loopback(a->o.http.host) && !a->key_file && !a->no_key)
        argp_error(s, "--host %s can be reached from elsewhere: give --api-key-file, or --no-key if that is meant", a->o.http.host);
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    ns_sched_opts *q = &a->o.sched;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case KEY_HOST: a->o.http.host = arg; return 0;
    case KEY_PORT: a->o.http.port = (int)ns_cli_int(s, "--port", arg, 0, 65535); return 0;
    case KEY_KEYS: a->key_file = arg; return 0;
    case KEY_NO_KEY: a->no_key = true; return 0;
    case KEY_CERT: a->cert = arg; return 0;
    case KEY_CERT_KEY: a->cert_key = arg; return 0;
    case KEY_CONNECTIONS: a->o.http.max_connections = (int)ns_cli_int(s, "--max-connections", arg, 1, 65536); return 0;
    case KEY_BODY: a->o.http.max_body = ns_cli_bytes(s, "--max-body", arg); return 0;
    case KEY_CTX: q->context = (int)ns_cli_int(s, "--ctx", arg, 2, INT32_MAX); return 0;
    case KEY_PARALLEL: q->parallel = (int)ns_cli_int(s, "--parallel", arg, 1, NS_SCHED_PARALLEL); return 0;
    case KEY_QUEUE: q->queue = (int)ns_cli_int(s, "--queue", arg, 1, 1 << 20); return 0;
    case KEY_CHUNK:
        q->chunk = (int)ns_cli_int(s, "--chunk", arg, NS_SCAN_CHUNK, NS_STEP_TOKENS);
        if (q->chunk % NS_SCAN_CHUNK != 0)
            argp_error(s, "--chunk %d: a multiple of %d is needed", q->chunk, NS_SCAN_CHUNK);
        return 0;
    case KEY_STATES: q->state_bytes = (int64_t)ns_cli_bytes(s, "--state-memory", arg); return 0;
    case KEY_PREFIXES: q->prefix_bytes = strcmp(arg, "0") == 0 ? 0 : (int64_t)ns_cli_bytes(s, "--prefix-memory", arg); return 0;
    case KEY_FIRST: q->first_token = ns_cli_real(s, "--target-first-token", arg, 1e-3, 1e6); return 0;
    case KEY_RATE: q->token_rate = ns_cli_real(s, "--target-rate", arg, 1e-3, 1e9); return 0;
    case KEY_SIZE: a->o.size = arg; return 0;
    case KEY_NAME: a->name = arg; return 0;
    case KEY_DRAIN: a->drain = ns_cli_real(s, "--drain", arg, 0, 1e6); return 0;
    case KEY_NO_MEASURE: a->no_measure = true; return 0;
    case KEY_LOG_PROMPTS: a->o.log_prompts = true; return 0;
    case KEY_QUIET: a->quiet = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END: check(s, a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_line(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "%s\n", line);
}

/* ---- signals ---- */

static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    pthread_sigmask(SIG_BLOCK, set, NULL); /* inherited by every thread: only sigwait below gets them */
    signal(SIGPIPE, SIG_IGN);
}

/* The service manager, if there is one; what it does not hear is no reason to stop. */
static void tell(const char *text)
{
    ns_err e = { 0 };
    if (ns_notify(getenv("NOTIFY_SOCKET"), text, &e) != 0)
        fprintf(stderr, "nestar serve: %s\n", e.msg);
}

/* Until a signal; then what runs has `drain` seconds, or until a second signal. */
static void serve(ns_server *s, const sigset_t *set, double drain)
{
    int sig;
    sigwait(set, &sig);
    tell("STOPPING=1");
    ns_server_drain(s);
    fprintf(stderr, "nestar serve: stopping; %d requests have %.0f s\n", ns_server_busy(s), drain);
    for (double end = ns_now() + drain; ns_server_busy(s) > 0 && ns_now() < end;)
        if (sigtimedwait(set, NULL, &(struct timespec){ .tv_nsec = 50000000 }) > 0)
            break;
}

/* ---- the command ---- */

/* The last part of the folder's path. */
static const char *folder_name(const char *dir, ns_buf *out)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && dir[from - 1] != '/')
        from--;
    ns_buf_add(out, dir + from, n - from);
    return out->data && out->len && strcmp(out->data, ".") != 0 ? out->data : "model";
}

static int read_secret(const char *path, ns_buf *out, const char **text, ns_err *e)
{
    if (!path)
        return 0;
    if (ns_cli_read(path, out, e) != 0)
        return -1;
    *text = out->data ? out->data : "";
    return strspn(*text, " \t\r\n") < out->len ? 0 : ns_fail(e, NS_EINVAL, "%s: nothing in it", path);
}

/* A thousand connections are more than the usual soft limit of open files; the hard one is higher. */
static void allow_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r); /* where it fails, fewer connections fit */
    }
}

static int run(args *a, ns_err *e)
{
    ns_buf name = { 0 }, keys = { 0 }, cert = { 0 }, cert_key = { 0 };
    ns_engine *en = NULL;
    ns_server *s = NULL;
    sigset_t set;
    double start = ns_now();
    int rc = -1;
    block_signals(&set);
    allow_files();
    if (read_secret(a->key_file, &keys, &a->o.http.keys, e) != 0 || read_secret(a->cert, &cert, &a->o.http.cert, e) != 0 ||
        read_secret(a->cert_key, &cert_key, &a->o.http.cert_key, e) != 0)
        goto out;
    a->o.model = a->name ? a->name : folder_name(a->dir, &name);
    a->o.measure = !a->no_measure;
    a->o.local = !a->key_file && !a->no_key;
    a->o.log = a->quiet ? NULL : print_line;
    if (!(en = ns_cli_engine_open(a->dir, &a->engine, false, e)) || !(s = ns_server_start(en, &a->o, e)))
        goto out;
    fprintf(stderr, "nestar serve: %s at http%s://%s:%d, ready after %.2f s\n", a->o.model, a->cert ? "s" : "", a->o.http.host, ns_server_port(s),
            ns_now() - start);
    tell("READY=1");
    serve(s, &set, a->drain);
    rc = 0;
out:
    ns_server_free(s);
    ns_engine_close(en);
    ns_buf_release(&name);
    ns_buf_release(&keys);
    ns_buf_release(&cert);
    ns_buf_release(&cert_key);
    return rc;
}

int ns_cmd_serve(int argc, char **argv)
{
    static const struct argp_child children[] = { { &ns_cli_engine_argp, 0, NULL, 0 }, { 0 } };
    const struct argp argp = { options, parse, "CKPT", doc, children, NULL, NULL };
    args a = { .drain = 30, .o = { .http = { .host = "127.0.0.1", .port = 8080 }, .sched = { .prefix_bytes = (int64_t)1 << 30 } } };
    ns_err e = { 0 };
    ns_cli_parse(&argp, argc, argv, &a);
    return ns_cli_exit(argv[0], run(&a, &e), &e);
}
