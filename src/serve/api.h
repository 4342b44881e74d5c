/* The OpenAI protocol, one direction each: bytes -> request (api_request*.c), answer -> bytes (api_reply*.c). Pure: no sockets, no engine, no
 * clock. Formats: the published OpenAPI description of the OpenAI API; own fields stand under "nestar". */
#ifndef NS_SERVE_API_H
#define NS_SERVE_API_H
#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

enum ns_api { NS_API_CHAT, NS_API_COMPLETIONS, NS_API_RESPONSES };

/* An error as clients see it: {"error": {"message", "type", "param", "code"}}. */
typedef struct ns_api_error {
    int status;       /* 400, 401, 404, 405, 408, 413, 415, 421, 429, 500, 503 */
    const char *type; /* "invalid_request_error", "authentication_error", "not_found_error", "rate_limit_error", "server_error" */
    const char *code; /* "context_length_exceeded", "model_not_found", ..; NULL */
    char param[128];  /* "messages[2].content"; "" */
    char message[512];
} ns_api_error;
/* Returns -1. `param` and `code` may be NULL. */
int ns_api_fail(ns_api_error *e, int status, const char *code, const char *param, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void ns_api_error_write(const ns_api_error *e, ns_buf *out);

enum ns_api_format { NS_API_TEXT, NS_API_JSON_OBJECT, NS_API_JSON_SCHEMA };
enum ns_api_tools { NS_API_TOOLS_NONE, NS_API_TOOLS_AUTO, NS_API_TOOLS_REQUIRED, NS_API_TOOLS_NAMED };
enum { NS_API_STOPS = 4 };

/* A request as the client wrote it; numbers that were not given are NAN, -1 or 0 as said. All memory is the request's. */
typedef struct ns_api_request {
    enum ns_api api;
    json_t *chat;         /* chat, responses: {"messages", "tools"?, "add_generation_prompt": true, chat_template_kwargs merged} for the
                           * checkpoint's template; contents are strings, arguments of calls objects */
    json_t *tools;        /* borrowed from chat, in the chat API's shape; NULL: none, or tool_choice is "none" */
    const char *prompt;   /* completions, as text; NULL where ids were given */
    size_t n_prompt;      /* bytes of it: NUL may be inside */
    int *ids;             /* completions, as ids */
    size_t n_ids;
    bool echo;            /* completions: not held, refused when true */
    char model[128];      /* a size, "auto" */
    bool stream, include_usage;
    int n;                /* choices: 1 .. 16 */
    double temperature, top_p, min_p, repetition_penalty; /* NAN: the checkpoint's */
    int top_k;            /* -1: the checkpoint's */
    bool has_seed;
    uint64_t seed;
    int max_tokens;       /* max_completion_tokens, max_tokens, max_output_tokens; 0: as the context has room (completions: 16 where not given) */
    char *stop[NS_API_STOPS];
    int n_stops;
    bool ignore_eos;      /* go on after end-of-turn tokens; as in llama.cpp and vLLM */
    bool logprobs;
    int top_logprobs;     /* 0..20 */
    enum ns_api_format format;
    json_t *schema;       /* borrowed; of JSON_SCHEMA */
    enum ns_api_tools tool_choice;
    char tool_name[65];   /* of NAMED */
    bool parallel_calls;  /* false: an answer ends with its first call */
    /* thinking: reasoning_effort ("none", "minimal", "low", "medium", "high", "xhigh") and the fields under "nestar" */
    bool thinks;          /* false: completions, and where enable_thinking = false was put into `chat` */
    int think_budget;     /* tokens; 0: no limit */
    char think[64], answer[64]; /* sizes; "": the model's */
    char handover[16];    /* "auto", "cache", "prefill", "late"; "" */
    int deadline_ms;      /* 0: none */
    json_t *all;          /* the body; owner of what is borrowed */
} ns_api_request;

/* -1: `err` says what is wrong. What the server does not hold is refused by name, not ignored, where it would change the answer; what would
 * not (user, metadata, store ..) is accepted. */
int ns_api_parse(enum ns_api api, const char *body, size_t n, ns_api_request *out, ns_api_error *err);
void ns_api_request_release(ns_api_request *r);

/* ---- replies ---- */

typedef struct ns_api_top {
    const char *bytes;
    size_t n;
    double logprob;
} ns_api_top;

/* One token of an answer; bytes may be part of a character. Marks have no text (n = 0; "</think>" is thought: white space
 * behind it is left out even where nothing was thought), nor have ends of turns. */
typedef struct ns_api_token {
    const char *bytes;
    size_t n;
    bool thought;       /* reasoning_content; in completions text like all */
    double logprob;
    const ns_api_top *top;
    int n_top;
    const char *size;
} ns_api_token;

typedef struct ns_api_used {
    const char *size;
    size_t tokens;
} ns_api_used;

typedef struct ns_api_end {
    const char *finish;  /* "stop", "length". What the text itself ended (a stop string, a last call) was no matter of length; "stop" becomes
                          * "tool_calls" where the answer has some */
    size_t prompt_tokens, cached_tokens, thought_tokens, answer_tokens;
    const ns_api_used *used;
    int n_used;
    const char *end;     /* nestar's own word: "stop", "length", "context", "deadline", "cancelled" */
    double first_token, total; /* seconds */
    double switch_seconds;
    int switches;
} ns_api_end;

/* What is made of the n choices of one request. Streaming: after each call below, what is to be sent stands in `out` (server-sent events,
 * complete ones), else `out` is filled by ns_api_reply_end of the last choice. Text goes out as whole characters; what could be the
 * beginning of a stop string or of a tool call waits. Tool calls are in the markup of the Nemotron 3 template. `failed` of `out` says that
 * memory was out: the reply cannot go on. */
typedef struct ns_api_reply ns_api_reply;
typedef struct ns_api_reply_opts {
    const ns_api_request *request; /* outlives the reply */
    const char *id;                /* "chatcmpl-..", "cmpl-..", "resp_.." */
    long created;                  /* seconds since 1970 */
    const char *model;             /* as to be named */
} ns_api_reply_opts;
ns_api_reply *ns_api_reply_new(const ns_api_reply_opts *o, ns_err *e);
void ns_api_reply_free(ns_api_reply *r);
void ns_api_reply_begin(ns_api_reply *r, ns_buf *out); /* streaming: the first events */
/* false: the answer of this choice ends here (a stop string, a complete call where nothing may follow) */
bool ns_api_reply_token(ns_api_reply *r, int choice, const ns_api_token *t, ns_buf *out);
void ns_api_reply_end(ns_api_reply *r, int choice, const ns_api_end *end, ns_buf *out);
/* Streaming: an error after the first event. */
void ns_api_reply_error(ns_api_reply *r, const ns_api_error *e, ns_buf *out);
#endif
