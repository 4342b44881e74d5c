/* The layout of a results file. Whoever changes it raises the version: `nestar eval` refuses another one, and so does whoever reads it. */
#ifndef NS_EVAL_RESULTS_SCHEMA_H
#define NS_EVAL_RESULTS_SCHEMA_H

enum { NS_RESULTS_VERSION = 1 };
#define NS_RESULTS_SCHEMA                                                                                                          \
    "CREATE TABLE run ("                                                                                                         \
    "  id INTEGER PRIMARY KEY, created TEXT NOT NULL,"         /* ISO 8601, UTC */                                               \
    "  version TEXT NOT NULL, checkpoint TEXT NOT NULL,"       /* nestar's version; folder as given */                           \
    "  fingerprint TEXT NOT NULL,"                             /* the same checkpoint or not (eval/fingerprint.h) */             \
    "  task TEXT NOT NULL, task_hash TEXT NOT NULL,"           /* name or file; hash of its problems */                          \
    "  options TEXT NOT NULL,"                                 /* JSON: sampling, seed, samples, max_thought, max_answer, .. */  \
    "  machine TEXT NOT NULL);"                                /* JSON: cpu, threads, kernels */                                 \
    "CREATE TABLE problem ("                                                                                                     \
    "  run INTEGER NOT NULL REFERENCES run, id INTEGER NOT NULL," /* 0.. in the order of the task */                             \
    "  key TEXT, kind TEXT, level INTEGER, answer TEXT, PRIMARY KEY (run, id));"                                                 \
    "CREATE TABLE plan ("                                      /* how problems were answered */                                  \
    "  id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run,"                                                             \
    "  think TEXT NOT NULL, answer TEXT NOT NULL,"             /* sizes, as named */                                             \
    "  budget INTEGER,"                                        /* tokens of thought; 0 off; NULL: to the end */                  \
    "  handover TEXT NOT NULL,"                                /* none (one size), auto, cache, prefill, late */                 \
    "  think_active INTEGER, answer_active INTEGER,"           /* active parameters of the sizes */                              \
    "  think_bytes INTEGER, answer_bytes INTEGER,"             /* bytes of weights read to decode one token */                   \
    "  prompt_tokens INTEGER NOT NULL DEFAULT 0,"              /* these three: of the batched passes that answered it so far; */ \
    "  tokens INTEGER NOT NULL DEFAULT 0,"                     /* plans that differ in their budget share passes */              \
    "  seconds REAL NOT NULL DEFAULT 0,"                                                                                         \
    "  UNIQUE (run, think, answer, budget, handover));"                                                                          \
    "CREATE TABLE sample ("                                                                                                      \
    "  plan INTEGER NOT NULL REFERENCES plan, problem INTEGER NOT NULL, sample INTEGER NOT NULL,"                                \
    "  correct INTEGER, extracted TEXT, output TEXT,"          /* correct NULL: could not be graded */                           \
    "  prompt_tokens INTEGER NOT NULL, thinking_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL,"                        \
    "  closed INTEGER NOT NULL, ended INTEGER NOT NULL,"       /* thought closed by the budget; answer ended by a stop token */  \
    "  seconds REAL,"                                          /* of this answer alone (batch 1), NULL in batches */             \
    "  PRIMARY KEY (plan, problem, sample));"                                                                                    \
    "CREATE TABLE latency ("                                   /* measured speed of each size on this machine, at batch 1 */     \
    "  run INTEGER NOT NULL REFERENCES run, size TEXT NOT NULL, prefill_tokens_per_s REAL NOT NULL,"                             \
    "  decode_tokens_per_s REAL NOT NULL, switch_s REAL NOT NULL, PRIMARY KEY (run, size));"
#endif
