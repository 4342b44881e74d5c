/* nestar: the command. A table of subcommands; each lives in its own cmd_*.c. */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "run", "answer one prompt, at any size", ns_cmd_run },
    { "chat", "hold a conversation; the size may change on the way", ns_cmd_chat },
    { "inspect", "what is in a checkpoint: layers, sizes, bytes", ns_cmd_inspect },
    { "slice", "write one size as a checkpoint of its own", ns_cmd_slice },
    { "importance", "how much each channel, head, expert and layer does on real text", ns_cmd_importance },
    { "permute", "reorder a checkpoint by importance, so that sizes are prefixes", ns_cmd_permute },
    { "calibrate", "largest activations on real text, for quantize", ns_cmd_calibrate },
    { "quantize", "weights to FP8 or NVFP4; every size stays valid", ns_cmd_quantize },
    { "export", "write one size for another engine: a Hugging Face folder or GGUF", ns_cmd_export },
    { "import", "a GGUF file to a Hugging Face folder", ns_cmd_import },
    { "synth", "make a checkpoint of random weights from a config.json", ns_cmd_synth },
    { "train", "train a model, from scratch or from a checkpoint", ns_cmd_train },
    { "elastify", "train all sizes of a nested checkpoint together", ns_cmd_elastify },
    { "plot", "curves of training logs", ns_cmd_plot },
    { "compare", "how far two checkpoints, formats or sizes are apart on a text", ns_cmd_compare },
    { "serve", "the OpenAI API over every size, from one copy", ns_cmd_serve },
    { "score", "perplexity of a text, at one or more sizes", ns_cmd_score },
    { "eval", "accuracy on a task, at several sizes and budgets of thought", ns_cmd_eval },
    { "report", "a page and a model card from the results of eval", ns_cmd_report },
    { "bench", "prefill and decode speed, beside the machine's limits", ns_cmd_bench },
    { "problems", "make reasoning problems to train on and to measure by", ns_cmd_problems },
    { "logits", "logits and inner values for given token ids, to a file", ns_cmd_logits },
    { "tokenize", "text to token ids and back", ns_cmd_tokenize },
    { "template", "a conversation to its prompt, through the chat template", ns_cmd_template },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void list(FILE *out)
{
    fprintf(out, "Usage: nestar COMMAND [ARGUMENT..]\n\nOne Nemotron-H checkpoint, run at many sizes.\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`nestar COMMAND --help` explains a command with examples; `nestar --version` prints the version.\n");
}

static int dispatch(const char *name, int argc, char **argv)
{
    char argv0[64];
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        snprintf(argv0, sizeof argv0, "nestar %s", name);
        argv[0] = argv0;
        return commands[i].run(argc, argv);
    }
    fprintf(stderr, "nestar: there is no command \"%s\"; `nestar help` lists them\n", name);
    return 2;
}

static int help(int argc, char **argv)
{
    if (argc > 2)
        return dispatch(argv[2], 2, (char *[]){ argv[2], (char[]){ "--help" }, NULL });
    list(stdout);
    return ns_cli_exit("nestar", 0, NULL);
}

static void on_log(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "nestar: note: %s\n", line);
}

int main(int argc, char **argv)
{
    /* Only the character set: numbers in files keep their point. Text is UTF-8 even where the locale does not say so. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
    signal(SIGPIPE, SIG_IGN); /* a reader who leaves ends the command through its write error, see ns_cli_exit */
    ns_log_sink(on_log, NULL);
    if (argc < 2) {
        list(stderr);
        return 2;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc, argv);
    if (strcmp(argv[1], "--version") == 0) {
        printf("nestar %s\n", ns_version());
        return ns_cli_exit("nestar", 0, NULL);
    }
    return dispatch(argv[1], argc - 1, argv + 1);
}
