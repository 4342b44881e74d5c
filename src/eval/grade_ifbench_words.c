/* IFBench: rules for every word or every sentence. Without a rule here, and so ungraded: words:start_verb (needs to know which words are
 * verbs) and words:odd_even_syllables (needs a dictionary of pronunciation). */
#include <ctype.h>
#include <string.h>

#include "eval/grade_text.h"
#include "eval/regex.h"

/* The text in small letters without punctuation, and its words. */
struct bare {
    ns_buf text;
    ns_texts word;
};

static struct bare bare(ns_text said)
{
    struct bare b = { 0 };
    ns_buf low = { 0 };
    ns_lower(said, &low);
    ns_drop_punct(ns_buf_text(&low), &b.text);
    ns_split_words(ns_buf_text(&b.text), &b.word);
    ns_buf_release(&low);
    return b;
}

static void bare_release(struct bare *b)
{
    ns_texts_release(&b->word);
    ns_buf_release(&b->text);
}

static bool same(ns_text a, ns_text b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static enum ns_grade alphabet(const ns_instruction *in, ns_text said)
{
    (void)in;
    struct bare b = bare(said);
    bool right = b.word.n > 0 && islower((unsigned char)*b.word.at[0].p);
    for (int i = 1; right && i < b.word.n; i++)
        right = *b.word.at[i].p == (char)('a' + (*b.word.at[0].p - 'a' + i) % 26);
    bare_release(&b);
    return ns_grade_if(right);
}

static enum ns_grade three_vowels(const ns_instruction *in, ns_text said)
{
    (void)in;
    int n = 0;
    for (const char *v = "aeiou"; *v; v++)
        n += memchr(said.p, *v, said.n) || memchr(said.p, toupper((unsigned char)*v), said.n);
    return ns_grade_if(n <= 3 && !memchr(said.p, '\n', said.n));
}

static enum ns_grade consonants(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts w = { 0 };
    bool all = true;
    ns_split_words(said, &w);
    for (int i = 0; all && i < w.n; i++)
        all = ns_re_find("[bcdfghj-np-tv-z]{2}", NS_RE_NOCASE, w.at[i]);
    ns_texts_release(&w);
    return ns_grade_if(all);
}

static enum ns_grade palindromes(const ns_instruction *in, ns_text said)
{
    (void)in;
    struct bare b = bare(said);
    int n = 0;
    for (int i = 0; i < b.word.n; i++) {
        ns_text w = b.word.at[i];
        bool is = w.n >= 5;
        for (size_t k = 0; is && k < w.n / 2; k++)
            is = w.p[k] == w.p[w.n - 1 - k];
        n += is;
    }
    bare_release(&b);
    return ns_grade_if(n >= 10);
}

static enum ns_grade prime_lengths(const ns_instruction *in, ns_text said)
{
    (void)in;
    struct bare b = bare(said);
    bool all = true;
    for (int i = 0; all && i < b.word.n; i++) {
        int n = ns_code_points(b.word.at[i]);
        all = n >= 2;
        for (int d = 2; all && d * d <= n; d++)
            all = n % d != 0;
    }
    bare_release(&b);
    return ns_grade_if(all);
}

static enum ns_grade repeats(const ns_instruction *in, ns_text said)
{
    int most = ns_arg_int(in->kwargs, "small_n", 0);
    struct bare b = bare(said);
    bool right = true;
    for (int i = 0; right && i < b.word.n; i++) {
        int n = 0;
        for (int k = 0; k <= i; k++)
            n += same(b.word.at[k], b.word.at[i]);
        right = n <= most;
    }
    bare_release(&b);
    return ns_grade_if(right);
}

static size_t first_char(ns_text s)
{
    size_t n = 1;
    while (n < s.n && ((unsigned char)s.p[n] & 0xC0) == 0x80)
        n++;
    return n;
}

static bool same_first(ns_text a, ns_text b)
{
    return same((ns_text){ a.p, first_char(a) }, (ns_text){ b.p, first_char(b) });
}

static enum ns_grade no_consecutive(const ns_instruction *in, ns_text said)
{
    (void)in;
    struct bare b = bare(said);
    bool right = true;
    for (int i = 1; right && i < b.word.n; i++)
        right = !same_first(b.word.at[i - 1], b.word.at[i]);
    bare_release(&b);
    return ns_grade_if(right);
}

/* ---- words of sentences ---- */

static ns_text first_word(ns_text s, bool last)
{
    ns_texts w = { 0 };
    s = ns_strip_punct(s);
    ns_split_words(s, &w);
    ns_text word = w.n ? w.at[last ? w.n - 1 : 0] : (ns_text){ 0 };
    ns_texts_release(&w);
    return word;
}

static enum ns_grade last_first(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    bool right = true;
    ns_split_sentences(said, &t);
    for (int i = 1; right && i < t.n; i++) {
        ns_text a = first_word(t.at[i - 1], true), b = first_word(t.at[i], false);
        right = a.n && b.n && ns_same_nocase(a, b);
    }
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade paragraph_last_first(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    bool right = true;
    ns_split_at(said, "\n", &t);
    for (int i = 0; right && i < t.n; i++) {
        ns_text a = first_word(t.at[i], false), b = first_word(t.at[i], true);
        right = !a.n || ns_same_nocase(a, b);
    }
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade increment(const ns_instruction *in, ns_text said)
{
    int step = ns_arg_int(in->kwargs, "small_n", 0), before = 0;
    ns_texts t = { 0 };
    bool right = true;
    ns_split_sentences(said, &t);
    for (int i = 0; right && i < t.n; i++) {
        struct bare b = bare(t.at[i]);
        right = i == 0 || b.word.n == before + step;
        before = b.word.n;
        bare_release(&b);
    }
    ns_texts_release(&t);
    return ns_grade_if(right);
}

/* Words in runs of equal first letters, a sentence more than the one before. */
static enum ns_grade alliteration(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    ns_buf low = { 0 };
    int before = -1;
    bool right = true;
    ns_lower(said, &low);
    ns_split_sentences(said, &t);
    for (int i = 0; right && i < t.n; i++) {
        struct bare b = bare(t.at[i]);
        int n = 0;
        for (int k = 1; k < b.word.n; k++)
            if (same_first(b.word.at[k - 1], b.word.at[k]))
                n += k > 1 && same_first(b.word.at[k - 2], b.word.at[k - 1]) ? 1 : 2;
        right = n > before;
        before = n;
        bare_release(&b);
    }
    ns_texts_release(&t);
    ns_buf_release(&low);
    return ns_grade_if(right);
}

static enum ns_grade keyword_in_sentence(const ns_instruction *in, ns_text said)
{
    int n = ns_arg_int(in->kwargs, "N", 0);
    ns_texts t = { 0 };
    ns_buf pattern = { 0 };
    ns_split_sentences(said, &t);
    ns_buf_adds(&pattern, "\\b");
    ns_re_quote(&pattern, ns_text_of(ns_arg_str(in->kwargs, "word")));
    ns_buf_adds(&pattern, "\\b");
    bool right = n >= 1 && n <= t.n && pattern.data && ns_re_find(pattern.data, NS_RE_NOCASE, t.at[n - 1]);
    ns_buf_release(&pattern);
    ns_texts_release(&t);
    return ns_grade_if(right);
}

/* Words as tokens that hold a letter or a digit; a clitic ("'s", "n't") is one of its own. */
static void tokens(ns_text s, ns_texts *out)
{
    ns_re r;
    ns_re_open(&r, "n't\\b|'(?:s|re|ve|ll|d|m)\\b|\\w+?(?=n't\\b)|\\w+(?:[.,-]\\w+)*", NS_RE_NOCASE, s);
    while (ns_re_next(&r))
        ns_texts_add(out, r.whole);
    ns_re_close(&r);
}

static enum ns_grade keyword_position(const ns_instruction *in, ns_text said)
{
    int n = ns_arg_int(in->kwargs, "n", 0), m = ns_arg_int(in->kwargs, "m", 0);
    ns_texts t = { 0 }, w = { 0 };
    bool right = false;
    ns_split_sentences(said, &t);
    if (n >= 1 && n <= t.n) {
        tokens(t.at[n - 1], &w);
        right = m >= 1 && m <= w.n && ns_same_nocase(w.at[m - 1], ns_text_of(ns_arg_str(in->kwargs, "keyword")));
    }
    ns_texts_release(&w);
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade second_and_last_but_one(const ns_instruction *in, ns_text said)
{
    ns_text want = ns_text_of(ns_arg_str(in->kwargs, "keyword"));
    ns_texts w = { 0 };
    tokens(said, &w);
    bool right = w.n >= 3 && ns_same_nocase(w.at[1], want) && ns_same_nocase(w.at[w.n - 2], want);
    ns_texts_release(&w);
    return ns_grade_if(right);
}

const ns_instruction_kind ns_ifbench_word_kinds[] = {
    { "words:alphabet", alphabet },
    { "words:vowel", three_vowels },
    { "words:consonants", consonants },
    { "words:palindrome", palindromes },
    { "words:prime_lengths", prime_lengths },
    { "words:repeats", repeats },
    { "words:no_consecutive", no_consecutive },
    { "words:last_first", last_first },
    { "words:paragraph_last_first", paragraph_last_first },
    { "words:keywords_specific_position", keyword_position },
    { "words:words_position", second_and_last_but_one },
    { "sentence:increment", increment },
    { "sentence:alliteration_increment", alliteration },
    { "sentence:keyword", keyword_in_sentence },
    { 0 },
};
