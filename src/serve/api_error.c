#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serve/api.h"
#include "text/utf8.h"

static const char *type_of(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void cut(char *s)
{
    s[ns_utf8_valid(s, strlen(s))] = 0;
}

int ns_api_fail(ns_api_error *e, int status, const char *code, const char *param, const char *fmt, ...)
{
    va_list args;
    *e = (ns_api_error){ .status = status, .type = type_of(status), .code = code };
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_start(args, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, args);
    va_end(args);
    cut(e->param); /* both may quote the client, and end inside a character */
    cut(e->message);
    return -1;
}

void ns_api_error_write(const ns_api_error *e, ns_buf *out)
{
    json_t *j = json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", e->message, "type", e->type, "param", e->param[0] ? e->param : NULL,
                          "code", e->code);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    ns_buf_adds(out, text ? text : "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,\"code\":null}}");
    free(text);
    json_decref(j);
}
