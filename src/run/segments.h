/* A plan of sizes: which size computes which token of an answer (ns_segment in nestar.h), and its text on the command line. */
#ifndef NS_RUN_SEGMENTS_H
#define NS_RUN_SEGMENTS_H
#include "base/err.h"
#include "run/thought.h"

enum { NS_SEGMENTS = 16 };

typedef struct ns_segments {
    ns_segment seg[NS_SEGMENTS]; /* their sizes are owned */
    int n;
} ns_segments;

void ns_segments_release(ns_segments *p);
int ns_segments_add(ns_segments *p, enum ns_phase phase, int from, const char *size, size_t n, ns_err *e);
/* "think:12B,last-think:256:full,answer:full": docs/BUDGET.md has the grammar. Adds to what is there. */
int ns_segments_parse(ns_segments *p, const char *text, ns_err *e);
/* Does the text begin as such a plan does? */
bool ns_segments_is_plan(const char *text);
/* "12B:200,full": tokens of everything that is generated, one size after the other. */
int ns_segments_parse_sizes(ns_segments *p, const char *text, ns_err *e);

/* A place in an answer: `all` and `answer` count tokens so far, of everything and of the answer alone. */
typedef struct ns_place {
    enum ns_phase phase;
    int all, thought, answer;
    int budget; /* NS_THOUGHT_FREE */
} ns_place;
/* The segment that the next token belongs to, -1 when none applies. */
int ns_segments_at(const ns_segment *seg, int n, const ns_place *at);
/* The segment that comes next with a size other than that of segment `now`; -1 when the size stays, as far as is known. */
int ns_segments_next(const ns_segment *seg, int n, const ns_place *at, int now);
#endif
