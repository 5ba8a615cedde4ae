/*
 * The front and the VM process together, over a machine without CPUs: exit
 * statuses, messages, the console, signals, and the terminal after each way
 * out. This program is its own `biga`: `test_front run ...`, and its VM process.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <utmp.h>

#include <cmocka.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "unit/fake_machine.h"
#include "vm/process.h"
#include "vm/protocol.h"

struct child {
	struct termios modes; /* of its terminal, before it started */
	pid_t pid;
	int in, out; /* our ends; of a terminal both the same */
	char text[65536];
	size_t len;
	pid_t shell;  /* on a terminal: session leader and parent of PID */
	int statuses; /* where it writes PID's status of waitpid */
};

static char kernel_path[64];

static void
write_kernel(const char *script)
{
	int fd;

	if (kernel_path[0] == '\0') {
		strcpy(kernel_path, "/tmp/test-front-XXXXXX");
		fd = mkstemp(kernel_path);
	} else {
		fd = open(kernel_path, O_WRONLY | O_TRUNC);
	}
	assert_true(fd >= 0);
	assert_int_equal(write(fd, script, strlen(script)), strlen(script));
	close(fd);
}

static void
exec_front(char *const extra[])
{
	char *argv[32] = {"biga", "run", "--net", "none", "--kernel", kernel_path};
	int n = 6;

	while (extra && *extra && n < 31)
		argv[n++] = *extra++;
	argv[n] = NULL;
	execv("/proc/self/exe", argv);
	_exit(99);
}

/* With pipes; standard error goes where standard output goes. */
static void
start_piped(struct child *c, const char *script, char *const extra[])
{
	int in[2], out[2];

	write_kernel(script);
	memset(c, 0, sizeof(*c));
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c->pid = fork();
	if (c->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		exec_front(extra);
	}
	close(in[0]);
	close(out[1]);
	c->in = in[1];
	c->out = out[0];
}

/* A shell's part: the job gets the terminal, then the shell takes it back. Its
 * own end would hang the terminal up, so it waits to be killed. */
static void
be_shell(int tty, int report, char *const extra[])
{
	pid_t pid;
	int status;

	signal(SIGTTOU, SIG_IGN);
	login_tty(dup(tty));
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		tcsetpgrp(0, getpid());
		signal(SIGTTOU, SIG_DFL);
		exec_front(extra);
	}
	setpgid(pid, pid);
	tcsetpgrp(0, pid);
	if (write(report, &pid, sizeof(pid)) < 0 || waitpid(pid, &status, 0) < 0)
		_exit(1);
	tcsetpgrp(0, getpid());
	if (write(report, &status, sizeof(status)) < 0)
		_exit(1);
	for (;;)
		pause();
}

/* On a terminal of its own, as a shell would start it. */
static void
start_terminal(struct child *c, const char *script, char *const extra[], int *tty)
{
	int report[2];

	write_kernel(script);
	memset(c, 0, sizeof(*c));
	assert_int_equal(openpty(&c->in, tty, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(*tty, &c->modes), 0);
	assert_int_equal(pipe2(report, O_CLOEXEC), 0);
	c->out = c->in;
	c->shell = fork();
	if (c->shell == 0) {
		close(c->in);
		be_shell(*tty, report[1], extra);
	}
	close(report[1]);
	c->statuses = report[0];
	assert_int_equal(read(c->statuses, &c->pid, sizeof(c->pid)), sizeof(c->pid));
}

static bool
read_some(struct child *c, int timeout_ms)
{
	struct pollfd p = {.fd = c->out, .events = POLLIN};
	ssize_t n;

	if (poll(&p, 1, timeout_ms) <= 0)
		return false;
	n = read(c->out, c->text + c->len, sizeof(c->text) - 1 - c->len);
	if (n <= 0)
		return false;
	c->len += (size_t)n;
	c->text[c->len] = '\0';
	return true;
}

static void
expect(struct child *c, const char *text)
{
	while (strstr(c->text, text) == NULL) {
		if (!read_some(c, 10000))
			fail_msg("'%s' did not come, but: %s", text, c->text);
	}
}

/* The exit status, 128 + n for a death by signal. */
static int
finish(struct child *c)
{
	int status;

	if (c->in != c->out)
		while (read_some(c, 10000))
			;
	if (c->shell == 0) {
		assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
		close(c->in);
		close(c->out);
	} else {
		assert_int_equal(read(c->statuses, &status, sizeof(status)), sizeof(status));
		close(c->statuses);
		while (read_some(c, 100))
			;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
end_terminal(struct child *c, int tty)
{
	kill(c->shell, SIGKILL);
	waitpid(c->shell, NULL, 0);
	close(c->in);
	close(tty);
}

/* The VM process of a front, by its parent in /proc. */
static pid_t
find_vm(pid_t front)
{
	char path[64], text[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", front, front);
	for (int tries = 0; tries < 200; tries++) {
		int pid;

		f = fopen(path, "r");
		while (f && fscanf(f, "%d", &pid) == 1) {
			char comm[64];
			FILE *g;

			snprintf(comm, sizeof(comm), "/proc/%d/comm", pid);
			g = fopen(comm, "r");
			if (g && fgets(text, sizeof(text), g) && strncmp(text, "biga-vm", 7) == 0) {
				fclose(g);
				fclose(f);
				return pid;
			}
			if (g)
				fclose(g);
		}
		if (f)
			fclose(f);
		usleep(10000);
	}
	fail_msg("no VM process");
	return 0;
}

static void
test_exit_statuses(void **state)
{
	static const struct {
		const char *script;
		int status;
		const char *text;
	} cases[] = {
		{"power-off", 0, ""},
		{"reset", 0, ""},
		{"debug-exit 0", 1, ""},
		{"debug-exit 3", 7, ""},
		{"debug-exit 255", 255, ""},
		{"guest-fail", 1, "biga: triple fault at 0x1234\nbiga: rip 1234 rax 0\n"},
		{"engine-fail", 1, "biga: the engine cannot go on\n"},
		{"no-create", 2, "biga: the kernel is not one; give another\n"},
		{"segv", 1, "biga: the VM process failed with signal 11"},
		{"abort", 1, "biga: the VM process failed with signal 6"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct child c;
		int status;

		start_piped(&c, cases[i].script, (char *[]){"--quiet", NULL});
		close(c.in);
		c.in = -1;
		status = finish(&c);
		if (status != cases[i].status)
			fail_msg("%s: status %d, said %s", cases[i].script, status, c.text);
		assert_non_null(strstr(c.text, cases[i].text));
		if (cases[i].text[0] == '\0')
			assert_string_equal(c.text, "");
	}
}

static void
test_auto_says_why(void **state)
{
	struct child c;

	start_piped(&c, "power-off", NULL);
	assert_int_equal(finish(&c), 0);
	assert_non_null(strstr(c.text, "hypervisor "));
}

static void
test_echo_and_end_of_input(void **state)
{
	struct child c;

	start_piped(&c, "echo", NULL);
	expect(&c, "ready\r\n");
	assert_int_equal(write(c.in, "abc\x01xyz", 7), 7);
	expect(&c, "ABC\x01XYZ"); /* Ctrl-A means nothing on a pipe */
	close(c.in);
	c.in = -1;
	usleep(100000);
	assert_int_equal(waitpid(c.pid, NULL, WNOHANG), 0); /* the VM goes on */
	kill(c.pid, SIGTERM);
	assert_int_equal(finish(&c), 128 + SIGTERM);
}

static void
test_all_output_arrives(void **state)
{
	struct child c;
	const char *last;

	start_piped(&c, "talk 4000 power-off", (char *[]){"--quiet", NULL});
	last = "line 3999\r\n";
	usleep(300000); /* the pipe fills up, and the VM with it */
	assert_int_equal(finish(&c), 0);
	assert_string_equal(c.text + c.len - strlen(last), last);
}

static void
test_signals(void **state)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		struct child c;

		start_piped(&c, "echo", NULL);
		expect(&c, "ready\r\n");
		kill(c.pid, signals[i]);
		assert_int_equal(finish(&c), 128 + signals[i]);
	}
}

static void
test_deaf_vm_is_killed(void **state)
{
	struct child c;

	start_piped(&c, "echo deaf", NULL);
	expect(&c, "ready\r\n");
	kill(c.pid, SIGTERM);
	usleep(50000);
	kill(c.pid, SIGTERM); /* asked twice */
	assert_int_equal(finish(&c), 128 + SIGTERM);
}

static void
test_vm_killed(void **state)
{
	struct child c;

	start_piped(&c, "echo", NULL);
	expect(&c, "ready\r\n");
	kill(find_vm(c.pid), SIGKILL);
	assert_int_equal(finish(&c), 128 + SIGKILL);
	assert_non_null(strstr(c.text, "killed by signal 9"));
}

/* Ended, though nobody may have fetched its status: not each process 1 does so. */
static bool
has_ended(pid_t pid)
{
	char path[40], line[100];
	bool ended = true;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	if (!f)
		return true;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "State:", 6) == 0)
			ended = strchr(line, 'Z') != NULL;
	}
	fclose(f);
	return ended;
}

static void
test_vm_ends_with_front(void **state)
{
	struct child c;
	pid_t vm;

	start_piped(&c, "echo", NULL);
	expect(&c, "ready\r\n");
	vm = find_vm(c.pid);
	kill(c.pid, SIGKILL);
	finish(&c);
	for (int i = 0; i < 500 && !has_ended(vm); i++)
		usleep(10000);
	assert_true(has_ended(vm));
}

static void
assert_same_modes(int tty, const struct termios *before)
{
	struct termios after;

	/* After a SIGKILL of the front another process restores them, a moment later. */
	for (int t = 0; t < 500 && (tcgetattr(tty, &after) || after.c_lflag != before->c_lflag);
	     t++)
		usleep(10000);
	assert_int_equal(tcgetattr(tty, &after), 0);
	assert_int_equal(after.c_lflag, before->c_lflag);
	assert_int_equal(after.c_iflag, before->c_iflag);
	assert_int_equal(after.c_oflag, before->c_oflag);
}

enum way_out { BY_KEYS, BY_GUEST, BY_TERM, BY_HUP, BY_VM_KILL, BY_FRONT_KILL, WAYS_OUT };

static void
leave_terminal(struct child *c, enum way_out way)
{
	switch (way) {
	case BY_KEYS:
		assert_int_equal(write(c->in, "\x01x", 2), 2);
		break;
	case BY_GUEST:
		assert_int_equal(write(c->in, "q", 1), 1);
		break;
	case BY_TERM:
		kill(c->pid, SIGTERM);
		break;
	case BY_HUP:
		kill(c->pid, SIGHUP);
		break;
	case BY_VM_KILL:
		kill(find_vm(c->pid), SIGKILL);
		break;
	default:
		kill(c->pid, SIGKILL);
	}
}

static void
test_terminal_restored(void **state)
{
	static const int statuses[WAYS_OUT] = {0, 0, 143, 129, 137, 137};

	for (enum way_out way = BY_KEYS; way < WAYS_OUT; way++) {
		struct termios raw;
		struct child c;
		int tty;

		start_terminal(&c, "echo", NULL, &tty);
		expect(&c, "ready\r");
		/* The message that makes it raw and the console race: wait. */
		for (int i = 0; i < 200; i++) {
			tcgetattr(tty, &raw);
			if (!(raw.c_lflag & ICANON))
				break;
			usleep(10000);
		}
		assert_false(raw.c_lflag & (ICANON | ECHO | ISIG));
		leave_terminal(&c, way);
		assert_int_equal(finish(&c), statuses[way]);
		for (int i = 0; way == BY_FRONT_KILL && i < 200; i++) {
			tcgetattr(tty, &raw);
			if (raw.c_lflag & ICANON)
				break;
			usleep(10000);
		}
		assert_same_modes(tty, &c.modes);
		end_terminal(&c, tty);
	}
}

static void
test_terminal_keys(void **state)
{
	struct child c;
	int tty;

	start_terminal(&c, "echo", NULL, &tty);
	expect(&c, "ready\r");
	usleep(200000);
	assert_int_equal(write(c.in, "\x01h", 2), 2);
	expect(&c, "Ctrl-A x");
	assert_int_equal(write(c.in, "<\x01\x01>\x01z\x03", 7), 7);
	expect(&c, "<\x01>\x01Z\x03"); /* Ctrl-C is the guest's */
	/* There may be no such hypervisor here; a refusal does not end the VM. */
	assert_int_equal(write(c.in, "\x01sstill", 7), 7);
	expect(&c, "STILL");
	assert_int_equal(write(c.in, "\x01p", 2), 2);
	assert_int_equal(finish(&c), 0);
	end_terminal(&c, tty);
}

static void
test_no_terminal(void **state)
{
	struct child c;
	int out[2];

	write_kernel("echo");
	memset(&c, 0, sizeof(c));
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c.pid = fork();
	if (c.pid == 0) {
		dup2(out[1], 2);
		close(0);
		close(1);
		exec_front(NULL);
	}
	close(out[1]);
	c.out = out[0];
	c.in = -1;
	assert_int_equal(finish(&c), 2);
	assert_non_null(strstr(c.text, "no terminal: "));
}

static void
test_console_file(void **state)
{
	char path[] = "/tmp/test-front-console-XXXXXX", text[64] = "";
	int fd = mkstemp(path);
	struct child c;

	start_piped(&c, "talk 2 power-off", (char *[]){"--quiet", "--console", path, NULL});
	assert_int_equal(finish(&c), 0);
	assert_string_equal(c.text, "");
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_string_equal(text, "line 0\r\nline 1\r\n");
	close(fd);
	unlink(path);
}

static void
test_locked_disk(void **state)
{
	char path[] = "/tmp/test-front-disk-XXXXXX", pid[32];
	int fd = mkstemp(path);
	char *writer[] = {"--disk", path, NULL};
	char readonly[64], *reader[] = {"--disk", readonly, NULL};
	struct child first, second;

	assert_int_equal(ftruncate(fd, 4096), 0);
	close(fd);
	start_piped(&first, "echo", writer);
	expect(&first, "ready\r\n");
	start_piped(&second, "echo", writer);
	assert_int_equal(finish(&second), 2);
	assert_non_null(strstr(second.text, "locked by another VM"));
	snprintf(pid, sizeof(pid), "(process %d)", (int)first.pid);
	if (strstr(second.text, "(process"))
		assert_non_null(strstr(second.text, pid));
	snprintf(readonly, sizeof(readonly), "%s,readonly", path);
	start_piped(&second, "echo", reader);
	assert_int_equal(finish(&second), 2);
	/* The lock is the VM's, and goes with it. */
	kill(find_vm(first.pid), SIGKILL);
	assert_int_equal(finish(&first), 137);
	start_piped(&first, "echo", reader);
	expect(&first, "ready\r\n");
	start_piped(&second, "power-off", reader);
	assert_int_equal(finish(&second), 0);
	kill(first.pid, SIGTERM);
	assert_int_equal(finish(&first), 143);
	unlink(path);
}

static int
front_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_statuses),
		cmocka_unit_test(test_auto_says_why),
		cmocka_unit_test(test_echo_and_end_of_input),
		cmocka_unit_test(test_all_output_arrives),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_deaf_vm_is_killed),
		cmocka_unit_test(test_vm_killed),
		cmocka_unit_test(test_vm_ends_with_front),
		cmocka_unit_test(test_terminal_restored),
		cmocka_unit_test(test_terminal_keys),
		cmocka_unit_test(test_no_terminal),
		cmocka_unit_test(test_console_file),
		cmocka_unit_test(test_locked_disk),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	unlink(kernel_path);
	return failed;
}

int
main(int argc, char **argv)
{
	if (strcmp(argv[0], PROTOCOL_VM_ARGV0) == 0) {
		log_setup(2, LOG_WARNING);
		return vm_process_main(PROTOCOL_FD);
	}
	if (argc > 1 && strcmp(argv[1], "run") == 0)
		return cmd_run(argc - 1, argv + 1);
	return front_tests();
}
