/*
 * Runs cases bare on the host's CPU, in a forked child: a signal's return
 * loads every register and enters the case; the trap at its end, or its fault,
 * is a signal whose frame holds every register.
 *
 * Cases and results are in memory shared with the parent; a byte in a pipe
 * starts a batch and another ends it.
 */
#define _GNU_SOURCE /* memfd_create, names of registers in a signal frame */
#include <asm/prctl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "case.h"

struct bare_shared {
	u64 fs_base;
	unsigned count;
	unsigned done; /* results that are filled */
	struct insn_case cases[CASE_BATCH];
	struct insn_result results[CASE_BATCH];
};

struct bare {
	struct bare_shared *shared;
	pid_t child;
	int to, from; /* pipes */
};

enum { BARE_CS64 = 0x33, BARE_CS32 = 0x23, BARE_DATA = 0x2b, BARE_FP_MAX = 16384 };

/* The child's own: signal handlers have no other way to reach it. */
static struct {
	struct bare_shared *shared;
	const struct insn_case *running;
	struct insn_result *result;
	u8 *alias; /* of the data pages, writable everywhere */
	u8 pristine[CASE_DATA_SIZE];
	gregset_t host_regs;
	u8 host_fp[BARE_FP_MAX];
	unsigned fp_size;
} bare_child;

static const int bare_reg_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				       REG_R12, REG_R13, REG_R14, REG_R15};

/* What the kernel keeps in bytes 464 to 511 of a frame's FXSAVE area: magic, size, features. */
static unsigned
bare_frame_size(const u8 *fp)
{
	u32 magic, size;

	memcpy(&magic, fp + 464, 4);
	memcpy(&size, fp + 480, 4);
	return magic == 0x46505853 && size <= BARE_FP_MAX ? size : 512;
}

static void
bare_load_fp(u8 *fp, const u8 *xsave)
{
	memcpy(fp, xsave, 464);
	if (bare_frame_size(fp) < CASE_XSAVE)
		return;
	memset(fp + 512, 0, 64);
	memcpy(fp + 512, xsave + 512, 8);
	memcpy(fp + 576, xsave + 576, CASE_XSAVE - 576);
}

static void
bare_save_fp(const u8 *fp, u8 *xsave)
{
	u64 bv = 3;

	memset(xsave, 0, CASE_XSAVE);
	memcpy(xsave, fp, 416);
	if (bare_frame_size(fp) < CASE_XSAVE)
		return;
	memcpy(&bv, fp + 512, 8);
	if (bv & 4)
		memcpy(xsave + 576, fp + 576, 256);
	if (!(bv & 2))
		memset(xsave + 160, 0, 256);
	if (!(bv & 1)) {
		memset(xsave, 0, 24);
		memset(xsave + 32, 0, 128);
		xsave[0] = 0x7f;
		xsave[1] = 0x03;
	}
}

static void
bare_enter(ucontext_t *uc)
{
	const struct insn_case *c = bare_child.running;
	greg_t *regs = uc->uc_mcontext.gregs;
	u64 segments = (u64)regs[REG_CSGSFS] & ~0xffffull;

	memcpy(bare_child.host_regs, regs, sizeof(gregset_t));
	bare_child.fp_size = bare_frame_size((u8 *)uc->uc_mcontext.fpregs);
	memcpy(bare_child.host_fp, uc->uc_mcontext.fpregs, bare_child.fp_size);
	for (int i = 0; i < 16; i++)
		regs[bare_reg_index[i]] = (greg_t)c->gpr[i];
	regs[REG_RIP] = (greg_t)(case_slot_address(c->slot) + c->entry);
	regs[REG_EFL] = (greg_t)c->rflags;
	regs[REG_CSGSFS] = (greg_t)(segments | (c->mode == 64 ? BARE_CS64 : BARE_CS32));
	bare_load_fp((u8 *)uc->uc_mcontext.fpregs, c->xsave);
}

static void
bare_leave(ucontext_t *uc)
{
	greg_t *regs = uc->uc_mcontext.gregs;
	struct insn_result *r = bare_child.result;

	for (int i = 0; i < 16; i++)
		r->gpr[i] = (u64)regs[bare_reg_index[i]];
	r->rip = (u64)regs[REG_RIP];
	r->rflags = (u64)regs[REG_EFL];
	r->vector = (unsigned)regs[REG_TRAPNO];
	r->error = (u32)regs[REG_ERR];
	r->cr2 = (u64)regs[REG_CR2];
	bare_save_fp((u8 *)uc->uc_mcontext.fpregs, r->xsave);
	memcpy(regs, bare_child.host_regs, sizeof(gregset_t));
	memcpy(uc->uc_mcontext.fpregs, bare_child.host_fp, bare_child.fp_size);
}

static void
bare_signal(int sig, siginfo_t *info, void *context)
{
	(void)info;
	if (!bare_child.running)
		_exit(3); /* a fault of our own */
	if (sig == SIGUSR1) {
		bare_enter(context);
		return;
	}
	bare_leave(context);
	bare_child.running = NULL;
}

static void
bare_restore_memory(const struct insn_case *c)
{
	memcpy(bare_child.alias, bare_child.pristine, CASE_DATA_SIZE);
	if (c->overlay_size)
		memcpy(bare_child.alias + (c->overlay_at - CASE_DATA), c->overlay, c->overlay_size);
}

static void
bare_put_code(const struct insn_case *c)
{
	u8 *slot = (u8 *)case_slot_address(c->slot);

	memcpy(slot, c->code, CASE_SLOT);
	if (c->bare_w0)
		slot[c->bare_w0] &= 0x7f;
}

static void
bare_run_one(const struct insn_case *c, struct insn_result *r)
{
	memset(r, 0, offsetof(struct insn_result, memory));
	bare_put_code(c);
	bare_restore_memory(c);
	bare_child.result = r;
	bare_child.running = c;
	syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
	memcpy(r->memory, bare_child.alias, CASE_DATA_SIZE);
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++)
		if (!case_page_present(page))
			memset(r->memory + page * CASE_PAGE, 0, CASE_PAGE);
}

static int
bare_map(void)
{
	int fd = memfd_create("insn-data", MFD_CLOEXEC);
	u8 *code = mmap((void *)(u64)CASE_CODE, CASE_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (fd < 0 || ftruncate(fd, CASE_DATA_SIZE) || code == MAP_FAILED)
		return -1;
	memset(code, 0xcc, CASE_CODE_SIZE);
	bare_child.alias = mmap(NULL, CASE_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bare_child.alias == MAP_FAILED)
		return -1;
	memset(bare_child.alias, 1, CASE_DATA_SIZE);
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++) {
		u8 *at = (u8 *)(u64)CASE_DATA + page * CASE_PAGE;
		int prot = PROT_READ | (case_page_writable(page) ? PROT_WRITE : 0);

		if (!case_page_present(page))
			continue;
		if (mmap(at, CASE_PAGE, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
			 (off_t)page * CASE_PAGE) != at)
			return -1;
	}
	close(fd);
	return 0;
}

/* Present in the host's page tables, so that no case meets the kernel's own faults. */
static void
bare_touch(void)
{
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++) {
		volatile u8 *at = (u8 *)(u64)CASE_DATA + page * CASE_PAGE;

		if (case_page_writable(page))
			*at = 1;
		else if (case_page_present(page))
			(void)*at;
	}
}

static int
bare_signals(void)
{
	static const int signals[] = {SIGUSR1, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = bare_signal,
			       .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	stack_t stack = {.ss_size = 256 * 1024};

	stack.ss_sp = malloc(stack.ss_size);
	if (!stack.ss_sp || sigaltstack(&stack, NULL))
		return -1;
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		if (sigaction(signals[i], &sa, NULL))
			return -1;
	return 0;
}

static void
bare_segments(void)
{
	syscall(SYS_arch_prctl, ARCH_SET_GS, (u64)CASE_GS_BASE);
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(BARE_DATA));
}

static NORETURN void
bare_child_main(struct bare_shared *shared, int from, int to)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bare_child.shared = shared;
	case_memory(bare_child.pristine);
	syscall(SYS_arch_prctl, ARCH_GET_FS, &shared->fs_base);
	if (bare_map() || bare_signals())
		_exit(2);
	bare_segments();
	bare_touch();
	if (write(to, "r", 1) != 1)
		_exit(2);
	while (read(from, &byte, 1) == 1) {
		for (; shared->done < shared->count; shared->done++)
			bare_run_one(&shared->cases[shared->done], &shared->results[shared->done]);
		if (write(to, "d", 1) != 1)
			break;
	}
	_exit(0);
}

/* A byte from the child: false if it died or hangs. */
static bool
bare_wait(struct bare *bare)
{
	struct pollfd pfd = {.fd = bare->from, .events = POLLIN};
	char byte;

	return poll(&pfd, 1, 5000) == 1 && read(bare->from, &byte, 1) == 1;
}

static void
bare_fork(struct bare *bare)
{
	int down[2], up[2];

	if (pipe(down) || pipe(up)) {
		perror("pipe");
		exit(2);
	}
	bare->child = fork();
	if (bare->child == 0) {
		close(down[1]);
		close(up[0]);
		bare_child_main(bare->shared, down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	bare->to = down[1];
	bare->from = up[0];
	if (bare->child < 0 || !bare_wait(bare)) {
		fprintf(stderr, "insn-test: the bare side does not start\n");
		exit(2);
	}
}

static void
bare_end(struct bare *bare)
{
	kill(bare->child, SIGKILL);
	waitpid(bare->child, NULL, 0);
	close(bare->to);
	close(bare->from);
}

struct bare *
bare_start(void)
{
	struct bare *bare = calloc(1, sizeof(*bare));

	if (!bare)
		exit(2);
	bare->shared = mmap(NULL, sizeof(*bare->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bare->shared == MAP_FAILED)
		exit(2);
	bare_fork(bare);
	return bare;
}

u64
bare_fs_base(const struct bare *bare)
{
	return bare->shared->fs_base;
}

void
bare_run(struct bare *bare, const struct insn_case *cases, struct insn_result *results,
	 unsigned count)
{
	struct bare_shared *s = bare->shared;

	memcpy(s->cases, cases, count * sizeof(*cases));
	s->count = count;
	s->done = 0;
	while (s->done < count) {
		if (write(bare->to, "g", 1) == 1 && bare_wait(bare))
			continue;
		/* The case killed or hung it: say so, and go on with the next. */
		bare_end(bare);
		memset(&s->results[s->done], 0, sizeof(s->results[0]));
		s->results[s->done++].vector = CASE_HUNG;
		bare_fork(bare);
	}
	memcpy(results, s->results, count * sizeof(*results));
}

void
bare_stop(struct bare *bare)
{
	bare_end(bare);
	munmap(bare->shared, sizeof(*bare->shared));
	free(bare);
}
