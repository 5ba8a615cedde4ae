/*
 * The board: which devices a machine has, where they answer, and how their
 * interrupts are wired. Under the machine's lock but for create and destroy.
 */
#ifndef MACHINE_PC_H
#define MACHINE_PC_H

#include "bus/device.h"
#include "machine/hypervisor.h"
#include "machine/machine.h"

struct pc;

struct pc_config {
	struct machine_config *machine; /* fds of disks and nets become -1 as they are taken over */
	const struct device_host *host;
	struct hypervisor *hypervisor;
	u8 phys_bits;
};

/* 0, or -errno and one line in WHY. */
int pc_create(struct pc **out, const struct pc_config *config, char *why, size_t why_size);
void pc_destroy(struct pc *pc);

/* Power-on state: resets every device, does the firmware's part of the set-up, and writes the
 * ACPI tables, whose root pointer's gpa it returns; 0 if there is no room for them. */
u64 pc_power_on(struct pc *pc);

void pc_eoi(struct pc *pc, u8 vector);
/* The 8259's interrupt acknowledge: vector or -1. */
int pc_acknowledge(struct pc *pc);
void pc_power_button(struct pc *pc);
/* Whether the guest has shut its interrupts down, as before an orderly reset. */
bool pc_quiet(const struct pc *pc);
/* Writes what the guest has printed so far. Loop's thread. */
void pc_flush(struct pc *pc);

/* Everything that was written to disks is on them, and nothing is in flight; the guest's output is
 * out. -ETIMEDOUT after DEADLINE_NS (monotonic), or another -errno, and one line in WHY. vCPUs
 * standing, loop's thread. */
int pc_settle(struct pc *pc, u64 deadline_ns, char *why, size_t why_size);

/* The guest is told that it goes on from a state from which others may go on too. vCPUs have their
 * states. 0 or -errno. */
int pc_new_generation(struct pc *pc);

struct state_list;
/* Adds what is saved of the board and of every device (state/state.h). */
void pc_state(struct pc *pc, struct state_list *list);

#endif
