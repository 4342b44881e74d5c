/* Inside the scheduler: what its files share. The lock guards the list of jobs, what others ask of a job, and the figures; everything else
 * of a job is its submitter's until it is in the list and the loop's from then on. Callbacks are called without the lock. */
#ifndef NS_RUN_SCHED_IMPL_H
#define NS_RUN_SCHED_IMPL_H
#include <pthread.h>
#include <string.h>

#include "run/answer.h"
#include "run/batch.h"
#include "run/load.h"
#include "run/prefix.h"
#include "run/sched.h"
#include "run/segments.h"
#include "run/stretch.h"

typedef struct ns_job ns_job;

/* An owned string, in a chain. */
typedef struct ns_job_text {
    struct ns_job_text *next;
    char text[];
} ns_job_text;

struct ns_job {
    ns_job *next;        /* in the order of submission */
    uint64_t ticket;
    ns_sched_job asked;  /* ids, segments and texts are the job's own */
    ns_segments plan;    /* as asked; "auto" is in it until the job begins */
    ns_job_text *texts;  /* owned strings: sizes it was told to go over to; an answer may refer to any of them */
    bool chooses;        /* its deadline chooses the sizes */
    int context;
    double submitted, deadline; /* the latter on the clock; 0: none */

    /* under the lock */
    int64_t bytes;       /* of states, at most */
    bool running, cancel;
    ns_job_text *order;  /* the size that the rest is to have; NULL */
    char size[NS_SIZE_NAME]; /* that it has now */

    /* the loop's */
    ns_session *session;
    ns_answer *answer;
    int from, n;         /* the stretch (run/stretch.h) that is being computed: its first token in the session, its tokens; 0: none */
    int branch;          /* where it parts from the prefixes that are kept */
    bool reading;        /* it is the prompt, or all of the past again */
    bool read;           /* the prompt was */
    double stretch_began;
    bool behind_mark;    /* of tokens put in: "</think>" is behind us */
    double began, first, last; /* on the clock: admitted; first and latest token, 0 for none */
    double window;       /* when the window of `in_window` tokens began, for the rate of one sequence */
    int in_window;
    const char *end;     /* set when it is over */
    ns_sched_result result;
};

struct ns_sched {
    ns_engine *en;
    ns_sched_opts o;     /* without zeroes that mean a default */
    int open, close;     /* ids of the marks of a thought; -1 */
    int close_most;      /* tokens that close a thought, at most */

    pthread_mutex_t lock;
    pthread_cond_t work;
    ns_job *first, **last; /* waiting and running */
    int n_jobs;
    uint64_t tickets;
    bool stopping, at_once;
    ns_sched_stats stats; /* `running` and `waiting` included */

    /* the loop's */
    ns_job **run;        /* [o.parallel], in the order of submission */
    int n_run;
    uint64_t turn;       /* ticket of the job whose text was read last */
    ns_batch_item *item; /* [o.parallel] */
    ns_job **of_item;
    ns_scratch *scratch;
    ns_prefix *prefix;   /* NULL: none */
    ns_load load;        /* written under the lock */
    double load_saw;     /* when it saw something last */
    ns_answer_times times;
    uint64_t *bits;      /* of the vocabulary */
    double mean_run;     /* seconds that jobs ran, of late */
    struct {
        double tokens, seconds;
    } read_pace, write_pace; /* of late: see ns_sched_count_step */
};

/* ---- a job ---- */

/* A copy of what was asked, checked; NULL and `e` say what is wrong with it. */
ns_job *ns_job_new(ns_sched *s, const ns_sched_job *asked, ns_err *e);
void ns_job_free(ns_job *j);
/* Bytes of the states of `context` tokens at a size; -1. `name` (NS_SIZE_NAME bytes) gets what the size is called. */
int64_t ns_job_bytes(const ns_sched *s, const char *size, int context, char *name, ns_err *e);
/* The text to ask for the size by from then on: what fits is decided once. */
static inline const char *ns_job_says(const char *size, const char *name)
{
    return strncmp(size, "fit:", 4) == 0 ? name : size;
}
ns_job_text *ns_job_text_new(const char *text, ns_err *e);
/* Session and answer, with the prompt to read. Ends the job where that fails. */
void ns_job_begin(ns_sched *s, ns_job *j);
/* Begins to read what its session holds. */
void ns_job_read(ns_sched *s, ns_job *j);
/* Tokens of its stretch that may come in a step that has room for `most`; 0: none. */
int ns_job_piece(const ns_sched *s, const ns_job *j, int most);
/* Hands out tokens until some must be computed or the job is over. */
void ns_job_advance(ns_sched *s, ns_job *j);
/* `n` tokens of its stretch were computed in a step of so many seconds. */
void ns_job_computed(ns_sched *s, ns_job *j, int n, double seconds);
/* Was it cancelled, or is it too late for it? Also for jobs that wait; under the lock. NULL: no. */
const char *ns_job_given_up(const ns_sched *s, const ns_job *j, double now);
void ns_job_end(ns_job *j, const char *how, const ns_err *why); /* why: NULL where it is no error */
/* Calls `done` and frees it. */
void ns_job_finish(ns_sched *s, ns_job *j);
/* Takes it out of the list, and its states out of the count. */
void ns_sched_unlink(ns_sched *s, ns_job *j);

/* ---- what is allowed, and how likely it was (sched_draw.c) ---- */

enum ns_sched_choice { NS_CHOICE_SOME, NS_CHOICE_NONE };
enum { NS_SCHED_TOP = 20 };
/* Takes what the job's mask does not allow out of the logits. NONE: nothing may come. */
enum ns_sched_choice ns_sched_constrain(ns_sched *s, ns_job *j);
/* log of the sum of exp of logits, and the n likeliest tokens. */
double ns_sched_likeliest(const float *logits, int vocab, int n, ns_sched_top *top);

/* ---- figures (sched_figures.c); they take the lock ---- */

void ns_sched_count_step(ns_sched *s, int read, int written, double seconds);
void ns_sched_count_token(ns_sched *s, ns_job *j); /* one was handed out */
void ns_sched_count_end(ns_sched *s, ns_job *j);
/* Sizes for a job that begins: what "auto" means now. */
void ns_sched_auto(ns_sched *s, const char **think, const char **answer);
void ns_sched_name_auto(ns_sched *s); /* the same for the figures; under the lock */
/* Time goes by without a measurement; under the lock. True: "auto" is not back at the full size, so time matters. */
bool ns_sched_idle(ns_sched *s);
#endif
