/* Inside train/: what data files become in memory. */
#ifndef NS_TRAIN_DATA_IMPL_H
#define NS_TRAIN_DATA_IMPL_H
#include "text/template.h"
#include "train/data.h"

/* A document, or a piece of one: tokens ids[at] .. ids[at + rows], of which the last is a target only. */
typedef struct ns_piece {
    size_t at;
    size_t weights; /* index of the first token's weight; SIZE_MAX: all count fully */
    int rows;
    int64_t doc;
} ns_piece;

/* One file. Its training pieces are shuffled anew for every epoch. */
typedef struct ns_source {
    char *path;
    double share;        /* of the tokens drawn; 0: not said */
    int64_t first, n;    /* its pieces */
    int64_t bad;         /* lines left out */
    int64_t *train;      /* [n_train] pieces that are not held out */
    int64_t *order;      /* [n_train] the current epoch's */
    int64_t n_train;
    int64_t epoch, handed; /* whose order it is; pieces handed out since the start */
    double cost;         /* what a piece costs on average against its share */
} ns_source;

struct ns_data {
    ns_source *src;
    int n_src;
    uint64_t seed;
    int vocab_size, eos_id, max_doc;
    ns_ids ids;
    float *weights;
    size_t n_weights, cap_weights;
    ns_piece *pieces;
    int64_t n_pieces, cap_pieces, n_docs;
    int64_t *held;       /* [n_held] pieces, in order */
    int64_t n_held, position;
};

/* ---- reading ---- */

typedef struct ns_chat_reader {
    ns_template *t;   /* NULL: "messages" lines are bad lines */
    json_t *special;
    const ns_tokenizer *tok;
} ns_chat_reader;

/* A document under construction. */
typedef struct ns_doc {
    ns_ids ids;
    float *weight;    /* [cap] valid where `weighted` */
    size_t cap;
    bool weighted;
} ns_doc;

void ns_doc_clear(ns_doc *d);
void ns_doc_release(ns_doc *d);
/* Says that the tokens from `from` on count with `weight`; those before keep theirs. */
int ns_doc_weigh(ns_doc *d, size_t from, float weight, ns_err *e);
/* Cuts the document, with the end-of-sequence token where `eos` says so, into pieces and adds them; NS_EFORMAT when it is no document
 * to learn from. */
int ns_data_add(ns_data *d, ns_doc *doc, bool eos, ns_err *e);

/* Reads one file behind the pieces that are there. */
int ns_data_read(ns_data *d, ns_source *s, ns_chat_reader *chat, ns_err *e);
/* A conversation to documents through the chat template: one where the template writes a prefix of a conversation as a prefix of
 * its text, else one for each assistant turn, with that turn counting. */
int ns_data_add_chat(ns_data *d, const json_t *line, ns_chat_reader *chat, ns_doc *doc, ns_err *e);
#endif
