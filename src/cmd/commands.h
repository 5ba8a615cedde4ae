/*
 * The subcommands of `biga`, one file cmd_<name>.c each. ARGV[0] is the
 * subcommand's name; what is returned is the process's exit status.
 */
#ifndef CMD_COMMANDS_H
#define CMD_COMMANDS_H

enum { EXIT_USAGE = 2 };

int cmd_run(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_switch(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_suspend(int argc, char **argv);
int cmd_unpause(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
