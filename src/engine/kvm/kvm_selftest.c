/*
 * Runs the guest of kvm_guest.h in a VM of its own and says what it found: of a KVM that is
 * incomplete only a guest can tell.
 */
#define _GNU_SOURCE
#include "engine/kvm/kvm_selftest.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"
#include "cpu/msr.h"
#include "engine/kvm/kvm.h"
#include "engine/kvm/kvm_guest.h"

enum {
	SELFTEST_LIMIT_MS = 1500,
	/* Rounds of a loop: from few, which take a slow KVM long enough, to as many as measure a
	 * fast one, whose exits take longer than a few rounds. */
	SELFTEST_FIRST = 500,
	SELFTEST_FACTOR = 4,
	SELFTEST_LAST = 2048000,
	SELFTEST_ENOUGH_NS = 2000000,
	SELFTEST_TRIES = 3, /* of one that took so long: it may have been the host's other work */
	SELFTEST_EXITS = 200,
	SELFTEST_CPUID = 256,
};

struct selftest {
	struct engine_probe *probe;
	int vm, vcpu;
	u8 *memory;
	struct kvm_run *run;
	size_t run_size;
	enum guest_step step;
	u32 rounds;	/* of the loop that is being timed */
	unsigned tries; /* of it */
	u64 since_ns;
	unsigned values; /* told in this step */
	u32 cpuid[2];	 /* what CPUID was set to: leaf 1 ECX, leaf 7 EBX */
	bool over;
};

static const char *const selftest_names[] = {
	[GUEST_STEP_START] = "the first instruction",
	[GUEST_STEP_KERNEL_SPEED] = "a loop in kernel mode",
	[GUEST_STEP_CPUID] = "CPUID",
	[GUEST_STEP_POPCNT] = "POPCNT in kernel mode",
	[GUEST_STEP_CMPXCHG16B] = "LOCK CMPXCHG16B in kernel mode",
	[GUEST_STEP_INT3] = "INT3 in kernel mode",
	[GUEST_STEP_FPU] = "x87 in kernel mode",
	[GUEST_STEP_XSAVE] = "XSETBV, XSAVE and XRSTOR",
	[GUEST_STEP_SYSRET] = "SYSRET to CPL 3 and SYSCALL back",
	[GUEST_STEP_USER_SPEED] = "a loop in user mode",
	[GUEST_STEP_PAGE_FAULT] = "a page fault from CPL 3",
	[GUEST_STEP_INT80] = "INT 0x80 from CPL 3",
	[GUEST_STEP_DONE] = "the end",
};

static void PRINTF_LIKE(2, 3) selftest_unsound(struct selftest *t, const char *fmt, ...)
{
	char *evidence = t->probe->evidence;
	size_t size = sizeof(t->probe->evidence), n;
	va_list args;

	if (t->over)
		return;
	t->over = true;
	t->probe->usable = false;
	t->probe->cause = "unsound";
	n = (size_t)snprintf(evidence, size, "%s: ", selftest_names[t->step]);
	va_start(args, fmt);
	vsnprintf(evidence + n, size - n, fmt, args);
	va_end(args);
	snprintf(t->probe->fix, sizeof(t->probe->fix),
		 "give this host hardware virtualization (it may be a VM without it)");
}

/* ---- the guest's memory and first registers ---- */

static void
selftest_page(struct selftest *t, u32 table, unsigned index, u64 entry)
{
	put_le64(t->memory + table + index * 8, entry);
}

static void
selftest_paging(struct selftest *t)
{
	const u64 flags = 7; /* present, writable, for user mode */

	selftest_page(t, GUEST_PML4, 0, GUEST_PDPT | flags);
	selftest_page(t, GUEST_PDPT, 0, GUEST_PD | flags);
	selftest_page(t, GUEST_PD, 0, GUEST_PT | flags);
	for (u32 gpa = 0; gpa < GUEST_SIZE; gpa += 4096) {
		bool user = gpa >= GUEST_USER && gpa < GUEST_USER_STACK_TOP;

		selftest_page(t, GUEST_PT, gpa / 4096, gpa | (user ? 7 : 3));
	}
}

static void
selftest_gate(struct selftest *t, unsigned vector, const u8 *entry, unsigned dpl)
{
	u8 *gate = t->memory + GUEST_IDT + vector * 16;
	u32 address = (u32)(GUEST_KERNEL + (entry - guest_kernel));

	put_le32(gate, GUEST_CS << 16 | (address & 0xffff));
	put_le32(gate + 4, (address & 0xffff0000) | 0x8e00 | dpl << 13);
}

static void
selftest_tables(struct selftest *t)
{
	u8 *gdt = t->memory + GUEST_GDT;

	put_le64(gdt + GUEST_CS, 0x00af9b000000ffffull);
	put_le64(gdt + GUEST_SS, 0x00cf93000000ffffull);
	put_le64(gdt + GUEST_USER_SS, 0x00cff3000000ffffull);
	put_le64(gdt + GUEST_USER_CS, 0x00affb000000ffffull);
	put_le64(gdt + GUEST_TR, 0x00008b0000000067ull | (u64)GUEST_TSS << 16);
	put_le64(t->memory + GUEST_TSS + 4, GUEST_STACK_TOP); /* RSP0 */
	put_le16(t->memory + GUEST_TSS + 102, 104);	      /* no I/O bitmap */
	for (unsigned vector = 0; vector < 32; vector++)
		selftest_gate(t, vector, guest_vectors + vector * 16, 0);
	selftest_gate(t, VECTOR_BP, guest_int3, 0);
	selftest_gate(t, VECTOR_PF, guest_page_fault, 0);
	selftest_gate(t, 0x80, guest_int80, 3);
}

static void
selftest_load(struct selftest *t)
{
	selftest_paging(t);
	selftest_tables(t);
	memcpy(t->memory + GUEST_KERNEL, guest_kernel, (size_t)(guest_kernel_end - guest_kernel));
	memcpy(t->memory + GUEST_USER, guest_user, (size_t)(guest_user_end - guest_user));
}

static int
selftest_set_sregs(struct selftest *t)
{
	struct kvm_sregs sregs;
	int err = kvm_ioctl(t->vcpu, KVM_GET_SREGS, &sregs);
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = GUEST_CS,
				   .type = 11,
				   .present = 1,
				   .s = 1,
				   .l = 1,
				   .g = 1};
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = GUEST_SS,
				   .type = 3,
				   .present = 1,
				   .s = 1,
				   .db = 1,
				   .g = 1};

	sregs.cs = code;
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
	sregs.tr = (struct kvm_segment){
		.base = GUEST_TSS, .limit = 0x67, .selector = GUEST_TR, .type = 11, .present = 1};
	sregs.gdt.base = GUEST_GDT;
	sregs.gdt.limit = 0x37;
	sregs.idt.base = GUEST_IDT;
	sregs.idt.limit = 0xfff;
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = GUEST_PML4;
	sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	sregs.efer = EFER_SCE | EFER_LME | EFER_LMA;
	return err ? err : kvm_ioctl(t->vcpu, KVM_SET_SREGS, &sregs);
}

static int
selftest_set_msrs(struct selftest *t)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[3];
	} msrs = {.head = {.nmsrs = 3}};
	int done;

	msrs.entries[0] = (struct kvm_msr_entry){.index = MSR_STAR,
						 .data = (u64)GUEST_SS << 48 | (u64)GUEST_CS << 32};
	msrs.entries[1] = (struct kvm_msr_entry){
		.index = MSR_LSTAR, .data = (u64)(GUEST_KERNEL + (guest_syscall - guest_kernel))};
	msrs.entries[2] = (struct kvm_msr_entry){.index = MSR_SFMASK, .data = 0x700};
	done = kvm_ioctl(t->vcpu, KVM_SET_MSRS, &msrs);
	return done < 0 ? done : done == 3 ? 0 : -EIO;
}

/* ---- CPUID: everything that KVM can, but for a few bits that guests then must not see ---- */

enum { HIDE_LEAF_1_ECX = BIT(12) | BIT(22) | BIT(28) /* FMA, MOVBE, AVX */, HAS_XSAVE = BIT(26) };

static struct kvm_cpuid_entry2 *
selftest_leaf(struct kvm_cpuid2 *table, u32 leaf)
{
	for (u32 i = 0; i < table->nent && i < SELFTEST_CPUID; i++) {
		if (table->entries[i].function == leaf && table->entries[i].index == 0)
			return &table->entries[i];
	}
	return NULL;
}

/* FEATURES: as the guest wants to know them. */
static int
selftest_set_cpuid(struct selftest *t, int device, u32 *features)
{
	struct kvm_cpuid_entry2 *leaf;
	struct kvm_cpuid2 *table;
	int err = -ENOMEM;

	table = calloc(1, sizeof(*table) + SELFTEST_CPUID * sizeof(table->entries[0]));
	if (!table)
		return err;
	table->nent = SELFTEST_CPUID;
	err = kvm_ioctl(device, KVM_GET_SUPPORTED_CPUID, table);
	leaf = err ? NULL : selftest_leaf(table, 1);
	if (leaf) {
		leaf->ecx &= ~(u32)HIDE_LEAF_1_ECX;
		t->cpuid[0] = leaf->ecx;
		*features = leaf->ecx & HAS_XSAVE ? GUEST_HAS_XSAVE : 0;
	}
	leaf = err ? NULL : selftest_leaf(table, 7);
	if (leaf)
		leaf->ebx = 0;
	if (!err)
		err = kvm_ioctl(t->vcpu, KVM_SET_CPUID2, table);
	free(table);
	return err;
}

/* ---- exits ---- */

static void
selftest_compare(struct selftest *t, u32 value)
{
	const u32 osxsave = BIT(27); /* follows CR4 */
	unsigned i = t->values++;

	if (t->step != GUEST_STEP_CPUID || i >= ARRAY_LEN(t->cpuid))
		selftest_unsound(t, "the guest has gone astray");
	else if ((value ^ t->cpuid[i]) & ~osxsave)
		selftest_unsound(t, "leaf %u shows %#x where %#x was set", i ? 7 : 1, value,
				 t->cpuid[i]);
}

static void
selftest_exception(struct selftest *t, u32 value)
{
	selftest_unsound(t, "exception %u at CPL %u", value & 0xff, (value >> 8) & 3);
}

static void
selftest_enter_step(struct selftest *t, u32 step)
{
	if (step < t->step || step > GUEST_STEP_DONE) {
		selftest_unsound(t, "the guest has gone astray");
		return;
	}
	if (step != t->step)
		t->values = t->rounds = 0;
	t->step = step;
	t->over = t->over || step == GUEST_STEP_DONE;
}

static void
selftest_out(struct selftest *t, u32 value)
{
	switch (t->run->io.port) {
	case GUEST_PORT_STEP:
		selftest_enter_step(t, value);
		return;
	case GUEST_PORT_VALUE:
		selftest_compare(t, value);
		return;
	case GUEST_PORT_EXCEPTION:
		selftest_exception(t, value);
		return;
	default:
		selftest_unsound(t, "wrong result");
		return;
	}
}

/* ROUNDS took NS. Sets how often to go round the next time: 0 if that is enough. */
static void
selftest_measured(struct selftest *t, u64 ns)
{
	u64 *speed =
		t->step == GUEST_STEP_USER_SPEED ? &t->probe->user_speed : &t->probe->kernel_speed;
	u64 now = 2ull * t->rounds * 1000000000 / ns;

	*speed = now > *speed ? now : *speed;
	if (ns >= SELFTEST_ENOUGH_NS) {
		t->rounds = ++t->tries < SELFTEST_TRIES ? t->rounds : 0;
		return;
	}
	t->rounds = t->rounds < SELFTEST_LAST ? t->rounds * SELFTEST_FACTOR : 0;
	t->tries = 0;
}

/* A loop of two instructions is over; how often to go round the next. */
static u32
selftest_count(struct selftest *t)
{
	u64 ns = loop_now() - t->since_ns + 1;

	if (t->rounds == 0) {
		t->rounds = SELFTEST_FIRST;
		t->tries = 0;
	} else {
		selftest_measured(t, ns);
	}
	t->since_ns = loop_now();
	return t->rounds;
}

static void
selftest_io(struct selftest *t)
{
	u8 *data = (u8 *)t->run + t->run->io.data_offset;

	if (t->run->io.size != 4 || t->run->io.count != 1)
		selftest_unsound(t, "a port access of %u bytes", t->run->io.size);
	else if (t->run->io.direction == KVM_EXIT_IO_OUT)
		selftest_out(t, get_le32(data));
	else
		put_le32(data, selftest_count(t));
}

static void
selftest_exit(struct selftest *t)
{
	switch (t->run->exit_reason) {
	case KVM_EXIT_IO:
		selftest_io(t);
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		selftest_unsound(t, "kvm's internal error %u%s", t->run->internal.suberror,
				 t->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
					 ? " (it cannot emulate the instruction)"
					 : "");
		return;
	case KVM_EXIT_SHUTDOWN:
		selftest_unsound(t, "triple fault");
		return;
	default:
		selftest_unsound(t, "exit %u", t->run->exit_reason);
		return;
	}
}

/* ---- time ---- */

static int
selftest_arm(timer_t *timer)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kvm_signal()};
	const struct itimerspec limit = {
		.it_value = {SELFTEST_LIMIT_MS / 1000, SELFTEST_LIMIT_MS % 1000 * 1000000l}};

#ifdef sigev_notify_thread_id
	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
#else
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
#endif
	if (timer_create(CLOCK_MONOTONIC, &event, timer))
		return -errno;
	return timer_settime(*timer, 0, &limit, NULL) ? -errno : 0;
}

/* Whether the timer is what ended KVM_RUN: a stop and going on does that, too. */
static bool
selftest_late(void)
{
	const struct timespec now = {0, 0};
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, kvm_signal());
	return sigtimedwait(&ours, NULL, &now) >= 0;
}

static void
selftest_loop(struct selftest *t)
{
	for (int i = 0; i < SELFTEST_EXITS && !t->over; i++) {
		if (ioctl(t->vcpu, KVM_RUN, 0) == 0)
			selftest_exit(t);
		else if (errno != EINTR && errno != EAGAIN)
			selftest_unsound(t, "KVM_RUN: %s", strerror(errno));
		else if (selftest_late())
			selftest_unsound(t, "not over after %d ms", SELFTEST_LIMIT_MS);
	}
	if (!t->over)
		selftest_unsound(t, "the guest does not get on");
}

/* In the time allowed: then a signal ends KVM_RUN, as a kick does. */
static int
selftest_go(struct selftest *t)
{
	sigset_t ours, before;
	timer_t timer;
	int err;

	sigemptyset(&ours);
	sigaddset(&ours, kvm_signal());
	pthread_sigmask(SIG_BLOCK, &ours, &before);
	err = kvm_set_signal_mask(t->vcpu);
	if (!err)
		err = selftest_arm(&timer);
	if (!err) {
		selftest_loop(t);
		timer_delete(timer);
	}
	while (selftest_late())
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* ---- the VM ---- */

static int
selftest_map(struct selftest *t, int device)
{
	int size = kvm_ioctl_value(device, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *memory, *run;

	if (size < (int)sizeof(*t->run))
		return -EIO;
	memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	t->memory = memory;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, t->vcpu, 0);
	if (run == MAP_FAILED)
		return -errno;
	t->run = run;
	t->run_size = (size_t)size;
	return 0;
}

static int
selftest_build(struct selftest *t, int device)
{
	struct kvm_userspace_memory_region region = {.memory_size = GUEST_SIZE};
	struct kvm_regs regs = {.rip = GUEST_KERNEL, .rsp = GUEST_STACK_TOP, .rflags = 2};
	u32 features = 0;
	int err;

	t->vcpu = err = kvm_ioctl_value(t->vm, KVM_CREATE_VCPU, 0);
	if (err >= 0)
		err = selftest_map(t, device);
	if (err < 0)
		return err;
	selftest_load(t);
	region.userspace_addr = (u64)(uintptr_t)t->memory;
	err = kvm_ioctl(t->vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (!err)
		err = selftest_set_cpuid(t, device, &features);
	if (!err)
		err = selftest_set_sregs(t);
	if (!err)
		err = selftest_set_msrs(t);
	regs.rdi = features;
	return err ? err : kvm_ioctl(t->vcpu, KVM_SET_REGS, &regs);
}

static void
selftest_close(struct selftest *t)
{
	if (t->run)
		munmap(t->run, t->run_size);
	if (t->vcpu >= 0)
		close(t->vcpu);
	if (t->memory)
		munmap(t->memory, GUEST_SIZE);
}

void
kvm_selftest(int device, int vm, struct engine_probe *probe)
{
	struct selftest t = {.probe = probe, .vm = vm, .vcpu = -1};
	int err = selftest_build(&t, device);

	if (!err)
		err = selftest_go(&t);
	if (err)
		selftest_unsound(&t, "%s", strerror(-err));
	selftest_close(&t);
}
