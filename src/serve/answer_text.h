/* The bytes of one answer's tokens, taken apart: the thought, the content, tool calls. Pieces are whole characters and do not depend on
 * where tokens begin and end, once joined. Bytes that are no UTF-8 become U+FFFD.
 * White space where thought and content meet belongs to neither. Tool calls are taken out with the white space before them, and with what
 * follows the last of them if it is nothing but white space; what is no call after all is content. A stop string ends the content before it. */
#ifndef NS_SERVE_ANSWER_TEXT_H
#define NS_SERVE_ANSWER_TEXT_H
#include "serve/call_markup.h"
#include "text/tokenizer.h"

enum ns_piece_kind { NS_PIECE_THOUGHT, NS_PIECE_CONTENT, NS_PIECE_CALL };

typedef struct ns_piece {
    enum ns_piece_kind kind;
    const char *text; /* of a call: its arguments, a JSON object; never empty */
    size_t n;
    size_t at;        /* of content: bytes of text that stand before it behind the thought, those of calls and left-out white space included */
    const char *name; /* of a call */
} ns_piece;

typedef struct ns_answer_text_opts {
    const json_t *tools; /* NULL: calls are not looked for */
    bool one_call;       /* the answer ends with its first call */
    char *const *stop;   /* [n_stops] */
    int n_stops;
    void *ctx;
    void (*piece)(void *ctx, const ns_piece *p); /* from add and end */
} ns_answer_text_opts;

/* A stop string and how much of it the content ends with now (Knuth, Morris, Pratt). */
typedef struct ns_stop {
    const char *s;
    size_t n, k, *border; /* border[i]: the longest border of s[0..i] */
} ns_stop;

enum { NS_ANSWER_STOPS = 4 };

typedef struct ns_answer_text {
    ns_answer_text_opts o;
    ns_detok detok;
    ns_stop stop[NS_ANSWER_STOPS];
    int n_stops;
    ns_buf gap;      /* white space at the end of the thought so far */
    ns_buf markup;   /* content that may be a call, or white space before one */
    ns_buf held;     /* content that may be the beginning of a stop string */
    size_t len;      /* bytes of text behind the thought so far, as in ns_piece.at */
    size_t markup_at, held_at;
    ns_call call;
    size_t call_at;  /* where in markup it begins */
    bool calling;    /* the markup holds a beginning of a call from call_at on */
    bool thinking, leading; /* the last token was thought; content behind a thought has not begun */
    bool stopped;    /* by a stop string */
    bool over;       /* nothing more is taken */
    bool failed;     /* out of memory */
    size_t n_calls;
} ns_answer_text;

int ns_answer_text_init(ns_answer_text *t, const ns_answer_text_opts *o, ns_err *e);
void ns_answer_text_release(ns_answer_text *t);
/* false: the answer ends here */
bool ns_answer_text_add(ns_answer_text *t, const char *bytes, size_t n, bool thought);
void ns_answer_text_end(ns_answer_text *t); /* what waited */
#endif
