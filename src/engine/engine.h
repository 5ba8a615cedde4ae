/*
 * The contract between a machine and what runs its CPUs. The machine knows no
 * more of a hypervisor than this; no name of a particular one appears here.
 *
 * Threads: create, destroy, map, unmap, bind_* and set_ioapic_routes from one
 * thread at a time; run, get_state and set_state of a vCPU from that vCPU's
 * own thread; kick, send_msi and set_extint from any.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/types.h"
#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"
#include "memory/memory.h"

struct engine;
struct engine_vcpu;

enum engine_exit_kind {
	EXIT_PORT,     /* port I/O; a read's result goes into port.data before the next run */
	EXIT_MMIO,     /* access to what is not RAM; likewise mmio.data */
	EXIT_HALT,     /* halted for ever: HLT with interrupts off */
	EXIT_SHUTDOWN, /* triple fault */
	EXIT_KICKED,   /* engine_kick was called */
	EXIT_EOI,      /* end of a level interrupt: eoi.vector */
	EXIT_FAILED,   /* the engine cannot go on: failed.why */
};

struct engine_exit {
	enum engine_exit_kind kind;
	union {
		struct {
			u16 port;
			u8 size;
			bool write;
			u32 data;
		} port;
		struct {
			u64 gpa;
			u8 size; /* 1 to 8 */
			bool write;
			u64 data;
		} mmio;
		struct {
			u8 vector;
		} eoi;
		struct {
			char why[160];
			/* The state is that of an instruction boundary and another engine may go on
			 * from it; else (say, a state that cannot be read) it may not. */
			bool sound;
		} failed;
	};
};

struct ioapic_route {
	u64 address; /* MSI address and data of this pin */
	u32 data;
	bool level;
};

/* What a machine tells the engine it creates, for the engine's lifetime. */
struct engine_config {
	struct memory *memory;
	const struct cpu_model *model; /* frozen CPUID and MSR table */
	unsigned vcpus;
	u64 code_cache; /* bytes for all vCPUs together; 0: the engine's default */
	int device; /* the host's node that the engine works by (/dev/kvm), -1: none; the caller's
		     */
	bool unchecked; /* go on though the host does not give what the model shows */
	void *opaque;
	/* The engine can take an ExtINT now: returns its vector, or -1 if it is gone. Any vCPU's
	 * thread. */
	int (*extint_vector)(void *opaque);
};

/* Whether and how well an engine can run here. */
struct engine_probe {
	bool usable;
	const char *cause; /* short stable name of what blocks it, NULL if usable */
	char evidence[256];
	char fix[256];
	u64 kernel_speed, user_speed; /* instructions a second at CPL 0 and 3, 0: not measured */
};

struct engine_ops {
	const char *name;
	/* DEVICE as in struct engine_config; takes a few milliseconds. */
	void (*probe)(int device, struct engine_probe *result);
	/* Takes out of MODEL what the engine cannot show by DEVICE, unless it belongs to the
	 * model's floor (then create refuses it). To CPU_MODEL_HOST, which has a floor's features
	 * to begin with, it adds all that it can show and save. 0 or -errno. NULL: every named
	 * model fits, and there is no CPU_MODEL_HOST. */
	int (*fit_model)(int device, struct cpu_model *model);
	int (*create)(struct engine **out, const struct engine_config *config);
	void (*destroy)(struct engine *engine);
	/* Guest RAM at GPA is OFFSET of the memfd; RAM is told with these only. */
	int (*map)(struct engine *engine, u64 gpa, u64 size, u64 offset, bool writable);
	int (*unmap)(struct engine *engine, u64 gpa, u64 size);
	/* Dirty 4 KiB pages since the last call as a bitmap of [gpa, gpa + size). */
	int (*take_dirty)(struct engine *engine, u64 gpa, u64 size, u64 *bitmap);
	void (*send_msi)(struct engine *engine, u64 address, u32 data);
	void (*set_extint)(struct engine *engine, bool asserted);
	int (*vcpu_create)(struct engine *engine, unsigned index, struct engine_vcpu **out);
	void (*vcpu_destroy)(struct engine_vcpu *vcpu);
	/* Runs until something concerns the machine. 0 with *exit filled; never fails else. */
	int (*run)(struct engine_vcpu *vcpu, struct engine_exit *exit);
	void (*kick)(struct engine_vcpu *vcpu);
	int (*get_state)(struct engine_vcpu *vcpu, struct cpu_state *state);
	int (*set_state)(struct engine_vcpu *vcpu, const struct cpu_state *state);
	int (*bind_notify)(struct engine *engine, u64 gpa, unsigned size, int eventfd);
	int (*unbind_notify)(struct engine *engine, u64 gpa, unsigned size, int eventfd);
	int (*bind_irq)(struct engine *engine, int eventfd, u64 address, u32 data);
	int (*unbind_irq)(struct engine *engine, int eventfd);
	int (*set_ioapic_routes)(struct engine *engine, const struct ioapic_route *routes,
				 unsigned count);
};

/* Our own hypervisor; needs nothing of the host. */
extern const struct engine_ops engine_translator;
/* The host system's; works by /dev/kvm, which must be sound: probe it first. */
extern const struct engine_ops engine_kvm;

#endif
