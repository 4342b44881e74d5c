/* One tool call as the Nemotron 3 template has it, read as it grows:
 *   <tool_call> <function=NAME> (<parameter=NAME>\nVALUE\n</parameter>)* </function> </tool_call>
 * with any white space between the tags. A value ends at the first "</parameter>". */
#ifndef NS_SERVE_CALL_MARKUP_H
#define NS_SERVE_CALL_MARKUP_H
#include <jansson.h>

#include "base/buf.h"

#define NS_CALL_OPEN "<tool_call>"

typedef struct ns_call_span {
    size_t at, n;
} ns_call_span;

typedef struct ns_call_param {
    ns_call_span name, value;
} ns_call_param;

/* Where the parts stand in the text; zeroed: at its beginning. */
typedef struct ns_call {
    int state;
    size_t pos;       /* read so far; at the end: behind the call, or where the text is no call any more */
    size_t scan;      /* in a value: looked for its end up to here */
    ns_call_span name;
    ns_call_param *param; /* owned; the last of them may be unfinished */
    size_t n_params, cap;
    bool failed;      /* out of memory */
} ns_call;

enum ns_call_read { NS_CALL_MORE, NS_CALL_WHOLE, NS_CALL_NOT };

/* p begins with NS_CALL_OPEN and with what was there before. */
enum ns_call_read ns_call_read(ns_call *c, const char *p, size_t n);
/* Of a whole call: the arguments as a JSON object, typed by the parameters of the tool of that name in `tools`. A value whose type is
 * string stays text; another is taken as JSON (and True, False, None as Python has them, which the template writes), and is text where it is none. */
void ns_call_arguments(const ns_call *c, const char *p, const json_t *tools, ns_buf *out);
void ns_call_release(ns_call *c); /* zeroed again */
#endif
