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

static int
signals_make_stack(void)
{
	stack_t ss = {.ss_size = SIGNALS_STACK, .ss_flags = (int)SS_AUTODISARM};

	signals_slot.stack = mmap(NULL, SIGNALS_STACK, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (signals_slot.stack == MAP_FAILED) {
		signals_slot.stack = NULL;
		return -errno;
	}
	ss.ss_sp = signals_slot.stack;
	return sigaltstack(&ss, NULL) ? -errno : 0;
}

int
signals_enter(struct vcpu *v)
{
	signals_slot.vcpu = v;
	if (v && !signals_slot.stack)
		return signals_make_stack();
	return 0;
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
