/* The engine behind include/nestar.h, for the floors above that need to look inside (evaluation, benchmarks, the commands). */
#ifndef NS_RUN_ENGINE_H
#define NS_RUN_ENGINE_H
#include "model/model.h"
#include "text/template.h"
#include "text/tokenizer.h"

struct ns_engine {
    ns_ckpt *ckpt;
    ns_pool *pool;
    ns_model model;
    ns_tokenizer *tokenizer; /* NULL when the engine was opened without text */
    ns_template *chat;       /* NULL where the checkpoint has no template */
    json_t *special;         /* bos_token, eos_token .. for the template */
    ns_sampling sampling;    /* generation_config.json's */
    int stop[16], n_stop;
};

/* A cut for --size text ("fit:BYTES" included), validated against the stored blocks. */
int ns_engine_cut(const ns_engine *en, const char *size, int context, ns_cut *out, char *name, size_t cap, ns_err *e);
/* Were the sizes made to go on from each other's caches? nest.json says so, or it is the assumed published family. */
bool ns_engine_trusts_caches(const ns_engine *en);
/* What a handover from one size to another comes to: AUTO becomes CACHE or PREFILL; CACHE is refused where the shapes differ. */
int ns_engine_handover(const ns_engine *en, const ns_cut *from, const ns_cut *to, enum ns_handover how, enum ns_handover *out, ns_err *e);
/* "auto", "cache", "prefill", "late", and back (-1: none of them). */
const char *ns_handover_name(enum ns_handover how);
int ns_handover_find(const char *name, size_t len);
/* What closes a thought by force, appended: for the assumed family what its reference client puts in, else what the chat template writes
 * between a thought and its answer, else the reference client's again. */
int ns_engine_close_text(const ns_engine *en, ns_buf *out, ns_err *e);
/* Ids of a rendered prompt: special tokens only where the template wrote them. */
int ns_engine_prompt_ids(const ns_engine *en, const ns_prompt *p, ns_ids *out, ns_err *e);
/* Renders `request` (messages, tools, kwargs merged) with the checkpoint's special tokens added. opts NULL: the
 * defaults. */
int ns_engine_render(const ns_engine *en, const json_t *request, const ns_template_opts *opts, ns_prompt *out, ns_err *e);
/* "16GiB", "800MB", "1.5G" -> bytes. */
int ns_bytes_parse(const char *text, int64_t *out, ns_err *e);
#endif
