/* IFEval's 25 kinds of verifiable instruction, by the published rules: on the strict reading, of the answer as it stands. Two of them need
 * a model of English in the published program and are done with less here: sentences (grade_text.h) and the language (grade_language.c). */
#include <ctype.h>
#include <string.h>

#include "eval/grade_text.h"
#include "eval/regex.h"

/* "at least", "less than" */
static enum ns_grade compare(const json_t *kw, const char *relation, int n, int limit)
{
    const char *r = ns_arg_str(kw, relation);
    if (strcmp(r, "at least") == 0)
        return ns_grade_if(n >= limit);
    return strcmp(r, "less than") == 0 ? ns_grade_if(n < limit) : NS_GRADE_NONE;
}

/* ---- words ---- */

static enum ns_grade existence(const ns_instruction *in, ns_text said)
{
    json_t *list = json_object_get(in->kwargs, "keywords"), *word;
    size_t i;
    json_array_foreach(list, i, word)
        if (!ns_re_find(json_string_value(word) ? json_string_value(word) : "", NS_RE_NOCASE, said))
            return NS_GRADE_WRONG;
    return json_array_size(list) ? NS_GRADE_RIGHT : NS_GRADE_NONE;
}

static enum ns_grade frequency(const ns_instruction *in, ns_text said)
{
    int n = ns_re_count(ns_arg_str(in->kwargs, "keyword"), NS_RE_NOCASE, said);
    return compare(in->kwargs, "relation", n, ns_arg_int(in->kwargs, "frequency", 0));
}

static enum ns_grade forbidden(const ns_instruction *in, ns_text said)
{
    json_t *list = json_object_get(in->kwargs, "forbidden_words"), *word;
    size_t i;
    bool found = false;
    json_array_foreach(list, i, word) {
        ns_buf pattern = { 0 };
        ns_buf_addf(&pattern, "\\b%s\\b", json_string_value(word) ? json_string_value(word) : "");
        found = found || !pattern.data || ns_re_find(pattern.data, NS_RE_NOCASE, said);
        ns_buf_release(&pattern);
    }
    return json_array_size(list) ? ns_grade_if(!found) : NS_GRADE_NONE;
}

static enum ns_grade letters(const ns_instruction *in, ns_text said)
{
    ns_buf low = { 0 }, letter = { 0 };
    ns_lower(said, &low);
    ns_lower(ns_text_of(ns_arg_str(in->kwargs, "letter")), &letter);
    int n = 0;
    for (const char *p = low.data; letter.len && p && (p = strstr(p, letter.data)); p += letter.len)
        n++;
    ns_buf_release(&low);
    ns_buf_release(&letter);
    return compare(in->kwargs, "let_relation", n, ns_arg_int(in->kwargs, "let_frequency", 0));
}

static enum ns_grade capital_words(const ns_instruction *in, ns_text said)
{
    ns_re r;
    int n = 0;
    ns_re_open(&r, "[\\w'&.-]*\\w", 0, said);
    while (ns_re_next(&r))
        n += ns_is_upper(r.whole);
    ns_re_close(&r);
    return compare(in->kwargs, "capital_relation", n, ns_arg_int(in->kwargs, "capital_frequency", 0));
}

/* ---- lengths ---- */

static enum ns_grade words(const ns_instruction *in, ns_text said)
{
    return compare(in->kwargs, "relation", ns_re_count("\\w+", 0, said), ns_arg_int(in->kwargs, "num_words", 0));
}

static enum ns_grade sentences(const ns_instruction *in, ns_text said)
{
    ns_texts t = { 0 };
    ns_split_sentences(said, &t);
    int n = t.n;
    ns_texts_release(&t);
    return compare(in->kwargs, "relation", n, ns_arg_int(in->kwargs, "num_sentences", 0));
}

/* Parts between `mark`; -1 where one in the middle is empty. Empty ones at the ends do not count. */
static int parts(ns_text said, const char *mark, ns_texts *t)
{
    int n = 0;
    ns_split_at(said, mark, t);
    for (int i = 0; i < t->n; i++) {
        if (ns_answer_trim(t->at[i].p, t->at[i].n).n)
            n++;
        else if (i != 0 && i != t->n - 1)
            return -1;
    }
    return n;
}

static enum ns_grade paragraphs(const ns_instruction *in, ns_text said)
{
    ns_texts t = { 0 };
    int n = parts(said, "***", &t);
    ns_texts_release(&t);
    return ns_grade_if(n == ns_arg_int(in->kwargs, "num_paragraphs", -2));
}

static enum ns_grade nth_first_word(const ns_instruction *in, ns_text said)
{
    int nth = ns_arg_int(in->kwargs, "nth_paragraph", 0), want = ns_arg_int(in->kwargs, "num_paragraphs", 0), n = 0;
    ns_texts t = { 0 };
    ns_buf first = { 0 };
    bool right = false;
    ns_split_at(said, "\n\n", &t);
    for (int i = 0; i < t.n; i++)
        n += ns_answer_trim(t.at[i].p, t.at[i].n).n > 0;
    if (nth >= 1 && nth <= n && n == want) {
        ns_text p = ns_answer_trim(t.at[nth - 1].p, t.at[nth - 1].n);
        ns_text word = ns_re_last("^['\"]*([^\\s.,?!'\"]+)", 0, p);
        ns_lower(word, &first);
        right = word.p && ns_same_nocase(ns_buf_text(&first), ns_text_of(ns_arg_str(in->kwargs, "first_word")));
    }
    ns_buf_release(&first);
    ns_texts_release(&t);
    return ns_grade_if(right);
}

/* ---- form ---- */

static enum ns_grade placeholders(const ns_instruction *in, ns_text said)
{
    return ns_grade_if(ns_re_count("\\[.*?\\]", 0, said) >= ns_arg_int(in->kwargs, "num_placeholders", 0));
}

static enum ns_grade bullets(const ns_instruction *in, ns_text said)
{
    int n = ns_re_count("^\\s*\\*[^\\*].*$", NS_RE_LINES, said) + ns_re_count("^\\s*-.*$", NS_RE_LINES, said);
    return ns_grade_if(n == ns_arg_int(in->kwargs, "num_bullets", -1));
}

static enum ns_grade constrained(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("My answer is (?:yes|no|maybe)\\.", 0, said));
}

static enum ns_grade highlights(const ns_instruction *in, ns_text said)
{
    int n = 0;
    ns_re r;
    ns_re_open(&r, "\\*[^\\n*]*\\*", 0, said);
    while (ns_re_next(&r))
        n += ns_answer_trim(r.whole.p + 1, r.whole.n - 2).n > 0;
    ns_re_close(&r);
    ns_re_open(&r, "\\*\\*[^\\n*]*\\*\\*", 0, said);
    while (ns_re_next(&r))
        n += ns_answer_trim(r.whole.p + 2, r.whole.n - 4).n > 0;
    ns_re_close(&r);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "num_highlights", 0));
}

static enum ns_grade sections(const ns_instruction *in, ns_text said)
{
    ns_buf pattern = { 0 };
    ns_buf_addf(&pattern, "\\s?%s\\s?\\d+\\s?", ns_arg_str(in->kwargs, "section_spliter"));
    int n = pattern.data ? ns_re_count(pattern.data, 0, said) : 0;
    ns_buf_release(&pattern);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "num_sections", 0));
}

static enum ns_grade postscript(const ns_instruction *in, ns_text said)
{
    const char *marker = ns_arg_str(in->kwargs, "postscript_marker");
    ns_buf pattern = { 0 };
    if (strcmp(marker, "P.P.S") == 0)
        ns_buf_adds(&pattern, "p\\.\\s?p\\.\\s?s");
    else if (strcmp(marker, "P.S.") == 0)
        ns_buf_adds(&pattern, "p\\.\\s?s\\.");
    else
        ns_re_quote(&pattern, ns_text_of(marker));
    bool found = pattern.len && ns_re_find(pattern.data, NS_RE_NOCASE, said);
    ns_buf_release(&pattern);
    return ns_grade_if(found);
}

static enum ns_grade json_form(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_text inner = ns_re_last("^\\s*(?:```(?i:json)?)?\\s*([\\s\\S]*?)\\s*(?:```)?\\s*$", 0, said);
    json_t *v = inner.p ? json_loadb(inner.p, inner.n, JSON_DECODE_ANY, NULL) : NULL;
    json_decref(v);
    return ns_grade_if(v != NULL);
}

static enum ns_grade title(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("<<[^\\n]*[^\\s<>][^\\n]*>>", 0, said));
}

static enum ns_grade two_responses(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    ns_text kept[2];
    int n = parts(said, "******", &t), k = 0;
    for (int i = 0; n == 2 && i < t.n; i++) {
        ns_text p = ns_answer_trim(t.at[i].p, t.at[i].n);
        if (p.n && k < 2)
            kept[k++] = p;
    }
    bool right = k == 2 && (kept[0].n != kept[1].n || memcmp(kept[0].p, kept[1].p, kept[0].n) != 0);
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade repeat_prompt(const ns_instruction *in, ns_text said)
{
    const char *p = ns_arg_str(in->kwargs, "prompt_to_repeat");
    ns_text want = ns_answer_trim(p, strlen(p));
    return ns_grade_if(want.n && said.n >= want.n && ns_same_nocase((ns_text){ said.p, want.n }, want));
}

static enum ns_grade end_phrase(const ns_instruction *in, ns_text said)
{
    const char *p = ns_arg_str(in->kwargs, "end_phrase");
    ns_text want = ns_answer_trim(p, strlen(p));
    while (said.n && said.p[said.n - 1] == '"')
        said.n--;
    return ns_grade_if(want.n && said.n >= want.n && ns_same_nocase((ns_text){ said.p + said.n - want.n, want.n }, want));
}

static enum ns_grade quotation(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(said.n > 1 && said.p[0] == '"' && said.p[said.n - 1] == '"');
}

static enum ns_grade no_comma(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(!memchr(said.p, ',', said.n));
}

/* ---- language ---- */

static enum ns_grade language(const ns_instruction *in, ns_text said)
{
    return ns_language_is(said, ns_arg_str(in->kwargs, "language"));
}

static enum ns_grade capitals(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_is_upper(said) ? ns_language_is(said, "en") : NS_GRADE_WRONG;
}

static enum ns_grade lowercase(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_is_lower(said) ? ns_language_is(said, "en") : NS_GRADE_WRONG;
}

const ns_instruction_kind ns_ifeval_kinds[] = {
    { "keywords:existence", existence },
    { "keywords:frequency", frequency },
    { "keywords:forbidden_words", forbidden },
    { "keywords:letter_frequency", letters },
    { "language:response_language", language },
    { "length_constraints:number_sentences", sentences },
    { "length_constraints:number_paragraphs", paragraphs },
    { "length_constraints:number_words", words },
    { "length_constraints:nth_paragraph_first_word", nth_first_word },
    { "detectable_content:number_placeholders", placeholders },
    { "detectable_content:postscript", postscript },
    { "detectable_format:number_bullet_lists", bullets },
    { "detectable_format:constrained_response", constrained },
    { "detectable_format:number_highlighted_sections", highlights },
    { "detectable_format:multiple_sections", sections },
    { "detectable_format:json_format", json_form },
    { "detectable_format:title", title },
    { "combination:two_responses", two_responses },
    { "combination:repeat_prompt", repeat_prompt },
    { "startend:end_checker", end_phrase },
    { "startend:quotation", quotation },
    { "change_case:capital_word_frequency", capital_words },
    { "change_case:english_capital", capitals },
    { "change_case:english_lowercase", lowercase },
    { "punctuation:no_comma", no_comma },
    { 0 },
};
