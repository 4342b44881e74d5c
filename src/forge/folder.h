/* The files of a checkpoint folder that are not tensors. For whoever writes folders: forge/ and train/. */
#ifndef NS_FORGE_FOLDER_H
#define NS_FORGE_FOLDER_H
#include "base/json.h"

/* Writes dir/name as transformers does: two spaces, sorted keys, a final newline; the largest double, which stands for an
 * infinity since ns_json_open read it, as Python's Infinity. */
int ns_folder_json(const char *dir, const char *name, const json_t *v, ns_err *e);
/* Copies the tokenizer's files, the chat template and generation_config.json, those that are there. */
int ns_folder_copy_text(const char *from, const char *to, ns_err *e);
/* Copies nest.json and the router's weights, those that are there: for results that keep every axis as it was. */
int ns_folder_copy_nest(const char *from, const char *to, ns_err *e);
#endif
