/* A growing array of token ids. Out of memory is sticky, as in ns_buf: `failed` is set, later additions do nothing, and
 * the owner checks once at the end. */
#ifndef NS_TEXT_TOKENIZER_IDS_H
#define NS_TEXT_TOKENIZER_IDS_H
#include <stdbool.h>
#include <stddef.h>

typedef struct ns_ids {
    int *data; /* owned; NULL while empty */
    size_t len, cap;
    bool failed;
} ns_ids;

void ns_ids_add(ns_ids *ids, int id);
void ns_ids_append(ns_ids *ids, const int *data, size_t n);
void ns_ids_clear(ns_ids *ids); /* keeps the memory */
void ns_ids_release(ns_ids *ids);
#endif
