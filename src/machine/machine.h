/*
 * A whole virtual computer: the board, its processors and devices, and the
 * threads that run them. What is in it says machine/pc.c.
 *
 *	machine_create	-> everything is there, nothing runs
 *	machine_start	-> the vCPUs run
 *	machine_run	-> the caller's thread is the loop's, until the VM has ended
 *	machine_destroy
 *
 * Threads: create, start, run, pause, resume, switch and destroy are called on one
 * thread, the loop's (also from the loop's callbacks, which hold the machine's
 * lock). machine_stop and machine_power_button may be called from any thread.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "base/loop.h"
#include "base/types.h"
#include "block/block.h"
#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"
#include "engine/engine.h"
#include "memory/memory.h"

enum {
	MACHINE_VCPUS_MAX = 64,
	MACHINE_DISKS_MAX = 16,
	MACHINE_NETS_MAX = 4,
	MACHINE_INITRDS_MAX = 16,
	MACHINE_TEXT = 1024,
};
#define MACHINE_MEMORY_MIN (2ull << 20)
#define MACHINE_MEMORY_MAX (1ull << 38)

struct machine;

/* Why a VM ended. */
enum machine_end_kind {
	MACHINE_POWERED_OFF,   /* ACPI S5 */
	MACHINE_RESET,	       /* the guest asked for a reset, and the policy ends the VM there */
	MACHINE_DEBUG_EXIT,    /* value: the byte (or dword) written to port 0xf4 */
	MACHINE_GUEST_FAILED,  /* triple fault, reset in a panic, halted for ever: text */
	MACHINE_ENGINE_FAILED, /* the hypervisor could not go on, or a host problem: text */
	MACHINE_STOPPED,       /* by machine_stop */
	MACHINE_SUSPENDED,     /* by machine_retire: it goes on from its saved state */
};

struct machine_end {
	enum machine_end_kind kind;
	u32 value;
	/* For people: one line that says what happened; further lines hold the registers of the
	 * vCPU concerned, if there is one. Never empty. */
	char text[MACHINE_TEXT];
};

/* What a guest's request for a reset does. */
enum machine_reset_policy {
	MACHINE_RESET_REBOOTS, /* boots again; a reset in a panic (devices still live) ends as
				  GUEST_FAILED */
	MACHINE_RESET_ENDS,    /* always ends the VM as MACHINE_RESET */
};

enum machine_disk_device { MACHINE_DISK_VIRTIO };

struct machine_disk {
	int fd; /* a raw image or block device; machine_create takes it over, failing or not */
	bool readonly;
	enum machine_disk_device device;
	enum block_engine engine;
	const char *serial; /* at most 20 bytes, NULL: none */
};

struct machine_net {
	int fd; /* frames, see net/net.h; taken over as a disk's */
	u8 mac[6];
};

/* A byte stream to and from the host; -1: nothing comes, what is written is dropped. Both may be
 * the same descriptor (socket, terminal, pipe or file). They are made non-blocking: give
 * descriptions that nobody else uses. At the end of input the stream just stays silent. */
struct machine_stream {
	int in, out;
};

/* Everything that a machine is made of. Strings and arrays are copied or not
 * needed after machine_create. Descriptors of disks and networks are taken over,
 * all others stay the caller's and must live until machine_destroy. */
struct machine_config {
	const struct engine_ops *engine;
	int device;		       /* the engine's, see engine.h; -1: none */
	bool unchecked;		       /* likewise */
	const struct cpu_model *model; /* frozen table; copied */
	u64 memory;		       /* bytes, a multiple of 1 MiB */
	unsigned vcpus;
	u64 code_cache; /* bytes, 0: the engine's default */

	/* Nothing is booted: machine_load comes before machine_start. The kernel is for resets. */
	bool from_state;
	bool same_generation; /* and the guest is not told that others may go on from there too */
	int kernel_fd;	      /* required */
	const char *kernel_name; /* for messages, NULL: none; likewise the initrds', which
				  * multiboot modules are also told */
	int initrd_fds[MACHINE_INITRDS_MAX];
	const char *initrd_names[MACHINE_INITRDS_MAX];
	unsigned initrds;
	const char *cmdline; /* NULL: empty */

	struct machine_stream serial; /* COM1 */
	bool virtio_console;
	struct machine_stream console; /* hvc0, if virtio_console */
	bool rng;

	struct machine_disk disks[MACHINE_DISKS_MAX];
	unsigned disk_count;
	struct machine_net nets[MACHINE_NETS_MAX];
	unsigned net_count;

	bool debug_exit; /* isa-debug-exit at port 0xf4 */
	bool testdev;	 /* pc-testdev */
	enum machine_reset_policy on_reset;

	/* Where the VM goes on if its hypervisor fails in a way that another one can go on from;
	 * NULL: it ends. Needs no device. */
	const struct engine_ops *rescue;
	/* It did, at that very instruction; WHY is what the failed one said. The loop's thread,
	 * with the machine's lock. May be NULL. */
	void *opaque;
	void (*rescued)(void *opaque, const char *from, const char *to, const char *why);
};

/* 0 or -errno, then WHY holds one line for people: cause and, where there is one, the fix. */
int machine_create(struct machine **out, const struct machine_config *config, char *why,
		   size_t why_size);
void machine_destroy(struct machine *machine); /* stops the vCPUs first; NULL is fine */

/* Starts the vCPUs. 0 or -errno. */
int machine_start(struct machine *machine);
/* Runs the loop until the VM has ended; by then its vCPUs stand still and its output is written. */
void machine_run(struct machine *machine, struct machine_end *end);

/* All vCPUs stand at an instruction boundary (no exit half done) when this returns / go on. Calls
 * do not nest; harmless when already so. */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
/* What a switch to another hypervisor cost, in ns of CLOCK_MONOTONIC. */
struct machine_switch_times {
	u64 prepare; /* the guest still ran */
	u64 pause;   /* it stood still */
};

/* The VM goes on, running or paused as it was, on a new instance of ENGINE (which may be one of
 * the same kind), by the host's node DEVICE (the caller's, to live as long; -1: none). FORCE: its
 * probe is not asked, and it may be unchecked (engine.h). 0, or -errno and one line (cause; fix) in
 * WHY: then it goes on where it was. */
int machine_switch(struct machine *machine, const struct engine_ops *engine, int device, bool force,
		   struct machine_switch_times *times, char *why, size_t why_size);

/* Ends the VM as MACHINE_STOPPED. Safe in any thread, not in a signal handler. */
void machine_stop(struct machine *machine);
/* The guest sees its ACPI power button pressed. */
void machine_power_button(struct machine *machine);

struct state_io;
/* Writes all of the state of a machine that is paused or not started, and NOTE, which is its
 * owner's. Requests of disks are waited for, and what they wrote is made durable, within a limit of
 * time. The machine can go on afterwards, whether it worked or not. Loop's thread. 0, or -errno and
 * one line in WHY. */
int machine_save(struct machine *machine, const struct state_io *io, const char *note, char *why,
		 size_t why_size);
/* Into a machine created with from_state and not started: it then goes on where the saved one
 * stood. 0, or -errno and WHY: then it can only be destroyed. */
int machine_load(struct machine *machine, const struct state_io *io, char *why, size_t why_size);
/* Note (to be freed) and CPU model of a state, without which there is no machine for it, and the
 * size of its RAM; each may be NULL. 0, or -errno and WHY. */
int machine_peek(const struct state_io *io, char **note, struct cpu_model *model, u64 *ram_size,
		 char *why, size_t why_size);
/* Whether this host can show MODEL, of a machine that was saved: 0, or -errno and WHY, which names
 * what it lacks. */
int machine_model_fits(const struct cpu_model *model, unsigned vcpus, char *why, size_t why_size);
/* Ends a paused VM as MACHINE_SUSPENDED. */
void machine_retire(struct machine *machine);

enum machine_status { MACHINE_CREATED, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_ENDED };

enum machine_status machine_status(const struct machine *machine);
const char *machine_engine_name(const struct machine *machine);
u64 machine_uptime_ns(const struct machine *machine); /* since machine_start */
unsigned machine_resets(const struct machine *machine);
unsigned machine_switches(const struct machine *machine); /* asked for, and done */
unsigned machine_rescues(const struct machine *machine);
/* For the control socket and other descriptors of the VM process. Its callbacks hold the lock. */
struct loop *machine_loop(struct machine *machine);
struct memory *machine_memory(struct machine *machine);
/* Registers of a vCPU. Only while paused: 0 or -errno. */
int machine_vcpu_state(struct machine *machine, unsigned index, struct cpu_state *state);

#endif
