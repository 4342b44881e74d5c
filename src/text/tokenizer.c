/* Encoding: join spans -> cut out added tokens -> cut out bytes that are not UTF-8 -> NFC -> pre-tokenize -> merge. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_impl.h"
#include "text/utf8.h"

enum { MAX_TEXT = 1 << 30 };

/* Half-open, in the joined text. */
typedef struct range {
    size_t begin, end;
} range;

typedef struct encoder {
    const ns_tokenizer *t;
    const char *text; /* the joined text */
    size_t n;
    const range *trusted; /* where added tokens count: ascending, apart from each other */
    size_t n_trusted;
    ns_pretok_scratch pretok;
    ns_bpe_scratch bpe;
    ns_buf nfc;
    ns_ids *out;
    ns_err *e;
} encoder;

int ns_tokenizer_find_piece(const ns_tokenizer *t, const char *p, size_t n)
{
    int id = ns_vocab_find(&t->vocab, p, n);
    return id >= 0 && !(t->vocab.tokens[id].flags & NS_TOKEN_CLOSED) ? id : -1;
}

static int encode_piece(void *ctx, const char *p, size_t n)
{
    encoder *x = ctx;
    int id = x->t->ignore_merges ? ns_tokenizer_find_piece(x->t, p, n) : -1;
    if (id < 0)
        return ns_bpe_encode(&x->t->bpe, &x->bpe, p, n, x->out, x->e);
    ns_ids_add(x->out, id);
    return 0;
}

static int encode_utf8(encoder *x, const char *p, size_t n, bool start)
{
    if (x->t->nfc && !ns_utf8_plain_nfc(p, n)) {
        ns_buf_clear(&x->nfc);
        if (ns_utf8_nfc(p, n, &x->nfc) != 0)
            return ns_fail(x->e, NS_ENOMEM, "out of memory");
        p = x->nfc.data;
        n = x->nfc.len;
    }
    return ns_pretok_run(x->t->pretok, &x->pretok, p, n, start, encode_piece, x, x->e);
}

/* A stretch without added tokens. */
static int encode_plain(encoder *x, size_t begin, size_t end)
{
    for (size_t at = begin; at < end;) {
        size_t n = ns_utf8_valid(x->text + at, end - at);
        if (n > 0 && encode_utf8(x, x->text + at, n, at == begin) != 0)
            return -1;
        at += n;
        if (at < end)
            ns_ids_add(x->out, x->t->bpe.bytes[(unsigned char)x->text[at++]]);
    }
    return 0;
}

/* The end of the trusted range around `at`; `at` itself if there is none. */
static size_t trust_end(const encoder *x, size_t at)
{
    size_t lo = 0, hi = x->n_trusted;
    while (lo < hi) { /* the first range that ends after `at` */
        size_t mid = lo + (hi - lo) / 2;
        if (x->trusted[mid].end > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo < x->n_trusted && x->trusted[lo].begin <= at ? x->trusted[lo].end : at;
}

/* True when no word character of text[begin..end) touches text[from..to). */
static bool stands_alone(const char *text, size_t begin, size_t end, size_t from, size_t to)
{
    uint32_t cp;
    if (from > begin && ns_utf8_decode_last(text + begin, from - begin, &cp) > 0 && ns_utf8_is_word(cp))
        return false;
    return !(to < end && ns_utf8_decode(text + to, end - to, &cp) > 0 && ns_utf8_is_word(cp));
}

static size_t skip_space_left(const char *text, size_t begin, size_t at)
{
    uint32_t cp;
    int len;
    while ((len = ns_utf8_decode_last(text + begin, at - begin, &cp)) > 0 && ns_utf8_is_space(cp))
        at -= (size_t)len;
    return at;
}

static size_t skip_space_right(const char *text, size_t at, size_t end)
{
    uint32_t cp;
    int len;
    while ((len = ns_utf8_decode(text + at, end - at, &cp)) > 0 && ns_utf8_is_space(cp))
        at += (size_t)len;
    return at;
}

/* The next added token of a set at or after *at, which moves behind it; NULL if there is none. */
static const ns_added *next_added(const encoder *x, const ns_added_set *set, size_t *at, size_t end)
{
    for (; *at < end; (*at)++) {
        if (!set->first[(unsigned char)x->text[*at]])
            continue;
        size_t limit = trust_end(x, *at);
        const ns_added *a = ns_added_match(set, x->text + *at, (limit < end ? limit : end) - *at);
        if (a) {
            *at += a->len;
            return a;
        }
    }
    return NULL;
}

/* Cuts the tokens of one set out of text[begin..end), leaves what lies between to the next set, and in the end to plain
 * encoding. Follows AddedVocabulary::find_matches of Hugging Face's tokenizers step by step, for the odd cases' sake: what a
 * token strips may overlap the token before it, and a token refused for single_word is passed over whole. */
static int encode_range(encoder *x, size_t pass, size_t begin, size_t end)
{
    if (pass == 2)
        return encode_plain(x, begin, end);
    const ns_added_set *set = &x->t->added[pass];
    size_t done = begin, at = begin;
    const ns_added *a;
    while (set->n > 0 && x->n_trusted > 0 && (a = next_added(x, set, &at, end))) {
        size_t from = at - a->len, to = at;
        if (a->single_word && !stands_alone(x->text, begin, end, from, to))
            continue;
        if (a->lstrip) {
            from = skip_space_left(x->text, begin, from);
            from = from > done ? from : done;
        }
        if (a->rstrip)
            to = skip_space_right(x->text, to, end);
        if (done < from && encode_range(x, pass + 1, done, from) != 0)
            return -1;
        ns_ids_add(x->out, a->id);
        done = to;
    }
    return done < end ? encode_range(x, pass + 1, done, end) : 0;
}

static int encode(encoder *x)
{
    size_t len = x->out->len;
    int rc = ns_pretok_scratch_init(&x->pretok, x->e);
    if (rc == 0)
        rc = encode_range(x, 0, 0, x->n);
    if (rc == 0 && x->out->failed)
        rc = ns_fail(x->e, NS_ENOMEM, "out of memory");
    if (rc != 0)
        x->out->len = len;
    ns_pretok_scratch_release(&x->pretok);
    ns_bpe_scratch_release(&x->bpe);
    ns_buf_release(&x->nfc);
    return rc;
}

int ns_tokenizer_encode(const ns_tokenizer *t, const char *text, size_t n, bool parse_special, ns_ids *out, ns_err *e)
{
    range all = { 0, n };
    encoder x = { .t = t, .text = text, .n = n, .trusted = &all, .n_trusted = parse_special, .out = out, .e = e };
    if (n > MAX_TEXT)
        return ns_fail(e, NS_EUNSUPPORTED, "a text of %zu bytes is over the limit of %d", n, MAX_TEXT);
    return encode(&x);
}

int ns_tokenizer_encode_spans(const ns_tokenizer *t, const ns_text_span *spans, size_t n_spans, ns_ids *out, ns_err *e)
{
    ns_buf joined = { 0 };
    range *trusted = calloc(n_spans ? n_spans : 1, sizeof *trusted);
    size_t n = 0;
    int rc = -1;
    for (size_t i = 0; trusted && i < n_spans; i++) {
        size_t begin = joined.len;
        ns_buf_add(&joined, spans[i].text, spans[i].len);
        if (!spans[i].parse_special || spans[i].len == 0)
            continue;
        if (n > 0 && trusted[n - 1].end == begin)
            trusted[n - 1].end = joined.len;
        else
            trusted[n++] = (range){ begin, joined.len };
    }
    if (!trusted || joined.failed) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        goto out;
    }
    if (joined.len > MAX_TEXT) {
        ns_fail(e, NS_EUNSUPPORTED, "a text of %zu bytes is over the limit of %d", joined.len, MAX_TEXT);
        goto out;
    }
    encoder x = { .t = t, .text = joined.data, .n = joined.len, .trusted = trusted, .n_trusted = n, .out = out, .e = e };
    rc = encode(&x);
out:
    free(trusted);
    ns_buf_release(&joined);
    return rc;
}
