/* Grammars from outside, for tools/check_grammar.py: grammar_walks TOKENIZER.json. Each line of input is an object: "schema", "docs" (texts),
 * "walks" (how many) and "seed". Each is answered by {"error": ".."} or by {"accepted": [bool ..], "samples": [text ..]}: whether each text is
 * allowed, and answers drawn at random along the masks, null where one did not end in time. Dead ends stop the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/rng.h"
#include "text/grammar.h"

enum { STEPS = 3000, CALM = 12 };

typedef struct world {
    ns_tokenizer *t;
    ns_grammar_vocab *v;
    uint64_t *bits;
    int *ids, size;
} world;

static bool allows(const ns_grammar *g, const json_t *doc)
{
    ns_grammar_walk *w = ns_grammar_walk_new(g, NULL);
    bool ok = w && ns_grammar_take(w, json_string_value(doc), json_string_length(doc)) == 0 && ns_grammar_complete(w);
    ns_grammar_walk_free(w);
    return ok;
}

static bool ends(const world *x, int id, size_t longest)
{
    const char *p;
    size_t n;
    return ns_tokenizer_bytes(x->t, id, &p, &n) == 0 && n && n <= longest && p[n - 1] && strchr("\"}],:", p[n - 1]);
}

/* After some steps one that ends something, where a few draws find it; later a single byte. */
static int draw(const world *x, int n, int step, ns_rng *r)
{
    int id = x->ids[ns_rng_u64(r) % (uint64_t)n];
    for (int i = 0; i < 200 && (step > CALM || ns_rng_u64(r) % 2); i++) {
        int other = x->ids[ns_rng_u64(r) % (uint64_t)n];
        if (ends(x, other, step > 5 * CALM ? 2 : 100))
            return other;
    }
    for (int i = 0; i < n && step > 2 * CALM; i++)
        if (ends(x, x->ids[i], 1))
            return x->ids[i];
    return id;
}

static json_t *answer(const world *x, const ns_grammar *g, ns_rng *r)
{
    ns_grammar_walk *w = ns_grammar_walk_new(g, NULL);
    ns_buf text = { 0 };
    for (int step = 0; w && step < STEPS; step++) {
        int n = 0;
        ns_grammar_mask(w, x->v, x->bits);
        for (int id = 0; id < x->size; id++)
            if (x->bits[id / 64] >> id % 64 & 1)
                x->ids[n++] = id;
        if (ns_grammar_complete(w) && (n == 0 || ns_rng_u64(r) % 4 == 0))
            break;
        const char *p = "";
        size_t len = 0;
        if (n == 0 || ns_tokenizer_bytes(x->t, draw(x, n, step, r), &p, &len) < 0 || ns_grammar_take(w, p, len) < 0) {
            fprintf(stderr, "stuck after: %s%.*s\n", text.data ? text.data : "", (int)len, p);
            exit(1);
        }
        ns_buf_add(&text, p, len);
    }
    json_t *s = w && ns_grammar_complete(w) ? json_stringn(text.data, text.len) : json_null();
    ns_buf_release(&text);
    ns_grammar_walk_free(w);
    return s;
}

static json_t *reply(const world *x, const json_t *line)
{
    ns_err e = { 0 };
    ns_rng r;
    ns_grammar *g = ns_grammar_schema(json_object_get(line, "schema"), &e);
    if (!g)
        return json_pack("{s:s}", "error", e.msg);
    json_t *accepted = json_array(), *samples = json_array(), *docs = json_object_get(line, "docs");
    ns_rng_init(&r, (uint64_t)json_integer_value(json_object_get(line, "seed")));
    for (size_t i = 0; i < json_array_size(docs); i++)
        json_array_append_new(accepted, json_boolean(allows(g, json_array_get(docs, i))));
    for (json_int_t i = json_integer_value(json_object_get(line, "walks")); i > 0; i--)
        json_array_append_new(samples, answer(x, g, &r));
    ns_grammar_free(g);
    return json_pack("{s:o, s:o}", "accepted", accepted, "samples", samples);
}

int main(int argc, char **argv)
{
    ns_err e = { 0 };
    world x = { .t = argc == 2 ? ns_tokenizer_open(argv[1], &e) : NULL };
    x.v = x.t ? ns_grammar_vocab_new(x.t, &e) : NULL;
    if (!x.v) {
        fprintf(stderr, "grammar_walks: %s\n", argc == 2 ? e.msg : "usage: grammar_walks TOKENIZER.json");
        return 2;
    }
    x.size = ns_tokenizer_vocab_size(x.t);
    x.bits = calloc((size_t)x.size / 64 + 1, sizeof *x.bits);
    x.ids = calloc((size_t)x.size, sizeof *x.ids);
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; x.bits && x.ids && (n = getline(&line, &cap, stdin)) > 0;) {
        json_t *in = ns_json_parse(line, (size_t)n, false, "input", &e);
        json_t *out = in ? reply(&x, in) : json_pack("{s:s}", "error", e.msg);
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(out);
        json_decref(in);
        e = (ns_err){ 0 };
    }
    free(line);
    free(x.bits);
    free(x.ids);
    ns_grammar_vocab_free(x.v);
    ns_tokenizer_free(x.t);
    return 0;
}
