/* Any bytes as an answer's tokens. The first four bytes choose the request: the form, tools, stop strings, log-probabilities, how long the
 * thought is and how the bytes fall into tokens. The answer is made whole, and streamed with other tokens: what is written is JSON, the
 * pieces joined are the whole, and no byte of well-formed text is lost where nothing takes any out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "serve/api.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": "
                            "{\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": [\"string\", \"boolean\"]}}}}}]";
static char *const stops[] = { "abab", "b\n", "\xc3\xbc", "aba" };

typedef struct joined {
    ns_buf thought, content, calls;
    bool length;
} joined;

static void need(bool ok)
{
    if (!ok)
        abort();
}

static ns_api_request request_of(const uint8_t *choice, json_t *has)
{
    static const enum ns_api_tools wants[] = { NS_API_TOOLS_NONE, NS_API_TOOLS_AUTO, NS_API_TOOLS_AUTO, NS_API_TOOLS_NAMED };
    ns_api_request q = { .api = (enum ns_api)(choice[0] % 3), .n = 1, .temperature = NAN, .top_p = NAN, .min_p = NAN, .repetition_penalty = NAN };
    q.tool_choice = wants[choice[0] / 3 % 4];
    q.parallel_calls = choice[0] / 12 % 4 != 2;
    q.tools = choice[0] / 12 % 4 ? has : NULL;
    q.n_stops = choice[1] % 5;
    for (int i = 0; i < q.n_stops; i++)
        q.stop[i] = stops[(i + choice[1] / 5) % 4];
    q.logprobs = choice[1] & 0x80;
    q.top_logprobs = q.logprobs;
    q.include_usage = choice[0] & 0x80;
    return q;
}

/* ---- what was written, put together ---- */

static void add(ns_buf *b, const json_t *s)
{
    if (json_is_string(s))
        ns_buf_add(b, json_string_value(s), json_string_length(s));
}

static void add_call(joined *j, const json_t *f)
{
    ns_err e = { 0 };
    const json_t *args = json_object_get(f, "arguments");
    json_t *object = ns_json_parse(json_string_value(args), json_string_length(args), false, "arguments", &e);
    need(json_is_object(object));
    json_decref(object);
    add(&j->calls, json_object_get(f, "name"));
    add(&j->calls, args);
}

static void read_choices(joined *j, const json_t *o)
{
    json_t *c, *call;
    size_t i, k;
    json_array_foreach(json_object_get(o, "choices"), i, c) {
        const json_t *m = json_object_get(c, "message") ? json_object_get(c, "message") : json_object_get(c, "delta");
        const char *finish = json_string_value(json_object_get(c, "finish_reason"));
        add(&j->thought, json_object_get(m, "reasoning_content"));
        add(&j->content, json_object_get(m, "content"));
        add(&j->content, json_object_get(c, "text"));
        json_array_foreach(json_object_get(m, "tool_calls"), k, call)
            add_call(j, json_object_get(call, "function"));
        j->length |= finish && strcmp(finish, "length") == 0;
    }
}

static void read_response(joined *j, const json_t *o)
{
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(o, "output"), i, item) {
        const char *type = json_string_value(json_object_get(item, "type"));
        if (strcmp(type, "function_call") == 0)
            add_call(j, item);
        else
            add(strcmp(type, "message") == 0 ? &j->content : &j->thought, json_object_get(json_array_get(json_object_get(item, "content"), 0), "text"));
    }
    j->length |= strcmp(json_string_value(json_object_get(o, "status")), "incomplete") == 0;
}

static void read_event(joined *j, const json_t *e)
{
    const char *type = json_string_value(json_object_get(e, "type"));
    if (!type)
        read_choices(j, e);
    else if (strcmp(type, "response.output_text.delta") == 0)
        add(&j->content, json_object_get(e, "delta"));
    else if (strcmp(type, "response.reasoning_text.delta") == 0)
        add(&j->thought, json_object_get(e, "delta"));
    else if (strcmp(type, "response.function_call_arguments.done") == 0)
        add_call(j, e);
    j->length |= type && strcmp(type, "response.incomplete") == 0;
}

static json_t *parse(const char *p, size_t n)
{
    ns_err e = { 0 };
    need(ns_utf8_valid(p, n) == n && !memchr(p, '\n', n));
    json_t *o = ns_json_parse(p, n, false, "reply", &e);
    need(json_is_object(o));
    return o;
}

static void read_stream(joined *j, enum ns_api api, const char *p)
{
    bool done = false;
    while (*p) {
        need(!done);
        const char *end = strstr(p, "\n\n");
        need(end != NULL);
        need((strncmp(p, "event: ", 7) == 0) == (api == NS_API_RESPONSES));
        p = strstr(p, "data: ");
        need(p && p < end);
        p += 6;
        done = end - p == 6 && memcmp(p, "[DONE]", 6) == 0;
        if (!done) {
            json_t *o = parse(p, (size_t)(end - p));
            read_event(j, o);
            json_decref(o);
        }
        p = end + 2;
    }
    need(done == (api != NS_API_RESPONSES));
}

/* ---- one answer ---- */

static joined answer(const ns_api_request *q, const char *text, size_t n, size_t thought, uint64_t seed)
{
    joined j = { 0 };
    ns_buf out = { 0 };
    ns_err e = { 0 };
    ns_rng rng;
    ns_rng_init(&rng, seed);
    ns_api_reply *r = ns_api_reply_new(&(ns_api_reply_opts){ .request = q, .id = "x", .model = "full" }, &e);
    need(r != NULL);
    ns_api_reply_begin(r, &out);
    bool on = true;
    for (size_t at = 0; at < n && on;) {
        size_t part = at < thought ? thought : n, len = (size_t)(ns_rng_u64(&rng) % 9);
        len = len < part - at ? len : part - at;
        const ns_api_top top = { text + at, len, -1 };
        on = ns_api_reply_token(r, 0, &(ns_api_token){ .bytes = text + at, .n = len, .thought = at < thought, .logprob = -1, .top = &top, .n_top = 1,
                                                       .size = "full" }, &out);
        at += len;
    }
    ns_api_reply_end(r, 0, &(ns_api_end){ .finish = "length", .end = "length" }, &out);
    need(!out.failed && out.data);
    if (q->stream)
        read_stream(&j, q->api, out.data);
    else {
        json_t *o = parse(out.data, out.len);
        if (q->api == NS_API_RESPONSES)
            read_response(&j, o);
        else
            read_choices(&j, o);
        json_decref(o);
    }
    ns_api_reply_free(r);
    ns_buf_release(&out);
    return j;
}

static bool same(const ns_buf *a, const ns_buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void release(joined *j)
{
    ns_buf_release(&j->thought);
    ns_buf_release(&j->content);
    ns_buf_release(&j->calls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const char *text = (const char *)data + 4;
    size_t n = size - 4, thought = data[2] < n ? data[2] : n;
    json_t *has = json_loads(tools, 0, NULL);
    ns_api_request q = request_of(data, has);
    joined whole = answer(&q, text, n, thought, data[3]);
    q.stream = true;
    joined streamed = answer(&q, text, n, thought, data[3] + 1u);
    need(same(&whole.thought, &streamed.thought) && same(&whole.content, &streamed.content) && same(&whole.calls, &streamed.calls));
    need(whole.length == streamed.length);
    bool plain = q.n_stops == 0 && (q.api == NS_API_COMPLETIONS || (thought == 0 && (!q.tools || q.tool_choice == NS_API_TOOLS_NONE)));
    if (plain && ns_utf8_valid(text, n) == n)
        need(same(&whole.content, &(ns_buf){ .data = (char *)(uintptr_t)text, .len = n }));
    release(&whole);
    release(&streamed);
    json_decref(has);
    return 0;
}
