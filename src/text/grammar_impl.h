/* What a compiled grammar consists of. Private to grammar*.c.
 *
 * A grammar is a net of nodes over bytes. A thread stands at a node; it has a count (characters of a string, items of an array, fields of
 * an object) and a stack of the nodes to go back to. Rules call each other, which is how values nest. Threads live side by side where the
 * next byte has to decide. */
#ifndef NS_TEXT_GRAMMAR_IMPL_H
#define NS_TEXT_GRAMMAR_IMPL_H
#include "base/mem.h"
#include "text/grammar.h"

enum {
    NS_GRAM_DEPTH = 128,       /* calls on a stack: about the depth to which values may nest */
    NS_GRAM_THREADS = 256,     /* side by side; what comes later is dropped */
    NS_GRAM_BRANCHES = 100,    /* of an anyOf, with those of the anyOf in it */
    NS_GRAM_NODES = 1 << 18,   /* of one grammar, and as many edges times 4 */
    NS_GRAM_BLANKS = 20,       /* in a row, after at most one newline */
    NS_GRAM_DIGITS = 18,       /* of an integer, or before the point: fits 64 bits */
    NS_GRAM_FRACTION = 24,     /* digits after the point */
};
#define NS_GRAM_ANY UINT32_MAX /* no upper limit */
#define NS_GRAM_NEVER 0xffff   /* need of what has no finite end */

enum ns_gram_kind {
    NS_GRAM_BYTES, /* consumes a byte for which it has an edge */
    NS_GRAM_KEY,   /* the same within the name of a field; bytes without an edge go as from node c, where other names are allowed */
    NS_GRAM_SPLIT, /* all edges at once */
    NS_GRAM_CALL,  /* rule a, then next */
    NS_GRAM_RET,
    NS_GRAM_SET,   /* count = a */
    NS_GRAM_INC,   /* count = min(count + 1, a) */
    NS_GRAM_TEST,  /* a <= count <= b */
    NS_GRAM_FIELD, /* a name was complete: field a */
    NS_GRAM_OPEN,  /* some field may still come */
    NS_GRAM_ALL,   /* never walked; needs what each of its edges needs */
};

/* Nodes in which most tokens are content and lead back to the node. */
enum ns_gram_class { NS_GRAM_PLAIN_NOT, NS_GRAM_STRING, NS_GRAM_TEXT, NS_GRAM_CLASSES };

typedef struct ns_gram_node {
    uint8_t kind, cls;
    uint16_t need;   /* calls deep from here to the end of the rule, on the flattest way */
    uint32_t edges;  /* first of a list; 0: none */
    uint32_t next;
    uint32_t a, b;   /* KEY: leaves [a, b) below it; BYTES with a class: a is the largest count */
    uint32_t c;      /* KEY, BYTES: the node that this one is like for bytes without an edge here, or 0; TEST: ALL of what must have been */
    uint32_t fields; /* KEY, FIELD, OPEN */
} ns_gram_node;

typedef struct ns_gram_edge {
    uint32_t to, next;
    unsigned char lo, hi;
} ns_gram_edge;

/* The fields of an object: named ones in order, then any others. The count of an object is the first field that may still come. */
typedef struct ns_gram_fields {
    uint32_t n;
    uint32_t must;   /* words[must + i]: the first required field from i on, n where there is none; i in 0..n */
    uint32_t start;  /* words[start + i]: field i's FIELD node */
    uint32_t leaves; /* words[leaves + i]: fields in the order of their names */
    uint32_t extra;  /* the node of fields without a name here, or 0 */
} ns_gram_fields;

struct ns_grammar {
    ns_gram_node *nodes; /* [0]: the end */
    ns_gram_edge *edges; /* [0]: none */
    uint32_t *entries;   /* node of each rule */
    ns_gram_fields *fields;
    uint32_t *words;
    uint32_t n_nodes, cap_nodes, n_edges, cap_edges, n_rules, cap_rules, n_fields, cap_fields, n_words, cap_words;
    uint32_t start;
    uint32_t space;      /* the rule that can be done without a byte; there is only this one */
};

/* ---- making one ---- */

enum ns_gram_mode { NS_GRAM_JSON, NS_GRAM_CONST, NS_GRAM_RAW }; /* RAW: a parameter of a call, strings as they are */
enum ns_gram_type {
    NS_GRAM_WHOLE, /* what the schema says; the others are one alternative of it */
    NS_GRAM_T_STRING, NS_GRAM_T_NUMBER, NS_GRAM_T_INTEGER, NS_GRAM_T_BOOLEAN, NS_GRAM_T_NULL, NS_GRAM_T_OBJECT, NS_GRAM_T_ARRAY,
    NS_GRAM_T_ENUM, NS_GRAM_T_SPACE
};

typedef struct ns_gram_rule {
    const json_t *schema, *root; /* of what, and where its references start */
    enum ns_gram_mode mode;
    enum ns_gram_type type;
    const char *path;            /* "schema", "schema: properties.a" */
    bool deep;                   /* the path has its ": " */
    uint32_t *alts, n_alts;      /* WHOLE: rules; owned by the arena */
    uint32_t entry, seen;
} ns_gram_rule;

typedef struct ns_gram_make {
    ns_grammar *g;
    ns_gram_rule *rules;
    uint32_t n_rules, cap_rules;
    ns_arena arena;
    json_t *owned; /* schemas made on the way */
    bool failed;   /* memory is out, or the grammar too large */
    ns_err *e;
} ns_gram_make;

int ns_gram_make_init(ns_gram_make *m, ns_err *e);
/* Compiles the rules asked for, works out needs; the grammar, or NULL. Releases m. `start` 0: something failed before. `what` names the
 * whole in errors. */
ns_grammar *ns_gram_make_end(ns_gram_make *m, uint32_t start, const char *what);

uint32_t ns_gram_node_add(ns_gram_make *m, enum ns_gram_kind kind, uint32_t next);
void ns_gram_edge_add(ns_gram_make *m, uint32_t from, unsigned lo, unsigned hi, uint32_t to);
uint32_t ns_gram_words_add(ns_gram_make *m, const uint32_t *w, uint32_t n);
uint32_t ns_gram_fields_add(ns_gram_make *m, const ns_gram_fields *f);
uint32_t ns_gram_byte(ns_gram_make *m, unsigned char c, uint32_t to);
uint32_t ns_gram_literal(ns_gram_make *m, const char *p, size_t n, uint32_t to);
uint32_t ns_gram_split(ns_gram_make *m, uint32_t a, uint32_t b);
uint32_t ns_gram_call(ns_gram_make *m, uint32_t rule, uint32_t next);
uint32_t ns_gram_space(ns_gram_make *m, uint32_t next); /* optional white space, then next */
uint32_t ns_gram_test(ns_gram_make *m, uint32_t lo, uint32_t hi, uint32_t must, uint32_t next);
uint32_t ns_gram_inc(ns_gram_make *m, uint32_t cap, uint32_t next);
/* Never walked: it needs what a call of the rule needs, whatever follows. */
uint32_t ns_gram_probe(ns_gram_make *m, uint32_t rule);
/* One character of a JSON string, from a node to another. */
void ns_gram_char(ns_gram_make *m, uint32_t from, uint32_t to, bool escapes);

/* Strings as a tree; each leads to its own node. Sorts them. With `fields`, nodes are KEY, leaves FIELD nodes, and `other` (0: none) is
 * where names that are not among them are read. */
typedef struct ns_gram_name {
    const char *p;
    size_t n;
    uint32_t to;
} ns_gram_name;
uint32_t ns_gram_tree(ns_gram_make *m, ns_gram_name *names, size_t n, uint32_t fields, uint32_t other);

/* Bodies of rules. */
uint32_t ns_gram_string(ns_gram_make *m, uint32_t min, uint32_t max);
uint32_t ns_gram_number(ns_gram_make *m, bool integer);
int ns_gram_range(ns_gram_make *m, const ns_gram_rule *r, bool integer, uint32_t *entry); /* between its minimum and maximum */
uint32_t ns_gram_blanks(ns_gram_make *m);
uint32_t ns_gram_text(ns_gram_make *m, const char *end); /* any text up to `end`, which begins with a newline, and that */

/* The rule for (schema, mode, type), a new one at first. `sub` is added to the path of `from`. */
uint32_t ns_gram_rule_of(ns_gram_make *m, const ns_gram_rule *from, const json_t *schema, enum ns_gram_mode mode, enum ns_gram_type type,
                         const char *sub, ...) __attribute__((format(printf, 6, 7)));
/* A rule without context: any string, white space. */
uint32_t ns_gram_rule_any(ns_gram_make *m, enum ns_gram_type type);
/* grammar_schema.c: keywords of a schema, and the alternatives of a WHOLE rule. */
bool ns_gram_held(const char *key);
int ns_gram_check_keywords(ns_gram_make *m, const ns_gram_rule *r); /* refuses what is not held */
int ns_gram_check_beside(ns_gram_make *m, const ns_gram_rule *r, const char *form, const char *const *may); /* beside form only `may` */
int ns_gram_alts_room(ns_gram_make *m, uint32_t rule, size_t n);
int ns_gram_alt_add(ns_gram_make *m, uint32_t rule, uint32_t alt);
int ns_gram_ref(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r); /* grammar_refs.c */
int ns_gram_all_of(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r);
/* Refuses keywords that do not belong to an object, or are not held. */
int ns_gram_check_object(ns_gram_make *m, const ns_gram_rule *r);
int ns_gram_compile(ns_gram_make *m, uint32_t rule);                              /* grammar_schema.c */
int ns_gram_object(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry);      /* grammar_object.c */
int ns_gram_array(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry);
uint32_t ns_gram_const(ns_gram_make *m, const ns_gram_rule *r);
/* Two keywords that count, 0 and NS_GRAM_ANY where they are not there. */
int ns_gram_counts(ns_gram_make *m, const ns_gram_rule *r, const char *min_key, const char *max_key, uint32_t *min, uint32_t *max);
char *ns_gram_dump(ns_gram_make *m, const json_t *v); /* as compact JSON, numbers as short as they can be; the arena's */

/* The named fields of an object or of a call, and what follows each. */
typedef struct ns_gram_field {
    const char *name; /* as it is written, with the byte that ends it */
    uint32_t after;   /* the node behind it */
    uint32_t rule;    /* of its value */
    bool required;
} ns_gram_field;
/* Adds the fields; `root`: where their names are read; `close_min` and `must`: of the TEST that lets the object end. */
int ns_gram_fields_make(ns_gram_make *m, const ns_gram_field *f, uint32_t n, uint32_t extra, uint32_t other, uint32_t *fields, uint32_t *root,
                        uint32_t *close_min, uint32_t *must);

/* An object's keywords as fields: "properties" in order, then what "required" names beside them. */
typedef struct ns_gram_props {
    const char **name; /* [n] */
    uint32_t *rule;    /* of the value */
    bool *required;
    uint32_t n;
    bool more;         /* others are allowed */
    uint32_t rest;     /* rule of their values */
} ns_gram_props;
int ns_gram_props_read(ns_gram_make *m, const ns_gram_rule *r, enum ns_gram_mode mode, ns_gram_props *out);

/* ---- walking ---- */

typedef struct ns_gram_thread {
    uint32_t node, count, up; /* up: a frame; 0: none */
} ns_gram_thread;

/* A call of a rule. All threads that call the same rule at the same byte, equally deep, share the frame: each has a link, where it goes on.
 * So alternatives that look alike do not double with every level. */
typedef struct ns_gram_frame {
    uint32_t rule, depth, links;
} ns_gram_frame;

typedef struct ns_gram_link {
    uint32_t ret, count, up, next;
} ns_gram_link;

/* Threads, frames and links as stacks: sets of threads lie one after the other, nothing refers to later frames or links. */
typedef struct ns_gram_run {
    const ns_grammar *g;
    ns_gram_thread *threads;
    ns_gram_frame *frames; /* [0]: none */
    ns_gram_link *links;   /* [0]: none */
    size_t n, cap, n_frames, cap_frames, n_links, cap_links;
    size_t set;            /* where the set that is being made begins */
    size_t fresh;          /* the first frame of this step */
    bool failed;           /* memory is out */
} ns_gram_run;

bool ns_gram_reserve(ns_gram_run *r); /* room for one more of each */
/* Appends the set of threads behind byte c, of the threads [from, to). */
void ns_gram_step(ns_gram_run *r, size_t from, size_t to, unsigned char c);
/* True where thread t may stray from the names of a KEY node. */
bool ns_gram_extra(const ns_gram_run *r, const ns_gram_thread *t);

/* Where the sets of threads lie along one path of the vocabulary's tree. */
typedef struct ns_gram_level {
    size_t from, to, frames, links;
} ns_gram_level;

struct ns_grammar_walk {
    ns_gram_run *run;      /* threads [0, now) are where the answer is; what lies above is scratch */
    size_t now, now_frames, now_links;
    size_t kept;           /* frames and links at the last collection */
    ns_gram_level *levels; /* of masks */
    size_t n_levels;
};

/* ---- the vocabulary ---- */

/* In depth-first order; the tokens that end at a node are ids[first .. the next node's first). */
typedef struct ns_gram_twig {
    uint32_t first, skip; /* skip: behind all that lies below */
    uint16_t depth;       /* from 1 */
    unsigned char byte;
} ns_gram_twig;

typedef struct ns_gram_vtree {
    ns_gram_twig *twigs; /* [n + 1] */
    int *ids;            /* by their bytes */
    uint32_t n, n_ids;
} ns_gram_vtree;

enum { NS_GRAM_SHORT = 16 };

/* Tokens that are whole characters of a class and nothing else. */
typedef struct ns_gram_plain {
    uint64_t *upto[NS_GRAM_SHORT + 1]; /* of at most so many characters; [NS_GRAM_SHORT]: all */
    int *longer;                       /* of NS_GRAM_SHORT characters and more */
    uint32_t *chars, n_longer;
    ns_gram_vtree rest;                /* all others */
} ns_gram_plain;

struct ns_grammar_vocab {
    size_t words;      /* of a mask */
    size_t depth;      /* the longest token */
    ns_gram_vtree all;
    ns_gram_plain plain[NS_GRAM_CLASSES];
};
#endif
