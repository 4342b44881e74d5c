/* IFBench: the kinds that belong to one prompt each. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "eval/grade_text.h"
#include "eval/regex.h"

static enum ns_grade character_reverse(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("elgae dlab", NS_RE_NOCASE, said));
}

static enum ns_grade word_reverse(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("\\beagle\\W+bald\\b", NS_RE_NOCASE, said) && !ns_re_find("\\bbald\\W+eagle\\b", NS_RE_NOCASE, said));
}

/* A header and `rows` lines of five fields that match `field`, between `sep`. */
static bool table(ns_text said, const char *header, const char *sep, const char *field, int rows)
{
    ns_buf pattern = { 0 };
    ns_buf_addf(&pattern, "^%s\\s*(?:\\n", header);
    for (int i = 0; i < 5; i++)
        ns_buf_addf(&pattern, "%s%s", i ? sep : "", field);
    ns_buf_addf(&pattern, "\\s*){%d}$", rows);
    bool found = pattern.data && ns_re_find(pattern.data, 0, said);
    ns_buf_release(&pattern);
    return found;
}

#define CSV_FIELD "(?:\"(?:[^\"]|\"\")*\"|[^\",\\n]*)"

static enum ns_grade csv_city(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(table(said, "\"?ID\"?,\"?Country\"?,\"?City\"?,\"?Year\"?,\"?Count\"?", ",", CSV_FIELD, 7));
}

static enum ns_grade csv_special(const ns_instruction *in, ns_text said)
{
    (void)in;
    bool form = table(said, "\"?ProductID\"?,[ \\t]*\"?Category\"?,[ \\t]*\"?Brand\"?,[ \\t]*\"?Price\"?,[ \\t]*\"?Stock\"?", ",", CSV_FIELD, 14);
    return ns_grade_if(form && ns_re_find("\"[^\"\\n]*[^\\d\\w\\s\"][^\"\\n]*\"", 0, said));
}

static enum ns_grade csv_quotes(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(table(said, "\"StudentID\"\\t *\"Subject\"\\t *\"Grade\"\\t *\"Semester\"\\t *\"Score\"", "\\t *", "\"[^\"\\n]*\"", 3));
}

static enum ns_grade date_list(const ns_instruction *in, ns_text said)
{
    (void)in;
    static const char date[] = "(?:1769|17[7-9]\\d|18[01]\\d|182[01])-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|[12]\\d))";
    ns_buf pattern = { 0 };
    ns_buf_addf(&pattern, "^%s(?:\\s*,\\s*%s)*$", date, date);
    bool right = pattern.data && ns_re_find(pattern.data, 0, said);
    ns_buf_release(&pattern);
    return ns_grade_if(right);
}

static enum ns_grade multiples(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("^\\D*14\\D+21\\D+28\\D+35\\D+42\\D+49\\D*$", 0, said));
}

static enum ns_grade sentence_alphabet(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    ns_split_sentences(said, &t);
    bool right = t.n == 26;
    for (int i = 0; right && i < 26; i++)
        right = tolower((unsigned char)*t.at[i].p) == 'a' + i;
    ns_texts_release(&t);
    return ns_grade_if(right);
}

/* Four questions of five choices, each question longer than the one before. */
static enum ns_grade mcq(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_re r;
    int n = 0, before = -1;
    bool right = said.n > 8 && memcmp(said.p, "Question", 8) == 0;
    ns_re_open(&r, "Question \\d+[.):;]?\\s*([\\s\\S]*?)\\s*((?:\\n\\s*[A-Ea-e][.)]\\s*\\w[^\\n]*)+)(?=\\s*(?:Question \\d|$))", 0, said);
    while (right && ns_re_next(&r)) {
        int length = ns_code_points(r.group[0]);
        right = length > before && ns_re_count("^\\s*[A-Ea-e][.)]", NS_RE_LINES, r.group[1]) == 5;
        before = length;
        n++;
    }
    ns_re_close(&r);
    return ns_grade_if(right && n == 4);
}

/* Without accents; malloc'ed, NULL for what is no UTF-8. */
static char *without_accents(ns_text s)
{
    utf8proc_uint8_t *out = NULL;
    if (utf8proc_map((const utf8proc_uint8_t *)s.p, (utf8proc_ssize_t)s.n, &out, UTF8PROC_DECOMPOSE | UTF8PROC_STRIPMARK) < 0)
        return NULL;
    return (char *)out;
}

static int compare_texts(ns_text a, ns_text b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* From Zimbabwe on, lines in falling order, 52 or more. */
static enum ns_grade reverse_newline(const ns_instruction *in, ns_text said)
{
    (void)in;
    char *plain = without_accents(said);
    ns_texts t = { 0 };
    int n = 0;
    bool right = plain;
    ns_text before = { 0 };
    ns_split_at(ns_text_of(plain ? plain : ""), "\n", &t);
    for (int i = 0; right && i < t.n; i++) {
        ns_text line = ns_strip_punct(t.at[i]);
        if (!line.n || (n == 0 && !memmem(line.p, line.n, "Zimbabwe", 8)))
            continue;
        right = n == 0 || compare_texts(line, before) <= 0;
        before = line;
        n++;
    }
    ns_texts_release(&t);
    free(plain);
    return ns_grade_if(right && n >= 52);
}

/* North of 45 degrees, from north to south. */
static enum ns_grade capitals(const ns_instruction *in, ns_text said)
{
    (void)in;
    static const char *const order[] = { "Reykjavik", "Helsinki", "Oslo", "Tallinn", "Stockholm", "Riga", "Moscow", "Copenhagen", "Vilnius",
                                         "Minsk", "Dublin", "Berlin", "Amsterdam", "Warsaw", "London", "Brussels", "Prague", "Luxembourg",
                                         "Paris", "Vienna", "Bratislava", "Budapest", "Vaduz", "Chisinau", "Bern", "Ljubljana", "Zagreb" };
    enum { N = sizeof order / sizeof *order };
    char *plain = without_accents(said);
    ns_texts t = { 0 };
    int n = 0;
    bool right = plain;
    ns_split_at(ns_text_of(plain ? plain : ""), ",", &t);
    for (int i = 0; right && i < t.n; i++) {
        ns_text city = ns_answer_trim(t.at[i].p, t.at[i].n);
        if (city.n)
            right = n < N && ns_answer_is(city, order[n]);
        n += city.n > 0;
    }
    ns_texts_release(&t);
    free(plain);
    return ns_grade_if(right && n == N);
}

const ns_instruction_kind ns_ifbench_custom_kinds[] = {
    { "custom:character_reverse", character_reverse },
    { "custom:word_reverse", word_reverse },
    { "custom:csv_city", csv_city },
    { "custom:csv_special_character", csv_special },
    { "custom:csv_quotes", csv_quotes },
    { "custom:date_format_list", date_list },
    { "custom:european_capitals_sort", capitals },
    { "custom:mcq_count_length", mcq },
    { "custom:multiples", multiples },
    { "custom:reverse_newline", reverse_newline },
    { "custom:sentence_alphabet", sentence_alphabet },
    { 0 },
};
