/* IFBench: the form of the whole answer. */
#include <ctype.h>
#include <string.h>

#include "eval/grade_text.h"
#include "eval/regex.h"

/* ---- format ---- */

/* Pictographs as answers use them; keycaps and plain symbols such as (c) do not count. */
static bool ends_with_emoji(ns_text s)
{
    return ns_re_find("[\\x{1F000}-\\x{1FAFF}\\x{2600}-\\x{27BF}\\x{2B00}-\\x{2BFF}\\x{2300}-\\x{23FF}\\x{3030}\\x{303D}][\\x{FE0F}\\x{200D}\\x{1F3FB}-\\x{1F3FF}]*\\s*$", 0, s);
}

static bool begins_with_emoji(ns_text s)
{
    return ns_re_find("^[\\x{1F000}-\\x{1FAFF}\\x{2600}-\\x{27BF}\\x{2B00}-\\x{2BFF}\\x{2300}-\\x{23FF}]", 0, s);
}

static enum ns_grade emoji(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    ns_buf a = { 0 }, b = { 0 };
    bool all = true;
    ns_split_sentences(said, &t);
    for (int i = 0; all && i < t.n; i++) {
        ns_buf_clear(&a);
        ns_buf_clear(&b);
        ns_drop_punct(t.at[i], &a);
        if (i + 1 < t.n)
            ns_drop_punct(t.at[i + 1], &b);
        ns_text here = ns_answer_trim(a.data ? a.data : "", a.len), next = ns_answer_trim(b.data ? b.data : "", b.len);
        all = here.n && (ends_with_emoji(here) || (next.n && begins_with_emoji(next)));
    }
    ns_buf_release(&a);
    ns_buf_release(&b);
    ns_texts_release(&t);
    return ns_grade_if(all);
}

/* Every line that is not blank begins further in than the one before. */
static enum ns_grade line_indent(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    int before = -1;
    bool right = true;
    ns_split_at(said, "\n", &t);
    for (int i = 0; right && i < t.n; i++) {
        if (!ns_answer_trim(t.at[i].p, t.at[i].n).n)
            continue;
        int n = 0;
        while ((size_t)n < t.at[i].n && t.at[i].p[n] == ' ')
            n++;
        right = n > before;
        before = n;
    }
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade list(const ns_instruction *in, ns_text said)
{
    ns_texts t = { 0 };
    const char *sep = ns_arg_str(in->kwargs, "sep");
    if (!*sep)
        return NS_GRADE_NONE;
    ns_split_at(said, sep, &t);
    int n = t.n - 1;
    ns_texts_release(&t);
    return ns_grade_if(n >= 2);
}

static enum ns_grade newline(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_buf b = { 0 };
    ns_texts lines = { 0 }, words = { 0 };
    int n = 0;
    ns_drop_punct(said, &b);
    ns_text s = ns_answer_trim(b.data ? b.data : "", b.len);
    ns_split_at(s, "\n", &lines);
    ns_split_words(s, &words);
    for (int i = 0; i < lines.n; i++)
        n += lines.at[i].n > 0;
    bool right = n == words.n;
    ns_texts_release(&lines);
    ns_texts_release(&words);
    ns_buf_release(&b);
    return ns_grade_if(right);
}

/* Two sentences or more, then only lines with *, two or more. */
static enum ns_grade sentences_then_bullets(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    int sentences = 0, bullets = 0;
    bool right = true;
    ns_split_at(said, "\n", &t);
    for (int i = 0; right && i < t.n; i++) {
        ns_text line = ns_answer_trim(t.at[i].p, t.at[i].n);
        if (line.n && *line.p == '*') {
            bullets++;
        } else if (bullets) {
            right = line.n == 0;
        } else {
            ns_texts s = { 0 };
            ns_split_sentences(line, &s);
            sentences += s.n;
            ns_texts_release(&s);
        }
    }
    ns_texts_release(&t);
    return ns_grade_if(right && sentences >= 2 && bullets >= 2);
}

static enum ns_grade no_whitespace(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(!ns_re_find("\\s", 0, said));
}

/* "yes/no/maybe"; with "or" in place of a slash in some prompts. */
static enum ns_grade options(const ns_instruction *in, ns_text said)
{
    const char *all = ns_arg_str(in->kwargs, "options"), *mark = strchr(all, '/') ? "/" : strstr(all, " or ") ? " or " : ",";
    ns_texts t = { 0 };
    bool right = false;
    ns_split_at(ns_text_of(all), mark, &t);
    bool letters = ns_re_find("^\\W*a\\W*b\\W*c\\W", NS_RE_NOCASE, ns_text_of(all)); /* these as they stand */
    for (int i = 0; i < t.n; i++) {
        ns_text option = ns_answer_trim(t.at[i].p, t.at[i].n);
        bool same = option.n == said.n && memcmp(option.p, said.p, said.n) == 0;
        right = right || same || (!letters && ns_same_nocase(ns_strip_punct(option), ns_strip_punct(said)));
    }
    ns_texts_release(&t);
    return *all ? ns_grade_if(right) : NS_GRADE_NONE;
}

static enum ns_grade output_template(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(memmem(said.p, said.n, "My Answer:", 10) && memmem(said.p, said.n, "My Conclusion:", 14) &&
                       memmem(said.p, said.n, "Future Outlook:", 15));
}

static enum ns_grade parentheses(const ns_instruction *in, ns_text said)
{
    (void)in;
    char open[64];
    int depth = 0;
    bool deep = false;
    for (size_t i = 0; i < said.n; i++) {
        char c = said.p[i];
        if (c && strchr("([{", c)) {
            if (depth == (int)sizeof open)
                return NS_GRADE_NONE;
            open[depth++] = c;
            deep = deep || depth >= 5;
        } else if (c && strchr(")]}", c)) {
            char want = c == ')' ? '(' : c == ']' ? '[' : '{';
            if (depth && open[depth - 1] == want) {
                if (deep)
                    return NS_GRADE_RIGHT;
                depth--;
            } else {
                depth = 0;
                deep = false;
            }
        }
    }
    return NS_GRADE_WRONG;
}

static enum ns_grade nested_quotes(const ns_instruction *in, ns_text said)
{
    (void)in;
    char open[64];
    int depth = 0, deepest = 0;
    for (size_t i = 0; i < said.n; i++) {
        char c = said.p[i];
        if (c != '"' && c != '\'')
            continue;
        if (depth && open[depth - 1] == c) {
            depth--;
            if (deepest - depth >= 3)
                return NS_GRADE_RIGHT;
        } else if (depth == (int)sizeof open) {
            return NS_GRADE_NONE;
        } else {
            open[depth++] = c;
            deepest = depth > deepest ? depth : deepest;
        }
    }
    return NS_GRADE_WRONG;
}

/* No quotation right behind another, and none at the end. */
static enum ns_grade quote_unquote(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_buf b = { 0 };
    ns_buf_add(&b, said.p, said.n);
    ns_re_replace(&b, "[\\x{201C}\\x{201D}]", 0, "\"");
    ns_re_replace(&b, "'\"'|\\s", 0, "");
    bool right = b.len && !strstr(b.data, "\"\"");
    while (b.len && (isdigit((unsigned char)b.data[b.len - 1]) || (ispunct((unsigned char)b.data[b.len - 1]) && b.data[b.len - 1] != '"')))
        b.data[--b.len] = '\0';
    right = right && !(b.len && b.data[b.len - 1] == '"');
    ns_buf_release(&b);
    return ns_grade_if(right);
}

static enum ns_grade sub_bullets(const ns_instruction *in, ns_text said)
{
    (void)in;
    ns_texts t = { 0 };
    bool right = true;
    ns_split_at(said, "*", &t);
    for (int i = 1; right && i < t.n; i++)
        right = memchr(t.at[i].p, '-', t.at[i].n);
    right = right && t.n > 1;
    ns_texts_release(&t);
    return ns_grade_if(right);
}

static enum ns_grade thesis(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(ns_re_find("<(?:i|em)>[\\s\\S]*?\\S[\\s\\S]*?</(?:i|em)>[\\s\\S]*\\S", 0, said));
}

/* Every word that begins with a letter begins with a capital; small words are no exception in the published rule. */
static enum ns_grade title_case(const ns_instruction *in, ns_text said)
{
    (void)in;
    return ns_grade_if(!ns_re_find("(?<![\\w'\\x{2019}-])(?:\\p{Ll}\\b(?!['\\x{2019}])|\\p{Ll}\\p{Ll}+\\b|\\p{Ll}\\p{Lu}+\\b)", 0, said));
}

const ns_instruction_kind ns_ifbench_form_kinds[] = {
    { "format:emoji", emoji },
    { "format:line_indent", line_indent },
    { "format:list", list },
    { "format:newline", newline },
    { "format:no_bullets_bullets", sentences_then_bullets },
    { "format:no_whitespace", no_whitespace },
    { "format:options", options },
    { "format:output_template", output_template },
    { "format:parentheses", parentheses },
    { "format:quote_unquote", quote_unquote },
    { "format:quotes", nested_quotes },
    { "format:sub-bullets", sub_bullets },
    { "format:thesis", thesis },
    { "format:title_case", title_case },
    { 0 },
};
