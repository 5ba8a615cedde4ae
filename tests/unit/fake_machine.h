/*
 * A machine without CPUs, for tests of the processes around it: the functions
 * of machine/machine.h, included by one source of a test program. What it does
 * is written in its "kernel", as words:
 *
 *	power-off | reset | debug-exit N | guest-fail | engine-fail
 *		it ends so, once started
 *	no-create	machine_create refuses
 *	echo		what comes from the console goes back, upper case; `q` powers off
 *	segv | abort	the VM process dies
 *	talk N		writes N lines to the console first
 *	deaf		machine_stop has no effect
 */
#ifndef FAKE_MACHINE_H
#define FAKE_MACHINE_H

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/machine.h"
#include "state/file.h"

struct machine {
	pthread_mutex_t lock;
	struct loop *loop;
	struct loop_fd *console;
	struct machine_config config;
	enum machine_status status;
	struct machine_end end;
	unsigned buttons;
	char script[256];
};

static void
fake_write(struct machine *m, const char *text, size_t len)
{
	struct pollfd p = {.fd = m->config.serial.out, .events = POLLOUT};
	ssize_t n;

	while (m->config.serial.out >= 0 && len > 0 && poll(&p, 1, 5000) > 0) {
		n = write(m->config.serial.out, text, len);
		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void
fake_end(struct machine *m, enum machine_end_kind kind, u32 value, const char *text)
{
	m->end.kind = kind;
	m->end.value = value;
	snprintf(m->end.text, sizeof(m->end.text), "%s", text);
	m->status = MACHINE_ENDED;
	loop_stop(m->loop);
}

static void
fake_console(void *opaque, int events)
{
	struct machine *m = opaque;
	char bytes[256];
	ssize_t n = read(m->config.serial.in, bytes, sizeof(bytes));

	(void)events;
	if (n <= 0) {
		loop_set_events(m->console, 0);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (bytes[i] == 'q')
			fake_end(m, MACHINE_POWERED_OFF, 0, "the guest powered off");
		bytes[i] = (char)toupper(bytes[i]);
	}
	fake_write(m, bytes, (size_t)n);
}

int
machine_create(struct machine **out, const struct machine_config *config, char *why,
	       size_t why_size)
{
	struct machine *m = calloc(1, sizeof(*m));

	m->config = *config;
	if (pread(config->kernel_fd, m->script, sizeof(m->script) - 1, 0) < 0 ||
	    strncmp(m->script, "no-create", 9) == 0) {
		snprintf(why, why_size, "the kernel is not one; give another");
		for (unsigned i = 0; i < config->disk_count; i++)
			close(config->disks[i].fd);
		free(m);
		return -ENOEXEC;
	}
	pthread_mutex_init(&m->lock, NULL);
	loop_create(&m->loop, &m->lock);
	if (config->serial.in >= 0 && strstr(m->script, "echo"))
		loop_add_fd(m->loop, config->serial.in, LOOP_READ, fake_console, m, &m->console);
	*out = m;
	return 0;
}

void
machine_destroy(struct machine *m)
{
	if (m == NULL)
		return;
	if (m->console)
		loop_remove_fd(m->console);
	loop_destroy(m->loop);
	for (unsigned i = 0; i < m->config.disk_count; i++)
		close(m->config.disks[i].fd);
	free(m);
}

int
machine_start(struct machine *m)
{
	m->status = MACHINE_RUNNING;
	return 0;
}

static void
fake_script(struct machine *m)
{
	const char *talk = strstr(m->script, "talk");
	char line[64];

	for (int i = 0; talk && i < atoi(talk + 5); i++)
		fake_write(m, line, (size_t)snprintf(line, sizeof(line), "line %d\r\n", i));
	if (strstr(m->script, "echo"))
		fake_write(m, "ready\r\n", 7);
	if (strstr(m->script, "power-off"))
		fake_end(m, MACHINE_POWERED_OFF, 0, "the guest powered off");
	if (strstr(m->script, "reset"))
		fake_end(m, MACHINE_RESET, 0, "the guest reset the machine");
	if (strstr(m->script, "debug-exit"))
		fake_end(m, MACHINE_DEBUG_EXIT, (u32)atoi(strstr(m->script, "debug-exit") + 11),
			 "debug exit");
	if (strstr(m->script, "guest-fail"))
		fake_end(m, MACHINE_GUEST_FAILED, 0, "triple fault at 0x1234\nrip 1234 rax 0");
	if (strstr(m->script, "engine-fail"))
		fake_end(m, MACHINE_ENGINE_FAILED, 0, "the engine cannot go on");
	if (strstr(m->script, "segv")) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer has its own ideas */
		raise(SIGSEGV);
	}
	if (strstr(m->script, "abort"))
		abort();
}

void
machine_run(struct machine *m, struct machine_end *end)
{
	fake_script(m);
	if (m->status != MACHINE_ENDED)
		loop_run(m->loop);
	*end = m->end;
}

void
machine_pause(struct machine *m)
{
	m->status = MACHINE_PAUSED;
}

void
machine_resume(struct machine *m)
{
	m->status = MACHINE_RUNNING;
}

void
machine_stop(struct machine *m)
{
	if (strstr(m->script, "deaf") == NULL)
		fake_end(m, MACHINE_STOPPED, 0, "stopped");
}

void
machine_power_button(struct machine *m)
{
	m->buttons++;
	fake_end(m, MACHINE_POWERED_OFF, 0, "the guest powered off");
}

enum machine_status
machine_status(const struct machine *m)
{
	return m->status;
}

u64
machine_uptime_ns(const struct machine *m)
{
	(void)m;
	return 12345;
}

unsigned
machine_resets(const struct machine *m)
{
	(void)m;
	return 0;
}

unsigned
machine_switches(const struct machine *m)
{
	(void)m;
	return 0;
}

unsigned
machine_rescues(const struct machine *m)
{
	(void)m;
	return 0;
}

const char *
machine_engine_name(const struct machine *m)
{
	return m->config.engine->name;
}

/* "no-switch" refuses. */
int
machine_switch(struct machine *m, const struct engine_ops *engine, int device, bool force,
	       struct machine_switch_times *times, char *why, size_t why_size)
{
	(void)device;
	(void)force;
	if (strstr(m->script, "no-switch")) {
		snprintf(why, why_size, "the other one does not start; it goes on as it was");
		return -EIO;
	}
	m->config.engine = engine;
	*times = (struct machine_switch_times){1000, 2000};
	return 0;
}

struct loop *
machine_loop(struct machine *m)
{
	return m->loop;
}

int
machine_vcpu_state(struct machine *m, unsigned index, struct cpu_state *state)
{
	(void)index;
	if (m->status != MACHINE_PAUSED)
		return -EBUSY;
	memset(state, 0, sizeof(*state));
	state->rip = 0xfff0;
	return 0;
}

/* Its state is the note alone. */
int
machine_save(struct machine *m, const struct state_io *io, const char *note, char *why,
	     size_t why_size)
{
	if (strstr(m->script, "no-save")) {
		snprintf(why, why_size, "the state cannot be written: No space left on device");
		return -ENOSPC;
	}
	return io->write(io->opaque, note, strlen(note)) == (ssize_t)strlen(note) ? 0 : -EIO;
}

int
machine_load(struct machine *m, const struct state_io *io, char *why, size_t why_size)
{
	(void)m;
	(void)io;
	snprintf(why, why_size, "no states here");
	return -EINVAL;
}

int
machine_peek(const struct state_io *io, char **note, struct cpu_model *model, u64 *ram_size,
	     char *why, size_t why_size)
{
	(void)io;
	(void)note;
	(void)model;
	(void)ram_size;
	snprintf(why, why_size, "no states here");
	return -EINVAL;
}

int
machine_model_fits(const struct cpu_model *model, unsigned vcpus, char *why, size_t why_size)
{
	(void)model;
	(void)vcpus;
	(void)why;
	(void)why_size;
	return 0;
}

void
machine_retire(struct machine *m)
{
	fake_end(m, MACHINE_SUSPENDED, 0, "the VM was suspended");
}

int
cpu_model_compute(struct cpu_model *model, const char *name, unsigned vcpus, const char **missing)
{
	(void)missing;
	(void)vcpus;
	memset(model, 0, sizeof(*model));
	snprintf(model->name, sizeof(model->name), "%s", name);
	return strncmp(name, "x86-64-v", 8) == 0 ? 0 : -ENOENT;
}

static void
fake_probe(int device, struct engine_probe *probe)
{
	(void)device;
	memset(probe, 0, sizeof(*probe));
	probe->usable = true;
}

const struct engine_ops engine_translator = {.name = "biga", .probe = fake_probe};

#endif
