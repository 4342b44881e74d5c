/* How a request is read (inside api_request*.c). An object's members are looked up in a table; each row names what takes the value. A
 * member that no row names is an error, null is the same as absence, and `path` always names the value in hand. */
#ifndef NS_SERVE_API_REQUEST_H
#define NS_SERVE_API_REQUEST_H
#include <stddef.h>

#include "serve/api.h"

enum {
    NS_API_DEPTH = 64,        /* nesting of a body */
    NS_API_WEIGHT = 1 << 20,  /* of a body, see ns_take_scan */
    NS_API_NAME = 64,         /* bytes of a function's name */
};

typedef struct ns_take ns_take;
typedef struct ns_field ns_field;
struct ns_field {
    const char *name;  /* NULL ends a table */
    unsigned apis;     /* bits 1 << enum ns_api */
    int (*take)(ns_take *t, const ns_field *f, json_t *v); /* v is not null */
    size_t to;         /* offset in ns_take of what it fills; 0: nothing */
    double lo, hi;     /* range of a number; hi: bytes that a copied string has room for */
    const char *const *words; /* NULL-terminated: what a string may be */
    const ns_field *sub;      /* members of an object */
};
#define NS_AT(member) offsetof(ns_take, member)
#define NS_IN_CHAT (1u << NS_API_CHAT)
#define NS_IN_COMPLETIONS (1u << NS_API_COMPLETIONS)
#define NS_IN_RESPONSES (1u << NS_API_RESPONSES)
#define NS_IN_TALK (NS_IN_CHAT | NS_IN_RESPONSES) /* what has messages */
#define NS_IN_ALL (NS_IN_TALK | NS_IN_COMPLETIONS)

struct ns_take {
    ns_api_request r; /* `to` 0 is r.api, which no row fills */
    ns_api_error *err;
    size_t weight; /* so far */
    char path[128];
    size_t at; /* its length */

    /* what waits until all members are known; borrowed from r.all */
    json_t *messages, *input, *prompt, *tools, *tool_choice, *kwargs, *instructions, *format, *stream_options;
    const char *format_type;
    int max_tokens, max_completion_tokens, top_logprobs; /* 0, 0, -1: not given */
    int effort;       /* index; -1 */
    int think_budget; /* -1 */

    /* members of the message, call, tool or part in hand */
    struct {
        const char *role, *id, *name;
        json_t *description, *content, *refusal, *thought, *summary, *calls, *speaker;
        json_t *function, *arguments, *parameters, *strict;
        json_t *text;
    } m;
    json_t *turn; /* responses: the assistant's message that may get more; borrowed from r.chat */
};

/* api_request_field.c */

/* "path: ..", param = path, status 400. Returns -1. */
int ns_take_fail(ns_take *t, const char *code, const char *fmt, ...) NS_PRINTF(3, 4);
int ns_take_no_memory(ns_take *t); /* status 500 */
/* A step down: into a member (dotted), or an element. Returns where to come back to. */
size_t ns_take_enter(ns_take *t, const char *member);
size_t ns_take_enter_at(ns_take *t, size_t index);
void ns_take_leave(ns_take *t, size_t where);
int ns_take_missing(ns_take *t, const char *member);
int ns_take_expected(ns_take *t, const char *what, const json_t *v); /* "expected WHAT, found .." */
/* The string that says what kind of object v is ("type", "role") and so which members it has; NULL after an error. */
const char *ns_take_kind(ns_take *t, const json_t *v, const char *member);

int ns_take_members(ns_take *t, json_t *v, const ns_field *fields);
/* For each element, with the path at it. */
int ns_take_each(ns_take *t, json_t *array, int (*take)(ns_take *t, json_t *v));
/* Before JSON text is parsed, and cheaply: its nesting, and what it would take in memory. A byte of JSON may become a hundred ("{},{},"), so
 * a limit of bytes is none of memory: a value weighs 1, a member's name 4 more, an object or array 8 more, all texts of a request together
 * at most NS_API_WEIGHT, which is about 100 MB at worst and has room for a million token ids. */
int ns_take_scan(ns_take *t, const char *text, size_t n);

int ns_take_skip(ns_take *t, const ns_field *f, json_t *v);   /* changes no answer */
int ns_take_refuse(ns_take *t, const ns_field *f, json_t *v); /* would, and is not held */
int ns_take_zero(ns_take *t, const ns_field *f, json_t *v);   /* only 0 is held */
int ns_take_empty(ns_take *t, const ns_field *f, json_t *v);  /* only {}, [] or "" */
int ns_take_false(ns_take *t, const ns_field *f, json_t *v);
int ns_take_bool(ns_take *t, const ns_field *f, json_t *v);   /* bool */
int ns_take_int(ns_take *t, const ns_field *f, json_t *v);    /* int */
int ns_take_real(ns_take *t, const ns_field *f, json_t *v);   /* double */
int ns_take_word(ns_take *t, const ns_field *f, json_t *v);   /* const char *: not empty, no NUL inside; one of `words` if there are */
int ns_take_copy(ns_take *t, const ns_field *f, json_t *v);   /* char [hi] */
int ns_take_string(ns_take *t, const ns_field *f, json_t *v); /* json_t *, of any text */
int ns_take_object(ns_take *t, const ns_field *f, json_t *v); /* json_t * */
int ns_take_array(ns_take *t, const ns_field *f, json_t *v);  /* json_t * */
int ns_take_any(ns_take *t, const ns_field *f, json_t *v);    /* json_t * */
int ns_take_sub(ns_take *t, const ns_field *f, json_t *v);

/* api_request_text.c: a member's text, which may come as a list of parts; they are joined by line breaks. A new reference; NULL after an
 * error. */
enum { NS_PART_CHAT = 1, NS_PART_REFUSAL = 2, NS_PART_INPUT = 4, NS_PART_OUTPUT = 8, NS_PART_REASONING = 16, NS_PART_SUMMARY = 32 };
json_t *ns_take_text(ns_take *t, const char *member, json_t *v, unsigned parts);
/* Arguments, a string of JSON, as an object; "" is {}. */
json_t *ns_take_arguments(ns_take *t, const json_t *v);

/* What r.chat gets: all return -1 after an error. */
int ns_take_messages(ns_take *t);  /* api_request_chat.c */
int ns_take_items(ns_take *t);     /* api_request_items.c */
int ns_take_tools(ns_take *t);     /* api_request_tools.c */
int ns_take_prompt(ns_take *t);    /* api_request_prompt.c */
int ns_take_thinking(ns_take *t);  /* api_request_think.c */
/* {"id", "type", "function": {"name", "arguments"}} appended to `calls`; from t->m. */
int ns_take_call(ns_take *t, json_t *calls);
/* A message with a role and content appended to those of r.chat. Takes content over; NULL passes an earlier error on. Borrowed; NULL after
 * an error. */
json_t *ns_take_message(ns_take *t, const char *role, json_t *content);
int ns_take_effort(ns_take *t, const ns_field *f, json_t *v);
extern const ns_field ns_nestar_fields[], ns_reasoning_fields[];
#endif
