/* Any bytes as JSON, strict and with the Python words. What the strict reader accepts, the other accepts too, and it
 * survives being written and read again. The first byte does not belong to the text: it chooses the getter's range. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_getters(const json_t *v, int64_t hi)
{
    const char *key, *s;
    json_t *item;
    int64_t i;
    double d;
    bool b;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) {
        ns_err e = { 0 };
        if (ns_json_int(v, key, 0, hi, 0, &i, &e) == 0 && (i < 0 || i > hi))
            abort();
        ns_json_real(v, key, 0, &d, &e);
        ns_json_bool(v, key, false, &b, &e);
        if (ns_json_str(v, key, "", &s, &e) == 0 && !s)
            abort();
    }
}

static void round_trip(const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text)
        abort();
    json_t *again = ns_json_parse(text, strlen(text), false, "again", NULL);
    if (!again || !json_equal(v, again))
        abort();
    json_decref(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ns_err e = { 0 }, e2 = { 0 };
    if (size == 0)
        return 0;
    json_t *v = ns_json_parse((const char *)data + 1, size - 1, false, "fuzz", &e);
    json_t *p = ns_json_parse((const char *)data + 1, size - 1, true, "fuzz", &e2);
    if ((v && !p) || (v == NULL) != (e.code != NS_OK) || (p == NULL) != (e2.code != NS_OK))
        abort();
    if (v && !json_equal(v, p))
        abort(); /* the words are recognised outside strings only */
    if (p)
        use_getters(p, data[0]);
    if (v)
        round_trip(v);
    json_decref(v);
    json_decref(p);
    return 0;
}
