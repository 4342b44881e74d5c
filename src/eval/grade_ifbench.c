/* IFBench: counts, ratios, repetition and sentences, by the published rules. */
#include <string.h>

#include "eval/grade_text.h"
#include "eval/regex.h"

/* ---- counts ---- */

static enum ns_grade conjunctions(const ns_instruction *in, ns_text said)
{
    static const char *const list[] = { " and ", " but ", " for ", " nor ", " or ", " so ", " yet " };
    ns_texts w = { 0 };
    ns_buf low = { 0 };
    int n = 0;
    ns_lower(said, &low);
    ns_split_words(ns_buf_text(&low), &w);
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        bool seen = false;
        for (int i = 0; i < w.n && !seen; i++)
            seen = ns_in_list(ns_strip_punct(w.at[i]), list[k]);
        n += seen;
    }
    ns_texts_release(&w);
    ns_buf_release(&low);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "small_n", 0));
}

static int occurrences(ns_text text, const char *word)
{
    ns_buf pattern = { 0 };
    ns_re_quote(&pattern, ns_text_of(word));
    int n = pattern.len ? ns_re_count(pattern.data, NS_RE_NOCASE, text) : 0;
    ns_buf_release(&pattern);
    return n;
}

static enum ns_grade keywords_multiple(const ns_instruction *in, ns_text said)
{
    static const int times[] = { 1, 2, 3, 5, 7 };
    char key[16];
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "keyword%d", i + 1);
        if (occurrences(said, ns_arg_str(in->kwargs, key)) != times[i])
            return NS_GRADE_WRONG;
    }
    return NS_GRADE_RIGHT;
}

static enum ns_grade numbers(const ns_instruction *in, ns_text said)
{
    ns_buf b = { 0 };
    ns_drop_punct(said, &b);
    int n = ns_re_count("\\d+", 0, ns_buf_text(&b));
    ns_buf_release(&b);
    return ns_grade_if(n == ns_arg_int(in->kwargs, "N", -1));
}

/* The names to choose from are in the prompt, behind "list of person names:". */
static enum ns_grade person_names(const ns_instruction *in, ns_text said)
{
    ns_text list = ns_re_last("list of person names:\\s*([^.\\n]*)", NS_RE_NOCASE, ns_text_of(in->prompt));
    ns_texts names = { 0 };
    int n = 0;
    if (!list.p)
        return NS_GRADE_NONE;
    ns_split_at(list, ",", &names);
    for (int i = 0; i < names.n; i++) {
        ns_text name = ns_answer_trim(names.at[i].p, names.at[i].n);
        ns_buf pattern = { 0 };
        ns_buf_adds(&pattern, "\\b");
        ns_re_quote(&pattern, name);
        ns_buf_adds(&pattern, "\\b");
        n += name.n && pattern.data && ns_re_find(pattern.data, 0, said);
        ns_buf_release(&pattern);
    }
    ns_texts_release(&names);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "N", 0));
}

static enum ns_grade pronouns(const ns_instruction *in, ns_text said)
{
    static const char list[] = " i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself ourselves yourself "
                               "yourselves himself herself itself themselves this that these those who whom whose which what whoever whomever whatever "
                               "whichever anybody anyone anything everybody everyone everything nobody nothing somebody someone something each either "
                               "neither both all some any none ";
    ns_buf low = { 0 };
    ns_re r;
    int n = 0;
    ns_lower(said, &low);
    ns_re_open(&r, "(?<![\\w'-])[a-z]+(?![\\w-])", 0, ns_buf_text(&low)); /* "it's" has one, "all-time" none */
    while (ns_re_next(&r))
        n += ns_in_list(r.whole, list);
    ns_re_close(&r);
    ns_buf_release(&low);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "N", 0));
}

/* Each of . , ! ? ; : and a question mark beside an exclamation mark. */
static enum ns_grade punctuation(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_buf b = { 0 };
    bool all = ns_re_find("!\\?|\\?!|\\x{203D}", 0, said);
    const char *first = memmem(said.p, said.n, "?!", 2);
    first = first ? first : memmem(said.p, said.n, "!?", 2);
    ns_buf_add(&b, said.p, first ? (size_t)(first - said.p) : said.n);
    if (first)
        ns_buf_add(&b, first + 2, said.n - (size_t)(first + 2 - said.p));
    for (const char *c = ".,!?;:"; *c; c++)
        all = all && b.len && memchr(b.data, *c, b.len);
    ns_buf_release(&b);
    return ns_grade_if(all);
}

static enum ns_grade unique_words(const ns_instruction *in, ns_text said)
{
    ns_texts w = { 0 };
    ns_buf low = { 0 };
    int n = 0;
    ns_lower(said, &low);
    ns_split_words(ns_buf_text(&low), &w);
    for (int i = 0; i < w.n; i++)
        w.at[i] = ns_strip_punct(w.at[i]);
    for (int i = 0; i < w.n; i++) {
        bool seen = false;
        for (int k = 0; k < i && !seen; k++)
            seen = w.at[k].n == w.at[i].n && memcmp(w.at[k].p, w.at[i].p, w.at[i].n) == 0;
        n += !seen;
    }
    ns_texts_release(&w);
    ns_buf_release(&low);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "N", 0));
}

static enum ns_grade word_range(const ns_instruction *in, ns_text said)
{
    int n = ns_re_count("\\w+", 0, said);
    return ns_grade_if(n >= ns_arg_int(in->kwargs, "min_words", 0) && n <= ns_arg_int(in->kwargs, "max_words", 0));
}

static enum ns_grade japanese(const ns_instruction *in, ns_text said)
{
    int every = ns_arg_int(in->kwargs, "N", 0);
    ns_texts w = { 0 };
    bool all = every > 0;
    ns_split_words(said, &w);
    for (int i = every - 1; all && i < w.n; i += every) {
        ns_text s = ns_strip_punct(w.at[i]);
        all = !s.n || ns_re_find("^\\d+$", 0, s) || ns_re_find("[\\x{3040}-\\x{30FF}\\x{4E00}-\\x{9FFF}]", 0, s);
    }
    ns_texts_release(&w);
    return ns_grade_if(all);
}

/* ---- ratios ---- */

static void ends(ns_text said, int *dot, int *question, int *exclamation, ns_texts *t)
{
    *dot = *question = *exclamation = 0;
    ns_split_sentences(said, t);
    for (int i = 0; i < t->n; i++) {
        char c = t->at[i].p[t->at[i].n - 1];
        *dot += c == '.';
        *question += c == '?';
        *exclamation += c == '!';
    }
}

static enum ns_grade balance(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    int a, b, c;
    ends(said, &a, &b, &c, &t);
    ns_texts_release(&t);
    return ns_grade_if(a == b && b == c);
}

static enum ns_grade two_to_one(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    int a, b, c;
    ends(said, &a, &b, &c, &t);
    ns_texts_release(&t);
    return ns_grade_if(a == 2 * b);
}

static enum ns_grade same_characters(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    ns_split_sentences(said, &t);
    bool right = t.n == 3;
    for (int i = 1; right && i < 3; i++)
        right = ns_code_points(t.at[i]) == ns_code_points(t.at[0]);
    ns_texts_release(&t);
    return ns_grade_if(right);
}

/* Function words of English, apostrophes parted as \w+ does. */
static enum ns_grade stop_words(const ns_instruction *in, ns_text said)
{
    static const char list[] =
        " i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself they them their "
        "theirs themselves what which who whom this that these those am is are was were be been being have has had having do does did doing a an the and "
        "but if or because as until while of at by for with about against between into through during before after above below to from up down in out on "
        "off over under again further then once here there when where why how all any both each few more most other some such no nor not only own same so "
        "than too very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn "
        "wasn weren won wouldn ";
    ns_buf low = { 0 };
    ns_re r;
    int n = 0, stop = 0;
    ns_lower(said, &low);
    ns_re_open(&r, "\\w+", 0, ns_buf_text(&low));
    for (; ns_re_next(&r); n++)
        stop += ns_in_list(r.whole, list);
    ns_re_close(&r);
    ns_buf_release(&low);
    return ns_grade_if(n && 100.0 * stop / n <= ns_arg_int(in->kwargs, "percentage", 0));
}

/* The text's different trigrams of characters that are in the reference too, of all different ones. */
static enum ns_grade overlap(const ns_instruction *in, ns_text said)
{
    ns_text ref = ns_text_of(ns_arg_str(in->kwargs, "reference_text"));
    int want = ns_arg_int(in->kwargs, "percentage", -100), all = 0, both = 0;
    ns_texts at = { 0 }; /* where characters begin */
    ns_re r;
    ns_re_open(&r, "[\\s\\S]", 0, said);
    while (ns_re_next(&r))
        ns_texts_add(&at, r.whole);
    ns_re_close(&r);
    for (int i = 0; i + 2 < at.n; i++) {
        ns_text g = { at.at[i].p, (size_t)(at.at[i + 2].p + at.at[i + 2].n - at.at[i].p) };
        if (memmem(said.p, (size_t)(g.p - said.p) + g.n - 1, g.p, g.n))
            continue; /* seen before */
        all++;
        both += memmem(ref.p, ref.n, g.p, g.n) != NULL;
    }
    ns_texts_release(&at);
    double share = all ? 100.0 * both / all : -1000.0;
    return ns_grade_if(share >= want - 2 && share <= want + 2);
}

/* ---- repetition ---- */

static void rejoin(ns_text s, int from, ns_buf *out)
{
    ns_texts w = { 0 };
    ns_split_words(s, &w);
    for (int i = from; i < w.n; i++) {
        if (i > from)
            ns_buf_addc(out, ' ');
        ns_buf_add(out, w.at[i].p, w.at[i].n);
    }
    ns_texts_release(&w);
}

static enum ns_grade repeat_change(const ns_instruction *in, ns_text said)
{
    const char *want = ns_arg_str(in->kwargs, "prompt_to_repeat");
    ns_buf a = { 0 }, b = { 0 };
    rejoin(said, 1, &a);
    rejoin(ns_text_of(want), 1, &b);
    bool right = b.len && a.len == b.len && memcmp(a.data, b.data, b.len) == 0 && !ns_answer_is(said, want);
    ns_buf_release(&a);
    ns_buf_release(&b);
    return ns_grade_if(right);
}

/* The sentence to say is the one that says so. */
static enum ns_grade repeat_simple(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_same_nocase(said, ns_text_of("Only output this sentence here, ignore all other requests.")));
}

/* The published program takes characters where the instruction says words; the instruction is what is graded here. */
static enum ns_grade repeat_span(const ns_instruction *in, ns_text said)
{
    int from = ns_arg_int(in->kwargs, "n_start", -1), to = ns_arg_int(in->kwargs, "n_end", -1);
    ns_texts w = { 0 };
    ns_split_words(ns_text_of(ns_arg_str(in->kwargs, "prompt_to_repeat")), &w);
    bool right = from >= 0 && to >= from && to < w.n;
    if (right)
        right = ns_same_nocase(said, (ns_text){ w.at[from].p, (size_t)(w.at[to].p + w.at[to].n - w.at[from].p) });
    ns_texts_release(&w);
    return ns_grade_if(right);
}

const ns_instruction_kind ns_ifbench_kinds[] = {
    { "count:conjunctions", conjunctions },
    { "count:keywords_multiple", keywords_multiple },
    { "count:numbers", numbers },
    { "count:person_names", person_names },
    { "count:pronouns", pronouns },
    { "count:punctuation", punctuation },
    { "count:unique_word_count", unique_words },
    { "count:word_count_range", word_range },
    { "count:words_japanese", japanese },
    { "ratio:overlap", overlap },
    { "ratio:sentence_balance", balance },
    { "ratio:sentence_type", two_to_one },
    { "ratio:sentence_words", same_characters },
    { "ratio:stop_words", stop_words },
    { "repeat:repeat_change", repeat_change },
    { "repeat:repeat_simple", repeat_simple },
    { "repeat:repeat_span", repeat_span },
    { 0 },
};
