#include "text/template_dir.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"

/* *out stays NULL where the folder has no such file. */
static int open_json(const char *dir, const char *name, json_t **out, ns_err *e)
{
    ns_buf path = { 0 };
    int rc = 0;
    *out = NULL;
    if (ns_file_exists(ns_path_join(&path, dir, name)))
        rc = (*out = ns_json_open(path.data, true, e)) ? 0 : -1;
    ns_buf_release(&path);
    return rc;
}

static void take_special(json_t *special, const json_t *file)
{
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token" };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        json_t *v = json_object_get(file, keys[k]);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        if (json_is_string(v))
            json_object_set(special, keys[k], v);
    }
}

static int open_template(const char *dir, const json_t *tokenizer_config, ns_template **t, ns_err *e)
{
    ns_buf path = { 0 };
    const char *text = NULL;
    int rc = 0;
    if (ns_file_exists(ns_path_join(&path, dir, "chat_template.jinja"))) {
        rc = (*t = ns_template_open(path.data, e)) ? 0 : -1;
    } else if (tokenizer_config && (rc = ns_json_str(tokenizer_config, "chat_template", NULL, &text, e)) == 0 && text) {
        rc = (*t = ns_template_parse(text, strlen(text), "tokenizer_config.json: chat_template", e)) ? 0 : -1;
    }
    ns_buf_release(&path);
    return rc;
}

int ns_template_open_dir(const char *dir, ns_template **t, json_t **special, ns_err *e)
{
    json_t *map = NULL, *config = NULL;
    *t = NULL;
    *special = json_object();
    int rc = *special ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
    if (rc == 0)
        rc = open_json(dir, "special_tokens_map.json", &map, e);
    if (rc == 0)
        rc = open_json(dir, "tokenizer_config.json", &config, e);
    if (rc == 0) {
        take_special(*special, map);
        take_special(*special, config);
        rc = open_template(dir, config, t, e);
    }
    json_decref(map);
    json_decref(config);
    return rc;
}
