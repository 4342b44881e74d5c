#include "train/problems.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { MAX_VALUE = 99, MAX_DIGITS = 8 };

static const char *const names[NS_PROBLEM_KINDS] = { "chain", "vars", "list", "expr", "sum" };

const char *ns_problem_kind_name(ns_problem_kind k)
{
    return names[k];
}

int ns_problem_kind_find(const char *name)
{
    for (int k = 0; k < NS_PROBLEM_KINDS; k++)
        if (strcmp(names[k], name) == 0)
            return k;
    return -1;
}

ns_problem_opts ns_problem_defaults(ns_problem_split split)
{
    bool test = split == NS_PROBLEM_TEST;
    return (ns_problem_opts){ .kinds = (1u << NS_PROBLEM_KINDS) - 1, .level_lo = 2, .level_hi = 6, .split = split,
                              .no_think = test ? 0.0 : 0.15, .cut = test ? 0.0 : 0.1 };
}

void ns_problem_release(ns_problem *p)
{
    ns_buf_release(&p->question);
    ns_buf_release(&p->thought);
    ns_buf_release(&p->answer);
}

/* FNV-1a, its bits mixed once more. */
ns_problem_split ns_problem_split_of(const char *question)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *question; question++)
        h = (h ^ (unsigned char)*question) * 0x100000001b3u;
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
    return (h >> 40) % NS_PROBLEM_TEST_SHARE == 0 ? NS_PROBLEM_TEST : NS_PROBLEM_TRAIN;
}

/* lo..hi, both possible */
static int pick(ns_rng *r, int lo, int hi)
{
    return lo + (int)(ns_rng_u64(r) % (uint64_t)(hi - lo + 1));
}

static void swap(int *a, int *b)
{
    int t = *a;
    *a = *b;
    *b = t;
}

static void new_line(ns_buf *b)
{
    if (b->len)
        ns_buf_addc(b, '\n');
}

/* An operation on v that stays in 0..MAX_VALUE; its result. */
static int step(ns_rng *r, int v, char *op, int *by)
{
    for (;;) {
        *op = "++--*"[pick(r, 0, 4)];
        *by = *op == '*' ? pick(r, 2, 4) : pick(r, 1, 20);
        int w = *op == '+' ? v + *by : *op == '-' ? v - *by : v * *by;
        if (w >= 0 && w <= MAX_VALUE)
            return w;
    }
}

static void make_chain(ns_rng *r, ns_problem *p)
{
    int v = pick(r, 1, 30), by;
    char op;
    ns_buf_addf(&p->question, "Start with %d.", v);
    for (int i = 0; i < p->level; i++) {
        int w = step(r, v, &op, &by);
        ns_buf_addf(&p->question, " %s %d.", op == '+' ? "Add" : op == '-' ? "Subtract" : "Multiply by", by);
        new_line(&p->thought);
        ns_buf_addf(&p->thought, "%d%c%d=%d", v, op, by, w);
        v = w;
    }
    ns_buf_addf(&p->answer, "%d", v);
}

static void shuffle(ns_rng *r, int *v, int n)
{
    for (int i = 0; i < n; i++)
        swap(&v[i], &v[pick(r, i, n - 1)]);
}

/* Each variable is made from the one before; the statements stand in any order. Up to two go beyond the one that is asked for. */
static void make_vars(ns_rng *r, ns_problem *p)
{
    enum { MOST = NS_PROBLEM_LEVEL_MAX + 3 };
    int letter[26], order[MOST], by[MOST], value[MOST] = { pick(r, 1, 30) }, n = p->level + 1 + pick(r, 0, 2);
    char op[MOST];
    for (int i = 0; i < 26; i++)
        letter[i] = 'a' + i;
    for (int i = 0; i < n; i++)
        order[i] = i;
    shuffle(r, letter, 26);
    shuffle(r, order, n);
    for (int i = 1; i < n; i++)
        value[i] = step(r, value[i - 1], &op[i], &by[i]);
    for (int i = 0; i < n; i++) {
        int k = order[i];
        ns_buf_addf(&p->question, "%s %c=", i ? "," : "Let", letter[k]);
        if (k)
            ns_buf_addf(&p->question, "%c%c%d", letter[k - 1], op[k], by[k]);
        else
            ns_buf_addf(&p->question, "%d", value[0]);
    }
    ns_buf_addf(&p->question, ". Find %c.", letter[p->level]);
    ns_buf_addf(&p->thought, "%c=%d", letter[0], value[0]);
    for (int i = 1; i <= p->level; i++)
        ns_buf_addf(&p->thought, "\n%c=%d%c%d=%d", letter[i], value[i - 1], op[i], by[i], value[i]);
    ns_buf_addf(&p->answer, "%d", value[p->level]);
}

/* ---- list ---- */

enum list_op { REVERSE, SORT, ROTATE, SWAP, RAISE, DROP, LIST_OPS };

static int up(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The number of digits left. Rotate: the first goes to the end. Swap: first and last. Raise: each by one, 9 to 0. Drop: the first goes. */
static int apply(enum list_op op, int *d, int n)
{
    switch (op) {
    case REVERSE:
        for (int i = 0; i < n / 2; i++)
            swap(&d[i], &d[n - 1 - i]);
        return n;
    case SORT: qsort(d, (size_t)n, sizeof *d, up); return n;
    case ROTATE:
        for (int i = 0; i + 1 < n; i++)
            swap(&d[i], &d[i + 1]);
        return n;
    case SWAP: swap(&d[0], &d[n - 1]); return n;
    case RAISE:
        for (int i = 0; i < n; i++)
            d[i] = (d[i] + 1) % 10;
        return n;
    default: memmove(d, d + 1, (size_t)(n - 1) * sizeof *d); return n - 1;
    }
}

static void add_digits(ns_buf *b, const int *d, int n)
{
    for (int i = 0; i < n; i++)
        ns_buf_addc(b, (char)('0' + d[i]));
}

static void make_list(ns_rng *r, ns_problem *p)
{
    static const char *const words[LIST_OPS] = { "Reverse", "Sort", "Rotate", "Swap", "Raise", "Drop" };
    int d[MAX_DIGITS], n = pick(r, 4, 7), last = -1;
    for (int i = 0; i < n; i++)
        d[i] = pick(r, 0, 9);
    ns_buf_adds(&p->question, "Take ");
    add_digits(&p->question, d, n);
    ns_buf_addc(&p->question, '.');
    for (int i = 0; i < p->level; i++) {
        int op;
        do /* nothing twice in a row: two swaps would be none */
            op = pick(r, 0, n > 3 ? DROP : RAISE);
        while (op == last);
        last = op;
        n = apply((enum list_op)op, d, n);
        ns_buf_addf(&p->question, " %s.", words[op]);
        new_line(&p->thought);
        ns_buf_addf(&p->thought, "%s ", words[op]);
        add_digits(&p->thought, d, n);
    }
    add_digits(&p->answer, d, n);
}

/* ---- expr ---- */

/* A node is a number (op 0) or an operation on two others. */
struct node {
    char op;
    int value;
    struct node *left, *right;
};

/* A tree of so many operations; nodes come from *pool. */
static struct node *grow(ns_rng *r, int ops, struct node **pool)
{
    struct node *t = (*pool)++;
    *t = (struct node){ .value = pick(r, 1, 9) };
    if (ops == 0)
        return t;
    int left = pick(r, 0, ops - 1);
    struct node *a = grow(r, left, pool), *b = grow(r, ops - 1 - left, pool);
    char op = "+-*"[pick(r, 0, 2)];
    if ((op == '+' && a->value + b->value > MAX_VALUE) || (op == '*' && a->value * b->value > MAX_VALUE))
        op = '-';
    if (op == '-' && a->value < b->value) {
        struct node *c = a;
        a = b;
        b = c;
    }
    *t = (struct node){ op, op == '+' ? a->value + b->value : op == '-' ? a->value - b->value : a->value * b->value, a, b };
    return t;
}

static void add_expr(ns_buf *b, const struct node *t, bool root)
{
    if (!t->op) {
        ns_buf_addf(b, "%d", t->value);
        return;
    }
    if (!root)
        ns_buf_addc(b, '(');
    add_expr(b, t->left, false);
    ns_buf_addc(b, t->op);
    add_expr(b, t->right, false);
    if (!root)
        ns_buf_addc(b, ')');
}

/* Works out the first operation on two plain numbers; false when there is none. */
static bool reduce(struct node *t)
{
    if (!t->op)
        return false;
    if (t->left->op || t->right->op)
        return reduce(t->left) || reduce(t->right);
    t->op = 0;
    return true;
}

static void make_expr(ns_rng *r, ns_problem *p)
{
    struct node nodes[2 * NS_PROBLEM_LEVEL_MAX + 1], *pool = nodes, *root = grow(r, p->level, &pool);
    ns_buf_adds(&p->question, "Compute ");
    add_expr(&p->question, root, true);
    ns_buf_addc(&p->question, '.');
    while (reduce(root)) {
        new_line(&p->thought);
        add_expr(&p->thought, root, true);
    }
    ns_buf_addf(&p->answer, "%d", root->value);
}

/* ---- sum ---- */

static void make_sum(ns_rng *r, ns_problem *p)
{
    int a[NS_PROBLEM_LEVEL_MAX], b[NS_PROBLEM_LEVEL_MAX], s[NS_PROBLEM_LEVEL_MAX + 1], n = p->level, carry = 0;
    for (int i = 0; i < n; i++) { /* the lowest digit first */
        a[i] = pick(r, i == n - 1, 9);
        b[i] = pick(r, i == n - 1, 9);
    }
    ns_buf_adds(&p->question, "Compute ");
    for (int i = n - 1; i >= 0; i--)
        ns_buf_addc(&p->question, (char)('0' + a[i]));
    ns_buf_addc(&p->question, '+');
    for (int i = n - 1; i >= 0; i--)
        ns_buf_addc(&p->question, (char)('0' + b[i]));
    ns_buf_addc(&p->question, '.');
    for (int i = 0; i < n; i++) {
        int t = a[i] + b[i] + carry;
        new_line(&p->thought);
        ns_buf_addf(&p->thought, "%d+%d+%d=%d", a[i], b[i], carry, t);
        s[i] = t % 10;
        carry = t / 10;
    }
    s[n] = carry;
    for (int i = n - !carry; i >= 0; i--)
        ns_buf_addc(&p->answer, (char)('0' + s[i]));
}

/* ---- any ---- */

static ns_problem_kind pick_kind(ns_rng *r, unsigned kinds)
{
    for (;;) {
        int k = pick(r, 0, NS_PROBLEM_KINDS - 1);
        if (kinds & (1u << k))
            return (ns_problem_kind)k;
    }
}

static int check(const ns_problem_opts *o, ns_err *e)
{
    if (o->level_lo < 1 || o->level_hi > NS_PROBLEM_LEVEL_MAX || o->level_lo > o->level_hi)
        return ns_fail(e, NS_EINVAL, "problems: levels %d-%d: expected a range in 1-%d", o->level_lo, o->level_hi, NS_PROBLEM_LEVEL_MAX);
    if (!(o->kinds & ((1u << NS_PROBLEM_KINDS) - 1)))
        return ns_fail(e, NS_EINVAL, "problems: no kind is chosen");
    return 0;
}

int ns_problem_make(const ns_problem_opts *o, uint64_t index, ns_problem *p, ns_err *e)
{
    static void (*const make[NS_PROBLEM_KINDS])(ns_rng *, ns_problem *) = { make_chain, make_vars, make_list, make_expr, make_sum };
    ns_rng r;
    if (check(o, e) != 0)
        return -1;
    ns_rng_init(&r, o->seed * 0xa0761d6478bd642fu + index * 0xe7037ed1a0b428dbu);
    p->kind = pick_kind(&r, o->kinds);
    p->level = pick(&r, o->level_lo, o->level_hi);
    for (int tries = 0; tries < 10000; tries++) {
        ns_buf_clear(&p->question);
        ns_buf_clear(&p->thought);
        ns_buf_clear(&p->answer);
        make[p->kind](&r, p);
        if (p->question.failed || p->thought.failed || p->answer.failed)
            return ns_fail(e, NS_ENOMEM, "problems: out of memory");
        if (o->split == NS_PROBLEM_BOTH || ns_problem_split_of(p->question.data) == o->split)
            return 0;
    }
    return ns_fail(e, NS_EINVAL, "problems: hardly any %s problem of level %d falls to this split", names[p->kind], p->level);
}
