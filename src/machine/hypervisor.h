/*
 * What runs a machine's processors: an engine with the machine's memory and
 * vCPUs in it, and how another engine takes its place while the machine lives.
 *
 *	hypervisor_prepare	the other one is made beside the one that runs
 *	(all vCPUs are parked)
 *	hypervisor_take_over	registers, bindings and lines cross; or nothing did
 *	(vCPUs go on, on the new one or on the old)
 *	hypervisor_dismiss	the one that is not used goes, on a thread of its own
 *
 * Threads: messages and lines from any; bindings with the machine's lock; prepare
 * and dismiss on the machine's thread without the lock, take_over with it. The
 * vcpus change with take_over.
 */
#ifndef MACHINE_HYPERVISOR_H
#define MACHINE_HYPERVISOR_H

#include <pthread.h>

#include "cpu/cpuid.h"
#include "engine/engine.h"
#include "machine/vcpus.h"
#include "memory/memory.h"

struct hypervisor;

struct hypervisor_config {
	const struct engine_ops *ops; /* of the first engine */
	int device;		      /* likewise; the caller's */
	bool unchecked;		      /* likewise, see struct engine_config */
	struct memory *memory;
	const struct cpu_model *model;
	unsigned vcpus;
	u64 code_cache;
	pthread_mutex_t *lock; /* the machine's */
	void *opaque;
	int (*extint_vector)(void *opaque); /* as in struct engine_config */
	/* As in struct vcpus_config. */
	void (*eoi)(void *opaque, u8 vector);
	void (*failed)(void *opaque, unsigned index, const struct engine_exit *exit,
		       const struct cpu_state *state);
	void (*halted)(void *opaque);
};

/* 0 or -errno, with all vCPUs there and parked. */
int hypervisor_create(struct hypervisor **out, const struct hypervisor_config *config);
void hypervisor_destroy(struct hypervisor *hypervisor); /* NULL is fine */

const struct engine_ops *hypervisor_ops(const struct hypervisor *hypervisor);
struct vcpus *hypervisor_vcpus(const struct hypervisor *hypervisor);

void hypervisor_send_msi(struct hypervisor *hypervisor, u64 address, u32 data);
void hypervisor_set_extint(struct hypervisor *hypervisor, bool level);
void hypervisor_set_routes(struct hypervisor *hypervisor, const struct ioapic_route *routes,
			   unsigned count);
/* Bindings stay when engines change. 0 or -errno. */
int hypervisor_bind_notify(struct hypervisor *hypervisor, u64 gpa, unsigned size, int eventfd);
void hypervisor_unbind_notify(struct hypervisor *hypervisor, u64 gpa, unsigned size, int eventfd);

/* 0 or -errno, then there is nothing to dismiss. */
int hypervisor_prepare(struct hypervisor *hypervisor, const struct engine_ops *ops, int device,
		       bool unchecked);
/* 0, or -errno: the old one is as it was. */
int hypervisor_take_over(struct hypervisor *hypervisor);
void hypervisor_dismiss(struct hypervisor *hypervisor);

#endif
