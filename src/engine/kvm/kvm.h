/*
 * The engine over the host's KVM: what its files share. One VM, its vCPUs' descriptors, and
 * what KVM does not keep for us: the memory slots, the interrupt routes, the MSRs that are
 * answered by our own table.
 *
 * A kick is a signal (kvm_signal) that vCPU threads block and KVM_RUN lets in: sent before
 * KVM_RUN it waits, so none is lost and no handler is needed.
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <time.h>

#include "engine/engine.h"

enum {
	KVM_SLOTS_MAX = 8,
	KVM_VCPUS_MAX = 256,
	KVM_PINS = 24, /* of the IOAPIC, which is the machine's */
	KVM_BOUND_MAX = 512,
};

struct kvm_slot {
	u64 gpa, size, offset;
	u32 flags;
	u64 *dirty; /* [e] what was dirty and is not told yet, NULL: not logged */
};

/* An eventfd whose signals are a message. */
struct kvm_bound {
	int fd; /* -1: free; its route is number KVM_PINS + index */
	u64 address;
	u32 data;
};

/* The moment that all states stand for that are taken or set while no vCPU runs, so that
 * the clocks of all vCPUs stay together. */
struct kvm_epoch {
	bool open;
	u64 ticks; /* the host's TSC as guests count it: scaled, without their offset */
	u64 host;  /* the host's TSC */
	u64 clock; /* kvm clock that the states set in this epoch ask for, the largest */
};

/* [c] constant after creation, [e] lock, [a] atomic */
struct engine {
	struct engine_config config; /* [c] */
	int vm;			     /* [c] */
	size_t run_size;	     /* [c] */
	u64 host_hz;		     /* [c] of the host's TSC */
	bool spec_ctrl;		     /* [c] guests reach the CPU's SPEC_CTRL */
	pthread_mutex_t lock;
	struct kvm_slot slots[KVM_SLOTS_MAX];	  /* [e] size 0: free */
	bool logging;				  /* [a] some slot's dirty pages are logged */
	struct ioapic_route pins[KVM_PINS];	  /* [e] */
	struct kvm_bound bound[KVM_BOUND_MAX];	  /* [e] */
	unsigned bound_count;			  /* [e] those beyond were never used */
	struct kvm_epoch epoch;			  /* [e] but for open, which is [a] */
	bool extint;				  /* [a] */
	struct engine_vcpu *vcpus[KVM_VCPUS_MAX]; /* [e] */
};

enum kvm_pending {
	PENDING_NONE,
	PENDING_PORT, /* port I/O that KVM has asked for: run->io, element IO_DONE is next */
	PENDING_MMIO,
};

/* Its own thread's but for kick. */
struct engine_vcpu {
	struct engine *engine;
	unsigned index;
	int fd;
	pid_t thread;
	struct kvm_run *run;
	timer_t watch; /* ticks once a second: is the vCPU halted for ever? */
	bool watching;
	bool kick;  /* [a] */
	bool held;  /* RUN has an exit that is told by the next run */
	bool stale; /* the flags in RUN are from before the state was set */
	enum kvm_pending pending;
	u32 io_done;
	struct engine_exit *exit; /* where the answer to what is pending will be */
	struct cpu_msrs msr;	  /* those that KVM does not keep for us */
};

int kvm_signal(void);
/* Blocks the signal in this thread, but not in KVM_RUN of the vCPU FD. 0 or -errno. */
int kvm_set_signal_mask(int fd);

/* ioctl that retries EINTR: its value, or -errno. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);

/* kvm_slots.c */
int kvm_slots_map(struct engine *engine, u64 gpa, u64 size, u64 offset, bool writable);
int kvm_slots_unmap(struct engine *engine, u64 gpa, u64 size);
int kvm_slots_take_dirty(struct engine *engine, u64 gpa, u64 size, u64 *bitmap);
void kvm_slots_written(void *engine, u64 gpa, u64 len);
void kvm_slots_destroy(struct engine *engine);

/* kvm_irq.c */
int kvm_irq_init(struct engine *engine);
void kvm_irq_send_msi(struct engine *engine, u64 address, u32 data);
int kvm_irq_bind(struct engine *engine, int eventfd, u64 address, u32 data);
int kvm_irq_unbind(struct engine *engine, int eventfd);
int kvm_irq_set_ioapic_routes(struct engine *engine, const struct ioapic_route *routes,
			      unsigned count);
int kvm_irq_bind_notify(struct engine *engine, u64 gpa, unsigned size, int eventfd);
int kvm_irq_unbind_notify(struct engine *engine, u64 gpa, unsigned size, int eventfd);

/* kvm_cpuid.c. The name of what MODEL has and this KVM does not, NULL if nothing. */
int kvm_cpuid_missing(int device, const struct cpu_model *model, const char **missing);
/* Gives VCPU its table and reads it back: 0, -ENOTSUP if KVM made another of it. */
int kvm_cpuid_set(struct engine_vcpu *vcpu);

/* Whether KVM knows SPEC_CTRL or PRED_CMD. */
bool kvm_cpuid_speculation(int device, u32 msr);
/* An empty table for KVM to fill, NULL if out of memory; the caller frees it. */
struct kvm_cpuid2 *kvm_cpuid_alloc(void);
/* NULL if there is none. */
const struct kvm_cpuid_entry2 *kvm_cpuid_find(const struct kvm_cpuid2 *table, u32 leaf,
					      u32 subleaf);
/* Register 0 EAX to 3 EDX of an entry. */
u32 kvm_cpuid_reg(const struct kvm_cpuid_entry2 *entry, u8 reg);

/* kvm_model.c: fit_model of engine.h; the same by what KVM_GET_SUPPORTED_CPUID gave. */
int kvm_model_fit_table(const struct kvm_cpuid2 *table, struct cpu_model *model);
int kvm_model_fit(int device, struct cpu_model *model);

/* kvm_msr.c */
int kvm_msr_set_filter(struct engine *engine);
/* KVM_EXIT_X86_RDMSR and WRMSR: answered by cpu/msr.h's table. */
void kvm_msr_exit(struct engine_vcpu *vcpu);
int kvm_msr_get(struct engine_vcpu *vcpu, struct cpu_state *state);
int kvm_msr_set(struct engine_vcpu *vcpu, const struct cpu_state *state);
int kvm_msr_set_one(struct engine_vcpu *vcpu, u32 msr, u64 value);
int kvm_msr_get_one(struct engine_vcpu *vcpu, u32 msr, u64 *value);

/* kvm_run.c */
int kvm_run_vcpu(struct engine_vcpu *vcpu, struct engine_exit *exit);
void kvm_run_kick(struct engine_vcpu *vcpu);
void kvm_run_set_extint(struct engine *engine, bool asserted);
/* Completes what is pending and has KVM put due timer interrupts into the IRR. 0, or -EBUSY if
 * the vCPU has something to tell first. */
int kvm_run_settle(struct engine_vcpu *vcpu);

/* kvm_state.c */
int kvm_state_get(struct engine_vcpu *vcpu, struct cpu_state *state);
int kvm_state_set(struct engine_vcpu *vcpu, const struct cpu_state *state);
void kvm_state_over(struct engine *engine);

/* kvm_probe.c */
void kvm_probe(int device, struct engine_probe *result);

#endif
