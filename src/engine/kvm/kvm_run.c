/*
 * Running a vCPU: KVM_RUN until something concerns the machine.
 *
 * A kick: the flag is set, then the signal sent. The vCPU's thread takes note of the flag
 * before KVM_RUN and then sends the signal to itself, so that this KVM_RUN completes the I/O
 * under way, does what KVM still has to do (an end of interrupt to tell, a due timer) and
 * comes back without having entered the guest. Only then is KICKED returned.
 */
#define _GNU_SOURCE
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- kicks ---- */

static void
kvm_run_signal(const struct engine_vcpu *v)
{
	syscall(SYS_tgkill, getpid(), v->thread, kvm_signal());
}

void
kvm_run_kick(struct engine_vcpu *v)
{
	__atomic_store_n(&v->kick, true, __ATOMIC_SEQ_CST);
	kvm_run_signal(v);
}

/* Takes the signals that have come; true if the watch was among them. */
static bool
kvm_run_take_signals(void)
{
	const struct timespec now = {0, 0};
	bool watch = false;
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kvm_signal());
	while (sigtimedwait(&set, &info, &now) >= 0)
		watch = watch || info.si_code == SI_TIMER;
	return watch;
}

/* ---- exits ---- */

static void PRINTF_LIKE(3, 4)
	kvm_run_fail(struct engine_exit *exit, bool sound, const char *fmt, ...)
{
	va_list args;

	exit->kind = EXIT_FAILED;
	exit->failed.sound = sound;
	va_start(args, fmt);
	vsnprintf(exit->failed.why, sizeof(exit->failed.why), fmt, args);
	va_end(args);
}

/* The element of a string of port accesses that is next. */
static u8 *
kvm_run_port_data(const struct engine_vcpu *v)
{
	return (u8 *)v->run + v->run->io.data_offset + (size_t)v->run->io.size * v->io_done;
}

static bool
kvm_run_exit_port(struct engine_vcpu *v, struct engine_exit *exit)
{
	const struct kvm_run *run = v->run;

	exit->kind = EXIT_PORT;
	exit->port.port = run->io.port;
	exit->port.size = run->io.size;
	exit->port.write = run->io.direction == KVM_EXIT_IO_OUT;
	exit->port.data = 0;
	if (exit->port.write)
		memcpy(&exit->port.data, kvm_run_port_data(v), run->io.size);
	v->pending = PENDING_PORT;
	v->exit = exit;
	return true;
}

static bool
kvm_run_exit_mmio(struct engine_vcpu *v, struct engine_exit *exit)
{
	const struct kvm_run *run = v->run;

	exit->kind = EXIT_MMIO;
	exit->mmio.gpa = run->mmio.phys_addr;
	exit->mmio.size = (u8)(run->mmio.len > 8 ? 8 : run->mmio.len);
	exit->mmio.write = run->mmio.is_write != 0;
	exit->mmio.data = 0;
	if (exit->mmio.write)
		memcpy(&exit->mmio.data, run->mmio.data, exit->mmio.size);
	v->pending = PENDING_MMIO;
	v->exit = exit;
	return true;
}

static bool
kvm_run_exit_msr(struct engine_vcpu *v, struct engine_exit *exit)
{
	(void)exit;
	kvm_msr_exit(v);
	return false;
}

static bool
kvm_run_exit_eoi(struct engine_vcpu *v, struct engine_exit *exit)
{
	exit->kind = EXIT_EOI;
	exit->eoi.vector = v->run->eoi.vector;
	return true;
}

static bool
kvm_run_exit_shutdown(struct engine_vcpu *v, struct engine_exit *exit)
{
	(void)v;
	exit->kind = EXIT_SHUTDOWN;
	return true;
}

/* It comes because we asked for it: what it is for is done before the next KVM_RUN. */
static bool
kvm_run_exit_window(struct engine_vcpu *v, struct engine_exit *exit)
{
	(void)v;
	(void)exit;
	return false;
}

/* The bytes of the instruction at RIP, as KVM has told them. */
static void
kvm_run_instruction(const struct kvm_run *run, char *text, size_t size)
{
	u32 count = run->emulation_failure.insn_size;
	size_t n = 0;

	text[0] = '\0';
	if (run->emulation_failure.ndata < 1 ||
	    !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		return;
	for (u32 i = 0; i < count && i < sizeof(run->emulation_failure.insn_bytes); i++)
		n += (size_t)snprintf(text + n, size - n, " %02x",
				      run->emulation_failure.insn_bytes[i]);
}

/* The instruction at RIP was not carried out, or an event not delivered that is still pending:
 * whoever goes on from the state does it anew. */
static bool
kvm_run_exit_internal(struct engine_vcpu *v, struct engine_exit *exit)
{
	const struct kvm_run *run = v->run;
	char bytes[64];

	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		kvm_run_instruction(run, bytes, sizeof(bytes));
		kvm_run_fail(exit, true, "kvm cannot emulate the guest's instruction%s", bytes);
		return true;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		kvm_run_fail(exit, true, "kvm got an exception while it delivered another");
		return true;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		kvm_run_fail(exit, true, "kvm cannot deliver an event to the guest (exit %#llx)",
			     run->internal.ndata > 1 ? run->internal.data[1] : 0ull);
		return true;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		kvm_run_fail(exit, true, "kvm does not know why the CPU left the guest (%#llx)",
			     run->internal.ndata > 0 ? run->internal.data[0] : 0ull);
		return true;
	default:
		kvm_run_fail(exit, true, "kvm's internal error %u", run->internal.suberror);
		return true;
	}
}

static bool
kvm_run_exit_entry(struct engine_vcpu *v, struct engine_exit *exit)
{
	kvm_run_fail(exit, true, "the CPU refuses to enter the guest (reason %#llx)",
		     (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
	return true;
}

static bool
kvm_run_exit_unknown(struct engine_vcpu *v, struct engine_exit *exit)
{
	kvm_run_fail(exit, true, "the CPU left the guest for an unknown reason (%#llx)",
		     (unsigned long long)v->run->hw.hardware_exit_reason);
	return true;
}

/* Each: true if EXIT is filled, false if the guest goes on. */
static bool (*const kvm_run_exits[])(struct engine_vcpu *v, struct engine_exit *exit) = {
	[KVM_EXIT_UNKNOWN] = kvm_run_exit_unknown,
	[KVM_EXIT_IO] = kvm_run_exit_port,
	[KVM_EXIT_MMIO] = kvm_run_exit_mmio,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = kvm_run_exit_window,
	[KVM_EXIT_SHUTDOWN] = kvm_run_exit_shutdown,
	[KVM_EXIT_FAIL_ENTRY] = kvm_run_exit_entry,
	[KVM_EXIT_INTERNAL_ERROR] = kvm_run_exit_internal,
	[KVM_EXIT_IOAPIC_EOI] = kvm_run_exit_eoi,
	[KVM_EXIT_X86_RDMSR] = kvm_run_exit_msr,
	[KVM_EXIT_X86_WRMSR] = kvm_run_exit_msr,
};

static bool
kvm_run_dispatch(struct engine_vcpu *v, struct engine_exit *exit)
{
	u32 reason = v->run->exit_reason;

	if (reason < ARRAY_LEN(kvm_run_exits) && kvm_run_exits[reason])
		return kvm_run_exits[reason](v, exit);
	kvm_run_fail(exit, true, "kvm returns for a reason that is not known here (%u)", reason);
	return true;
}

/* ---- answers ---- */

/* Gives KVM what a read brought. True if the next element of a string is to be asked for. */
static bool
kvm_run_answer(struct engine_vcpu *v)
{
	struct kvm_run *run = v->run;
	enum kvm_pending pending = v->pending;

	v->pending = PENDING_NONE;
	if (pending == PENDING_MMIO && !run->mmio.is_write)
		memcpy(run->mmio.data, &v->exit->mmio.data, sizeof(run->mmio.data));
	if (pending != PENDING_PORT)
		return false;
	if (run->io.direction == KVM_EXIT_IO_IN)
		memcpy(kvm_run_port_data(v), &v->exit->port.data, run->io.size);
	if (++v->io_done < run->io.count)
		return true;
	v->io_done = 0;
	return false;
}

/* ---- ExtINT ---- */

void
kvm_run_set_extint(struct engine *e, bool asserted)
{
	struct engine_vcpu *first;

	__atomic_store_n(&e->extint, asserted, __ATOMIC_SEQ_CST);
	if (!asserted)
		return;
	pthread_mutex_lock(&e->lock);
	first = e->vcpus[0];
	if (first)
		kvm_run_signal(first);
	pthread_mutex_unlock(&e->lock);
}

/* As an event under way and not by KVM_INTERRUPT, whose vector no state would show until it is
 * delivered. */
static void
kvm_run_inject(struct engine_vcpu *v)
{
	struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_vcpu_events events;
	int vector = v->engine->config.extint_vector(v->engine->config.opaque);

	if (vector < 0 || kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return;
	events.flags = 0;
	events.interrupt.injected = 1;
	events.interrupt.nr = (u8)vector;
	events.interrupt.soft = 0;
	kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
	kvm_ioctl(v->fd, KVM_SET_MP_STATE, &running); /* from HLT */
}

/* The first processor has the 8259's interrupts. READY: what RUN says is of now. */
static void
kvm_run_serve_extint(struct engine_vcpu *v, bool ready)
{
	bool asserted = v->index == 0 && __atomic_load_n(&v->engine->extint, __ATOMIC_SEQ_CST);

	if (asserted && ready && v->run->ready_for_interrupt_injection) {
		kvm_run_inject(v);
		asserted = __atomic_load_n(&v->engine->extint, __ATOMIC_SEQ_CST);
	}
	v->run->request_interrupt_window = asserted;
}

/* ---- the loop ---- */

/* HLT with interrupts off, and no NMI waits. */
static bool
kvm_run_dead(const struct engine_vcpu *v)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state state;

	if (v->run->if_flag || kvm_ioctl(v->fd, KVM_GET_MP_STATE, &state) < 0 ||
	    kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return false;
	return state.mp_state == KVM_MP_STATE_HALTED && !events.nmi.pending &&
	       !events.nmi.injected && !events.exception.injected && !events.interrupt.injected;
}

/* KVM_RUN once. -EINTR: it was called back (and there is no exit). */
static int
kvm_run_enter(struct engine_vcpu *v)
{
	if (ioctl(v->fd, KVM_RUN, 0) == 0)
		return 0;
	return errno == EAGAIN ? -EINTR : -errno;
}

int
kvm_run_settle(struct engine_vcpu *v)
{
	int err;

	if (v->held || (v->pending && kvm_run_answer(v)))
		return -EBUSY;
	v->run->request_interrupt_window = 0;
	do {
		kvm_run_signal(v);
		err = kvm_run_enter(v);
		kvm_run_take_signals();
		if (!err && (v->run->exit_reason == KVM_EXIT_X86_RDMSR ||
			     v->run->exit_reason == KVM_EXIT_X86_WRMSR))
			kvm_msr_exit(v);
		else if (!err)
			v->held = true;
		if (v->held)
			return -EBUSY;
	} while (!err);
	return err == -EINTR ? 0 : err;
}

/* KVM_RUN until there is an exit, false if it is to be called again. */
static bool
kvm_run_step(struct engine_vcpu *v, struct engine_exit *exit)
{
	bool kicked = __atomic_load_n(&v->kick, __ATOMIC_SEQ_CST), watch;
	int err;

	if (v->held) {
		v->held = false;
		return kvm_run_dispatch(v, exit);
	}
	if (kicked || v->stale)
		kvm_run_signal(v);
	err = kvm_run_enter(v);
	watch = kvm_run_take_signals();
	v->stale = false;
	if (!err)
		return kvm_run_dispatch(v, exit);
	if (err != -EINTR) {
		kvm_run_fail(exit, false, "KVM_RUN: %s", strerror(-err));
		return true;
	}
	if (kicked) {
		__atomic_store_n(&v->kick, false, __ATOMIC_SEQ_CST);
		exit->kind = EXIT_KICKED;
		return true;
	}
	if (!watch || !kvm_run_dead(v))
		return false;
	exit->kind = EXIT_HALT;
	return true;
}

int
kvm_run_vcpu(struct engine_vcpu *v, struct engine_exit *exit)
{
	bool completing = v->pending != PENDING_NONE;

	kvm_state_over(v->engine);
	if (completing && kvm_run_answer(v))
		return kvm_run_exit_port(v, exit), 0;
	/* Before I/O is complete, the guest is not at an instruction boundary. */
	kvm_run_serve_extint(v, !completing && !v->stale && !v->held);
	while (!kvm_run_step(v, exit))
		kvm_run_serve_extint(v, true);
	return 0;
}
