/* Opens a checkpoint, lists its sizes, and continues a prompt for 20 tokens at a small size and 20 more at the whole model, in
 * one session: the cache stays, only the amount of weights that is read changes.
 *
 *   cc two_sizes.c -o two_sizes $(pkg-config --cflags --libs nestar)
 *   cc two_sizes.c -o two_sizes -static $(pkg-config --cflags --libs --static nestar)
 *   ./two_sizes DIR [SIZE [PROMPT]] */
#include <nestar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int list_sizes(const ns_engine *en, ns_err *e)
{
    for (int i = 0; i < ns_engine_n_sizes(en); i++) {
        ns_size_info z;
        if (ns_engine_size(en, i, &z, e) != 0)
            return -1;
        printf("size %-10s %12lld parameters, %12lld active, %12lld bytes%s\n", z.name, (long long)z.params_total,
               (long long)z.params_active, (long long)z.weight_bytes, z.assumed ? " (assumed)" : "");
    }
    return 0;
}

/* At most n tokens, as they come. Their bytes need not be whole characters, so they go out as they are. */
static int generate(const ns_engine *en, ns_session *s, int n, ns_err *e)
{
    printf("[%s] ", ns_session_size(s));
    for (int i = 0, id; i < n; i++) {
        const char *bytes;
        size_t len;
        if (ns_session_next(s, &id, e) != 0)
            return -1;
        if (ns_engine_is_stop(en, id))
            break;
        if (ns_engine_token_bytes(en, id, &bytes, &len) == 0)
            fwrite(bytes, 1, len, stdout);
    }
    putchar('\n');
    return 0;
}

static int run(const char *dir, const char *size, const char *prompt, ns_err *e)
{
    int rc = -1, *ids = NULL;
    size_t n_ids = 0;
    ns_session *s = NULL;
    ns_engine *en = ns_engine_open(dir, NULL, e);
    if (!en || list_sizes(en, e) != 0)
        goto out;
    if (!size) { /* the last one listed is the smallest */
        ns_size_info z;
        if (ns_engine_size(en, ns_engine_n_sizes(en) - 1, &z, e) != 0)
            goto out;
        size = z.name;
    }
    if (ns_engine_tokenize(en, prompt, strlen(prompt), false, &ids, &n_ids, e) != 0)
        goto out;
    ns_sampling greedy = ns_engine_sampling(en);
    greedy.temperature = 0.0;
    s = ns_session_new(en, &(ns_session_opts){ .size = size, .sampling = &greedy }, e);
    if (!s || ns_session_feed(s, ids, n_ids, e) != 0 || generate(en, s, 20, e) != 0)
        goto out;
    if (ns_session_resize(s, "full", NS_HANDOVER_AUTO, e) != 0 || generate(en, s, 20, e) != 0)
        goto out;
    ns_stats t = ns_session_stats(s);
    printf("%zu tokens of prompt; the change of size took %.6f s\n", n_ids, t.switch_seconds);
    rc = 0;
out:
    ns_session_free(s);
    free(ids);
    ns_engine_close(en);
    return rc;
}

int main(int argc, char **argv)
{
    ns_err e = { 0 };
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s DIR [SIZE [PROMPT]]\n", argv[0]);
        return 2;
    }
    if (run(argv[1], argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : "Once upon a time", &e) != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], e.msg);
        return 1;
    }
    return 0;
}
