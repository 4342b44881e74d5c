/* Training data: JSONL files to packed batches, in an order that depends on the seed alone.
 *
 * A line is {"text": "..."} (every token counts), {"prompt": "...", "completion": "..."} (only the completion's tokens count, special
 * tokens are parsed in both), {"messages": [...]} (through the checkpoint's chat template; assistant turns count), or {"ids": [...],
 * "weights": [...]}. Each document gets the end-of-sequence token, except conversations, which the template ends. A line that is none of
 * these, or whose ids are outside the vocabulary, is reported with file and line number, counted, and left out; a file without a good
 * line is an error. A *.txt file is one document per blank-line-separated paragraph.
 *
 * A batch packs whole documents; longer ones were cut into pieces that start anew. The targets are the tokens shifted by one inside a
 * document; a document's last token is a target only and takes no room. Pieces overlap by that one token, so that a cut loses no target;
 * a piece in which nothing counts is left out. */
#ifndef NS_TRAIN_DATA_H
#define NS_TRAIN_DATA_H
#include "block/block.h"
#include "text/tokenizer.h"

typedef struct ns_data ns_data;

typedef struct ns_data_opts {
    const char *const *paths; /* files; all or none end in ":W", the share of tokens that is drawn from it (default: its tokens) */
    int n_paths;
    uint64_t seed;
    int vocab_size, eos_id;   /* eos_id -1: none is appended */
    const char *template_dir; /* where the chat template is; NULL: "messages" lines are bad lines */
    int max_doc;              /* room that a document may take in a batch; longer are cut into pieces. At most the smallest batch */
} ns_data_opts;

/* Reads and tokenizes everything (documents are kept as 32-bit ids in memory). `tok` may be NULL when all lines have ids. */
ns_data *ns_data_open(const ns_data_opts *o, const ns_tokenizer *tok, ns_err *e);
void ns_data_free(ns_data *d);
int64_t ns_data_tokens(const ns_data *d);
int64_t ns_data_docs(const ns_data *d);
int64_t ns_data_bad_lines(const ns_data *d);
/* Of everything that decides what the stream hands out: a resumed run must find the same. */
uint64_t ns_data_hash(const ns_data *d);
/* The last n_docs documents (by a seeded shuffle that is the same for the same files and seed) are left out of training and come
 * from ns_data_eval instead. */
int ns_data_hold_out(ns_data *d, int64_t n_docs, ns_err *e);

/* One worker's batch; owned arrays of room for max_tokens, in NS_PACK_SEQS documents at most. */
#define NS_PACK_SEQS(max_tokens) (max_tokens)
typedef struct ns_pack {
    ns_seqs seqs;
    int *ids, *start, *target;
    ns_real *weight;
    int max_tokens;
    double weight_sum;
    int64_t first_doc; /* to name the batch in errors: position in the seeded order of its first document */
} ns_pack;
int ns_pack_init(ns_pack *p, int max_tokens, ns_err *e);
void ns_pack_release(ns_pack *p);
void ns_pack_clear(ns_pack *p, int64_t first_doc);

/* The stream's position is one number: documents (pieces of cut ones) handed out since the start. Epochs are shuffled anew by the seed.
 * `next` fills packs in stream order, so a pack's content depends on the position and the room of the pack alone; it never fails. */
void ns_data_seek(ns_data *d, int64_t position);
int64_t ns_data_position(const ns_data *d);
void ns_data_next(ns_data *d, ns_pack *out);
/* Held-out documents from `*position` on; false when none are left. */
bool ns_data_eval(ns_data *d, int64_t *position, ns_pack *out);
#endif
