/* Problems that are lists of verifiable instructions: right when all are followed, wrong when one is not, ungraded otherwise. */
#include <string.h>

#include "eval/grade_text.h"

enum ns_grade ns_instruction_check(const char *id, const json_t *kwargs, const char *prompt, ns_text said)
{
    const ns_instruction_kind *const tables[] = { ns_ifeval_kinds, ns_ifbench_kinds, ns_ifbench_word_kinds, ns_ifbench_form_kinds,
                                                   ns_ifbench_custom_kinds };
    const ns_instruction in = { .kwargs = kwargs, .prompt = prompt };
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const ns_instruction_kind *k = tables[t]; k->id; k++)
            if (strcmp(k->id, id) == 0)
                return said.n ? k->check(&in, said) : NS_GRADE_WRONG;
    return NS_GRADE_NONE;
}

/* `extracted` is a line with a verdict for each: "punctuation:no_comma=1 words:start_verb=?" */
enum ns_grade ns_grade_instructions(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    const json_t *ids = json_object_get(item->check, "ids"), *kwargs = json_object_get(item->check, "kwargs");
    const char *prompt = json_string_value(json_object_get(item->check, "prompt"));
    enum ns_grade all = NS_GRADE_RIGHT;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        enum ns_grade g = ns_instruction_check(id, json_array_get(kwargs, i), prompt, said);
        ns_buf_addf(extracted, "%s%s=%c", i ? " " : "", id, "01?"[g]);
        if (g == NS_GRADE_WRONG || (g == NS_GRADE_NONE && all == NS_GRADE_RIGHT))
            all = g;
    }
    return all;
}
