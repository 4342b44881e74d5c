/* The server from outside, in this process: the bundled checkpoint, a client of plain sockets. What the parts do is their own tests' to say;
 * here they are joined. */
#include <jansson.h>

#include "run/answer.h"
#include "serve/server.h"
#include "unit/http_client.h"

static const char *const question = "Start with 25. Add 2. Subtract 7. Multiply by 3.";

static ns_engine *engine;

static int setup(void **state)
{
    char dir[1024];
    ns_err e = { 0 };
    const char *src = getenv("NS_TEST_SRC");
    (void)state;
    if (!src)
        return -1;
    snprintf(dir, sizeof dir, "%s/examples/demo/model", src);
    engine = ns_engine_open(dir, NULL, &e);
    if (!engine)
        print_message("%s\n", e.msg);
    return engine ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    ns_engine_close(engine);
    return 0;
}

static ns_server *serve(ns_server_opts o)
{
    ns_err e = { 0 };
    o.http.host = "127.0.0.1";
    o.model = "demo";
    ns_server *s = ns_server_start(engine, &o, &e);
    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

/* A POST; the answer's body as JSON, or NULL where it is none. */
static json_t *post(const ns_server *s, const char *path, const char *body, int *status)
{
    ns_buf b = { 0 };
    ns_buf_addf(&b, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", path,
                strlen(body), body);
    const char *answer = ask(ns_server_port(s), b.data, b.len);
    ns_buf_release(&b);
    *status = status_of(answer);
    const char *at = strstr(answer, "\r\n\r\n");
    assert_non_null(at);
    return json_loads(at + 4, 0, NULL);
}

static const char *get(const ns_server *s, const char *path)
{
    char request[512];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    return ASK(ns_server_port(s), request);
}

/* A chat request about the question; `more`: further members, each with a comma before it. */
static const char *chat_body(const char *model, const char *more)
{
    static char body[2000];
    snprintf(body, sizeof body, "{\"model\": \"%s\", \"messages\": [{\"role\": \"user\", \"content\": \"%s\"}], \"temperature\": 0%s}", model, question,
             more);
    return body;
}

static const json_t *message_of(const json_t *reply)
{
    return json_object_get(json_array_get(json_object_get(reply, "choices"), 0), "message");
}

static const char *text_of(const json_t *reply, const char *part)
{
    const char *s = json_string_value(json_object_get(message_of(reply), part));
    return s ? s : "";
}

static const char *param_of(const json_t *reply)
{
    const char *s = json_string_value(json_object_get(json_object_get(reply, "error"), "param"));
    return s ? s : "";
}

/* ---- what a session alone says ---- */

static bool is_text(const char *text, size_t n)
{
    return strspn(text, " \n") < n;
}

/* Thought and answer of a greedy session, without white space around them, as the API gives them. */
static void alone(const char *size, ns_buf *thought, ns_buf *answer)
{
    ns_err e = { 0 };
    json_t *request = json_pack("{s:[{s:s, s:s}], s:b}", "messages", "role", "user", "content", question, "add_generation_prompt", 1);
    ns_prompt prompt;
    ns_ids ids = { 0 };
    assert_int_equal(ns_engine_render(engine, request, NULL, &prompt, &e), 0);
    assert_int_equal(ns_engine_prompt_ids(engine, &prompt, &ids, &e), 0);
    ns_sampling greedy = ns_engine_sampling(engine);
    greedy.temperature = 0.0;
    ns_session *s = ns_session_new(engine, &(ns_session_opts){ .size = size, .sampling = &greedy }, &e);
    assert_non_null(s);
    assert_int_equal(ns_session_feed(s, ids.data, ids.len, &e), 0);
    ns_answer *a = ns_answer_new(s, NULL, &e);
    assert_non_null(a);
    for (int id;;) {
        enum ns_phase phase = ns_answer_about(a).phase;
        const char *bytes;
        size_t n;
        assert_int_equal(ns_answer_next(a, &id, &e), 0);
        if (id < 0)
            break;
        if (ns_engine_is_stop(engine, id) || ns_engine_token_bytes(engine, id, &bytes, &n) != 0 || (n == 8 && memcmp(bytes, "</think>", 8) == 0))
            continue;
        ns_buf *to = phase == NS_PHASE_THINK ? thought : answer;
        if (to->len || is_text(bytes, n))
            ns_buf_add(to, bytes, n);
    }
    while (thought->len && (thought->data[thought->len - 1] == '\n' || thought->data[thought->len - 1] == ' '))
        thought->data[--thought->len] = '\0';
    ns_answer_free(a);
    ns_session_free(s);
    ns_prompt_release(&prompt);
    ns_ids_release(&ids);
    json_decref(request);
}

static void answers_are_the_sizes_own(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ 0 });
    for (int i = 0; i < ns_engine_n_sizes(engine); i++) {
        ns_size_info info;
        ns_err e = { 0 };
        ns_buf thought = { 0 }, answer = { 0 };
        int status;
        assert_int_equal(ns_engine_size(engine, i, &info, &e), 0);
        alone(info.name, &thought, &answer);
        json_t *r = post(s, "/v1/chat/completions", chat_body(info.name, ""), &status);
        assert_int_equal(status, 200);
        assert_true(thought.len > 10 && answer.len > 0);
        assert_string_equal(text_of(r, "reasoning_content"), thought.data);
        assert_string_equal(text_of(r, "content"), answer.data);
        const json_t *sizes = json_object_get(json_object_get(r, "nestar"), "sizes");
        assert_int_equal(json_array_size(sizes), 1);
        assert_string_equal(json_string_value(json_object_get(json_array_get(sizes, 0), "size")), info.name);
        json_decref(r);
        ns_buf_release(&thought);
        ns_buf_release(&answer);
    }
    ns_server_free(s);
}

/* ---- streams ---- */

/* The joined deltas of a stream, and the sizes that its pieces name. */
static void join_stream(const char *stream, ns_buf *thought, ns_buf *answer, ns_buf *sizes, char id[64])
{
    for (const char *at = strstr(stream, "data: {"); at; at = strstr(at + 6, "data: {")) {
        json_t *event = json_loads(at + 6, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(event);
        const json_t *delta = json_object_get(json_array_get(json_object_get(event, "choices"), 0), "delta");
        const char *t = json_string_value(json_object_get(delta, "reasoning_content")), *c = json_string_value(json_object_get(delta, "content"));
        const char *size = json_string_value(json_object_get(json_object_get(event, "nestar"), "size"));
        ns_buf_adds(thought, t ? t : "");
        ns_buf_adds(answer, c ? c : "");
        if (size && (!sizes->data || !strstr(sizes->data, size)))
            ns_buf_addf(sizes, "%s,", size);
        snprintf(id, 64, "%s", json_string_value(json_object_get(event, "id")));
        json_decref(event);
    }
}

static void a_stream_is_the_answer(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ 0 });
    ns_buf thought = { 0 }, answer = { 0 }, sizes = { 0 }, request = { 0 };
    char id[64];
    int status;
    json_t *whole = post(s, "/v1/chat/completions", chat_body("demo", ", \"nestar\": {\"think\": \"small\", \"answer\": \"full\"}"), &status);
    const char *body = chat_body("demo", ", \"stream\": true, \"nestar\": {\"think\": \"small\", \"answer\": \"full\"}");
    ns_buf_addf(&request, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    const char *stream = ask(ns_server_port(s), request.data, request.len);
    assert_int_equal(status_of(stream), 200);
    assert_non_null(strstr(stream, "text/event-stream"));
    assert_non_null(strstr(stream, "data: [DONE]"));
    join_stream(stream, &thought, &answer, &sizes, id);
    assert_string_equal(thought.data, text_of(whole, "reasoning_content"));
    assert_string_equal(answer.data, text_of(whole, "content"));
    assert_string_equal(sizes.data, "small,full,");
    json_decref(whole);
    ns_buf_release(&thought);
    ns_buf_release(&answer);
    ns_buf_release(&sizes);
    ns_buf_release(&request);
    ns_server_free(s);
}

/* The rest of a running answer at another size. */
static void the_size_changes_on_the_way(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ .sched.context = 1000 });
    ns_buf b = { 0 }, request = { 0 }, sizes = { 0 }, text = { 0 };
    char id[64] = "", change[200];
    int status;
    const char *body = "{\"model\": \"small\", \"prompt\": \"u\", \"max_tokens\": 900, \"stream\": true, \"ignore_eos\": true, \"temperature\": 0}";
    ns_buf_addf(&request, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                strlen(body), body);
    int fd = dial(ns_server_port(s));
    put_bytes(fd, request.data, request.len);
    assert_true(get_until(fd, &b, "\"id\":\"cmpl-"));
    sscanf(strstr(b.data, "\"id\":\"cmpl-") + 6, "%63[^\"]", id);
    snprintf(change, sizeof change, "{\"id\": \"%s\", \"size\": \"full\"}", id);
    json_decref(post(s, "/nestar/size", change, &status));
    assert_int_equal(status, 200);
    assert_true(get_until(fd, &b, "[DONE]"));
    join_stream(b.data, &text, &text, &sizes, id);
    assert_string_equal(sizes.data, "small,full,");
    snprintf(change, sizeof change, "{\"id\": \"%s\", \"size\": \"full\"}", id);
    double end = ns_now() + 10;
    do { /* it is over, and soon forgotten */
        json_decref(post(s, "/nestar/size", change, &status));
        assert_true(status == 400 || status == 404);
    } while (status == 400 && ns_now() < end);
    assert_int_equal(status, 404);
    json_decref(post(s, "/nestar/size", "{\"id\": \"cmpl-none\", \"size\": \"full\"}", &status));
    assert_int_equal(status, 404);
    close(fd);
    ns_buf_release(&b);
    ns_buf_release(&request);
    ns_buf_release(&sizes);
    ns_buf_release(&text);
    ns_server_free(s);
}

/* ---- the other paths ---- */

static void paths(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ .measure = true });
    int status;
    assert_non_null(strstr(get(s, "/v1/models"), "\"id\":\"small\""));
    assert_non_null(strstr(get(s, "/v1/models/medium"), "\"id\":\"medium\""));
    assert_int_equal(status_of(get(s, "/v1/models/none")), 404);
    assert_int_equal(status_of(get(s, "/health")), 200);
    assert_int_equal(status_of(get(s, "/ready")), 200);
    assert_non_null(strstr(get(s, "/metrics"), "\nnestar_requests_total 0\n"));
    assert_non_null(strstr(get(s, "/"), "Content-Security-Policy: default-src 'self'"));
    assert_int_equal(status_of(get(s, "/../etc/passwd")), 404);
    assert_non_null(strstr(get(s, "/v1/chat/completions"), "\r\nAllow: POST\r\n"));
    json_t *j = post(s, "/tokenize", "{\"prompt\": \"Add 2.\"}", &status);
    assert_int_equal(status, 200);
    assert_int_equal(json_integer_value(json_object_get(j, "count")), json_array_size(json_object_get(j, "tokens")));
    json_decref(j);
    const char *about = get(s, "/nestar/status");
    j = json_loads(strstr(about, "\r\n\r\n") + 4, 0, NULL);
    const json_t *sizes = json_object_get(j, "sizes");
    assert_int_equal(json_array_size(sizes), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(json_number_value(json_object_get(json_array_get(sizes, i), "decode_rate")) > 1.0);
    json_decref(j);
    ns_server_free(s);
}

static void note_line(void *ctx, const char *line)
{
    ns_buf_addf(ctx, "%s\n", line);
}

static void refusals(void **state)
{
    ns_buf log = { 0 };
    (void)state;
    static const struct {
        const char *model, *more, *param;
        int status;
    } t[] = {
        { "none", "", "model", 404 },
        { "full", ", \"nestar\": {\"think\": \"huge\"}", "nestar.think", 404 },
        { "full", ", \"n\": 1000", "n", 400 },
        { "full", ", \"colour\": 1", "colour", 400 },
        { "full", ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": {\"pattern\": \"a\"}}}",
          "response_format", 400 },
    };
    ns_server *s = serve((ns_server_opts){ .sched.context = 64, .log = note_line, .log_ctx = &log });
    int status;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        json_t *r = post(s, "/v1/chat/completions", chat_body(t[i].model, t[i].more), &status);
        assert_int_equal(status, t[i].status);
        assert_string_equal(param_of(r), t[i].param);
        json_decref(r);
    }
    json_t *r = post(s, "/v1/completions", "{\"model\": \"full\", \"prompt\": \"1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 "
                     "+ 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1\"}", &status);
    assert_int_equal(status, 400);
    assert_string_equal(json_string_value(json_object_get(json_object_get(r, "error"), "code")), "context_length_exceeded");
    json_decref(r);
    const char *form = ASK(ns_server_port(s), "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
    assert_int_equal(status_of(form), 415);
    ns_server_free(s);
    assert_int_equal(count_of(log.data, "\n"), 6); /* a line for each that came to be parsed, and none of its text */
    assert_int_equal(count_of(log.data, "\"status\":404"), 2);
    assert_null(strstr(log.data, question));
    ns_buf_release(&log);
}

static void names(void **state)
{
    (void)state;
    static const char *const own[] = { "localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]:80" };
    static const char *const others[] = { "example.org", "127.0.0.1.example.org", "localhost.example.org:80", "[::2]", "127.evil" };
    ns_server *s = serve((ns_server_opts){ .local = true });
    for (int i = 0; i < 10; i++) {
        char request[200];
        snprintf(request, sizeof request, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", i < 5 ? own[i] : others[i - 5]);
        assert_int_equal(status_of(ASK(ns_server_port(s), request)), i < 5 ? 200 : 421);
    }
    ns_server_free(s);
}

static void keys(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ .http.keys = "secret\n" });
    assert_int_equal(status_of(get(s, "/v1/models")), 401);
    assert_int_equal(status_of(get(s, "/health")), 200);
    assert_int_equal(status_of(get(s, "/")), 200);
    assert_int_equal(status_of(ASK(ns_server_port(s), "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\r\n")),
                     200);
    ns_server_free(s);
}

/* ---- constrained answers ---- */

static void answers_keep_to_a_schema(void **state)
{
    (void)state;
    ns_server *s = serve((ns_server_opts){ 0 });
    int status;
    json_t *r = post(s, "/v1/chat/completions",
                     chat_body("small", ", \"reasoning_effort\": \"none\", \"max_tokens\": 400, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": "
                               "{\"name\": \"x\", \"schema\": {\"type\": \"object\", \"properties\": {\"kind\": {\"enum\": [\"circle\", \"square\"]}, "
                               "\"big\": {\"type\": \"boolean\"}}, \"required\": [\"kind\", \"big\"], \"additionalProperties\": false}}}"), &status);
    assert_int_equal(status, 200);
    json_t *value = json_loads(text_of(r, "content"), 0, NULL);
    assert_non_null(value);
    assert_true(json_is_boolean(json_object_get(value, "big")));
    assert_int_equal(json_object_size(value), 2);
    json_decref(value);
    json_decref(r);
    ns_server_free(s);
}

/* ---- coming to an end ---- */

struct client {
    int port, status;
};

static void *slow_client(void *ctx)
{
    struct client *c = ctx;
    static const char body[] = "{\"model\": \"full\", \"prompt\": \"u\", \"max_tokens\": 800, \"ignore_eos\": true}";
    char request[400];
    ns_buf b = { 0 };
    int fd = dial(c->port);
    snprintf(request, sizeof request, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    put(fd, request);
    get_until(fd, &b, NULL);
    c->status = b.data ? status_of(b.data) : 0;
    close(fd);
    ns_buf_release(&b);
    return NULL;
}

static void draining_lets_what_runs_end(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        ns_server *s = serve((ns_server_opts){ 0 });
        struct client c = { .port = ns_server_port(s) };
        pthread_t thread;
        int held = dial(c.port); /* a connection from before stays */
        assert_int_equal(pthread_create(&thread, NULL, slow_client, &c), 0);
        double end = ns_now() + 10;
        while (ns_server_busy(s) == 0 && ns_now() < end)
            wait_ms(1);
        assert_int_equal(ns_server_busy(s), 1);
        ns_server_drain(s);
        ns_buf b = { 0 };
        put(held, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_true(get_until(held, &b, "not ready"));
        assert_int_equal(status_of(b.data), 503);
        while (!cut && ns_server_busy(s) > 0 && ns_now() < end)
            wait_ms(1);
        if (!cut)
            pthread_join(thread, NULL);
        ns_server_free(s);
        if (cut)
            pthread_join(thread, NULL);
        assert_int_equal(c.status, cut ? 503 : 200);
        close(held);
        ns_buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_sizes_own), cmocka_unit_test(a_stream_is_the_answer), cmocka_unit_test(the_size_changes_on_the_way),
        cmocka_unit_test(paths),                     cmocka_unit_test(refusals),               cmocka_unit_test(keys),
        cmocka_unit_test(names),
        cmocka_unit_test(answers_keep_to_a_schema),  cmocka_unit_test(draining_lets_what_runs_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
