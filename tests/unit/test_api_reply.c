/* Answers as clients get them, in the three forms, streamed and whole. With NS_TEST_DUMP=DIR every object that is made here is added to
 * DIR/objects.jsonl with the name of its schema, for tools/check_api.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "serve/api.h"

/* ---- what a client sees ---- */

static void dump(enum ns_api api, bool stream, const json_t *j)
{
    static const char *const names[][2] = { [NS_API_CHAT] = { "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse" },
                                            [NS_API_COMPLETIONS] = { "CreateCompletionResponse", "CreateCompletionResponse" },
                                            [NS_API_RESPONSES] = { "Response", "ResponseStreamEvent" } };
    const char *dir = getenv("NS_TEST_DUMP");
    char path[4096];
    if (!dir || json_is_object(json_object_get(j, "error")))
        return;
    snprintf(path, sizeof path, "%s/objects.jsonl", dir);
    FILE *f = fopen(path, "a");
    char *text = json_dumps(j, JSON_COMPACT);
    assert_non_null(f);
    fprintf(f, "{\"schema\": \"%s\", \"stream\": %s, \"object\": %s}\n", names[api][stream], stream ? "true" : "false", text);
    free(text);
    assert_int_equal(fclose(f), 0);
}

static json_t *parse(const char *p, size_t n)
{
    ns_err e = { 0 };
    json_t *j = ns_json_parse(p, n, false, "reply", &e);
    if (!j)
        fail_msg("%s in %.*s", e.msg, (int)n, p);
    return j;
}

/* Appends the events' objects; "[DONE]" as a string. */
static void read_events(const char *p, json_t *events)
{
    while (*p) {
        const char *end = strstr(p, "\n\n"), *name = NULL;
        size_t n_name = 0;
        assert_non_null(end);
        if (strncmp(p, "event: ", 7) == 0) {
            name = p + 7;
            n_name = strcspn(name, "\n");
            p = name + n_name + 1;
        }
        assert_memory_equal(p, "data: ", 6);
        p += 6;
        assert_ptr_equal(memchr(p, '\n', (size_t)(end - p)), NULL);
        if (end - p == 6 && memcmp(p, "[DONE]", 6) == 0)
            json_array_append_new(events, json_string("[DONE]"));
        else
            json_array_append_new(events, parse(p, (size_t)(end - p)));
        if (name) {
            json_t *last = json_array_get(events, json_array_size(events) - 1);
            assert_int_equal(json_string_length(json_object_get(last, "type")), n_name);
            assert_memory_equal(json_string_value(json_object_get(last, "type")), name, n_name);
        }
        p = end + 2;
    }
}

typedef struct talk {
    ns_api_request q;
    ns_api_reply *r;
    ns_buf out;
    json_t *seen; /* objects, in order */
    bool on;      /* no token said that the answer ends */
} talk;

static const ns_api_used used[] = { { "12B", 2 }, { "full", 3 } };
static const ns_api_end ending = { .finish = "stop", .prompt_tokens = 10, .cached_tokens = 4, .thought_tokens = 2, .answer_tokens = 3, .used = used,
                                   .n_used = 2, .end = "stop", .first_token = 0.25, .total = 1.5, .switch_seconds = 0.125, .switches = 1 };

static ns_api_request request(enum ns_api api, bool stream)
{
    return (ns_api_request){ .api = api, .stream = stream, .n = 1, .temperature = NAN, .top_p = NAN, .min_p = NAN, .repetition_penalty = NAN, .top_k = -1,
                             .parallel_calls = true };
}

static void gather(talk *t)
{
    if (t->out.len == 0)
        return;
    assert_false(t->out.failed);
    size_t from = json_array_size(t->seen), i;
    if (t->q.stream)
        read_events(t->out.data, t->seen);
    else
        json_array_append_new(t->seen, parse(t->out.data, t->out.len));
    for (i = from; i < json_array_size(t->seen); i++)
        if (json_is_object(json_array_get(t->seen, i)))
            dump(t->q.api, t->q.stream, json_array_get(t->seen, i));
    ns_buf_clear(&t->out);
}

static void start(talk *t, const ns_api_request *q)
{
    ns_err e = { 0 };
    *t = (talk){ .q = *q, .seen = json_array(), .on = true };
    t->r = ns_api_reply_new(&(ns_api_reply_opts){ .request = &t->q, .id = "resp_7f3a", .created = 1700000000, .model = "auto" }, &e);
    assert_non_null(t->r);
    ns_api_reply_begin(t->r, &t->out);
    gather(t);
}

/* `text` as tokens of `step` bytes. */
static void say_n(talk *t, int choice, bool thought, const char *text, size_t n, size_t step)
{
    for (size_t at = 0; at < n && t->on; at += step) {
        const ns_api_top top[] = { { text + at, n - at < step ? n - at : step, -0.25 }, { "\xf0\x9f", 2, -INFINITY } };
        t->on = ns_api_reply_token(t->r, choice, &(ns_api_token){ .bytes = top[0].bytes, .n = top[0].n, .thought = thought, .logprob = -0.25, .top = top,
                                                                  .n_top = 2, .size = thought ? "12B" : "full" }, &t->out);
        if (!t->q.stream)
            assert_int_equal(t->out.len, 0);
        gather(t);
    }
}

static void say(talk *t, bool thought, const char *text, size_t step)
{
    say_n(t, 0, thought, text, strlen(text), step);
}

static void finish(talk *t, const ns_api_end *end)
{
    ns_api_reply_end(t->r, 0, end, &t->out);
    gather(t);
    assert_false(ns_api_reply_token(t->r, 0, &(ns_api_token){ .bytes = "x", .n = 1 }, &t->out)); /* over is over */
    assert_int_equal(t->out.len, 0);
}

static void stop(talk *t)
{
    ns_api_reply_free(t->r);
    ns_buf_release(&t->out);
    json_decref(t->seen);
    json_decref(t->q.chat);
}

/* What the objects say, whatever the form. Strings are owned. */
typedef struct joined {
    ns_buf thought, content;
    bool null;       /* content is null */
    json_t *calls;   /* [{"name", "arguments", "id"}] */
    char finish[32];
    json_t *logprobs; /* entries; not of completions */
} joined;

static void add_text(ns_buf *b, const json_t *s)
{
    if (json_is_string(s))
        ns_buf_add(b, json_string_value(s), json_string_length(s));
}

static void add_call(joined *j, const json_t *id, const json_t *f)
{
    json_array_append_new(j->calls, json_pack("{s:O, s:O, s:O}", "name", json_object_get(f, "name"), "arguments", json_object_get(f, "arguments"), "id", id));
}

static void join_chat(joined *j, const json_t *object, int index)
{
    json_t *c, *call;
    size_t i, k;
    json_array_foreach(json_object_get(object, "choices"), i, c) {
        const json_t *m = json_object_get(c, "message") ? json_object_get(c, "message") : json_object_get(c, "delta");
        if (json_integer_value(json_object_get(c, "index")) != index)
            continue;
        add_text(&j->thought, json_object_get(m, "reasoning_content"));
        add_text(&j->content, json_object_get(m, "content"));
        add_text(&j->content, json_object_get(c, "text"));
        j->null = json_is_null(json_object_get(m, "content"));
        json_array_foreach(json_object_get(m, "tool_calls"), k, call)
            add_call(j, json_object_get(call, "id"), json_object_get(call, "function"));
        json_array_extend(j->logprobs, json_object_get(json_object_get(c, "logprobs"), "content"));
        if (json_is_string(json_object_get(c, "finish_reason")))
            snprintf(j->finish, sizeof j->finish, "%s", json_string_value(json_object_get(c, "finish_reason")));
    }
}

static void join_response(joined *j, const json_t *response)
{
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(response, "output"), i, item) {
        const char *type = json_string_value(json_object_get(item, "type"));
        const json_t *part = json_array_get(json_object_get(item, "content"), 0);
        if (strcmp(type, "function_call") == 0)
            add_call(j, json_object_get(item, "call_id"), item);
        else
            add_text(strcmp(type, "reasoning") == 0 ? &j->thought : &j->content, json_object_get(part, "text"));
        json_array_extend(j->logprobs, json_object_get(part, "logprobs"));
    }
    snprintf(j->finish, sizeof j->finish, "%s", json_string_value(json_object_get(response, "status")));
}

static void join_events(joined *j, const json_t *e)
{
    const char *type = json_string_value(json_object_get(e, "type"));
    if (strcmp(type, "response.reasoning_text.delta") == 0)
        add_text(&j->thought, json_object_get(e, "delta"));
    if (strcmp(type, "response.output_text.delta") == 0) {
        add_text(&j->content, json_object_get(e, "delta"));
        json_array_extend(j->logprobs, json_object_get(e, "logprobs"));
    }
    if (strcmp(type, "response.output_item.done") == 0 && json_object_get(json_object_get(e, "item"), "call_id"))
        add_call(j, json_object_get(json_object_get(e, "item"), "call_id"), json_object_get(e, "item"));
    if (strcmp(type, "response.completed") == 0 || strcmp(type, "response.incomplete") == 0)
        snprintf(j->finish, sizeof j->finish, "%s", json_string_value(json_object_get(json_object_get(e, "response"), "status")));
}

static joined join_of(const talk *t, int index)
{
    joined j = { .calls = json_array(), .logprobs = json_array() };
    json_t *o;
    size_t i;
    json_array_foreach(t->seen, i, o) {
        if (t->q.api != NS_API_RESPONSES)
            join_chat(&j, o, index);
        else if (t->q.stream)
            join_events(&j, o);
        else
            join_response(&j, o);
    }
    ns_buf_addc(&j.thought, '\0'); /* so that data is there; the texts of these tests have no NUL */
    ns_buf_addc(&j.content, '\0');
    return j;
}

static void joined_release(joined *j)
{
    ns_buf_release(&j->thought);
    ns_buf_release(&j->content);
    json_decref(j->calls);
    json_decref(j->logprobs);
}

/* One answer from its beginning to its end. */
static joined answer(const ns_api_request *q, const char *thought, const char *content, size_t step)
{
    talk t;
    start(&t, q);
    say(&t, true, thought, step);
    say(&t, false, content, step);
    finish(&t, &ending);
    joined j = join_of(&t, 0);
    stop(&t);
    return j;
}

static json_t *path(json_t *j, const char *keys)
{
    char word[64];
    while (*keys) {
        size_t n = strcspn(keys, ".");
        snprintf(word, sizeof word, "%.*s", (int)n, keys);
        j = json_is_array(j) ? json_array_get(j, (size_t)atoi(word)) : json_object_get(j, word);
        keys += n + (keys[n] == '.');
    }
    return j;
}

static void has_string(json_t *j, const char *keys, const char *want)
{
    if (!json_is_string(path(j, keys)))
        fail_msg("%s: no string", keys);
    assert_string_equal(json_string_value(path(j, keys)), want);
}

static void has_int(json_t *j, const char *keys, json_int_t want)
{
    if (!json_is_integer(path(j, keys)))
        fail_msg("%s: no integer", keys);
    assert_int_equal(json_integer_value(path(j, keys)), want);
}

static const enum ns_api apis[] = { NS_API_CHAT, NS_API_COMPLETIONS, NS_API_RESPONSES };
static const size_t steps[] = { 1, 2, 3, 5, 7, 1000 };
enum { N_STEPS = sizeof steps / sizeof *steps };

/* The same whether it is streamed and wherever tokens begin. */
static void gives(ns_api_request q, const char *thought, const char *content, const char *want_thought, const char *want)
{
    for (int k = 0; k < 2 * N_STEPS; k++) {
        q.stream = k % 2;
        joined j = answer(&q, thought, content, steps[k / 2]);
        assert_string_equal(j.thought.data, want_thought);
        assert_string_equal(j.content.data, want);
        joined_release(&j);
    }
}

/* ---- chat ---- */

static void has_figures(json_t *o)
{
    has_int(o, "usage.prompt_tokens", 10);
    has_int(o, "usage.completion_tokens", 5);
    has_int(o, "usage.total_tokens", 15);
    has_int(o, "usage.prompt_tokens_details.cached_tokens", 4);
    has_int(o, "usage.completion_tokens_details.reasoning_tokens", 2);
}

static void has_nestar(json_t *o)
{
    has_string(o, "nestar.sizes.0.size", "12B");
    has_int(o, "nestar.sizes.0.tokens", 2);
    has_string(o, "nestar.sizes.1.size", "full");
    has_int(o, "nestar.sizes.1.tokens", 3);
    has_string(o, "nestar.end", "stop");
    has_int(o, "nestar.switches", 1);
    assert_true(json_real_value(path(o, "nestar.seconds")) == 1.5);
    assert_true(json_real_value(path(o, "nestar.first_token_seconds")) == 0.25);
    assert_true(json_real_value(path(o, "nestar.switch_seconds")) == 0.125);
}

static void test_chat_whole(void **state)
{
    (void)state;
    talk t;
    ns_api_request q = request(NS_API_CHAT, false);
    start(&t, &q);
    say(&t, true, "hm", 1);
    say(&t, false, "Yes.", 3);
    finish(&t, &ending);
    assert_int_equal(json_array_size(t.seen), 1);
    json_t *o = json_array_get(t.seen, 0);
    has_string(o, "id", "resp_7f3a");
    has_string(o, "object", "chat.completion");
    has_int(o, "created", 1700000000);
    has_string(o, "model", "auto");
    has_string(o, "choices.0.message.role", "assistant");
    has_string(o, "choices.0.message.content", "Yes.");
    has_string(o, "choices.0.message.reasoning_content", "hm");
    has_string(o, "choices.0.finish_reason", "stop");
    assert_true(json_is_null(path(o, "choices.0.logprobs")));
    assert_null(path(o, "choices.0.message.tool_calls"));
    has_figures(o);
    has_nestar(o);
    stop(&t);
}

static void test_chat_stream(void **state)
{
    (void)state;
    for (int usage = 0; usage < 2; usage++) {
        talk t;
        ns_api_request q = request(NS_API_CHAT, true);
        q.include_usage = usage;
        start(&t, &q);
        assert_int_equal(json_array_size(t.seen), 1);
        has_string(json_array_get(t.seen, 0), "choices.0.delta.role", "assistant");
        say(&t, true, "hm", 1);
        say(&t, false, "Yes.", 2);
        assert_int_equal(json_array_size(t.seen), 5); /* a token, an event */
        has_string(json_array_get(t.seen, 1), "choices.0.delta.reasoning_content", "h");
        has_string(json_array_get(t.seen, 1), "nestar.size", "12B");
        has_string(json_array_get(t.seen, 4), "choices.0.delta.content", "s.");
        has_string(json_array_get(t.seen, 4), "nestar.size", "full");
        assert_true(json_is_null(path(json_array_get(t.seen, 4), "choices.0.finish_reason")));
        assert_int_equal(json_is_null(path(json_array_get(t.seen, 4), "usage")), usage); /* null or not there */
        finish(&t, &ending);
        size_t n = json_array_size(t.seen);
        assert_int_equal(n, 7 + usage);
        assert_string_equal(json_string_value(json_array_get(t.seen, n - 1)), "[DONE]");
        has_string(json_array_get(t.seen, 5), "object", "chat.completion.chunk");
        has_string(json_array_get(t.seen, 5), "choices.0.finish_reason", "stop");
        has_nestar(json_array_get(t.seen, n - 2));
        if (usage) {
            has_figures(json_array_get(t.seen, n - 2));
            assert_int_equal(json_array_size(path(json_array_get(t.seen, n - 2), "choices")), 0);
            assert_null(path(json_array_get(t.seen, 5), "nestar"));
        }
        stop(&t);
    }
}

static void test_space(void **state)
{
    (void)state;
    ns_api_request q = request(NS_API_CHAT, false);
    gives(q, "one\n\ntwo\n", "\n\nYes. \n", "one\n\ntwo", "Yes. \n"); /* what the template has around the mark is nobody's */
    gives(q, "", "\nYes", "", "\nYes");
    gives(q, "thought only \n", "", "thought only", "");
    gives(q, "a", "\n \t\n", "a", "");
    talk t;
    start(&t, &q);
    ns_api_reply_token(t.r, 0, &(ns_api_token){ .bytes = "", .thought = true }, &t.out); /* a thought that was over at once */
    say(&t, false, "\n\nYes", 2);
    finish(&t, &ending);
    has_string(json_array_get(t.seen, 0), "choices.0.message.content", "Yes");
    assert_null(path(json_array_get(t.seen, 0), "choices.0.message.reasoning_content"));
    stop(&t);
}

static void test_characters(void **state)
{
    (void)state;
    ns_api_request q = request(NS_API_CHAT, false);
    for (size_t i = 0; i < 3; i++) {
        q.api = apis[i];
        gives(q, "", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80.", "", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80.");
        gives(q, "", "a\xff\xe2\x82" "b\xf0\x9f", "", "a\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd");
    }
    q.api = NS_API_CHAT;
    gives(q, "t\xc3", "\xa4x", "t\xef\xbf\xbd", "\xef\xbf\xbdx"); /* no character is half thought */
}

/* ---- stop strings ---- */

static void test_stops(void **state)
{
    (void)state;
    static const struct {
        const char *stop[NS_API_STOPS], *content, *want;
        bool ends;
    } c[] = {
        { { "END" }, "one END two", "one ", true },
        { { "END" }, "one EN", "one EN", false },
        { { "END" }, "ENENDx", "EN", true },
        { { "aab" }, "aaaab", "aa", true },
        { { "aabaaaa" }, "aabaaabaaaa", "aaba", true }, /* a border's border counts */
        { { "abac", "c" }, "ababac", "ab", true },  /* both end here: the longer */
        { { "bc", "abcd" }, "xabcd", "xa", true },  /* the first that is complete */
        { { "\n\n", "" }, "x\n\ny", "x", true },
        { { "\xc3\xbc" }, "\xc3\xb6\xc3\xbcx", "\xc3\xb6", true },
        { { "abc", "bd" }, "abd", "a", true },
        { { "x" }, "x", "", true },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        for (size_t a = 0; a < 3; a++) {
            ns_api_request q = request(apis[a], false);
            for (; q.n_stops < NS_API_STOPS && c[i].stop[q.n_stops]; q.n_stops++)
                q.stop[q.n_stops] = (char *)(uintptr_t)c[i].stop[q.n_stops];
            gives(q, "", c[i].content, "", c[i].want);
            if (apis[a] != NS_API_COMPLETIONS)
                gives(q, "END aab x", "", "END aab x", ""); /* a thought is not content */
            talk t;
            start(&t, &q);
            say(&t, false, c[i].content, 1);
            assert_int_equal(!t.on, c[i].ends);
            ns_api_end end = ending;
            end.finish = end.end = "length"; /* the last token that was allowed, too */
            finish(&t, &end);
            joined j = join_of(&t, 0);
            assert_string_equal(j.finish, apis[a] == NS_API_RESPONSES ? c[i].ends ? "completed" : "incomplete" : c[i].ends ? "stop" : "length");
            joined_release(&j);
            stop(&t);
        }
}

/* Where a text ends by the definition: at the first place where a stop string is complete, before the longest of those that are. */
static size_t end_of(const char *text, size_t n, char *const *stop, int n_stops)
{
    for (size_t i = 1; i <= n; i++) {
        size_t longest = 0;
        for (int s = 0; s < n_stops; s++) {
            size_t len = strlen(stop[s]);
            if (len <= i && len > longest && memcmp(text + i - len, stop[s], len) == 0)
                longest = len;
        }
        if (longest)
            return i - longest;
    }
    return n;
}

static void draw(ns_rng *r, char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + ns_rng_u64(r) % 2);
    text[n] = '\0';
}

static void test_stops_at_random(void **state)
{
    (void)state;
    ns_rng rng;
    int ended = 0;
    ns_rng_init(&rng, 7);
    for (int k = 0; k < 2000; k++) {
        char text[31], stop[NS_API_STOPS][9], want[31];
        ns_api_request q = request(NS_API_COMPLETIONS, k % 2);
        draw(&rng, text, ns_rng_u64(&rng) % 31);
        for (q.n_stops = 0; q.n_stops < k % 5; q.n_stops++) {
            draw(&rng, stop[q.n_stops], 3 + ns_rng_u64(&rng) % 6);
            q.stop[q.n_stops] = stop[q.n_stops];
        }
        size_t n = end_of(text, strlen(text), q.stop, q.n_stops);
        snprintf(want, sizeof want, "%.*s", (int)n, text);
        ended += n < strlen(text);
        joined j = answer(&q, "", text, 1 + ns_rng_u64(&rng) % 5);
        assert_string_equal(j.content.data, want);
        joined_release(&j);
    }
    assert_in_range(ended, 500, 1800);
}

/* ---- tool calls ---- */

#define AGAIN "{\"$ref\": \"#/$defs/Wide\"}, "
#define AGAIN_16 AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN AGAIN
static const char tools[] =
    "{\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"get\", \"description\": \"d\", \"parameters\": {\"type\": \"object\", "
    "\"properties\": {\"s\": {\"type\": \"string\"}, \"i\": {\"type\": \"integer\"}, \"x\": {\"type\": \"number\"}, \"b\": {\"type\": \"boolean\"},"
    "\"o\": {\"type\": \"object\"}, \"l\": {\"type\": \"array\"}, \"z\": {\"type\": \"null\"}, \"u\": {\"type\": [\"string\", \"integer\", \"null\"]},"
    "\"any\": {\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"null\"}]}, \"r\": {\"$ref\": \"#/$defs/R\"}, \"loop\": {\"$ref\": \"#/$defs/Loop\"},"
    "\"wide\": {\"$ref\": \"#/$defs/Wide\"}, \"free\": {}, \"e\": {\"enum\": [1, 2]}}, \"$defs\": {\"Wide\": {\"anyOf\": [{\"type\": \"integer\"}, " AGAIN_16 "{}]}, \"R\": {\"type\": \"integer\"}, \"Loop\": {\"$ref\": \"#/$defs/Loop\"}}}}}]}";

static ns_api_request tool_request(enum ns_api api, bool stream)
{
    ns_api_request q = request(api, stream);
    q.chat = parse(tools, sizeof tools - 1);
    q.tools = json_object_get(q.chat, "tools");
    q.tool_choice = NS_API_TOOLS_AUTO;
    return q;
}

/* The arguments of a call with one parameter. */
static void argument(const char *name, const char *value, const char *want)
{
    char markup[400];
    snprintf(markup, sizeof markup, "<tool_call>\n<function=get>\n<parameter=%s>\n%s\n</parameter>\n</function>\n</tool_call>\n", name, value);
    ns_api_request q = tool_request(NS_API_CHAT, false);
    joined j = answer(&q, "", markup, 4);
    json_t *args = json_loads(json_string_value(path(j.calls, "0.arguments")), 0, NULL), *expect = json_loads(want, JSON_DECODE_ANY, NULL);
    assert_non_null(args);
    assert_non_null(expect);
    if (!json_equal(json_object_get(args, name), expect))
        fail_msg("%s: %s gives %s, expected %s", name, value, json_string_value(path(j.calls, "0.arguments")), want);
    json_decref(args);
    json_decref(expect);
    joined_release(&j);
}

static void test_arguments(void **state)
{
    (void)state;
    static const struct { const char *name, *value, *want; } c[] = {
        { "s", "7", "\"7\"" }, { "s", " a \n\nb ", "\" a \\n\\nb \"" }, { "s", "", "\"\"" }, { "s", "\"q\"", "\"\\\"q\\\"\"" }, { "s", "{\"a\": 1}", "\"{\\\"a\\\": 1}\"" },
        { "i", "7", "7" }, { "i", " -7 ", "-7" }, { "i", "seven", "\"seven\"" }, { "i", "1 2", "\"1 2\"" }, { "x", "1.5e3", "1500.0" }, { "x", "", "\"\"" },
        { "b", "true", "true" }, { "b", "False", "false" }, { "b", "yes", "\"yes\"" }, { "o", "{\"a\": [1, null]}", "{\"a\": [1, null]}" },
        { "o", "{\"a\": ", "\"{\\\"a\\\": \"" }, { "l", "[1,\n2]", "[1, 2]" }, { "z", "null", "null" }, { "z", "None", "null" },
        { "u", "7", "7" }, { "u", "None", "null" }, { "u", "x", "\"x\"" }, { "u", "[1]", "\"[1]\"" }, { "any", "7", "7" }, { "any", "null", "null" },
        { "r", "7", "7" }, { "loop", "7", "\"7\"" }, { "wide", "7", "7" }, { "free", "7", "\"7\"" }, { "free", "{\"a\": 1}", "{\"a\": 1}" }, { "unknown", "[7]", "[7]" },
        { "unknown", "true", "\"true\"" }, { "e", "2", "2" }, { "i", "123456789012345678901234567890", "\"123456789012345678901234567890\"" },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        argument(c[i].name, c[i].value, c[i].want);
}

#define CALL(params) "<tool_call>\n<function=get>\n" params "</function>\n</tool_call>\n"
#define PARAM(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"

static void test_calls(void **state)
{
    (void)state;
    for (int k = 0; k < 4 * N_STEPS; k++) {
        enum ns_api api = k % 4 < 2 ? NS_API_CHAT : NS_API_RESPONSES;
        ns_api_request q = tool_request(api, k % 2);
        joined j = answer(&q, "I look.\n", "\n" CALL(PARAM("i", "1") PARAM("x", "0.1") PARAM("i", "2")) CALL(""), steps[k / 4]);
        assert_string_equal(j.thought.data, "I look.");
        assert_string_equal(j.content.data, "");
        assert_int_equal(json_array_size(j.calls), 2);
        has_string(j.calls, "0.name", "get");
        has_string(j.calls, "0.arguments", "{\"x\": 0.1, \"i\": 2}");
        has_string(j.calls, "0.id", "call_7f3a_0_0");
        has_string(j.calls, "1.arguments", "{}");
        has_string(j.calls, "1.id", "call_7f3a_0_1");
        assert_string_equal(j.finish, api == NS_API_CHAT ? "tool_calls" : "completed");
        if (api == NS_API_CHAT && !q.stream)
            assert_true(j.null);
        joined_release(&j);
        q = tool_request(api, k % 2);
        j = answer(&q, "", "Wait.\n" CALL("") "\nso", steps[k / 4]);
        assert_string_equal(j.content.data, "Wait.\n\nso");
        assert_int_equal(json_array_size(j.calls), 1);
        joined_release(&j);
    }
}

static void test_no_calls(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "a < b <tool_call", "<tool_call>", "x <tool_call>\n<function=get>\n<parameter=s>\nnever ends", "<tool_call>{\"name\": \"get\"}</tool_call>",
        "<tool_call>\n<function=>\n</function>\n</tool_call>", "<tool_call>\n<function=get>\ntext\n</function>\n</tool_call>", " \n ",
        "<tool_call>\n<function=get>\n</function>\n", "<tool_call>\n<function=get>\n</function></tool_cal>", "<TOOL_CALL>", "<tool_call><function=a\nb>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int k = 0; k < 2 * N_STEPS; k++) {
            ns_api_request q = tool_request(NS_API_CHAT, k % 2);
            joined j = answer(&q, CALL(""), texts[i], steps[k / 2]);
            assert_string_equal(j.content.data, i == 6 ? "" : texts[i]); /* white space behind a thought */
            assert_string_equal(j.thought.data, "<tool_call>\n<function=get>\n</function>\n</tool_call>");
            assert_int_equal(json_array_size(j.calls), 0);
            assert_string_equal(j.finish, "stop");
            joined_release(&j);
        }
    for (int k = 0; k < 2 * N_STEPS; k++) { /* nothing but white space stays, too */
        ns_api_request q = tool_request(NS_API_CHAT, k % 2);
        joined j = answer(&q, "", " \n ", steps[k / 2]);
        assert_string_equal(j.content.data, " \n ");
        joined_release(&j);
    }
    for (int k = 0; k < 3; k++) { /* not asked for */
        ns_api_request q = tool_request(k == 1 ? NS_API_COMPLETIONS : NS_API_CHAT, false);
        q.tool_choice = k == 0 ? NS_API_TOOLS_NONE : NS_API_TOOLS_AUTO;
        if (k == 2)
            q.tools = NULL;
        joined j = answer(&q, "", CALL(""), 3);
        assert_string_equal(j.content.data, CALL(""));
        assert_int_equal(json_array_size(j.calls), 0);
        joined_release(&j);
    }
}

static void test_broken_then_call(void **state)
{
    (void)state;
    for (int k = 0; k < N_STEPS; k++) {
        ns_api_request q = tool_request(NS_API_CHAT, k % 2);
        joined j = answer(&q, "", "<tool_call>\n" CALL(PARAM("s", "</tool_call>")) CALL("!") CALL(""), steps[k]);
        assert_string_equal(j.content.data, "<tool_call>\n\n<tool_call>\n<function=get>\n!</function>\n</tool_call>");
        assert_int_equal(json_array_size(j.calls), 2);
        has_string(j.calls, "0.arguments", "{\"s\": \"</tool_call>\"}");
        joined_release(&j);
    }
}

static void test_one_call(void **state)
{
    (void)state;
    for (int k = 0; k < 4 * N_STEPS; k++) {
        ns_api_request q = tool_request(NS_API_CHAT, k % 2);
        talk t;
        if (k % 4 < 2)
            q.tool_choice = NS_API_TOOLS_NAMED;
        else
            q.parallel_calls = false;
        start(&t, &q);
        say(&t, false, CALL("") CALL("") "text", steps[k / 4]);
        assert_false(t.on);
        ns_api_end end = ending;
        end.finish = "length";
        finish(&t, &end);
        joined j = join_of(&t, 0);
        assert_int_equal(json_array_size(j.calls), 1);
        assert_string_equal(j.content.data, "");
        assert_string_equal(j.finish, "tool_calls");
        joined_release(&j);
        stop(&t);
    }
}

/* With a stop string "abc". */
static ns_api_request stop_request(enum ns_api api, bool stream)
{
    ns_api_request q = tool_request(api, stream);
    q.stop[0] = (char *)(uintptr_t)"abc";
    q.n_stops = 1;
    return q;
}

static void test_calls_and_stops(void **state)
{
    (void)state;
    for (int k = 0; k < 2 * N_STEPS; k++) {
        ns_api_request q = stop_request(NS_API_CHAT, k % 2);
        joined j = answer(&q, "", "ab<tool_call><function=get>" PARAM("s", "abc") "</function></tool_call>c abc no", steps[k / 2]);
        assert_string_equal(j.content.data, "abc "); /* neither in a call nor across one */
        has_string(j.calls, "0.arguments", "{\"s\": \"abc\"}");
        assert_string_equal(j.finish, "tool_calls");
        joined_release(&j);
        q = stop_request(NS_API_RESPONSES, k % 2);
        talk t;
        start(&t, &q);
        say(&t, false, "ab" CALL(""), steps[k / 2]);
        finish(&t, &ending);
        json_t *last = json_array_get(t.seen, json_array_size(t.seen) - 1), *o = q.stream ? path(last, "response") : last;
        has_string(o, "output.0.content.0.text", "ab"); /* what waited for a stop string comes before the call */
        has_string(o, "output.1.type", "function_call");
        stop(&t);
        q = stop_request(NS_API_CHAT, k % 2);
        ns_api_end end = ending;
        end.finish = "length";
        start(&t, &q);
        say(&t, false, "x <tool_call>\n<function=abc", steps[k / 2]); /* no call in the end, so there was a stop string */
        assert_true(t.on);
        finish(&t, &end);
        j = join_of(&t, 0);
        assert_string_equal(j.content.data, "x <tool_call>\n<function=");
        assert_string_equal(j.finish, "stop");
        joined_release(&j);
        stop(&t);
    }
}

/* ---- log-probabilities ---- */

/* The tokens listed for an answer, joined by "|". */
static void lists(const ns_api_request *q, const char *thought, const char *content, size_t step, const char *want)
{
    joined j = answer(q, thought, content, step);
    ns_buf got = { 0 };
    json_t *e;
    size_t i;
    json_array_foreach(j.logprobs, i, e) {
        ns_buf_adds(&got, i ? "|" : "");
        add_text(&got, json_object_get(e, "token"));
        assert_true(json_real_value(json_object_get(e, "logprob")) == -0.25);
        assert_int_equal(json_array_size(json_object_get(e, "top_logprobs")), q->top_logprobs);
    }
    ns_buf_adds(&got, "");
    assert_string_equal(got.data, want);
    ns_buf_release(&got);
    joined_release(&j);
}

static void test_logprobs(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        enum ns_api api = k < 2 ? NS_API_CHAT : NS_API_RESPONSES;
        ns_api_request q = tool_request(api, k % 2);
        q.logprobs = true;
        q.top_logprobs = 2;
        lists(&q, "thought", "Hello you", 3, "Hel|lo |you");
        q.stop[0] = (char *)(uintptr_t)"lo y";
        q.n_stops = 1;
        q.chat = parse(tools, sizeof tools - 1);
        q.tools = json_object_get(q.chat, "tools");
        lists(&q, "", "Hello you", 2, "He|ll"); /* those with text that went out */
        q = tool_request(api, k % 2);
        q.logprobs = true;
        q.top_logprobs = 0;
        lists(&q, "a", "\nab\n" CALL("") " so", 3, "\nab|>\n |so"); /* of a call: only what reaches out of it */
        q = request(api, k % 2);
        q.logprobs = true;
        q.top_logprobs = 1;
        lists(&q, "", "x\xf0\x9f\x98\x80", 2, "x\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd"); /* parts of a character */
    }
}

static void test_logprob_entry(void **state)
{
    (void)state;
    talk t;
    ns_api_request q = request(NS_API_CHAT, false);
    q.logprobs = true;
    q.top_logprobs = 2;
    start(&t, &q);
    say(&t, false, "\xf0\x9f\x98\x80", 3);
    finish(&t, &ending);
    json_t *o = json_array_get(t.seen, 0);
    assert_int_equal(json_array_size(path(o, "choices.0.logprobs.content")), 2);
    has_string(o, "choices.0.logprobs.content.0.token", "\xef\xbf\xbd");
    has_int(o, "choices.0.logprobs.content.0.bytes.0", 0xf0);
    has_int(o, "choices.0.logprobs.content.0.bytes.2", 0x98);
    has_int(o, "choices.0.logprobs.content.1.bytes.0", 0x80);
    has_int(o, "choices.0.logprobs.content.0.top_logprobs.1.bytes.1", 0x9f);
    assert_true(json_real_value(path(o, "choices.0.logprobs.content.0.top_logprobs.1.logprob")) == -9999);
    assert_true(json_is_null(path(o, "choices.0.logprobs.refusal")));
    stop(&t);
}

/* ---- completions ---- */

static void test_completions(void **state)
{
    (void)state;
    talk t;
    ns_api_request q = request(NS_API_COMPLETIONS, false);
    q.logprobs = true;
    q.top_logprobs = 1;
    start(&t, &q);
    say(&t, true, "\xc3\xbc is ", 2); /* a thought that the prompt left open is text like all */
    say(&t, false, "u", 1);
    finish(&t, &ending);
    json_t *o = json_array_get(t.seen, 0);
    has_string(o, "object", "text_completion");
    has_string(o, "choices.0.text", "\xc3\xbc is u");
    has_string(o, "choices.0.logprobs.tokens.0", "\xc3\xbc");
    has_int(o, "choices.0.logprobs.text_offset.1", 1); /* characters */
    has_int(o, "choices.0.logprobs.text_offset.3", 5);
    assert_int_equal(json_array_size(path(o, "choices.0.logprobs.text_offset")), 4);
    assert_true(json_real_value(path(o, "choices.0.logprobs.token_logprobs.3")) == -0.25);
    assert_true(json_real_value(path(o, "choices.0.logprobs.top_logprobs.3.u")) == -0.25);
    has_string(o, "choices.0.finish_reason", "stop");
    has_figures(o);
    has_nestar(o);
    stop(&t);
    q.stream = true;
    q.include_usage = true;
    start(&t, &q);
    assert_int_equal(json_array_size(t.seen), 0);
    say(&t, false, "\xc3\xbc is", 2);
    finish(&t, &ending);
    assert_int_equal(json_array_size(t.seen), 6);
    has_int(json_array_get(t.seen, 1), "choices.0.logprobs.text_offset.0", 1);
    has_string(json_array_get(t.seen, 1), "nestar.size", "full");
    has_string(json_array_get(t.seen, 3), "choices.0.finish_reason", "stop");
    has_figures(json_array_get(t.seen, 4));
    has_nestar(json_array_get(t.seen, 4));
    assert_string_equal(json_string_value(json_array_get(t.seen, 5)), "[DONE]");
    stop(&t);
}

/* ---- responses ---- */

static void test_responses_whole(void **state)
{
    (void)state;
    talk t;
    ns_api_request q = tool_request(NS_API_RESPONSES, false);
    q.temperature = 0.7;
    start(&t, &q);
    say(&t, true, "hm", 1);
    say(&t, false, "Yes. " CALL(PARAM("i", "1")), 3);
    finish(&t, &ending);
    json_t *o = json_array_get(t.seen, 0);
    has_string(o, "status", "completed");
    has_string(o, "output.0.type", "reasoning");
    has_string(o, "output.0.content.0.text", "hm");
    has_string(o, "output.1.type", "message");
    has_string(o, "output.1.content.0.text", "Yes.");
    has_string(o, "output.1.status", "completed");
    has_string(o, "output.2.type", "function_call");
    has_string(o, "output.2.call_id", "call_7f3a_0_0");
    has_string(o, "output.2.arguments", "{\"i\": 1}");
    has_string(o, "tools.0.name", "get");
    assert_true(json_real_value(path(o, "temperature")) == 0.7);
    has_int(o, "usage.input_tokens", 10);
    has_int(o, "usage.output_tokens", 5);
    has_int(o, "usage.output_tokens_details.reasoning_tokens", 2);
    has_nestar(o);
    stop(&t);
}

static void test_responses_stream(void **state)
{
    (void)state;
    static const char *const types[] = { "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "incomplete" };
    size_t n = sizeof types / sizeof *types;
    talk t;
    ns_api_request q = tool_request(NS_API_RESPONSES, true);
    ns_api_end end = ending;
    q.logprobs = true;
    start(&t, &q);
    say(&t, true, "hm", 9);
    say(&t, false, "Yes." CALL(""), 100);
    end.finish = "length";
    finish(&t, &end);
    assert_int_equal(json_array_size(t.seen), n);
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(t.seen, i);
        char type[64];
        snprintf(type, sizeof type, "response.%s", types[i]);
        has_string(e, "type", type);
        has_int(e, "sequence_number", (json_int_t)i);
        if (i >= 2 && i < n - 1)
            has_int(e, "output_index", i < 8 ? 0 : i < 14 ? 1 : 2);
    }
    json_t *last = json_array_get(t.seen, n - 1);
    has_string(json_array_get(t.seen, 4), "nestar.size", "12B");
    has_string(json_array_get(t.seen, 10), "nestar.size", "full");
    has_string(last, "response.status", "incomplete");
    has_string(last, "response.incomplete_details.reason", "max_output_tokens");
    has_nestar(path(last, "response"));
    for (size_t i = 0; i < 3; i++) /* what was said item by item is what stands in the end */
        assert_true(json_equal(json_array_get(path(last, "response.output"), i), path(json_array_get(t.seen, i == 0 ? 7 : i == 1 ? 13 : 17), "item")));
    stop(&t);
}

/* ---- several choices, errors ---- */

static void test_choices(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        talk t;
        ns_api_request q = request(k < 2 ? NS_API_CHAT : NS_API_COMPLETIONS, k % 2);
        ns_api_end end = ending;
        q.n = 2;
        start(&t, &q);
        say_n(&t, 1, false, "b\xc3", 2, 1);
        say_n(&t, 0, false, "a\xc3\xa4", 3, 2);
        say_n(&t, 1, false, "\xbc", 1, 1);
        end.cached_tokens = 2;
        ns_api_reply_end(t.r, 1, &end, &t.out);
        gather(&t);
        if (!q.stream)
            assert_int_equal(json_array_size(t.seen), 0);
        say_n(&t, 0, false, "!", 1, 1);
        end.cached_tokens = 3;
        end.finish = end.end = "length";
        finish(&t, &end);
        joined a = join_of(&t, 0), b = join_of(&t, 1);
        assert_string_equal(a.content.data, "a\xc3\xa4!");
        assert_string_equal(a.finish, "length");
        assert_string_equal(b.content.data, "b\xc3\xbc");
        assert_string_equal(b.finish, "stop");
        joined_release(&a);
        joined_release(&b);
        json_t *last = json_array_get(t.seen, q.stream ? json_array_size(t.seen) - 2 : 0);
        has_string(last, "nestar.end", "mixed");
        has_int(last, "nestar.sizes.1.tokens", 6);
        if (!q.stream) {
            has_int(last, "usage.prompt_tokens", 10);
            has_int(last, "usage.completion_tokens", 10);
            has_int(last, "usage.prompt_tokens_details.cached_tokens", 2);
        }
        stop(&t);
    }
}

static void test_error(void **state)
{
    (void)state;
    for (size_t a = 0; a < 3; a++) {
        talk t;
        ns_api_request q = request(apis[a], true);
        ns_api_error err;
        ns_api_fail(&err, 500, NULL, NULL, "the engine stopped");
        start(&t, &q);
        say(&t, false, "Yes", 1);
        ns_api_reply_error(t.r, &err, &t.out);
        gather(&t);
        json_t *o = json_array_get(t.seen, json_array_size(t.seen) - 2);
        if (apis[a] == NS_API_RESPONSES) {
            has_string(o, "message", "the engine stopped");
            has_string(json_array_get(t.seen, json_array_size(t.seen) - 1), "response.status", "failed");
            has_string(json_array_get(t.seen, json_array_size(t.seen) - 1), "response.error.code", "server_error");
        } else
            has_string(o, "error.message", "the engine stopped");
        ns_api_reply_end(t.r, 0, &ending, &t.out);
        ns_api_reply_error(t.r, &err, &t.out);
        assert_int_equal(t.out.len, 0);
        stop(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_whole),      cmocka_unit_test(test_chat_stream),       cmocka_unit_test(test_space),
        cmocka_unit_test(test_characters),      cmocka_unit_test(test_stops),             cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_calls),           cmocka_unit_test(test_no_calls),          cmocka_unit_test(test_broken_then_call),
        cmocka_unit_test(test_one_call),           cmocka_unit_test(test_calls_and_stops),   cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_logprob_entry),   cmocka_unit_test(test_completions),       cmocka_unit_test(test_responses_whole),
        cmocka_unit_test(test_responses_stream), cmocka_unit_test(test_choices),          cmocka_unit_test(test_error),
        cmocka_unit_test(test_stops_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
