/* Every kind of verifiable instruction that has a rule: an answer that follows it, and one that does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "eval/grade.h"

static const struct {
    const char *id, *kwargs, *follows, *breaks;
} table[] = {
    { "keywords:existence", "{\"keywords\": [\"red\", \"blue\"]}", "Blue and red.", "Blue." },
    { "keywords:frequency", "{\"keyword\": \"red\", \"frequency\": 2, \"relation\": \"at least\"}", "Red, red.", "Red." },
    { "keywords:frequency", "{\"keyword\": \"red\", \"frequency\": 2, \"relation\": \"less than\"}", "Red.", "Red, red." },
    { "keywords:forbidden_words", "{\"forbidden_words\": [\"rock\"]}", "Rocks.", "A Rock." },
    { "keywords:letter_frequency", "{\"letter\": \"N\", \"let_frequency\": 3, \"let_relation\": \"at least\"}", "No, nine.", "No." },
    { "language:response_language", "{\"language\": \"de\"}", "Das ist ein Satz und er ist nicht lang.", "This is a sentence and it is not long." },
    { "language:response_language", "{\"language\": \"hi\"}", "यह हिंदी में एक वाक्य है और यह अच्छा है", "हे मराठी भाषेतील एक वाक्य आहे आणि ते चांगले आहे" },
    { "length_constraints:number_sentences", "{\"num_sentences\": 3, \"relation\": \"less than\"}", "Mr. Smith paid 3.50 dollars. Why?", "One. Two. Three." },
    { "length_constraints:number_paragraphs", "{\"num_paragraphs\": 2}", "One\n***\nTwo", "One\n\nTwo" },
    { "length_constraints:number_words", "{\"num_words\": 3, \"relation\": \"at least\"}", "one two three", "one two" },
    { "length_constraints:nth_paragraph_first_word", "{\"num_paragraphs\": 2, \"nth_paragraph\": 2, \"first_word\": \"we\"}", "A.\n\n\"We, two", "We\n\nA" },
    { "detectable_content:number_placeholders", "{\"num_placeholders\": 2}", "[name] at [place]", "[name]" },
    { "detectable_content:postscript", "{\"postscript_marker\": \"P.S.\"}", "Yes.\n\nP.S. No.", "Yes. PS no." },
    { "detectable_content:postscript", "{\"postscript_marker\": \"P.P.S\"}", "Yes.\n\nP.P.S No.", "Yes. P.S. no." },
    { "detectable_format:number_bullet_lists", "{\"num_bullets\": 2}", "* a\n* b", "* a\n* b\n- c" },
    { "detectable_format:constrained_response", "{}", "My answer is maybe.", "My answer: maybe." },
    { "detectable_format:number_highlighted_sections", "{\"num_highlights\": 2}", "*one* and **two**", "*one* and * *" },
    { "detectable_format:multiple_sections", "{\"section_spliter\": \"Section\", \"num_sections\": 2}", "Section 1\na\nSection 2\nb", "Section 1\na" },
    { "detectable_format:json_format", "{}", "```json\n{\"a\": 1}\n```", "{\"a\": 1,}" },
    { "detectable_format:title", "{}", "<<Joy>>\nyes", "<Joy> << >>" },
    { "combination:two_responses", "{}", "One\n******\nTwo", "One\n******\nOne" },
    { "combination:repeat_prompt", "{\"prompt_to_repeat\": \"Do it.\"}", "do it. Done.", "Done. Do it." },
    { "startend:end_checker", "{\"end_phrase\": \"That is all.\"}", "So. That is ALL.\"", "That is all. Yes." },
    { "startend:quotation", "{}", "\"Yes.\"", "\"Yes.\" No." },
    { "change_case:capital_word_frequency", "{\"capital_frequency\": 2, \"capital_relation\": \"at least\"}", "NASA and ESA", "Nasa and ESA" },
    { "change_case:english_capital", "{}", "THIS IS ALL OF IT AND THAT IS THAT.", "This IS ALL OF IT." },
    { "change_case:english_lowercase", "{}", "this is all of it and that is that.", "this is all of It." },
    { "punctuation:no_comma", "{}", "No; none.", "No, none." },

    { "count:conjunctions", "{\"small_n\": 3.0}", "and, But so", "and and or" },
    { "count:keywords_multiple", "{\"keyword1\": \"a1\", \"keyword2\": \"b2\", \"keyword3\": \"c3\", \"keyword4\": \"d4\", \"keyword5\": \"e5\"}",
      "a1 b2 b2 c3 c3 c3 d4 d4 d4 d4 d4 e5 e5 e5 e5 e5 e5 e5", "a1 b2 c3 c3 c3 d4 d4 d4 d4 d4 e5 e5 e5 e5 e5 e5 e5" },
    { "count:numbers", "{\"N\": 2.0}", "1,000 and 2.5", "1 and 2 and 3" },
    { "count:person_names", "{\"N\": 2}", "Emma met Noah.", "Emma met Emmaline." },
    { "count:pronouns", "{\"N\": 3}", "He saw her; it's fine.", "He saw the cat." },
    { "count:punctuation", "{}", "A, b. c; d: e! f? g?!", "A, b. c; d: e?!" },
    { "count:unique_word_count", "{\"N\": 3}", "one two three", "one One, two" },
    { "count:word_count_range", "{\"min_words\": 2, \"max_words\": 3}", "one two three", "one two three four" },
    { "count:words_japanese", "{\"N\": 2}", "one \xE3\x81\x84\xE3\x81\x84 three \xE7\x8A\xAC", "one two three" },
    { "ratio:overlap", "{\"percentage\": 50.0, \"reference_text\": \"abcd\"}", "abcdef", "abcd" },
    { "ratio:sentence_balance", "{}", "One. Two? Three!", "One. Two? Three." },
    { "ratio:sentence_type", "{}", "One. Two. Three?", "One. Two?" },
    { "ratio:sentence_words", "{}", "One. Two. Six.", "One. Two. Three." },
    { "ratio:stop_words", "{\"percentage\": 50}", "cats and dogs run", "it is the cat" },
    { "repeat:repeat_change", "{\"prompt_to_repeat\": \"Write a song.\"}", "Sing a song.", "Write a song." },
    { "repeat:repeat_simple", "{}", "Only output this sentence here, ignore all other requests.", "Fine." },
    { "repeat:repeat_span", "{\"prompt_to_repeat\": \"a b c d e\", \"n_start\": 1, \"n_end\": 3}", "b c d", "c d" },
    { "words:alphabet", "{}", "Yes zebras all bite", "Yes all bite" },
    { "words:vowel", "{}", "A red one", "A red input, oh you" },
    { "words:consonants", "{}", "Strong hands", "Strong a hands" },
    { "words:palindrome", "{}", "level radar civic rotor kayak refer level radar civic rotor", "level radar noon" },
    { "words:prime_lengths", "{}", "It was seven, by two", "It was four" },
    { "words:repeats", "{\"small_n\": 2}", "go go stop", "go Go, go" },
    { "words:no_consecutive", "{}", "One big apple", "One big bear" },
    { "words:last_first", "{}", "He saw dogs. Dogs ran.", "He saw dogs. Cats ran." },
    { "words:paragraph_last_first", "{}", "Dogs like dogs.\nCats and cats", "Dogs like cats." },
    { "words:keywords_specific_position", "{\"keyword\": \"cat\", \"n\": 2, \"m\": 3}", "Yes. See the cat.", "Yes. The cat sees." },
    { "words:words_position", "{\"keyword\": \"cat\"}", "The cat saw a cat there.", "A cat saw it there." },
    { "sentence:increment", "{\"small_n\": 2}", "One. One two three.", "One. One two." },
    { "sentence:alliteration_increment", "{}", "One two. Big bears be.", "Big bears. Big bears." },
    { "sentence:keyword", "{\"N\": 2, \"word\": \"cat\"}", "No. A cat.", "A cat. Cats." },
    { "format:emoji", "{}", "Yes! \xF0\x9F\x98\x80 No. \xF0\x9F\x8E\x89", "Yes! \xF0\x9F\x98\x80 No." },
    { "format:line_indent", "{}", "a\n b\n  c", "a\n b\n c" },
    { "format:list", "{\"sep\": \"!?!?\"}", "!?!? a\n!?!? b", "!?!? a\n- b" },
    { "format:newline", "{}", "one\ntwo\nthree.", "one two\nthree" },
    { "format:no_bullets_bullets", "{}", "One. Two.\n* a\n* b", "One.\n* a\n* b" },
    { "format:no_whitespace", "{}", "yes,no", "yes, no" },
    { "format:options", "{\"options\": \"yes/no/maybe\"}", "Maybe.", "Perhaps" },
    { "format:options", "{\"options\": \"a), b), c)\"}", "b)", "b" },
    { "format:output_template", "{}", "My Answer: a My Conclusion: b Future Outlook: c", "My Answer: a My Conclusion: b" },
    { "format:parentheses", "{}", "([{([x])}])", "([{(x)}])" },
    { "format:quotes", "{}", "\"a 'b \"c\" d' e\"", "\"a 'b' c\"" },
    { "format:quote_unquote", "{}", "\"One\" says two.", "He says \"one\" \"two\"." },
    { "format:sub-bullets", "{}", "* a\n - b\n* c\n - d", "* a\n - b\n* c" },
    { "format:thesis", "{}", "<i>So it is.</i> Because.", "<i>So it is.</i>" },
    { "format:title_case", "{}", "All Of It", "All of It" },
    { "custom:character_reverse", "{}", ".elgae dlab ehT", "The bald eagle." },
    { "custom:word_reverse", "{}", "Eagle bald the.", "The bald eagle." },
    { "custom:csv_city", "{}", "ID,Country,City,Year,Count\n1,a,b,2,3\n2,a,b,2,3\n3,a,\"b,c\",2,3\n4,a,b,2,3\n5,a,b,2,3\n6,a,b,2,3\n7,a,b,2,3",
      "ID,Country,City,Year,Count\n1,a,b,2,3" },
    { "custom:csv_quotes", "{}", "\"StudentID\"\t\"Subject\"\t\"Grade\"\t\"Semester\"\t\"Score\"\n\"1\"\t\"a\"\t\"b\"\t\"c\"\t\"d\"\n\"2\"\t\"a\"\t\"b\"\t\"c\"\t\"d\"\n"
      "\"3\"\t\"a\"\t\"b\"\t\"c\"\t\"d\"", "StudentID\tSubject\tGrade\tSemester\tScore\n1\ta\tb\tc\td" },
    { "custom:csv_special_character", "{}", "ProductID,Category,Brand,Price,Stock\n1,a,\"b&c\",2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n"
      "1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3\n1,a,b,2,3",
      "ProductID,Category,Brand,Price,Stock\n1,a,b,2,3" },
    { "custom:date_format_list", "{}", "1796-05-10, 1805-12-02", "1796-05-10, 1805-13-02" },
    { "custom:european_capitals_sort", "{}",
      "Reykjav\xC3\xADk, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, Warsaw, London, Brussels, Prague, "
      "Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana, Zagreb", "Helsinki, Oslo" },
    { "custom:mcq_count_length", "{}",
      "Question 1: A?\nA. a\nB. b\nC. c\nD. d\nE. e\n\nQuestion 2: Bbb?\nA. a\nB. b\nC. c\nD. d\nE. e\n\nQuestion 3: Ccccc?\nA. a\nB. b\nC. c\nD. d\nE. e\n\n"
      "Question 4: Ddddddd?\nA. a\nB. b\nC. c\nD. d\nE. e", "Question 1: A?\nA. a\nB. b\nC. c\nD. d\nE. e" },
    { "custom:multiples", "{}", "14, 21, 28, 35, 42, 49", "7, 14, 21, 28, 35, 42, 49" },
    { "custom:sentence_alphabet", "{}",
      "A a. B b. C c. D d. E e. F f. G g. H h. I i. J j. K k. L l. M m. N n. O o. P p. Q q. R r. S s. T t. U u. V v. W w. X x. Y y. Z z.", "A a. C c." },
    { "custom:reverse_newline", "{}",
      "Zimbabwe\nZambia\nUganda\nTunisia\nTogo\nTanzania\nSudan\nSouth Sudan\nSouth Africa\nSomalia\nSierra Leone\nSeychelles\nSenegal\nS\xC3\xA3o Tom\xC3\xA9\nRwanda\n"
      "Nigeria\nNiger\nNamibia\nMozambique\nMorocco\nMauritius\nMauritania\nMali\nMalawi\nMadagascar\nLibya\nLiberia\nLesotho\nKenya\nIvory Coast\nGuinea-Bissau\n"
      "Guinea\nGhana\nGambia\nGabon\nEthiopia\nEswatini\nEritrea\nEquatorial Guinea\nEgypt\nDjibouti\nDR Congo\nCongo\nComoros\nChad\nCentral African Republic\n"
      "Cape Verde\nCameroon\nBurundi\nBurkina Faso\nBotswana\nBenin\nAngola\nAlgeria", "Zimbabwe\nZambia" },
};

static enum ns_grade check(size_t i, const char *said)
{
    json_t *kwargs = json_loads(table[i].kwargs, 0, NULL);
    assert_non_null(kwargs);
    enum ns_grade g = ns_instruction_check(table[i].id, kwargs, "From this list of person names: Emma, Liam, Noah .", (ns_text){ said, strlen(said) });
    json_decref(kwargs);
    return g;
}

static void test_kinds(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        enum ns_grade yes = check(i, table[i].follows), no = check(i, table[i].breaks), empty = check(i, "");
        if (yes != NS_GRADE_RIGHT || no != NS_GRADE_WRONG || empty != NS_GRADE_WRONG)
            print_message("%s: %d %d %d, expected 1 0 0\n", table[i].id, yes, no, empty), bad++;
    }
    assert_int_equal(bad, 0);
}

static void test_table_is_whole(void **state)
{
    (void)state;
    const ns_instruction_kind *const kinds[] = { ns_ifeval_kinds, ns_ifbench_kinds, ns_ifbench_word_kinds, ns_ifbench_form_kinds, ns_ifbench_custom_kinds };
    int n[5] = { 0 };
    for (size_t t = 0; t < 5; t++)
        for (const ns_instruction_kind *k = kinds[t]; k->id; k++, n[t]++) {
            bool tested = false;
            for (size_t i = 0; i < sizeof table / sizeof *table; i++)
                tested = tested || strcmp(table[i].id, k->id) == 0;
            if (!tested)
                fail_msg("%s is not tested", k->id);
        }
    assert_int_equal(n[0], 25);
    assert_int_equal(n[1] + n[2] + n[3] + n[4], 56);
}

/* All, some, none: what a problem comes to. */
static void test_problem(void **state)
{
    (void)state;
    static const struct {
        const char *ids, *said, *marks;
        enum ns_grade grade;
    } want[] = {
        { "[\"punctuation:no_comma\", \"startend:quotation\"]", "\"Yes\"", "punctuation:no_comma=1 startend:quotation=1", NS_GRADE_RIGHT },
        { "[\"punctuation:no_comma\", \"startend:quotation\"]", "Yes", "punctuation:no_comma=1 startend:quotation=0", NS_GRADE_WRONG },
        { "[\"punctuation:no_comma\", \"words:start_verb\"]", "Go", "punctuation:no_comma=1 words:start_verb=?", NS_GRADE_NONE },
        { "[\"words:odd_even_syllables\", \"punctuation:no_comma\"]", "Go, go", "words:odd_even_syllables=? punctuation:no_comma=0", NS_GRADE_WRONG },
        { "[\"language:response_language\"]", "ok", "language:response_language=?", NS_GRADE_NONE },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ns_task_item item = { .check = json_pack("{s:s, s:o, s:[{}, {}]}", "prompt", "p", "ids", json_loads(want[i].ids, 0, NULL), "kwargs") };
        ns_buf marks = { 0 };
        assert_int_equal(ns_grade_instructions(&item, (ns_text){ want[i].said, strlen(want[i].said) }, &marks), want[i].grade);
        assert_string_equal(marks.data, want[i].marks);
        ns_buf_release(&marks);
        json_decref(item.check);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_kinds), cmocka_unit_test(test_table_is_whole), cmocka_unit_test(test_problem) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
