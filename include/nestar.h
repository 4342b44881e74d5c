/* nestar: one language-model checkpoint, served as many models.
 *
 *   ns_engine   an opened checkpoint: the weights, mapped once, and every size that lies inside them
 *   ns_session  one sequence of tokens with its cache; its size may change between any two tokens
 *
 *   ns_err e = {0};
 *   ns_engine *en = ns_engine_open("DIR", NULL, &e);
 *   ns_session *s = ns_session_new(en, &(ns_session_opts){ .size = "12B" }, &e);
 *   ns_session_feed(s, ids, n, &e);
 *   while (ns_session_next(s, &id, &e) == 0 && !ns_engine_is_stop(en, id)) ...
 *
 * Functions return 0, or -1 with `e` filled; constructors return NULL. Nothing prints and nothing exits. An engine may be shared by
 * threads for reading; sessions of one engine take turns (one call at a time), because they share its threads. */
#ifndef NESTAR_H
#define NESTAR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NS_API __attribute__((visibility("default")))

/* ---- errors ---- */

enum ns_code { NS_OK = 0, NS_EINVAL, NS_EIO, NS_ENOMEM, NS_EFORMAT, NS_EUNSUPPORTED, NS_ECANCELLED, NS_EBUSY };

typedef struct ns_err {
    int code;       /* enum ns_code; must be 0 before a call */
    char msg[1000]; /* one line: the file, tensor, key or request at fault, and why */
} ns_err;

NS_API const char *ns_version(void); /* "0.1.0" */

/* ---- engine ---- */

typedef struct ns_engine ns_engine;

/* How sessions keep keys and values. FP8 is E4M3 under the checkpoint's k_scale and v_scale of each layer, 1 where it has none. */
enum ns_kv { NS_KV_F32, NS_KV_FP8 };

typedef struct ns_engine_opts {
    const char *nest_path; /* named sizes, instead of DIR/nest.json; NULL */
    int n_threads;         /* 0: NS_THREADS, else the cores this process may use */
    bool huge_pages;       /* read the weights into memory, laid out for the named sizes, instead of mapping the files */
    bool no_text;          /* leave tokenizer and chat template alone: ids only */
    enum ns_kv kv;
    int act_bits;          /* of activations that meet NVFP4 weights: 16 (0 means that), or 8, faster and much less exact */
} ns_engine_opts;

NS_API ns_engine *ns_engine_open(const char *dir, const ns_engine_opts *opts, ns_err *e); /* opts may be NULL */
NS_API void ns_engine_close(ns_engine *en);                                                /* after its sessions */

typedef struct ns_size_info {
    const char *name; /* "full", "12B"; owned by the engine */
    bool assumed;     /* built in for the released family, not stated by the checkpoint */
    double budget;    /* share of the full model's active parameters, 0 when unstated */
    int64_t params_total, params_active;
    int64_t weight_bytes, active_bytes; /* all of the size's weights; those read for one token */
    int64_t state_bytes, kv_bytes_per_token;
} ns_size_info;

NS_API int ns_engine_n_sizes(const ns_engine *en);
NS_API int ns_engine_size(const ns_engine *en, int i, ns_size_info *out, ns_err *e);
/* Any size as --size writes it: a name, "0.58", "hidden=1920,expert_ffn=960", or "fit:16GiB" for the largest named size whose weights,
 * state and working memory fit when the context holds `context` tokens. `name` (cap bytes) gets what to call it; the info's own name
 * is that buffer. */
NS_API int ns_engine_resolve(const ns_engine *en, const char *size, int context, char *name, size_t cap, ns_size_info *out, ns_err *e);

NS_API int ns_engine_vocab_size(const ns_engine *en);
NS_API int ns_engine_max_context(const ns_engine *en);
NS_API const char *ns_engine_kernels(const ns_engine *en); /* "avx512" */
NS_API int ns_engine_threads(const ns_engine *en);
NS_API bool ns_engine_is_stop(const ns_engine *en, int id); /* an end-of-turn token of this checkpoint */

/* ---- text ---- */

/* Ids of plain text; `*ids` is malloc'ed for the caller. With parse_special, added tokens in the text become their ids. */
NS_API int ns_engine_tokenize(const ns_engine *en, const char *text, size_t n, bool parse_special, int **ids, size_t *n_ids, ns_err *e);
/* The checkpoint's chat template over a JSON object {"messages": [..], "tools": [..], "add_generation_prompt": true, ..}; special
 * tokens inside the messages stay text. */
NS_API int ns_engine_chat(const ns_engine *en, const char *json, int **ids, size_t *n_ids, ns_err *e);
/* The bytes of one token, owned by the engine; -1 for an id not in use. They need not be whole characters. */
NS_API int ns_engine_token_bytes(const ns_engine *en, int id, const char **bytes, size_t *n);

/* ---- sampling ---- */

/* As in transformers and vLLM: the penalty, then temperature, then top_k, top_p and min_p keep candidates, and one is drawn.
 * temperature 0 is greedy (the lowest id wins a tie). */
typedef struct ns_sampling {
    double temperature, top_p, min_p; /* 1 keeps all for top_p, 0 for min_p */
    int top_k;                        /* 0 keeps all */
    double repetition_penalty;        /* 1: none; divides positive logits of tokens seen so far, multiplies negative ones */
    uint64_t seed;
} ns_sampling;

/* generation_config.json where the checkpoint has it, else temperature 1, everything kept. */
NS_API ns_sampling ns_engine_sampling(const ns_engine *en);

/* ---- session ---- */

typedef struct ns_session ns_session;

/* What happens to the cache when the size changes. */
enum ns_handover {
    NS_HANDOVER_AUTO,    /* cache where the head dims agree and the checkpoint was made for it (docs/NEST.md), else prefill */
    NS_HANDOVER_CACHE,   /* keep it as it is: costs nothing; an error where head dims differ */
    NS_HANDOVER_PREFILL, /* recompute the prefix at the new size: exact */
    NS_HANDOVER_LATE     /* prefill, done in pieces by ns_answer while the size before is still writing, on half of its threads: exact */
};

typedef struct ns_session_opts {
    const char *size; /* NULL: full */
    int context;      /* tokens there is room for; 0: 4096 or the model's maximum, whichever is less */
    const ns_sampling *sampling; /* NULL: ns_engine_sampling */
} ns_session_opts;

NS_API ns_session *ns_session_new(ns_engine *en, const ns_session_opts *opts, ns_err *e); /* opts may be NULL */
NS_API void ns_session_free(ns_session *s);

/* Appends tokens and computes the logits after the last. */
NS_API int ns_session_feed(ns_session *s, const int *ids, size_t n, ns_err *e);
/* Makes the session hold exactly these tokens, keeping the longest common prefix it can return to. */
NS_API int ns_session_sync(ns_session *s, const int *ids, size_t n, ns_err *e);
/* Samples a token from the logits and appends it. */
NS_API int ns_session_next(ns_session *s, int *id, ns_err *e);
/* Logits after the last token, [vocab]; NULL before the first. Valid until the next call on the session. */
NS_API const float *ns_session_logits(ns_session *s);
NS_API const int *ns_session_tokens(const ns_session *s, size_t *n);
NS_API int ns_session_context(const ns_session *s);

/* From the next computation on. A handover by prefill (late is the same here) takes as long as the prefix and drops all marks; if it fails or is cancelled, the
 * session stays at its size. */
NS_API int ns_session_resize(ns_session *s, const char *size, enum ns_handover how, ns_err *e);
NS_API const char *ns_session_size(const ns_session *s);

/* A place to come back to. Marks belong to the session and die with it, or when it rewinds to before them. */
NS_API int ns_session_mark(ns_session *s, int *mark, ns_err *e);
NS_API int ns_session_rewind(ns_session *s, int mark, ns_err *e);
NS_API int ns_session_save(const ns_session *s, const char *path, ns_err *e);
NS_API int ns_session_load(ns_session *s, const char *path, ns_err *e); /* replaces what the session holds */

/* Makes the call in progress, on whatever thread, return NS_ECANCELLED soon; the session then holds what was complete.
 * Async-signal-safe. */
NS_API void ns_session_cancel(ns_session *s);

typedef struct ns_stats {
    size_t prefill_tokens, decode_tokens;
    double prefill_seconds, decode_seconds;
    double switch_seconds; /* spent in size changes, prefill handovers included */
    int switches;
    enum ns_handover handover; /* how the last of them was done; never AUTO once there was one */
} ns_stats;
NS_API ns_stats ns_session_stats(const ns_session *s);

/* ---- an answer by a plan ---- */

/* From where on which size computes. Of the segments that apply to the next token the last counts; one size alone is one segment. */
enum ns_phase { NS_PHASE_ALL, NS_PHASE_THINK, NS_PHASE_ANSWER };
typedef struct ns_segment {
    enum ns_phase phase;
    int from;         /* tokens from the part's beginning; below 0: from the end of the thought's budget */
    const char *size; /* as --size */
} ns_segment;

enum { NS_THINK_FREE = 0, NS_THINK_NONE = -1 };

typedef struct ns_answer_opts {
    const ns_segment *segment; /* [n_segments], with their text the caller's while the answer lives; none: the session's size */
    int n_segments;
    enum ns_handover handover;
    int think_budget;  /* tokens of thought; NS_THINK_FREE, NS_THINK_NONE */
    int grace;         /* beyond the budget, for the thought to come to the end of a line */
    const char *close; /* what is put in to close a thought, with "</think>"; NULL: the checkpoint's own */
    int max_tokens;    /* of everything; 0: as the context has room */
    int answer_tokens; /* behind the thought; 0: no limit */
    double deadline;   /* seconds from ns_answer_new on, 0: none. Shortens the thought so that answer_tokens (0: 256) have time, and ends
                        * the answer when it is over; without segments it chooses the sizes too */
    bool ignore_stop;  /* go on after end-of-turn tokens */
} ns_answer_opts;

typedef struct ns_answer ns_answer;
/* Brings the session to the plan's first size. The prompt may be fed before or after, up to the first ns_answer_next. */
NS_API ns_answer *ns_answer_new(ns_session *s, const ns_answer_opts *opts, ns_err *e);
NS_API void ns_answer_free(ns_answer *a); /* before its session */
/* The next token, sampled or put in; -1 at the end. */
NS_API int ns_answer_next(ns_answer *a, int *id, ns_err *e);

typedef struct ns_answer_info {
    enum ns_phase phase;      /* of the next token */
    int thought, answer;    /* tokens, without marks and what closes a thought */
    bool closed;            /* the thought, by its budget or by the deadline */
    double thought_seconds, answer_seconds; /* without size changes */
    const char *end;        /* "stop" (end-of-turn token), "length", "context", "deadline"; NULL before */
} ns_answer_info;
NS_API ns_answer_info ns_answer_about(const ns_answer *a);

#ifdef __cplusplus
}
#endif
#endif
