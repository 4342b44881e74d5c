/* Text in and out of an engine: tokens, and the chat template. */
#include <stdlib.h>
#include <string.h>

#include "run/engine.h"

static int need_tokenizer(const ns_engine *en, ns_err *e)
{
    return en->tokenizer ? 0 : ns_fail(e, NS_EINVAL, "%s: no tokenizer.json in this checkpoint", en->ckpt->dir);
}

/* Hands the array over to a caller who frees it. */
static int give(ns_ids *from, int **ids, size_t *n, ns_err *e)
{
    *ids = from->data ? from->data : malloc(sizeof **ids);
    *n = from->len;
    *from = (ns_ids){ 0 };
    return *ids ? 0 : ns_fail(e, NS_ENOMEM, "tokens: out of memory");
}

int ns_engine_tokenize(const ns_engine *en, const char *text, size_t n, bool parse_special, int **ids, size_t *n_ids, ns_err *e)
{
    ns_ids out = { 0 };
    if (need_tokenizer(en, e) != 0)
        return -1;
    if (ns_tokenizer_encode(en->tokenizer, text, n, parse_special, &out, e) != 0) {
        ns_ids_release(&out);
        return -1;
    }
    return give(&out, ids, n_ids, e);
}

int ns_engine_render(const ns_engine *en, const json_t *request, const ns_template_opts *opts, ns_prompt *out, ns_err *e)
{
    if (!en->chat)
        return ns_fail(e, NS_EINVAL, "%s: no chat_template.jinja in this checkpoint", en->ckpt->dir);
    json_t *vars = json_copy(en->special);
    if (!vars || json_object_update(vars, (json_t *)(uintptr_t)request) != 0) {
        json_decref(vars);
        return ns_fail(e, NS_EINVAL, "chat: the request must be a JSON object");
    }
    int rc = ns_template_render(en->chat, vars, opts, out, e);
    json_decref(vars);
    return rc;
}

int ns_engine_prompt_ids(const ns_engine *en, const ns_prompt *p, ns_ids *out, ns_err *e)
{
    if (need_tokenizer(en, e) != 0)
        return -1;
    ns_text_span *spans = malloc((p->n_spans ? p->n_spans : 1) * sizeof *spans);
    if (!spans)
        return ns_fail(e, NS_ENOMEM, "prompt: out of memory");
    for (size_t i = 0; i < p->n_spans; i++)
        spans[i] = (ns_text_span){ p->text.data + p->spans[i].offset, p->spans[i].len, p->spans[i].trusted };
    int rc = ns_tokenizer_encode_spans(en->tokenizer, spans, p->n_spans, out, e);
    free(spans);
    return rc;
}

/* What the chat template writes between a thought and the answer behind it; nothing where it has no place for thoughts. */
static void template_close(const ns_engine *en, ns_buf *out)
{
    static const char thought[] = "first, this", answer[] = "then, that";
    ns_prompt p;
    json_t *r = json_pack("{s:[{s:s, s:s}, {s:s, s:s, s:s}]}", "messages", "role", "user", "content", "what?", "role", "assistant",
                          "reasoning_content", thought, "content", answer);
    if (r && en->chat && ns_engine_render(en, r, NULL, &p, NULL) == 0) {
        const char *from = p.text.data ? strstr(p.text.data, thought) : NULL, *end = from ? strstr(from, answer) : NULL;
        const char *mark = end ? strstr(from, "</think>") : NULL;
        if (mark && mark < end)
            ns_buf_add(out, from + strlen(thought), (size_t)(end - from) - strlen(thought));
        ns_prompt_release(&p);
    }
    json_decref(r);
}

int ns_engine_close_text(const ns_engine *en, ns_buf *out, ns_err *e)
{
    size_t before = out->len;
    if (!en->ckpt->variants.assumed)
        template_close(en, out);
    if (out->len == before)
        ns_buf_adds(out, ".\n</think>\n\n");
    return out->failed ? ns_fail(e, NS_ENOMEM, "closing text: out of memory") : 0;
}

int ns_engine_chat(const ns_engine *en, const char *json, int **ids, size_t *n_ids, ns_err *e)
{
    ns_prompt prompt;
    ns_ids out = { 0 };
    json_t *request = ns_json_parse(json, strlen(json), false, "chat request", e);
    if (!request)
        return -1;
    int rc = ns_engine_render(en, request, NULL, &prompt, e);
    json_decref(request);
    if (rc != 0)
        return -1;
    rc = ns_engine_prompt_ids(en, &prompt, &out, e);
    ns_prompt_release(&prompt);
    if (rc != 0) {
        ns_ids_release(&out);
        return -1;
    }
    return give(&out, ids, n_ids, e);
}

int ns_engine_token_bytes(const ns_engine *en, int id, const char **bytes, size_t *n)
{
    return en->tokenizer ? ns_tokenizer_bytes(en->tokenizer, id, bytes, n) : -1;
}
