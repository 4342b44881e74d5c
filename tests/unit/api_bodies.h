/* Bodies of requests in tests, written with ' for ". */
#ifndef NS_TEST_API_BODIES_H
#define NS_TEST_API_BODIES_H
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "serve/api.h"

#define CHAT NS_API_CHAT
#define COMPLETIONS NS_API_COMPLETIONS
#define RESPONSES NS_API_RESPONSES

static inline const char *quoted(const char *s)
{
    static char text[2][8192];
    static int turn;
    char *out = text[turn ^= 1];
    size_t n = strlen(s);
    assert_true(n < sizeof text[0]);
    for (size_t i = 0; i <= n; i++)
        out[i] = s[i] == '\'' ? '"' : s[i];
    return out;
}

static inline ns_api_request parsed(enum ns_api api, const char *body)
{
    ns_api_request r;
    ns_api_error e;
    const char *text = quoted(body);
    if (ns_api_parse(api, text, strlen(text), &r, &e) != 0)
        fail_msg("%s\n%s: %s", body, e.param, e.message);
    return r;
}

static inline ns_api_error refused(enum ns_api api, const char *body)
{
    ns_api_request r;
    ns_api_error e = { 0 };
    const char *text = quoted(body);
    if (ns_api_parse(api, text, strlen(text), &r, &e) == 0)
        fail_msg("taken: %s", body);
    assert_null(r.all); /* nothing is left to release */
    assert_null(r.chat);
    return e;
}

#define M(message) "{'model': 'm', 'messages': [" message "]}"
#define ASKED "{'role': 'user', 'content': 'x'}"
#define TOOL "{'type': 'function', 'function': {'name': 'f', 'description': ' d ', 'parameters': {'type': 'object'}, 'strict': true}}"
#define WITH(members) "{'model': 'm', 'messages': [" ASKED "], " members "}"
#endif
