/* Which language is a text in? By its script where that decides; where several languages share a script, by their most common words and by
 * letters that only one of them has. Meant for whole answers in one language; a few words give no verdict. */
#include <string.h>
#include <utf8proc.h>

#include "eval/grade_text.h"

struct script {
    int32_t from, to; /* code points */
};


/* Languages of one script are told apart by `words`: the one with the most hits. */
static const struct language {
    const char *code;
    struct script script;
    const char *words; /* NULL: no other language here has the script */
    const char *only;  /* letters that count as a word each time; NULL */
} languages[] = {
    { "kn", { 0xC80, 0xCFF }, NULL, NULL },
    { "te", { 0xC00, 0xC7F }, NULL, NULL },
    { "ta", { 0xB80, 0xBFF }, NULL, NULL },
    { "ml", { 0xD00, 0xD7F }, NULL, NULL },
    { "gu", { 0xA80, 0xAFF }, NULL, NULL },
    { "pa", { 0xA00, 0xA7F }, NULL, NULL },
    { "bn", { 0x980, 0x9FF }, NULL, NULL },
    { "th", { 0xE00, 0xE7F }, NULL, NULL },
    { "ko", { 0xAC00, 0xD7A3 }, NULL, NULL },
    { "he", { 0x590, 0x5FF }, NULL, NULL },
    { "el", { 0x370, 0x3FF }, NULL, NULL },
    { "ja", { 0x3040, 0x30FF }, NULL, NULL },
    { "hi", { 0x900, 0x97F }, " है हैं का के की को में से और यह नहीं कि पर था थी भी कर एक लिए इस ने हो ", NULL },
    { "mr", { 0x900, 0x97F }, " आहे आहेत आणि च्या मध्ये नाही हे ही हा ते तो या एक होते केले करण्यासाठी साठी तर पण त्या होता ", "ळ" },
    { "ne", { 0x900, 0x97F }, " छ छन् र को लाई मा हो यो पनि गर्न गर्नुहोस् भएको हुन्छ थियो तथा गरेको हामी तपाईं ले का एक ", NULL },
    { "ar", { 0x600, 0x6FF }, " في من على إلى أن هذا هذه التي الذي كان مع لا ما هو هي عن أو قد كل بين ", "ةىأإ" },
    { "fa", { 0x600, 0x6FF }, " و در به از که این را با است برای آن یک می های شود ها خود بود شده تا ", "گژچپ" },
    { "ur", { 0x600, 0x6FF }, " کے کی میں ہے اور سے کا کو ہیں نے پر یہ ایک اس کہ نہیں بھی کر ہو گا ", "ٹڈڑےںہ" },
    { "ru", { 0x400, 0x52F }, " и в не на что с по как это для из но мы он они его так все к или ", "ыэё" },
    { "bg", { 0x400, 0x52F }, " и на да се за от че е не са в с по като това или но как ще ви ", NULL },
    { "uk", { 0x400, 0x52F }, " і в не на що з та як це для із але ми він вони його так до або у ", "іїєґ" },
    { "en", { 'A', 0x24F }, " the of and to in is that it for you was with as are on be this have i not or at from my we can your a an he she they his her but "
                            "what all will there if so no me up out about like when who by do our has ", NULL },
    { "de", { 'A', 0x24F }, " der die und das ist ich nicht ein eine zu den mit sie es für auf dem von sich auch wie wir im werden als sind ", "ßäöü" },
    { "fr", { 'A', 0x24F }, " le la les de des et est un une que qui dans pour pas sur vous je il au avec ce du en nous plus ", "êèçœ" },
    { "es", { 'A', 0x24F }, " el la los las de y que en un una es por con para no se del lo su como más al ", "ñ¿¡" },
    { "pt", { 'A', 0x24F }, " o a os as de e que em um uma é por com para não se do da no na como mais ao ", "ãõ" },
    { "it", { 'A', 0x24F }, " il lo la gli le di e che in un una è per con non si del della nel come più sono ", NULL },
    { "fi", { 'A', 0x24F }, " ja on ei että se hän ovat oli mutta kun myös kuin tai joka sen niin minä olen voi tämä ", NULL },
    { "sw", { 'A', 0x24F }, " na ya wa kwa ni katika za la kuwa hii yake cha kama hiyo huu yetu sana lakini au pia ", NULL },
    { "vi", { 'A', 0x24F }, " là và của có không một được cho trong tôi với các những này người để khi đã ", "đơưạảấầậắếềểệọốồộớờợụứừự" },
    { "pl", { 'A', 0x24F }, " i w na nie się z do to jest że jak po od za ale czy są dla ich tak ", "łąęśżźćń" },
};
enum { N = sizeof languages / sizeof *languages };

static const struct language *find(const char *code)
{
    for (int i = 0; i < N; i++)
        if (strcmp(languages[i].code, code) == 0)
            return &languages[i];
    return NULL;
}

static bool within(int32_t c, struct script s)
{
    return c >= s.from && c <= s.to;
}

/* Letters in the language's script, of all letters. */
static double share(ns_text s, struct script script, int *letters)
{
    int in = 0;
    *letters = 0;
    for (size_t i = 0; i < s.n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s.p + i, (utf8proc_ssize_t)(s.n - i), &c);
        i += k > 0 ? (size_t)k : 1;
        utf8proc_category_t kind = k > 0 ? utf8proc_category(c) : UTF8PROC_CATEGORY_CN;
        if (kind < UTF8PROC_CATEGORY_LU || kind > UTF8PROC_CATEGORY_MC) /* letters and the marks on them */
            continue;
        ++*letters;
        in += within(c, script);
    }
    return *letters ? (double)in / *letters : 0.0;
}

static int hits(const struct language *l, const ns_texts *words)
{
    int n = 0;
    for (int i = 0; i < words->n; i++) {
        ns_text w = ns_strip_punct(words->at[i]);
        n += ns_in_list(w, l->words);
        for (const char *p = l->only; p && *p;) {
            size_t len = (size_t)utf8proc_utf8class[(unsigned char)*p];
            n += memmem(w.p, w.n, p, len) != NULL;
            p += len;
        }
    }
    return n;
}

enum ns_grade ns_language_is(ns_text s, const char *code)
{
    const struct language *l = find(code);
    ns_buf lower = { 0 };
    ns_texts words = { 0 };
    int letters, mine, best = 0;
    if (!l)
        return NS_GRADE_NONE;
    double in = share(s, l->script, &letters);
    if (letters < 8)
        return NS_GRADE_NONE;
    if (in < 0.5 || !l->words)
        return ns_grade_if(in >= 0.5);
    ns_lower(s, &lower);
    ns_split_words(ns_buf_text(&lower), &words);
    mine = hits(l, &words);
    for (int i = 0; i < N; i++)
        if (&languages[i] != l && languages[i].words && languages[i].script.from == l->script.from) {
            int n = hits(&languages[i], &words);
            best = n > best ? n : best;
        }
    ns_texts_release(&words);
    ns_buf_release(&lower);
    return mine == best ? NS_GRADE_NONE : ns_grade_if(mine > best);
}
