/* What is in a checkpoint: architecture, storage, sizes and their costs, as JSON and as text. */
#ifndef NS_FORGE_INSPECT_H
#define NS_FORGE_INSPECT_H
#include <stdio.h>

#include "ckpt/ckpt.h"

/* KV bytes are for a sequence of `context` tokens whose keys and values are kept as `kv`. The keys are documented by the functions of inspect.c that write them. */
json_t *ns_inspect(const ns_ckpt *c, int64_t context, ns_dtype kv, ns_err *e);
/* The same from a config.json alone, with the formats that it and the quantisation config beside it state; no list of tensors.
 * `nest_path` may be NULL. */
json_t *ns_inspect_config(const char *config_path, const char *nest_path, int64_t context, ns_dtype kv, ns_err *e);
/* Text for people, from what either of the two returned. */
void ns_inspect_print(const json_t *report, FILE *out);
#endif
