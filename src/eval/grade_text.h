/* What graders of instructions ask of a text: its lines, words, sentences and language. */
#ifndef NS_EVAL_GRADE_TEXT_H
#define NS_EVAL_GRADE_TEXT_H
#include "base/json.h"
#include "eval/grade.h"

typedef struct ns_texts {
    ns_text *at; /* [n] borrowed parts of one text; owned */
    int n, cap;
    bool failed; /* out of memory */
} ns_texts;
void ns_texts_add(ns_texts *t, ns_text s);
void ns_texts_release(ns_texts *t);

void ns_split_words(ns_text s, ns_texts *out);                    /* between white space */
void ns_split_at(ns_text s, const char *mark, ns_texts *out);     /* between occurrences of mark; n marks give n + 1 parts */
/* Sentences end with . ? or ! (and closing quotes or brackets) before white space, not behind an abbreviation, an initial or a list's
 * number, and not where the next word begins small. */
void ns_split_sentences(ns_text s, ns_texts *out);

ns_text ns_strip_punct(ns_text s);   /* without ASCII punctuation and spaces at both ends */
void ns_drop_punct(ns_text s, ns_buf *out);     /* without ASCII punctuation anywhere */
void ns_lower(ns_text s, ns_buf *out);          /* Unicode lower case */
bool ns_same_nocase(ns_text a, ns_text b);      /* Unicode */
bool ns_is_upper(ns_text s);         /* has letters with case, and all of them are capital; ns_is_lower likewise */
bool ns_is_lower(ns_text s);
int ns_code_points(ns_text s);
bool ns_in_list(ns_text word, const char *list); /* " a b c ", as it stands */
ns_text ns_text_of(const char *s);
ns_text ns_buf_text(const ns_buf *b);

/* The text is in the language ("de"): NONE for a language that is not known here, or a text that says too little. */
enum ns_grade ns_language_is(ns_text s, const char *language);

/* Arguments: numbers may be written as 5 or 5.0. */
int ns_arg_int(const json_t *kwargs, const char *key, int dflt);
const char *ns_arg_str(const json_t *kwargs, const char *key); /* "" where there is none */
static inline enum ns_grade ns_grade_if(bool right)
{
    return right ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}
#endif
