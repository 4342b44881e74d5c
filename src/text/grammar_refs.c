/* References within a schema, and allOf. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

/* One step of a JSON pointer: the part up to the next '/', with ~0 ~1 and %XX as they stand for. */
static const json_t *pointer_step(const json_t *v, const char *p, size_t n)
{
    char name[512];
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < sizeof name; i++) {
        char two[3] = { 0 };
        if (p[i] == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) {
            name[len++] = p[++i] == '0' ? '~' : '/';
        } else if (p[i] == '%' && i + 2 < n && strspn(memcpy(two, p + i + 1, 2), "0123456789abcdefABCDEF") == 2) {
            name[len++] = (char)strtol(two, NULL, 16);
            i += 2;
        } else {
            name[len++] = p[i];
        }
    }
    name[len] = '\0';
    if (!json_is_array(v))
        return json_object_get(v, name);
    char *end;
    unsigned long i = strtoul(name, &end, 10);
    return *end || end == name ? NULL : json_array_get(v, i);
}

static const json_t *find_ref(const json_t *root, const char *ref)
{
    const json_t *v = root;
    if (*ref++ != '#')
        return NULL;
    while (v && *ref) {
        if (*ref++ != '/')
            return NULL;
        size_t n = strcspn(ref, "/");
        v = pointer_step(v, ref, n);
        ref += n;
    }
    return v;
}

int ns_gram_ref(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    static const char *const may[] = { NULL };
    const char *ref = json_string_value(json_object_get(r->schema, "$ref"));
    const json_t *to = ref ? find_ref(r->root, ref) : NULL;
    if (ns_gram_check_beside(m, r, "$ref", may) < 0)
        return -1;
    if (!ref)
        return ns_fail(m->e, NS_EINVAL, "%s: $ref: expected a string", r->path);
    if (!to)
        return ns_fail(m->e, *ref == '#' ? NS_EINVAL : NS_EUNSUPPORTED, "%s: $ref \"%.200s\": %s", r->path, ref,
                       *ref == '#' ? "there is nothing" : "only references within the schema (#/..) are supported");
    ns_gram_rule home = *r; /* errors name the place by its address from the root */
    home.path = ns_arena_strndup(&m->arena, r->path, strcspn(r->path, ":"));
    home.deep = false;
    m->failed |= !home.path;
    if (m->failed || ns_gram_alts_room(m, rule, 1) < 0)
        return m->failed ? 0 : -1;
    return ns_gram_alt_add(m, rule, ns_gram_rule_of(m, &home, to, r->mode, NS_GRAM_WHOLE, "%s", ref[1] ? ref + 2 : ""));
}

/* Puts one part of an allOf into the object that is all of them. */
static int merge_part(ns_gram_make *m, const ns_gram_rule *r, const json_t *part, json_t *into, size_t *allowance)
{
    static const char *const may[] = { "type", "properties", "required", "additionalProperties", "allOf", NULL };
    json_t *props = json_object_get(into, "properties"), *required = json_object_get(into, "required"), *v;
    const char *key;
    if ((*allowance)-- == 0)
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: more than 64 parts, or parts without end", r->path);
    const char *ref = json_string_value(json_object_get(part, "$ref"));
    if (ref) {
        const json_t *to = find_ref(r->root, ref);
        if (!to)
            return ns_fail(m->e, NS_EINVAL, "%s: allOf: $ref \"%.200s\": there is nothing in this schema", r->path, ref);
        json_object_foreach((json_t *)(uintptr_t)part, key, v)
            if (ns_gram_held(key) && strcmp(key, "$ref") != 0)
                return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: keyword %s beside $ref is not supported", r->path, key);
        return merge_part(m, r, to, into, allowance);
    }
    ns_gram_rule sub = { .schema = part, .path = r->path };
    if (!json_is_object(part))
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: a part is no object", r->path);
    if (ns_gram_check_keywords(m, &sub) < 0 || ns_gram_check_beside(m, &sub, "allOf", may) < 0)
        return ns_err_wrap(m->e, "a part of allOf");
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *more = json_object_get(part, "additionalProperties");
    if ((json_object_get(part, "type") && (!type || strcmp(type, "object") != 0)) || (more && !json_is_true(more)))
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: only objects, with additionalProperties left open, can be put together", r->path);
    for (size_t i = 0; i < json_array_size(json_object_get(part, "allOf")); i++)
        if (merge_part(m, r, json_array_get(json_object_get(part, "allOf"), i), into, allowance) < 0)
            return -1;
    json_object_foreach(json_object_get(part, "properties"), key, v) {
        if (json_object_get(props, key) && !json_equal(json_object_get(props, key), v))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: two parts describe \"%s\"", r->path, key);
        m->failed |= json_object_set(props, key, v) < 0;
    }
    return json_array_extend(required, json_object_get(part, "required")) < 0 && json_object_get(part, "required")
               ? ns_fail(m->e, NS_EINVAL, "%s: allOf: required: expected a list", r->path)
               : 0;
}

/* One part is that part; several objects become one, their properties in the order of the parts, the schema's own last. */
int ns_gram_all_of(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    static const char *const may[] = { "type", "properties", "required", "additionalProperties", NULL };
    const json_t *list = json_object_get(r->schema, "allOf");
    bool alone = json_array_size(list) == 1 && !json_object_get(r->schema, "type") && !json_object_get(r->schema, "properties") &&
                 !json_object_get(r->schema, "required") && !json_object_get(r->schema, "additionalProperties");
    if (ns_gram_check_beside(m, r, "allOf", may) < 0)
        return -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return ns_fail(m->e, NS_EINVAL, "%s: allOf: expected a list that is not empty", r->path);
    if (ns_gram_alts_room(m, rule, 1) < 0)
        return -1;
    if (alone)
        return ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, json_array_get(list, 0), r->mode, NS_GRAM_WHOLE, "allOf[0]"));
    size_t allowance = 64;
    json_t *all = json_pack("{s:s, s:{}, s:[]}", "type", "object", "properties", "required");
    if (!all || json_array_append_new(m->owned, all) < 0)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    if (merge_part(m, r, r->schema, all, &allowance) < 0)
        return -1;
    return ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, all, r->mode, NS_GRAM_WHOLE, "%s", ""));
}
