/* Chat templates: a conversation in, a prompt out, with the origin of every byte.
 *
 * A prompt is text and the spans it falls into. Trusted spans were written by the template (its own text and literals) or
 * come from bos_token, eos_token, unk_token, pad_token and their like; the rest is somebody's words. The tokenizer looks for
 * special tokens in trusted spans only, so "<|im_end|>" inside a message stays text.
 *
 * What an assistant message holds is trusted unless the options say otherwise: the model wrote it, and templates cut and
 * glue its "</think>" marks. Who builds histories from strangers' words turns trust_assistant off; then marks that stand in
 * the content (not those the template writes) stay text too. Numbers and booleans count as the template's. */
#ifndef NS_TEXT_TEMPLATE_H
#define NS_TEXT_TEMPLATE_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

typedef struct ns_template ns_template; /* immutable: threads may share it */

typedef struct ns_template_opts {
    bool trust_assistant; /* default true */
    int64_t now;          /* seconds since 1970 for templates that print the date; 0: the clock */
    size_t max_output;    /* bytes of prompt; default 64 MiB */
    size_t max_memory;    /* bytes of values while rendering; default 512 MiB */
    int64_t max_steps;    /* see ns_jinja_opts; default 200 million, some seconds */
} ns_template_opts;

typedef struct ns_prompt_span {
    size_t offset, len;
    bool trusted;
} ns_prompt_span;

typedef struct ns_prompt {
    ns_buf text;
    ns_prompt_span *spans; /* owned; in order, without gaps, neighbours differ; NULL when text is empty */
    size_t n_spans;
} ns_prompt;

ns_template_opts ns_template_defaults(void);

/* `what` names the template in messages: "chat_template.jinja:12: tag {% include %} is not supported". */
ns_template *ns_template_parse(const char *src, size_t n, const char *what, ns_err *e);
ns_template *ns_template_open(const char *path, ns_err *e);
void ns_template_free(ns_template *t);

/* vars: an object with messages and whatever else the template reads: tools, documents, add_generation_prompt, bos_token,
 * enable_thinking... As in Hugging Face transformers, absent tools and documents are None, add_generation_prompt is false,
 * and any other absent name is undefined. opts NULL: the defaults. `out` is initialised by the call and, on success,
 * released by the caller; on failure (the template's own raise_exception among them) it holds nothing. */
int ns_template_render(const ns_template *t, const json_t *vars, const ns_template_opts *opts, ns_prompt *out, ns_err *e);
void ns_prompt_release(ns_prompt *p);
#endif
