/* The commands. Each takes the arguments behind its name, with argv[0] "nestar NAME", and returns the exit status: 0, 1 when
 * something failed (said on stderr), 2 when it was called wrongly. */
#ifndef NS_CLI_CMD_H
#define NS_CLI_CMD_H

int ns_cmd_bench(int argc, char **argv);
int ns_cmd_calibrate(int argc, char **argv);
int ns_cmd_chat(int argc, char **argv);
int ns_cmd_elastify(int argc, char **argv);
int ns_cmd_compare(int argc, char **argv);
int ns_cmd_eval(int argc, char **argv);
int ns_cmd_export(int argc, char **argv);
int ns_cmd_import(int argc, char **argv);
int ns_cmd_importance(int argc, char **argv);
int ns_cmd_inspect(int argc, char **argv);
int ns_cmd_logits(int argc, char **argv);
int ns_cmd_permute(int argc, char **argv);
int ns_cmd_plot(int argc, char **argv);
int ns_cmd_problems(int argc, char **argv);
int ns_cmd_quantize(int argc, char **argv);
int ns_cmd_report(int argc, char **argv);
int ns_cmd_run(int argc, char **argv);
int ns_cmd_serve(int argc, char **argv);
int ns_cmd_score(int argc, char **argv);
int ns_cmd_slice(int argc, char **argv);
int ns_cmd_synth(int argc, char **argv);
int ns_cmd_template(int argc, char **argv);
int ns_cmd_tokenize(int argc, char **argv);
int ns_cmd_train(int argc, char **argv);
#endif
