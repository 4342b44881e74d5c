/* The vocabulary as a tree of bytes, and for each class of content the tokens that are nothing else. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"
#include "text/utf8.h"

enum { LONGEST = 4096 }; /* bytes of a token; longer ones are never allowed */

typedef struct word {
    const char *p;
    size_t n;
    int id;
} word;

static int by_bytes(const void *a, const void *b)
{
    const word *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    if (c == 0)
        c = (x->n > y->n) - (x->n < y->n);
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

static size_t common(const word *a, const word *b)
{
    size_t i = 0;
    while (i < a->n && i < b->n && a->p[i] == b->p[i])
        i++;
    return i;
}

/* The words are sorted. */
static int make_tree(ns_gram_vtree *t, const word *words, size_t n, ns_err *e)
{
    size_t twigs = 0, depth = 0;
    uint32_t open[LONGEST]; /* the twigs of the word so far */
    for (size_t i = 0; i < n; i++)
        twigs += words[i].n - (i ? common(&words[i - 1], &words[i]) : 0);
    t->twigs = malloc((twigs + 1) * sizeof *t->twigs);
    t->ids = malloc((n + 1) * sizeof *t->ids);
    if (!t->twigs || !t->ids || twigs >= UINT32_MAX)
        return ns_fail(e, NS_ENOMEM, "grammar: out of memory");
    for (size_t i = 0; i < n; i++) {
        size_t keep = i ? common(&words[i - 1], &words[i]) : 0;
        while (depth > keep)
            t->twigs[open[--depth]].skip = t->n;
        for (; depth < words[i].n; depth++) {
            open[depth] = t->n;
            t->twigs[t->n++] = (ns_gram_twig){ .first = t->n_ids, .depth = (uint16_t)(depth + 1), .byte = (unsigned char)words[i].p[depth] };
        }
        t->ids[t->n_ids++] = words[i].id;
    }
    while (depth > 0)
        t->twigs[open[--depth]].skip = t->n;
    t->twigs[t->n] = (ns_gram_twig){ .first = t->n_ids, .skip = t->n };
    return 0;
}

/* Characters of a token that is content of the class and nothing else; 0: it is not. */
static uint32_t content(const word *w, enum ns_gram_class cls)
{
    uint32_t chars = 0, cp;
    for (size_t i = 0; i < w->n; chars++) {
        int len = ns_utf8_decode(w->p + i, w->n - i, &cp);
        if (len <= 0 || (cls == NS_GRAM_STRING ? cp < 0x20 || cp == '"' || cp == '\\' : cp == '\n' || cp == '<'))
            return 0;
        i += (size_t)len;
    }
    return chars;
}

static int make_plain(ns_grammar_vocab *v, enum ns_gram_class cls, const word *words, size_t n, ns_err *e)
{
    ns_gram_plain *p = &v->plain[cls];
    word *rest = malloc((n + 1) * sizeof *rest);
    size_t n_rest = 0;
    int rc = -1;
    bool ok = rest != NULL;
    for (int k = 1; k <= NS_GRAM_SHORT; k++)
        ok &= (p->upto[k] = calloc(v->words, sizeof(uint64_t))) != NULL;
    p->longer = malloc((n + 1) * sizeof *p->longer);
    p->chars = malloc((n + 1) * sizeof *p->chars);
    if (!ok || !p->longer || !p->chars) {
        ns_fail(e, NS_ENOMEM, "grammar: out of memory");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t chars = content(&words[i], cls);
        if (!chars)
            rest[n_rest++] = words[i];
        for (uint32_t k = chars ? chars : NS_GRAM_SHORT + 1; k < NS_GRAM_SHORT; k++)
            p->upto[k][words[i].id / 64] |= UINT64_C(1) << words[i].id % 64;
        if (chars)
            p->upto[NS_GRAM_SHORT][words[i].id / 64] |= UINT64_C(1) << words[i].id % 64;
        if (chars >= NS_GRAM_SHORT) {
            p->longer[p->n_longer] = words[i].id;
            p->chars[p->n_longer++] = chars;
        }
    }
    rc = make_tree(&p->rest, rest, n_rest, e);
out:
    free(rest);
    return rc;
}

/* The marks of thinking are no part of any answer, though not every tokenizer calls them special. */
static bool usable(const ns_tokenizer *t, int id, word *w)
{
    static const char *const marks[] = { "<think>", "</think>" };
    w->id = id;
    if (ns_tokenizer_bytes(t, id, &w->p, &w->n) < 0 || w->n == 0 || w->n > LONGEST || ns_tokenizer_is_special(t, id))
        return false;
    for (size_t i = 0; i < 2; i++)
        if (id == ns_tokenizer_find(t, marks[i], strlen(marks[i])))
            return false;
    return true;
}

ns_grammar_vocab *ns_grammar_vocab_new(const ns_tokenizer *t, ns_err *e)
{
    size_t size = (size_t)ns_tokenizer_vocab_size(t), n = 0;
    ns_grammar_vocab *v = calloc(1, sizeof *v);
    word *words = malloc((size + 1) * sizeof *words);
    int rc = v && words ? 0 : ns_fail(e, NS_ENOMEM, "grammar: out of memory");
    if (rc == 0) {
        v->words = (size + 63) / 64;
        for (size_t id = 0; id < size; id++)
            if (usable(t, (int)id, &words[n])) {
                v->depth = words[n].n > v->depth ? words[n].n : v->depth;
                n++;
            }
        qsort(words, n, sizeof *words, by_bytes);
        rc = make_tree(&v->all, words, n, e);
    }
    for (int c = NS_GRAM_STRING; c < NS_GRAM_CLASSES && rc == 0; c++)
        rc = make_plain(v, (enum ns_gram_class)c, words, n, e);
    free(words);
    if (rc == 0)
        return v;
    ns_grammar_vocab_free(v);
    return NULL;
}

static void free_tree(ns_gram_vtree *t)
{
    free(t->twigs);
    free(t->ids);
}

void ns_grammar_vocab_free(ns_grammar_vocab *v)
{
    if (!v)
        return;
    free_tree(&v->all);
    for (int c = 0; c < NS_GRAM_CLASSES; c++) {
        ns_gram_plain *p = &v->plain[c];
        for (int k = 0; k <= NS_GRAM_SHORT; k++)
            free(p->upto[k]);
        free(p->longer);
        free(p->chars);
        free_tree(&p->rest);
    }
    free(v);
}
