/*
 * The front process (see front.h). One poll loop on: signals (signalfd: no
 * handler ever runs), the control socket, the console relay. It ends when the
 * VM process is gone and what the guest wrote has been shown.
 *
 * poll, not epoll: standard input may be a regular file.
 */
#define _GNU_SOURCE
#include "cmd/front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/disk_mark.h"
#include "cmd/endpoint.h"
#include "cmd/front_net.h"
#include "cmd/front_watch.h"
#include "cmd/host_kvm.h"
#include "cmd/relay.h"
#include "cmd/spawn.h"
#include "cmd/state_note.h"
#include "vm/channel.h"
#include "vm/protocol.h"

enum {
	FRONT_QUIT_MS = 4000,  /* for a VM to end when asked */
	FRONT_DRAIN_MS = 2000, /* for its last output to be taken */
	FRONT_START_ID = 1,    /* names the answer to "start" */
	FRONT_POLL_SIGNALS = RELAY_POLLS,
	FRONT_POLL_CONTROL,
	FRONT_POLL_WATCH,
	FRONT_POLLS,
};

struct front {
	const struct run_options *options;
	struct terminal terminal;
	struct relay relay;
	struct front_net net;
	struct endpoint endpoint;
	struct front_watch watch; /* for the host's hypervisor */
	bool started;		  /* the VM runs: what it refuses now does not end it */
	bool on_kvm;
	struct channel *control; /* NULL once closed */
	int signals;
	pid_t vm;      /* 0 once reaped */
	int vm_status; /* of waitpid */
	bool decided;  /* STATUS is the exit status */
	int status;
	bool quitting;	 /* we asked the VM to end */
	int signal;	 /* that made us ask, or 0 */
	i64 deadline_ms; /* of the VM's end or of the last output, 0: none */
};

/* The first reason counts; later ones are its consequences. */
static void
front_decide(struct front *f, int status)
{
	if (!f->decided)
		f->status = status;
	f->decided = true;
}

static void
front_request(struct front *f, const char *name)
{
	if (f->control)
		channel_send(f->control, json_pack("{s:s}", "do", name), NULL, 0);
}

static void
front_quit(struct front *f, int status)
{
	if (f->quitting && f->vm)
		kill(f->vm, SIGKILL); /* asked twice */
	front_decide(f, status);
	front_request(f, "quit");
	f->quitting = true;
	f->deadline_ms = clock_now_ms() + FRONT_QUIT_MS;
}

/* A text of several lines: each is a message of its own. */
static void
front_say(const char *text)
{
	size_t len;

	for (; *text; text += len + (text[len] == '\n')) {
		len = strcspn(text, "\n");
		log_error("%.*s", (int)len, text);
	}
}

static int
front_end_status(const char *reason, u32 value)
{
	static const struct {
		const char *reason;
		int status;
	} statuses[] = {
		{PROTOCOL_END_POWERED_OFF, 0},	{PROTOCOL_END_RESET, 0},
		{PROTOCOL_END_SUSPENDED, 0},	{PROTOCOL_END_QUIT, 0},
		{PROTOCOL_END_GUEST_FAILED, 1}, {PROTOCOL_END_ENGINE_FAILED, 1},
	};

	if (strcmp(reason, PROTOCOL_END_DEBUG_EXIT) == 0)
		return (int)((value << 1 | 1) & 0xff);
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		if (strcmp(statuses[i].reason, reason) == 0)
			return statuses[i].status;
	}
	return 1;
}

static void
front_ended(struct front *f, const json_t *message)
{
	const char *reason = json_string_value(json_object_get(message, "reason"));
	const char *text = json_string_value(json_object_get(message, "text"));
	json_int_t value = json_integer_value(json_object_get(message, "value"));
	int status = front_end_status(reason ? reason : "", (u32)value);

	terminal_restore(&f->terminal);
	if (!f->decided && text && reason &&
	    (strcmp(reason, PROTOCOL_END_GUEST_FAILED) == 0 ||
	     strcmp(reason, PROTOCOL_END_ENGINE_FAILED) == 0))
		front_say(text);
	if (!f->decided && reason && strcmp(reason, PROTOCOL_END_SUSPENDED) == 0)
		log_info("the VM was suspended; `biga run --state` goes on from there");
	front_decide(f, status);
	if (f->deadline_ms == 0)
		f->deadline_ms = clock_now_ms() + FRONT_QUIT_MS;
}

/* ALL: even if one cannot be, for a state is refused for any disk that lacks its mark; else the VM
 * does not run then, and what is left of the marks is good. 0, or the first -errno and WHY. */
static int
front_clear_marks(const struct vm_config *c, bool all, char why[VM_WHY])
{
	char other[VM_WHY];
	int rc = 0, err;

	for (unsigned i = 0; i < c->disk_count && (all || !rc); i++) {
		if (c->disks[i].readonly)
			continue;
		err = disk_mark_clear(c->disks[i].path, rc ? other : why, VM_WHY);
		rc = rc ? rc : err;
	}
	return rc;
}

/* The VM is about to run with its disks: no state that was saved before is good any more. */
static void
front_go(struct front *f, bool first)
{
	char why[VM_WHY];
	int rc = front_clear_marks(&f->options->config, !first, why);

	if (rc && first) {
		terminal_restore(&f->terminal);
		log_error("%s", why);
		front_quit(f, EXIT_USAGE);
		return;
	}
	if (rc)
		log_warning("%s; do not go on from a state saved just now", why);
	if (f->control)
		channel_send(
			f->control,
			json_pack("{s:s, s:o}", "do", "go", "host", state_note_host(f->options)),
			NULL, 0);
}

/* Moves the VM: the answer comes as an event, or as a refusal. */
static void
front_switch(struct front *f, const char *to)
{
	int fd;

	if (strcmp(to, "kvm") == 0) {
		fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			log_warning("the VM stays where it is: /dev/kvm: %s; `biga doctor` says "
				    "more",
				    strerror(errno));
			return;
		}
		if (f->control)
			channel_send(f->control,
				     json_pack("{s:s, s:s}", "do", "give", "what", "kvm"), &fd, 1);
		close(fd);
	}
	if (f->control)
		channel_send(f->control, json_pack("{s:s, s:s}", "do", "switch", "to", to), NULL,
			     0);
}

/* A hypervisor that failed a VM is not one to go back to by itself. */
static void
front_switched(struct front *f, const json_t *message)
{
	const char *to = json_string_value(json_object_get(message, "to"));
	const char *from = json_string_value(json_object_get(message, "from"));

	f->on_kvm = to && strcmp(to, "kvm") == 0;
	front_watch_stop(&f->watch);
	if (!json_is_true(json_object_get(message, "rescued")))
		log_info("this VM has moved from %s to %s", from ? from : "", to ? to : "");
}

static bool
front_check_kvm(void)
{
	struct host_verdict verdict;
	struct host_kvm host;

	host_kvm_look(&host, &verdict, host_kvm_engine(), false, "");
	return verdict.usable;
}

/* Only who left the choice to us is to hear of it. */
static void
front_start_watch(struct front *f)
{
	f->on_kvm = strcmp(f->options->config.hypervisor, "kvm") == 0;
	if (strcmp(f->options->hypervisor, "auto") == 0 && !f->on_kvm && host_kvm_engine() &&
	    f->options->promote != RUN_PROMOTE_NEVER)
		front_watch_start(&f->watch, "/dev", front_check_kvm);
}

/* The cause that kept the VM from the host's hypervisor is gone. */
static void
front_promote(struct front *f)
{
	const char *name = f->options->config.name;

	front_watch_stop(&f->watch);
	if (f->options->promote == RUN_PROMOTE_ALWAYS) {
		front_switch(f, "kvm");
		return;
	}
	log_info("the host's hypervisor can be used now: `biga switch %s kvm` moves this VM to it",
		 name);
}

static void
front_message(struct front *f, const json_t *message)
{
	const char *event = json_string_value(json_object_get(message, "event"));
	const json_t *ok = json_object_get(message, "ok");
	const char *error = json_string_value(json_object_get(message, "error"));

	if (event && strcmp(event, PROTOCOL_EVENT_STARTED) == 0) {
		if (terminal_raw(&f->terminal) < 0)
			log_warning("the terminal cannot be made raw: keys arrive by lines");
		f->started = true;
		front_start_watch(f);
	} else if (event && strcmp(event, PROTOCOL_EVENT_SWITCHED) == 0) {
		front_switched(f, message);
	} else if (json_is_false(ok) && f->started) {
		log_warning("%s", error ? error : "the VM refused a request");
	} else if (event && strcmp(event, PROTOCOL_EVENT_ENDED) == 0) {
		front_ended(f, message);
	} else if (event && strcmp(event, PROTOCOL_EVENT_HELD) == 0) {
		front_go(f, false);
	} else if (json_is_true(ok) &&
		   json_integer_value(json_object_get(message, "id")) == FRONT_START_ID) {
		front_go(f, true);
	} else if (json_is_false(ok) && !f->decided) {
		terminal_restore(&f->terminal);
		log_error("%s", error ? error : "the VM process refused a request");
		front_quit(f, EXIT_USAGE);
	}
}

static void
front_control(struct front *f)
{
	json_t *message;
	int rc;

	while ((rc = channel_receive(f->control, &message)) > 0) {
		front_message(f, message);
		json_decref(message);
	}
	if (rc == 0)
		return;
	channel_destroy(f->control);
	f->control = NULL;
	/* Whatever it is doing, nobody can ask it to end any more. */
	if (f->deadline_ms == 0)
		f->deadline_ms = clock_now_ms() + FRONT_QUIT_MS;
}

/* The VM process ended without a word. */
static void
front_vm_lost(struct front *f)
{
	int sig;

	if (!WIFSIGNALED(f->vm_status)) {
		log_error("the VM process ended unexpectedly with status %d; this is an error of "
			  "Biga",
			  WEXITSTATUS(f->vm_status));
		front_decide(f, 1);
		return;
	}
	sig = WTERMSIG(f->vm_status);
	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGSYS:
	case SIGALRM:
		log_error("the VM process failed with signal %d (%s); this is an error of Biga",
			  sig, strsignal(sig));
		front_decide(f, 1);
		break;
	default:
		log_error("the VM process was killed by signal %d (%s)%s", sig, strsignal(sig),
			  sig == SIGKILL ? "; if nobody did that, the host ran out of memory: use "
					   "less --memory"
					 : "");
		front_decide(f, 128 + sig);
	}
}

static void
front_reap(struct front *f)
{
	bool usable;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (front_watch_reaped(&f->watch, pid, status, &usable)) {
			if (usable)
				front_promote(f);
		} else if (pid == f->net.pid) {
			f->net.pid = 0;
			if (f->vm && !f->decided)
				log_warning("the network process ended; the VM goes on without "
					    "network");
		} else if (pid == f->terminal.keeper) {
			f->terminal.keeper = 0;
			close(f->terminal.keeper_pipe);
		} else if (pid == f->vm) {
			f->vm = 0;
			f->vm_status = status;
			terminal_restore(&f->terminal);
			/* Its last message may still be in the socket. */
			if (f->control)
				front_control(f);
			if (!f->decided)
				front_vm_lost(f);
			f->deadline_ms = clock_now_ms() + FRONT_DRAIN_MS;
		}
	}
}

/* Stopped by somebody: the shell gets its terminal meanwhile. */
static void
front_stop(struct front *f)
{
	bool raw = f->terminal.raw;

	terminal_restore(&f->terminal);
	raise(SIGSTOP);
	if (raw)
		terminal_raw(&f->terminal);
}

static void
front_signals(struct front *f)
{
	struct signalfd_siginfo info;

	while (read(f->signals, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD:
			front_reap(f);
			break;
		case SIGTSTP:
			front_stop(f);
			break;
		case SIGWINCH:
			break; /* a serial line has no size */
		default:
			terminal_restore(&f->terminal);
			front_quit(f, 128 + (int)info.ssi_signo);
		}
	}
}

static void
front_keys(struct front *f, unsigned keys)
{
	if (keys & KEY_HELP)
		fputs(terminal_help, stderr);
	if (keys & KEY_POWER)
		front_request(f, "power-button");
	if (keys & KEY_SWITCH)
		front_switch(f, f->on_kvm ? "biga" : "kvm");
	if (keys & KEY_QUIT) {
		terminal_restore(&f->terminal);
		fputc('\n', stderr);
		front_quit(f, 0);
	}
}

static bool
front_done(struct front *f)
{
	if (f->deadline_ms && clock_now_ms() >= f->deadline_ms) {
		if (f->vm == 0)
			return true;
		/* It was asked, and did not. */
		kill(f->vm, SIGKILL);
		f->deadline_ms = clock_now_ms() + FRONT_QUIT_MS;
	}
	return f->vm == 0 && relay_done(&f->relay);
}

/* Until something is due: milliseconds, -1 for ever. */
static int
front_timeout(const struct front *f)
{
	i64 deadline = f->deadline_ms, watch = front_watch_deadline(&f->watch), left;

	if (watch && (!deadline || watch < deadline))
		deadline = watch;
	if (!deadline)
		return -1;
	left = deadline - clock_now_ms();
	return left > 0 ? (int)left : 0;
}

static void
front_loop(struct front *f)
{
	struct pollfd polls[FRONT_POLLS];

	while (!front_done(f)) {
		relay_polls(&f->relay, polls);
		polls[FRONT_POLL_SIGNALS] = (struct pollfd){.fd = f->signals, .events = POLLIN};
		polls[FRONT_POLL_CONTROL] = (struct pollfd){
			.fd = f->control ? channel_fd(f->control) : -1,
			.events =
				(short)(POLLIN |
					(f->control && channel_pending(f->control) ? POLLOUT : 0))};
		polls[FRONT_POLL_WATCH] =
			(struct pollfd){.fd = front_watch_fd(&f->watch), .events = POLLIN};
		if (poll(polls, FRONT_POLLS, front_timeout(f)) < 0 && errno != EINTR)
			break;
		if (polls[FRONT_POLL_SIGNALS].revents)
			front_signals(f);
		front_keys(f, relay_serve(&f->relay, polls));
		if (f->control && (polls[FRONT_POLL_CONTROL].revents & POLLOUT))
			channel_flush(f->control);
		if (f->control && polls[FRONT_POLL_CONTROL].revents)
			front_control(f);
		front_watch_serve(&f->watch, clock_now_ms(), polls[FRONT_POLL_WATCH].revents != 0);
	}
}

static int
front_block_signals(struct front *f)
{
	static const int caught[] = {SIGINT,  SIGTERM, SIGHUP,	SIGQUIT, SIGTSTP,
				     SIGCHLD, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(caught); i++)
		sigaddset(&set, caught[i]);
	/* An ignored SIGCHLD, inherited, would reap behind our back. */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	f->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return f->signals < 0 ? -errno : 0;
}

static int
front_spawn_vm(struct front *f, char *why, size_t size)
{
	char level[4];
	char *argv[] = {PROTOCOL_VM_ARGV0, level, NULL};
	int ends[2], rc;

	snprintf(level, sizeof(level), "%d", f->options->quiet ? LOG_ERROR : LOG_WARNING);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		snprintf(why, size,
			 "the VM's control socket cannot be made: %s; close some programs",
			 strerror(errno));
		return -EMFILE;
	}
	rc = spawn(&f->vm, "/proc/self/exe", argv, &ends[1], 1);
	close(ends[1]);
	if (rc == 0)
		rc = channel_create(&f->control, ends[0]);
	else
		close(ends[0]);
	if (rc < 0) {
		snprintf(why, size, "the VM process cannot be started: %s; is /proc mounted?",
			 strerror(-rc));
		f->vm = f->control ? f->vm : 0;
	}
	return rc;
}

static int
front_give(struct front *f, const char *kind, int index, int fd)
{
	char what[24];

	if (fd < 0)
		return 0;
	snprintf(what, sizeof(what), index < 0 ? "%s" : "%s%d", kind, index);
	return channel_send(f->control, json_pack("{s:s, s:s}", "do", "give", "what", what), &fd,
			    1);
}

static int
front_configure(struct front *f, const struct vm_resources *r)
{
	const struct vm_config *c = &f->options->config;
	int rc;

	rc = channel_send(
		f->control,
		json_pack("{s:s, s:i}", "hello", PROTOCOL_NAME, "version", PROTOCOL_VERSION), NULL,
		0);
	if (rc == 0)
		rc = channel_send(
			f->control,
			json_pack("{s:s, s:o}", "do", "configure", "config", vm_config_to_json(c)),
			NULL, 0);
	if (rc == 0)
		rc = front_give(f, "kernel", -1, r->kernel);
	for (unsigned i = 0; rc == 0 && i < c->initrd_count; i++)
		rc = front_give(f, "initrd", (int)i, r->initrds[i]);
	for (unsigned i = 0; rc == 0 && i < c->disk_count; i++)
		rc = front_give(f, "disk", (int)i, r->disks[i]);
	if (rc == 0)
		rc = front_give(f, "net", -1, f->net.frames);
	if (rc == 0 && r->kvm >= 0)
		rc = front_give(f, "kvm", -1, r->kvm);
	if (rc == 0)
		rc = front_give(f, "console", -1, r->console);
	if (rc == 0)
		rc = front_give(f, "state", -1, r->state);
	if (rc == 0)
		rc = front_give(f, "control", -1, f->endpoint.listener);
	return rc;
}

/* The VM's end of the console becomes a resource, ours the relay's. */
static int
front_console(struct front *f, struct vm_resources *r, char *why, size_t size)
{
	int ends[2] = {-1, -1};

	relay_init(&f->relay, -1, false);
	if (f->options->console != RUN_CONSOLE_STDIO)
		return 0;
	if (terminal_open(&f->terminal, why, size) < 0)
		return -ENOTTY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		snprintf(why, size, "the console cannot be made: %s; close some programs",
			 strerror(errno));
		return -EMFILE;
	}
	if (!terminal_is(&f->terminal))
		log_info("standard input is not a terminal: it goes to the guest as it is; end the "
			 "VM with a signal");
	relay_init(&f->relay, ends[0], terminal_is(&f->terminal));
	r->console = ends[1];
	return 0;
}

/* The VM's name is taken, and answers. Without a place for its socket it runs all the same. */
static int
front_open_endpoint(struct front *f, char *why, size_t size)
{
	const char *name = f->options->config.name;
	int rc = endpoint_open(&f->endpoint, name, why, size);

	if (rc == 0)
		log_info("this VM is %s: `biga info %s` tells about it", name, name);
	else if (rc != -EADDRINUSE)
		log_warning("%s; until then no command can reach this VM", why);
	return rc == -EADDRINUSE ? rc : 0;
}

static int
front_start(struct front *f, struct vm_resources *r, char *why, size_t size)
{
	int rc;

	snprintf(why, size, "the VM cannot start");
	rc = front_open_endpoint(f, why, size);
	if (rc == 0)
		rc = front_block_signals(f);
	if (rc == 0)
		rc = front_console(f, r, why, size);
	if (rc == 0)
		rc = front_net_start(&f->net, f->options, why, size);
	if (rc == 0)
		rc = front_spawn_vm(f, why, size);
	if (rc == 0)
		rc = front_net_wait(&f->net, why, size);
	if (rc < 0)
		return rc;
	rc = front_configure(f, r);
	if (rc == 0)
		rc = channel_send(f->control,
				  json_pack("{s:s, s:i, s:s, s:b}", "do", "start", "id",
					    FRONT_START_ID, "why", f->options->hypervisor_why,
					    "hold", 1),
				  NULL, 0);
	/* A VM process that went away shows in the loop; one that does not listen is ended. */
	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET) {
		log_error("the VM process does not take its configuration: %s; this is an error of "
			  "Biga",
			  strerror(-rc));
		kill(f->vm, SIGKILL);
		front_decide(f, 1);
	}
	vm_resources_close(r);
	front_net_close(&f->net);
	if (f->endpoint.listener >= 0)
		close(f->endpoint.listener); /* the VM process has it */
	f->endpoint.listener = -1;
	return 0;
}

int
front_run(const struct run_options *options, struct vm_resources *resources)
{
	struct front f = {.options = options,
			  .signals = -1,
			  .terminal = {.fd = -1, .keeper_pipe = -1},
			  .net = {.frames = -1, .status = -1},
			  .watch = {.events = -1},
			  .endpoint = {.folder = -1, .lock = -1, .listener = -1}};
	char why[VM_WHY];
	int rc = front_start(&f, resources, why, sizeof(why));

	if (rc < 0) {
		log_error("%s", why);
		front_decide(&f, EXIT_USAGE);
		vm_resources_close(resources);
		if (f.vm)
			kill(f.vm, SIGKILL);
	} else {
		front_loop(&f);
	}
	terminal_close(&f.terminal);
	channel_destroy(f.control);
	relay_close(&f.relay);
	front_net_close(&f.net);
	if (f.vm)
		waitpid(f.vm, NULL, 0);
	endpoint_close(&f.endpoint);
	front_watch_stop(&f.watch);
	if (f.signals >= 0)
		close(f.signals);
	return f.status;
}
