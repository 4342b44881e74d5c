/* What one sequence remembers: keys and values per attention layer (append-only), the SSM state and the last conv inputs per Mamba
 * layer (fixed size, not truncatable: mark and rewind copy them). F32; keys and values are F32 or F8_E4M3. A state belongs to the head
 * dims of a cut; cuts with equal head dims share it, which is how a live size change costs nothing.
 * Layouts: k, v [kv head][context][head_dim]; conv [conv_kernel - 1][channels]; ssm [head][state][head channels]. */
#ifndef NS_MODEL_STATE_H
#define NS_MODEL_STATE_H
#include "nest/cut.h"

/* Tokens that the Mamba scan takes at once, counted from the beginning of a sequence's part of a step. Where a text is cut into parts at
 * multiples of it the states come out the same, bit for bit. */
enum { NS_SCAN_CHUNK = 64 };

typedef struct ns_layer_state {
    uint8_t *k, *v; /* in the state's kv type */
    float *conv, *ssm;
    size_t conv_len, ssm_len; /* floats */
} ns_layer_state;

typedef struct ns_state {
    const ns_arch *arch;
    ns_cut cut;     /* whose head dims this has, and whose kept layers are up to date */
    ns_dtype kv;    /* NS_F32; NS_F8_E4M3: e4m3(k / k_scale), e4m3(v / v_scale) with the model's scales of the layer */
    int context;    /* tokens there is room for */
    int len;        /* tokens remembered */
    ns_layer_state *layer; /* [n_layers] */
    void *memory;   /* one mapping, paged in as it is used */
    size_t bytes;
} ns_state;

ns_state *ns_state_new(const ns_arch *a, const ns_cut *cut, ns_dtype kv, int context, ns_err *e);
void ns_state_free(ns_state *s);
void ns_state_reset(ns_state *s); /* to the empty sequence */
static inline int ns_state_room(const ns_state *s)
{
    return s->context - s->len;
}
/* Bytes of one token's key (or value) in one kv head. */
static inline size_t ns_state_row(const ns_state *s)
{
    return ns_dtype_row_bytes(s->kv, (size_t)s->arch->head_dim);
}
/* From now on the state belongs to `cut`, which must have the same state shape (ns_cut_same_state). */
int ns_state_adopt(ns_state *s, const ns_cut *cut, ns_err *e);

/* A mark holds the recurrent parts as they were; the KV cache needs only its length. */
typedef struct ns_mark ns_mark;
ns_mark *ns_state_mark(const ns_state *s, ns_err *e);
/* Back to the mark; the state must not have been reset or rewound to before it since. The mark stays usable. */
int ns_state_rewind(ns_state *s, const ns_mark *m, ns_err *e);
void ns_mark_free(ns_mark *m);

/* Parts of a state, to keep them elsewhere: what n tokens from `from` on left in the keys and values (ns_state_rows_bytes(s, n) bytes), and
 * the recurrent parts as they are now (ns_state_recurrent(s) floats). They fit states of the same cut, kv type and number of floats,
 * whatever their context. The length is the caller's to set. */
size_t ns_state_rows_bytes(const ns_state *s, int n);
void ns_state_rows_out(const ns_state *s, int from, int n, uint8_t *rows);
void ns_state_rows_in(ns_state *s, int from, int n, const uint8_t *rows);
size_t ns_state_recurrent(const ns_state *s);
void ns_state_recurrent_out(const ns_state *s, float *parts);
void ns_state_recurrent_in(ns_state *s, const float *parts);

/* A file with the state and `ids`, the tokens it has seen (s->len of them). Load refuses a file of another architecture, another
 * state shape, another kv type, or more tokens than there is room for. `ids` is malloc'ed for the caller. */
int ns_state_save(const ns_state *s, const int *ids, const char *path, ns_err *e);
int ns_state_load(ns_state *s, const char *path, int **ids, ns_err *e);
/* The same with n bytes of the caller's at the end of the file; load gives them back malloc'ed. */
int ns_state_save_with(const ns_state *s, const int *ids, const void *extra, size_t n, const char *path, ns_err *e);
int ns_state_load_with(ns_state *s, const char *path, int **ids, void **extra, size_t *n, ns_err *e);
#endif
