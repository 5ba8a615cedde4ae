/*
 * vCPU threads.
 *
 * A kick is taken to be sticky: one that comes before run makes that run return
 * KICKED at its first instruction boundary. So a vCPU whose last exit was anything
 * else is kicked and run once more before it parks: the engine takes an answer
 * and completes the instruction, and tells what it still had to tell.
 */
#define _GNU_SOURCE
#include "machine/vcpus.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A vCPU that is halted for ever looks again after this long, should its engine not wait itself. */
enum { VCPUS_HALT_NS = 20000000 };

struct vcpus_thread {
	struct vcpus *vcpus;
	unsigned index;
	pthread_t thread;
	bool started;		  /* the thread exists */
	struct engine_vcpu *vcpu; /* its own thread's */
	struct engine_exit exit;  /* its own thread's */
	unsigned checked;	  /* its own thread's: last halt check answered */
	bool ready;		  /* [p] vcpu_create is over, result in err */
	int err;		  /* [p] */
	bool parked;		  /* [p] */
	bool over;		  /* [p] failed: waits for a new state */
	bool dead;		  /* [p] cannot run again by itself */
	int (*job)(struct vcpus_thread *t, void *arg); /* [p] */
	void *job_arg;				       /* [p] */
	int job_result;				       /* [p] */
};

struct vcpus {
	struct vcpus_config config;
	pthread_mutex_t lock; /* [p] innermost */
	pthread_cond_t changed;
	bool quit;	     /* [p] */
	int park;	     /* [a] written with p held */
	unsigned halt_check; /* [a] number of the latest check */
	struct vcpus_thread threads[];
};

static bool
vcpus_park_wanted(const struct vcpus *vcpus)
{
	return __atomic_load_n(&vcpus->park, __ATOMIC_ACQUIRE);
}

static void
vcpus_kick(struct vcpus_thread *t)
{
	if (t->vcpu)
		t->vcpus->config.ops->kick(t->vcpu);
}

/* ---- exits ---- */

static bool
vcpus_exit_port(struct vcpus_thread *t)
{
	struct vcpus_config *c = &t->vcpus->config;
	struct engine_exit *exit = &t->exit;

	pthread_mutex_lock(c->lock);
	if (exit->port.write)
		memory_port_write(c->memory, exit->port.port, exit->port.size, exit->port.data);
	else
		exit->port.data =
			(u32)memory_port_read(c->memory, exit->port.port, exit->port.size);
	pthread_mutex_unlock(c->lock);
	return true;
}

/* The largest access of 1, 2, 4 or 8 bytes that LEFT allows. */
static unsigned
vcpus_piece(unsigned left)
{
	unsigned size = 8;

	while (size > left)
		size /= 2;
	return size;
}

static bool
vcpus_exit_mmio(struct vcpus_thread *t)
{
	struct vcpus_config *c = &t->vcpus->config;
	struct engine_exit *exit = &t->exit;
	u64 data = exit->mmio.write ? exit->mmio.data : 0;
	unsigned size, done;

	pthread_mutex_lock(c->lock);
	for (done = 0; done < exit->mmio.size && done < 8; done += size) {
		u64 gpa = exit->mmio.gpa + done;

		size = vcpus_piece(exit->mmio.size - done);
		if (exit->mmio.write)
			memory_mmio_write(c->memory, gpa, size, data >> (8 * done));
		else
			data |= memory_mmio_read(c->memory, gpa, size) << (8 * done);
	}
	pthread_mutex_unlock(c->lock);
	exit->mmio.data = data;
	return true;
}

static bool
vcpus_exit_eoi(struct vcpus_thread *t)
{
	struct vcpus_config *c = &t->vcpus->config;

	pthread_mutex_lock(c->lock);
	c->eoi(c->opaque, t->exit.eoi.vector);
	pthread_mutex_unlock(c->lock);
	return true;
}

/* This vCPU is dead as of check NUMBER, or not. Tells the machine once all are. */
static void
vcpus_answer_check(struct vcpus_thread *t, unsigned number, bool dead)
{
	struct vcpus *vcpus = t->vcpus;
	bool all = true;

	t->checked = number;
	pthread_mutex_lock(&vcpus->lock);
	t->dead = dead;
	for (unsigned i = 0; i < vcpus->config.count; i++)
		all = all && vcpus->threads[i].dead;
	pthread_mutex_unlock(&vcpus->lock);
	if (all)
		vcpus->config.halted(vcpus->config.opaque);
}

static bool
vcpus_state_dead(const struct cpu_state *s)
{
	if (s->run_state == CPU_WAIT_INIT || s->run_state == CPU_WAIT_SIPI)
		return true;
	return s->run_state == CPU_HALTED && !(s->rflags & RFLAGS_IF) && !s->events.nmi_pending &&
	       !s->events.exception_pending && !s->events.interrupt_pending;
}

/* Another vCPU has halted for ever: is this one as dead? */
static bool
vcpus_exit_kicked(struct vcpus_thread *t)
{
	unsigned number = __atomic_load_n(&t->vcpus->halt_check, __ATOMIC_ACQUIRE);
	struct cpu_state *state;

	if (number == t->checked)
		return true;
	state = aligned_alloc(64, align_up(sizeof(*state), 64));
	if (!state)
		return true;
	if (t->vcpus->config.ops->get_state(t->vcpu, state) == 0)
		vcpus_answer_check(t, number, vcpus_state_dead(state));
	free(state);
	return true;
}

/* Waits a little, unless asked to park or kicked off by quit. */
static void
vcpus_doze(struct vcpus *vcpus)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += VCPUS_HALT_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&vcpus->lock);
	if (!vcpus->park && !vcpus->quit)
		pthread_cond_timedwait(&vcpus->changed, &vcpus->lock, &until);
	pthread_mutex_unlock(&vcpus->lock);
}

static bool
vcpus_exit_halt(struct vcpus_thread *t)
{
	struct vcpus *vcpus = t->vcpus;
	unsigned number;

	if (t->dead) { /* said before, and the engine does not wait by itself */
		vcpus_doze(vcpus);
		return true;
	}
	number = __atomic_add_fetch(&vcpus->halt_check, 1, __ATOMIC_ACQ_REL);
	for (unsigned i = 0; i < vcpus->config.count; i++)
		if (i != t->index)
			vcpus_kick(&vcpus->threads[i]);
	vcpus_answer_check(t, number, true);
	return true;
}

/* Triple fault, or an engine at its end. */
static bool
vcpus_exit_fatal(struct vcpus_thread *t)
{
	struct vcpus *vcpus = t->vcpus;
	struct cpu_state *state = aligned_alloc(64, align_up(sizeof(*state), 64));
	bool known = state && vcpus->config.ops->get_state(t->vcpu, state) == 0;

	pthread_mutex_lock(&vcpus->lock);
	t->over = true;
	pthread_mutex_unlock(&vcpus->lock);
	vcpus->config.failed(vcpus->config.opaque, t->index, &t->exit, known ? state : NULL);
	free(state);
	return false;
}

/* Each: false if the vCPU is to park. */
static bool (*const vcpus_exits[])(struct vcpus_thread *t) = {
	[EXIT_PORT] = vcpus_exit_port,	   [EXIT_MMIO] = vcpus_exit_mmio,
	[EXIT_HALT] = vcpus_exit_halt,	   [EXIT_SHUTDOWN] = vcpus_exit_fatal,
	[EXIT_KICKED] = vcpus_exit_kicked, [EXIT_EOI] = vcpus_exit_eoi,
	[EXIT_FAILED] = vcpus_exit_fatal,
};

static bool
vcpus_dispatch(struct vcpus_thread *t)
{
	unsigned kind = t->exit.kind;

	if (kind >= ARRAY_LEN(vcpus_exits)) {
		t->exit.kind = EXIT_FAILED;
		snprintf(t->exit.failed.why, sizeof(t->exit.failed.why), "unknown exit %u", kind);
		return vcpus_exit_fatal(t);
	}
	if (t->dead && kind != EXIT_HALT && kind != EXIT_KICKED) {
		pthread_mutex_lock(&t->vcpus->lock);
		t->dead = false;
		pthread_mutex_unlock(&t->vcpus->lock);
	}
	return vcpus_exits[kind](t);
}

static void
vcpus_run(struct vcpus_thread *t)
{
	const struct engine_ops *ops = t->vcpus->config.ops;
	int err;

	for (;;) {
		err = ops->run(t->vcpu, &t->exit);
		if (err) {
			t->exit.kind = EXIT_FAILED;
			snprintf(t->exit.failed.why, sizeof(t->exit.failed.why), "%s",
				 strerror(err < 0 ? -err : err));
		}
		if (!vcpus_dispatch(t))
			return;
		if (!vcpus_park_wanted(t->vcpus))
			continue;
		if (t->exit.kind == EXIT_KICKED || t->exit.kind == EXIT_HALT)
			return;
		ops->kick(t->vcpu);
	}
}

/* ---- threads ---- */

/* Parks until there is something to do: true to run, false to quit. */
static bool
vcpus_wait(struct vcpus_thread *t)
{
	struct vcpus *vcpus = t->vcpus;

	pthread_mutex_lock(&vcpus->lock);
	t->parked = true;
	pthread_cond_broadcast(&vcpus->changed);
	while (!vcpus->quit && (t->job || vcpus->park || t->over)) {
		if (!t->job) {
			pthread_cond_wait(&vcpus->changed, &vcpus->lock);
			continue;
		}
		t->job_result = t->job(t, t->job_arg);
		t->job = NULL;
		pthread_cond_broadcast(&vcpus->changed);
	}
	t->parked = false;
	pthread_mutex_unlock(&vcpus->lock);
	return !vcpus->quit;
}

/* What the process is told by signals is not for these threads. */
static void
vcpus_block_signals(void)
{
	static const int signals[] = {SIGINT,	SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE, SIGCHLD,
				      SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT};
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *
vcpus_thread(void *opaque)
{
	struct vcpus_thread *t = opaque;
	struct vcpus *vcpus = t->vcpus;
	struct engine_vcpu *vcpu = NULL;
	char name[16];
	int err;

	vcpus_block_signals();
	snprintf(name, sizeof(name), "vcpu %u", t->index);
	pthread_setname_np(pthread_self(), name);
	err = vcpus->config.ops->vcpu_create(vcpus->config.engine, t->index, &vcpu);
	pthread_mutex_lock(&vcpus->lock);
	t->vcpu = err ? NULL : vcpu;
	t->err = err;
	t->ready = true;
	pthread_cond_broadcast(&vcpus->changed);
	pthread_mutex_unlock(&vcpus->lock);
	if (err)
		return NULL;
	while (vcpus_wait(t))
		vcpus_run(t);
	/* Kicks may still come from others until they have quit too: destroyed after joining. */
	return NULL;
}

/* One after the other: engines need not create vCPUs in parallel. */
static int
vcpus_start_thread(struct vcpus *vcpus, unsigned index)
{
	struct vcpus_thread *t = &vcpus->threads[index];
	int err;

	t->vcpus = vcpus;
	t->index = index;
	t->exit.kind = EXIT_KICKED;
	err = pthread_create(&t->thread, NULL, vcpus_thread, t);
	if (err)
		return -err;
	t->started = true;
	pthread_mutex_lock(&vcpus->lock);
	while (!t->ready)
		pthread_cond_wait(&vcpus->changed, &vcpus->lock);
	pthread_mutex_unlock(&vcpus->lock);
	return t->err;
}

int
vcpus_create(struct vcpus **out, const struct vcpus_config *config)
{
	struct vcpus *vcpus = calloc(1, sizeof(*vcpus) + config->count * sizeof(vcpus->threads[0]));
	int err = 0;

	if (!vcpus)
		return -ENOMEM;
	vcpus->config = *config;
	vcpus->park = true;
	pthread_mutex_init(&vcpus->lock, NULL);
	pthread_cond_init(&vcpus->changed, NULL);
	for (unsigned i = 0; i < config->count && !err; i++)
		err = vcpus_start_thread(vcpus, i);
	if (err) {
		vcpus_destroy(vcpus);
		return err;
	}
	vcpus_park(vcpus); /* the last ones may still be on their way there */
	*out = vcpus;
	return 0;
}

void
vcpus_destroy(struct vcpus *vcpus)
{
	if (!vcpus)
		return;
	vcpus_park(vcpus);
	pthread_mutex_lock(&vcpus->lock);
	vcpus->quit = true;
	pthread_cond_broadcast(&vcpus->changed);
	pthread_mutex_unlock(&vcpus->lock);
	for (unsigned i = 0; i < vcpus->config.count; i++)
		if (vcpus->threads[i].started)
			pthread_join(vcpus->threads[i].thread, NULL);
	for (unsigned i = 0; i < vcpus->config.count; i++)
		if (vcpus->threads[i].vcpu)
			vcpus->config.ops->vcpu_destroy(vcpus->threads[i].vcpu);
	pthread_cond_destroy(&vcpus->changed);
	pthread_mutex_destroy(&vcpus->lock);
	free(vcpus);
}

void
vcpus_resume(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	__atomic_store_n(&vcpus->park, 0, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&vcpus->changed);
	pthread_mutex_unlock(&vcpus->lock);
}

void
vcpus_ask_park(struct vcpus *vcpus)
{
	pthread_mutex_lock(&vcpus->lock);
	__atomic_store_n(&vcpus->park, 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&vcpus->changed);
	for (unsigned i = 0; i < vcpus->config.count; i++)
		if (!vcpus->threads[i].parked)
			vcpus_kick(&vcpus->threads[i]);
	pthread_mutex_unlock(&vcpus->lock);
}

static bool
vcpus_all_parked(const struct vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->config.count; i++)
		if (vcpus->threads[i].vcpu && !vcpus->threads[i].parked)
			return false;
	return true;
}

void
vcpus_park(struct vcpus *vcpus)
{
	vcpus_ask_park(vcpus);
	pthread_mutex_lock(&vcpus->lock);
	while (!vcpus_all_parked(vcpus))
		pthread_cond_wait(&vcpus->changed, &vcpus->lock);
	pthread_mutex_unlock(&vcpus->lock);
}

/* Has JOB done by the vCPU's own thread, which must be parked. */
static int
vcpus_call(struct vcpus *vcpus, unsigned index, int (*job)(struct vcpus_thread *, void *),
	   void *arg)
{
	struct vcpus_thread *t;
	int result = -EBUSY;

	if (index >= vcpus->config.count)
		return -EINVAL;
	t = &vcpus->threads[index];
	pthread_mutex_lock(&vcpus->lock);
	if (t->parked && vcpus->park) {
		t->job = job;
		t->job_arg = arg;
		pthread_cond_broadcast(&vcpus->changed);
		while (t->job)
			pthread_cond_wait(&vcpus->changed, &vcpus->lock);
		result = t->job_result;
	}
	pthread_mutex_unlock(&vcpus->lock);
	return result;
}

static int
vcpus_job_get(struct vcpus_thread *t, void *arg)
{
	return t->vcpus->config.ops->get_state(t->vcpu, arg);
}

static int
vcpus_job_set(struct vcpus_thread *t, void *arg)
{
	t->exit.kind = EXIT_KICKED;
	t->over = t->dead = false;
	return t->vcpus->config.ops->set_state(t->vcpu, arg);
}

int
vcpus_get_state(struct vcpus *vcpus, unsigned index, struct cpu_state *state)
{
	return vcpus_call(vcpus, index, vcpus_job_get, state);
}

int
vcpus_set_state(struct vcpus *vcpus, unsigned index, const struct cpu_state *state)
{
	struct cpu_state copy = *state;

	return vcpus_call(vcpus, index, vcpus_job_set, &copy);
}
