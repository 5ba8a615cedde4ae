/*
 * The threads that run a machine's virtual processors. Each creates its own
 * engine vCPU and then stands ("parked") until vcpus_resume. A parked vCPU is at
 * an instruction boundary: no exit of it is half done.
 *
 * Threads: create, destroy, park, resume and the state calls from the machine's
 * thread, without the machine's lock; vcpus_ask_park from any.
 */
#ifndef MACHINE_VCPUS_H
#define MACHINE_VCPUS_H

#include <pthread.h>

#include "cpu/cpu_state.h"
#include "engine/engine.h"
#include "memory/memory.h"

struct vcpus;

struct vcpus_config {
	const struct engine_ops *ops;
	struct engine *engine;
	struct memory *memory;
	pthread_mutex_t *lock; /* the machine's, taken for I/O */
	unsigned count;
	void *opaque;
	/* A processor ended a level interrupt. With the machine's lock. */
	void (*eoi)(void *opaque, u8 vector);
	/* A vCPU cannot go on, it is parked now. Its thread, no lock. STATE may be NULL. */
	void (*failed)(void *opaque, unsigned index, const struct engine_exit *exit,
		       const struct cpu_state *state);
	/* No vCPU can ever run again: all halted with interrupts off, or never started. */
	void (*halted)(void *opaque);
};

/* 0 or -errno, with all threads there and parked. */
int vcpus_create(struct vcpus **out, const struct vcpus_config *config);
void vcpus_destroy(struct vcpus *vcpus);

void vcpus_resume(struct vcpus *vcpus);
/* Asks all to park, soon. */
void vcpus_ask_park(struct vcpus *vcpus);
/* Asks and waits until all are parked. */
void vcpus_park(struct vcpus *vcpus);

/* Only while parked: 0 or -errno. Setting a state makes a failed vCPU runnable again. */
int vcpus_get_state(struct vcpus *vcpus, unsigned index, struct cpu_state *state);
int vcpus_set_state(struct vcpus *vcpus, unsigned index, const struct cpu_state *state);

#endif
