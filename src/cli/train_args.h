/* Options that every command which trains has: a child argp whose input is an ns_cli_train. */
#ifndef NS_CLI_TRAIN_ARGS_H
#define NS_CLI_TRAIN_ARGS_H
#include "cli/common.h"
#include "train/trainer.h"

enum { NS_CLI_KEY_TRAIN = 0x400, NS_CLI_MAX_DATA = 256 };

typedef struct ns_cli_train {
    const char *data[NS_CLI_MAX_DATA];
    int n_data;
    int64_t eval_docs;
    uint64_t seed;
    ns_dtype dtype; /* of the checkpoint to write */
    bool resume, json;
    ns_train_opts o;
} ns_cli_train;
extern const struct argp ns_cli_train_argp;
ns_cli_train ns_cli_train_defaults(const ns_train_opts *o);

/* The tokenizer of a checkpoint's folder; *out NULL where it has none. */
int ns_cli_train_tokenizer(const char *dir, ns_tokenizer **out, ns_err *e);
/* SIGINT, SIGTERM or SIGUSR1 (Slurm's warning before a time limit) ends the run after the step in hand, with its state saved; a second
 * one of the kind ends the process. */
const volatile int *ns_cli_train_interrupts(void);
/* Ends a command on all ranks, and the comm (may be NULL) with it: what failed everywhere alike is said by rank 0. A run that was
 * interrupted says how to go on; its status is 130. */
int ns_cli_train_exit(const char *argv0, int rc, const ns_err *e, ns_comm *comm);

/* An on_step: a line on stderr, rewritten on a terminal; with json the log's line on standard output too. ctx is an ns_cli_steps. */
typedef struct ns_cli_steps {
    bool tty, json;
    int64_t steps; /* of the run; 0: not known */
    double last;
} ns_cli_steps;
ns_cli_steps ns_cli_steps_start(bool json, int64_t steps);
void ns_cli_steps_show(void *ctx, const json_t *line);
#endif
