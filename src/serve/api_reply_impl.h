/* Inside a reply: what the three forms share. A form is told of each piece of a choice's text and of its end, and writes what is to be sent. */
#ifndef NS_SERVE_API_REPLY_IMPL_H
#define NS_SERVE_API_REPLY_IMPL_H
#include "serve/answer_text.h"
#include "serve/api.h"

/* A content token whose text has not gone out; its text is [from, to) of what ns_piece.at counts. */
typedef struct ns_pending {
    size_t from, to;
    json_t *entry;
} ns_pending;

typedef struct ns_api_choice {
    ns_api_reply *reply;
    int index;
    ns_answer_text text;
    char size[64];            /* of the last token */
    ns_pending *pending;      /* [n_pending], in order, owned */
    size_t n_pending, cap_pending;
    size_t chars;             /* characters of content that have gone out */
    ns_buf thought, content;  /* whole: what there is so far. Responses: of the item that is open */
    json_t *calls, *logprobs; /* arrays */
    const char *finish;       /* NULL: goes on */
} ns_api_choice;

/* What all choices used, together. */
typedef struct ns_api_sum {
    ns_api_end end;           /* .used and .end are not set */
    char word[32];            /* .end of all, "mixed" where they differ */
    json_t *sizes;            /* [{"size", "tokens"}] */
} ns_api_sum;

typedef struct ns_api_form {
    void (*begin)(ns_api_reply *r);
    void (*piece)(ns_api_reply *r, ns_api_choice *c, const ns_piece *p);
    void (*end)(ns_api_reply *r, ns_api_choice *c); /* c->finish is set, the sum has it */
    void (*error)(ns_api_reply *r, const ns_api_error *e);
} ns_api_form;

/* Where a reply in the form of responses is. */
typedef struct ns_api_items {
    json_t *done;             /* array of complete output items */
    int kind;                 /* enum ns_piece_kind of the open one; -1: none is open */
    size_t n;                 /* items begun */
    json_int_t sequence;
} ns_api_items;

struct ns_api_reply {
    const ns_api_request *q;
    const ns_api_form *form;
    char *id, *model;         /* owned */
    long created;
    ns_api_choice *choice;    /* [n] */
    int n, n_open;
    bool over;                /* nothing is written any more */
    ns_api_sum sum;
    ns_api_items items;
    ns_buf *out;              /* of the call in progress */
};

extern const ns_api_form ns_api_form_chat, ns_api_form_completions, ns_api_form_responses;

/* Writes j and drops the caller's reference; streaming as an event, named or not (NULL). NULL for j is memory that was out. */
void ns_api_send(ns_api_reply *r, const char *event, json_t *j);
void ns_api_send_done(ns_api_reply *r);
void ns_api_send_error(ns_api_reply *r, const ns_api_error *e);

/* New references. */
json_t *ns_api_text(const char *p, size_t n); /* a string; p need not end with NUL and may be NULL for none */
json_t *ns_api_usage(const ns_api_reply *r);
json_t *ns_api_nestar(const ns_api_reply *r); /* our own block on the whole */
json_t *ns_api_size(const ns_api_choice *c);  /* our own block on a piece */
json_t *ns_api_or_null(json_t *j, bool there); /* j, or instead of it null */
json_t *ns_api_call_id(const ns_api_reply *r, const ns_api_choice *c, size_t i);
const char *ns_api_id_tail(const ns_api_reply *r); /* of the reply's id: what makes it unique */

/* ---- log-probabilities ---- */

/* Before and after the token's text is taken. -1: out of memory. */
int ns_api_logprobs_push(ns_api_choice *c, const ns_api_token *t);
void ns_api_logprobs_close(ns_api_choice *c);
/* The entries {"token", "logprob", "bytes", "top_logprobs", "offset"} of the tokens with text in this piece of content, new reference. */
json_t *ns_api_logprobs_take(ns_api_choice *c, const ns_piece *p);
/* As completions have them, from an array of entries. */
json_t *ns_api_logprobs_columns(const json_t *entries);
#endif
