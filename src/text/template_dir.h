/* What a checkpoint folder says about conversations: its chat template, and the special tokens that the template prints. */
#ifndef NS_TEXT_TEMPLATE_DIR_H
#define NS_TEXT_TEMPLATE_DIR_H
#include "text/template.h"

/* chat_template.jinja, or chat_template in tokenizer_config.json, the older place; *t is NULL where there is neither. *special: an
 * object with bos_token, eos_token, unk_token and pad_token as tokenizer_config.json or special_tokens_map.json have them (a
 * string, or an object with "content"). The caller frees both, on failure too. */
int ns_template_open_dir(const char *dir, ns_template **t, json_t **special, ns_err *e);
#endif
