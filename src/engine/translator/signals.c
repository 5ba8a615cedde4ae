/* See signals.h. */
#define _GNU_SOURCE
#include "engine/translator/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/translator/pages.h"

/* The one slot: which vCPU this thread runs, and its signal stack. */
static __thread struct {
	struct vcpu *vcpu;
	u8 *stack;
} signals_slot;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SIGNALS_SANITIZER = true };
#else
enum { SIGNALS_SANITIZER = false };
#endif
enum { SIGNALS_STACK = 256 * 1024 };

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

static void
signals_default(int number)
{
	signal(number, SIG_DFL);
	raise(number);
}

static void
signals_fault(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct vcpu *v = signals_slot.vcpu;
	struct translation *t = v ? vcpu_translation(v) : NULL;
	greg_t *regs = uc->uc_mcontext.gregs;
	u64 pc = (u64)regs[REG_RIP];

	(void)info;
	if (!t || pc < (u64)t->code_rx + t->code_stubs || pc >= (u64)t->code_rx + t->code_size) {
		signals_default(number);
		return;
	}
	t->signal_pc = pc;
	t->signal_trap = (int)regs[REG_TRAPNO];
	regs[REG_RIP] = (greg_t)t->stub.leave_signal;
}

static void
signals_timer(int number, siginfo_t *info, void *context)
{
	struct vcpu *v = signals_slot.vcpu;

	(void)number;
	(void)info;
	(void)context;
	if (v)
		pages_kick(v);
}

static int
signals_timer_number(void)
{
	return SIGRTMIN + 6;
}

int
signals_install(void)
{
	struct sigaction fault = {.sa_sigaction = signals_fault,
				  .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	struct sigaction timer = {.sa_sigaction = signals_timer,
				  .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

	sigemptyset(&fault.sa_mask);
	sigemptyset(&timer.sa_mask);
	if (sigaction(SIGSEGV, &fault, NULL) || sigaction(SIGFPE, &fault, NULL) ||
	    sigaction(SIGBUS, &fault, NULL) || sigaction(SIGILL, &fault, NULL) ||
	    sigaction(signals_timer_number(), &timer, NULL))
		return -errno;
	return 0;
}

/* The calling thread's signals come on STACK from now on, NULL: on its own. */
static int
signals_use_stack(u8 *stack)
{
	stack_t ss = {.ss_sp = stack,
		      .ss_size = SIGNALS_STACK,
		      .ss_flags = stack ? (int)SS_AUTODISARM : SS_DISABLE};

	if (sigaltstack(&ss, NULL))
		return -errno;
	signals_slot.stack = stack;
	return 0;
}

int
signals_enter(struct vcpu *v)
{
	struct translation *t = v ? vcpu_translation(v) : NULL;
	void *stack;

	signals_slot.vcpu = v;
	if (!t || (t->signal_stack && t->signal_stack == signals_slot.stack))
		return 0;
	if (!t->signal_stack) {
		stack = mmap(NULL, SIGNALS_STACK, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
		if (stack == MAP_FAILED)
			return -errno;
		t->signal_stack = stack;
	}
	return signals_use_stack(t->signal_stack);
}

void
signals_free_stack(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	bool here = t->signal_stack && t->signal_stack == signals_slot.stack;

	if (!t->signal_stack || (here && signals_use_stack(NULL)))
		return;
	/* Sanitizers have unmapped the stack of a thread that has ended. */
	if (here || !SIGNALS_SANITIZER)
		munmap(t->signal_stack, SIGNALS_STACK);
	t->signal_stack = NULL;
}

int
signals_timer_create(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
				 .sigev_signo = signals_timer_number()};
	timer_t timer;

	event._sigev_un._tid = (int)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer))
		return -errno;
	t->timer = timer;
	t->timer_armed = true;
	return 0;
}

void
signals_timer_destroy(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (t->timer_armed)
		timer_delete((timer_t)t->timer);
	t->timer_armed = false;
}

void
signals_timer_arm(struct vcpu *v, u64 deadline_ns)
{
	struct translation *t = vcpu_translation(v);
	struct itimerspec when = {.it_value = {(time_t)(deadline_ns / 1000000000u),
					       (long)(deadline_ns % 1000000000u)}};

	if (t->timer_armed)
		timer_settime((timer_t)t->timer, TIMER_ABSTIME, &when, NULL);
}
