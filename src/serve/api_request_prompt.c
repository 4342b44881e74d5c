/* Completions: a prompt as text or as ids, alone or as the one element of a list. */
#include <limits.h>
#include <stdlib.h>

#include "serve/api_request.h"

static int take_id(ns_take *t, json_t *v)
{
    if (!json_is_integer(v))
        return ns_take_expected(t, "a token id", v);
    json_int_t id = json_integer_value(v);
    if (id < 0 || id > INT_MAX)
        return ns_take_fail(t, "invalid_value", "%lld is no token id", (long long)id);
    t->r.ids[t->r.n_ids++] = (int)id;
    return 0;
}

static int take_ids(ns_take *t, json_t *v)
{
    t->r.ids = calloc(json_array_size(v), sizeof *t->r.ids);
    return t->r.ids ? ns_take_each(t, v, take_id) : ns_take_no_memory(t);
}

/* Several prompts would be several answers of different lengths and costs in one reply; as requests of their own they are computed together
 * all the same. */
int ns_take_prompt(ns_take *t)
{
    json_t *v = t->prompt;
    if (!v)
        return ns_take_missing(t, "prompt");
    ns_take_enter(t, "prompt");
    const json_t *first = json_array_get(v, 0);
    if (json_array_size(v) > 1 && !json_is_integer(first))
        return ns_take_fail(t, "unsupported_parameter", "%zu prompts in one request are not supported; send a request for each", json_array_size(v));
    if (json_is_string(first) || json_is_array(first)) {
        ns_take_enter_at(t, 0);
        v = json_array_get(v, 0);
    }
    if ((json_is_array(v) && json_array_size(v) == 0) || (json_is_string(v) && json_string_length(v) == 0))
        return ns_take_fail(t, "invalid_value", "must not be empty");
    if (json_is_array(v))
        return take_ids(t, v);
    if (!json_is_string(v))
        return ns_take_expected(t, "a string or an array of token ids", v);
    t->r.prompt = json_string_value(v);
    t->r.n_prompt = json_string_length(v);
    return 0;
}
