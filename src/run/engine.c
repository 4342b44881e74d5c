#include "run/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "text/template_dir.h"

const char *ns_version(void)
{
    return NS_VERSION;
}

/* Ids outside the vocabulary can never come up and are left out. */
static void add_stop(ns_engine *en, json_int_t id)
{
    for (int i = 0; i < en->n_stop; i++)
        if (en->stop[i] == id)
            return;
    if (id >= 0 && id < en->model.arch->vocab_size && en->n_stop < (int)(sizeof en->stop / sizeof *en->stop))
        en->stop[en->n_stop++] = (int)id;
}

static void add_stops(ns_engine *en, const json_t *v)
{
    size_t i;
    json_t *item;
    if (json_is_integer(v))
        add_stop(en, json_integer_value(v));
    json_array_foreach(v, i, item)
        if (json_is_integer(item))
            add_stop(en, json_integer_value(item));
}

static ns_sampling plain_sampling(void)
{
    return (ns_sampling){ .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0 };
}

/* generation_config.json: stop tokens and sampling defaults. do_sample false means greedy, as transformers reads it. */
static int read_generation(ns_engine *en, ns_err *e)
{
    json_t *g = NULL;
    int64_t top_k;
    bool do_sample;
    ns_sampling *s = &en->sampling;
    *s = plain_sampling();
    if (ns_ckpt_json(en->ckpt->dir, "generation_config.json", &g, e) != 0)
        return -1;
    if (!g)
        return 0;
    int rc = ns_json_real(g, "temperature", 1.0, &s->temperature, e) == 0 && ns_json_real(g, "top_p", 1.0, &s->top_p, e) == 0 &&
                     ns_json_real(g, "min_p", 0.0, &s->min_p, e) == 0 && ns_json_int(g, "top_k", 0, 1 << 30, 0, &top_k, e) == 0 &&
                     ns_json_real(g, "repetition_penalty", 1.0, &s->repetition_penalty, e) == 0 &&
                     ns_json_bool(g, "do_sample", true, &do_sample, e) == 0
                 ? 0
                 : ns_err_wrap(e, "%s/generation_config.json", en->ckpt->dir);
    if (rc == 0) {
        s->top_k = (int)top_k;
        if (!do_sample)
            s->temperature = 0.0;
        add_stops(en, json_object_get(g, "eos_token_id"));
    }
    json_decref(g);
    return rc;
}

/* Where no file names the token, its id in config.json does. */
static void special_from_id(ns_engine *en, const char *key, int id)
{
    const char *p;
    size_t n;
    if (!json_object_get(en->special, key) && id >= 0 && ns_tokenizer_bytes(en->tokenizer, id, &p, &n) == 0)
        json_object_set_new(en->special, key, json_stringn(p, n));
}

static int open_text(ns_engine *en, ns_err *e)
{
    ns_buf path = { 0 };
    int rc = 0;
    ns_path_join(&path, en->ckpt->dir, "tokenizer.json");
    if (ns_file_exists(path.data))
        rc = (en->tokenizer = ns_tokenizer_open(path.data, e)) ? 0 : -1;
    ns_buf_release(&path);
    if (rc != 0 || ns_template_open_dir(en->ckpt->dir, &en->chat, &en->special, e) != 0)
        return -1;
    if (!en->tokenizer)
        return 0;
    special_from_id(en, "bos_token", en->model.arch->bos_id);
    special_from_id(en, "pad_token", en->model.arch->pad_id);
    special_from_id(en, "eos_token", en->model.arch->n_eos ? en->model.arch->eos_ids[0] : -1);
    const char *eos = json_string_value(json_object_get(en->special, "eos_token"));
    if (eos)
        add_stop(en, ns_tokenizer_find(en->tokenizer, eos, strlen(eos)));
    add_stop(en, ns_tokenizer_find(en->tokenizer, "<|im_end|>", 10)); /* ends a turn of the Nemotron markup whatever config.json says */
    return 0;
}

ns_engine *ns_engine_open(const char *dir, const ns_engine_opts *opts, ns_err *e)
{
    const ns_engine_opts none = { 0 }, *o = opts ? opts : &none;
    const ns_ops *ops;
    ns_engine *en = calloc(1, sizeof *en);
    if (!en) {
        ns_fail(e, NS_ENOMEM, "engine: out of memory");
        return NULL;
    }
    if (ns_ops_select(o->act_bits, &ops, e) != 0 || !(en->pool = ns_pool_new(o->n_threads, e)))
        goto fail;
    en->ckpt = ns_ckpt_open(dir, &(ns_ckpt_opts){ .nest_path = o->nest_path, .huge_pages = o->huge_pages }, e);
    if (!en->ckpt || ns_model_init(&en->model, en->ckpt, ops, en->pool, e) != 0)
        goto fail;
    en->model.kv = o->kv == NS_KV_FP8 ? NS_F8_E4M3 : NS_F32;
    if (o->kv == NS_KV_FP8 && ns_model_unscaled(&en->model))
        ns_log("%s: no k_scale and v_scale in %d attention layers: their FP8 cache has scale 1", dir, ns_model_unscaled(&en->model));
    for (int i = 0; i < en->model.arch->n_eos; i++)
        add_stop(en, en->model.arch->eos_ids[i]);
    if (read_generation(en, e) != 0 || (!o->no_text && open_text(en, e) != 0))
        goto fail;
    return en;
fail:
    ns_engine_close(en);
    return NULL;
}

void ns_engine_close(ns_engine *en)
{
    if (!en)
        return;
    json_decref(en->special);
    ns_template_free(en->chat);
    ns_tokenizer_free(en->tokenizer);
    ns_model_release(&en->model);
    ns_ckpt_close(en->ckpt);
    ns_pool_free(en->pool);
    free(en);
}

int ns_engine_vocab_size(const ns_engine *en)
{
    return en->model.arch->vocab_size;
}

int ns_engine_max_context(const ns_engine *en)
{
    return en->model.arch->max_position;
}

const char *ns_engine_kernels(const ns_engine *en)
{
    return en->model.ops->name;
}

int ns_engine_threads(const ns_engine *en)
{
    return ns_pool_threads(en->pool);
}

bool ns_engine_is_stop(const ns_engine *en, int id)
{
    for (int i = 0; i < en->n_stop; i++)
        if (en->stop[i] == id)
            return true;
    return false;
}

ns_sampling ns_engine_sampling(const ns_engine *en)
{
    return en->sampling;
}
