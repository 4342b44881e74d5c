/* Inside forge/: config.json and the tokenizer's files out of a GGUF file. */
#ifndef NS_FORGE_GGUF_CONFIG_H
#define NS_FORGE_GGUF_CONFIG_H
#include "base/json.h"
#include "store/gguf.h"

/* A new config, from the keys and tensors of the file; NULL with an error that names the key. */
json_t *ns_gguf_config(const ns_gguf *g, ns_err *e);
/* tokenizer.json, tokenizer_config.json and chat_template.jinja into dir, as far as the file has what they need. */
int ns_gguf_write_text(const ns_gguf *g, const char *dir, ns_err *e);
#endif
