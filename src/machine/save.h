/*
 * A machine's saved state as a file: everything that its guest could tell the
 * difference by. docs/state.md describes it.
 *
 *	note, cpu-model, machine, a section a device, cpu 0.., ram.., end
 *
 * The note is its owner's: text that comes back as it was given.
 */
#ifndef MACHINE_SAVE_H
#define MACHINE_SAVE_H

#include "cpu/cpuid.h"
#include "machine/pc.h"
#include "machine/vcpus.h"
#include "memory/memory.h"
#include "state/file.h"

enum { SAVE_NOTE_MAX = 256 << 10 };

/* What is saved, and loaded into. */
struct save_machine {
	struct memory *memory;
	struct pc *pc;
	struct vcpus *vcpus;
	unsigned vcpu_count;
	const struct cpu_model *model;
	unsigned *resets;
};

/* The vCPUs stand, nothing is in flight. NOW is the monotonic time up to which timers have run.
 * 0, or -errno and one line in WHY. */
int save_write(const struct save_machine *m, const struct state_io *io, const char *note, u64 now,
	       char *why, size_t why_size);
/* Into a machine that was just created. 0, or -errno and WHY: then it is of no use any more. */
int save_read(const struct save_machine *m, const struct state_io *io, u64 now, char *why,
	      size_t why_size);

/* Note (to be freed) and CPU model of a state, which need to be known before there can be a
 * machine for it, and the size of its RAM. NOTE and MODEL may be NULL. 0, or -errno and WHY. */
int save_peek(const struct state_io *io, char **note, struct cpu_model *model, u64 *ram_size,
	      char *why, size_t why_size);

#endif
