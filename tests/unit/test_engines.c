/*
 * The same small guests on our own hypervisor and on the host's, without devices: where they end,
 * registers and memory must be the same. Where the host's is none or no good one there is nothing
 * to compare with: kvm/engines is this test in a lab that has one.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "engine/engine.h"
#include "memory/memory.h"

enum { TR = 100, LDTR };
enum { RAM = 32 << 20, DEBUG_EXIT = 0xf4, LIMIT = 4000000 };

/* Those that end the same each time, without clocks and interrupts from outside, and that do
 * nothing which the lab's emulated CPU gets wrong. */
static const char *const guests[] = {"hello",  "hello64", "prot32", "access",
				     "compat", "smc",	  "fpu",    "seg32"};

struct run {
	struct memory *memory;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct cpu_state *state;
	u32 ended; /* what it wrote to DEBUG_EXIT */
};

static struct cpu_model model;
static int device = -1;

static int
no_extint(void *opaque)
{
	return -1;
}

static void
run_load(struct run *r, const char *guest)
{
	char path[128], why[256] = "";
	struct boot_config boot = {.cmdline = "on-kvm", .phys_bits = model.phys_bits};

	snprintf(path, sizeof(path), TEST_BUILD "/guest/%s.elf", guest);
	boot.kernel.name = path;
	boot.kernel.fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(boot.kernel.fd >= 0);
	assert_int_equal(boot_load(r->memory, &boot, r->state, why, sizeof(why)), 0);
	close(boot.kernel.fd);
}

static void
run_start(struct run *r, const struct engine_ops *ops, const char *guest)
{
	struct engine_config config = {
		.model = &model, .vcpus = 1, .device = device, .extint_vector = no_extint};

	memset(r, 0, sizeof(*r));
	r->state = aligned_alloc(64, align_up(sizeof(*r->state), 64));
	assert_non_null(r->state);
	assert_int_equal(memory_create(&r->memory, RAM), 0);
	config.memory = r->memory;
	run_load(r, guest);
	assert_int_equal(ops->create(&r->engine, &config), 0);
	assert_int_equal(ops->map(r->engine, 0, RAM, 0, true), 0);
	assert_int_equal(ops->vcpu_create(r->engine, 0, &r->vcpu), 0);
	assert_int_equal(ops->set_state(r->vcpu, r->state), 0);
}

/* One exit; false at the end. */
static bool
run_exit(struct run *r, struct engine_exit *exit)
{
	switch (exit->kind) {
	case EXIT_PORT:
		if (exit->port.write && exit->port.port == DEBUG_EXIT) {
			r->ended = exit->port.data;
			return false;
		}
		if (!exit->port.write)
			exit->port.data =
				(u32)memory_port_read(r->memory, exit->port.port, exit->port.size);
		return true;
	case EXIT_MMIO:
		if (!exit->mmio.write)
			exit->mmio.data =
				memory_mmio_read(r->memory, exit->mmio.gpa, exit->mmio.size);
		return true;
	case EXIT_EOI:
	case EXIT_KICKED:
		return true;
	case EXIT_FAILED:
		fail_msg("%s", exit->failed.why);
		return false;
	default:
		fail_msg("exit %d", (int)exit->kind);
		return false;
	}
}

/* To the boundary behind the instruction that ends it. */
static void
run_go(struct run *r, const struct engine_ops *ops)
{
	struct engine_exit exit;

	r->ended = UINT32_MAX;
	for (int i = 0; i < LIMIT; i++) {
		assert_int_equal(ops->run(r->vcpu, &exit), 0);
		if (!run_exit(r, &exit))
			break;
	}
	assert_int_equal(r->ended, 0);
	ops->kick(r->vcpu);
	assert_int_equal(ops->run(r->vcpu, &exit), 0);
	assert_int_equal(exit.kind, EXIT_KICKED);
	assert_int_equal(ops->get_state(r->vcpu, r->state), 0);
}

static void
run_end(struct run *r, const struct engine_ops *ops)
{
	ops->vcpu_destroy(r->vcpu);
	ops->destroy(r->engine);
	memory_destroy(r->memory);
	free(r->state);
}

/* ---- what must be equal ---- */

static unsigned
differs(const char *what, unsigned index, u64 one, u64 other)
{
	if (one == other)
		return 0;
	print_message("%s %u: %#llx on biga, %#llx on kvm\n", what, index, (unsigned long long)one,
		      (unsigned long long)other);
	return 1;
}

/* Of a segment that is not there, only that counts. */
static unsigned
differs_segment(const char *what, unsigned index, const struct segment *one,
		const struct segment *other)
{
	bool null = !(one->selector & 0xfffc) && !(other->selector & 0xfffc) && index == LDTR;
	unsigned n =
		null ? 0 : differs(what, index, one->attr & SEGMENT_P, other->attr & SEGMENT_P);

	if (null || !(one->attr & SEGMENT_P))
		return n;
	return n + differs(what, index, one->selector, other->selector) +
	       differs(what, index, one->base, other->base) +
	       differs(what, index, one->limit, other->limit) +
	       differs(what, index, one->attr, other->attr);
}

static unsigned
differs_state(const struct cpu_state *one, const struct cpu_state *other)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CPU_GPRS; i++)
		n += differs("register", i, one->gpr[i], other->gpr[i]);
	for (unsigned i = 0; i < CPU_SEGMENTS; i++)
		n += differs_segment("segment", i, &one->seg[i], &other->seg[i]);
	n += differs_segment("TR", TR, &one->tr, &other->tr);
	n += differs_segment("LDTR", LDTR, &one->ldt, &other->ldt);
	n += differs("RIP", 0, one->rip, other->rip);
	n += differs("RFLAGS", 0, one->rflags, other->rflags);
	n += differs("GDT", 0, one->gdt.base, other->gdt.base);
	n += differs("IDT", 0, one->idt.base, other->idt.base);
	n += differs("CR", 0, one->cr0, other->cr0);
	n += differs("CR", 2, one->cr2, other->cr2);
	n += differs("CR", 3, one->cr3, other->cr3);
	n += differs("CR", 4, one->cr4, other->cr4);
	n += differs("CR", 8, one->cr8, other->cr8);
	n += differs("XCR0", 0, one->xcr0, other->xcr0);
	n += differs("DR", 7, one->dr7, other->dr7);
	n += differs("run state", 0, one->run_state, other->run_state);
	for (unsigned i = 0; i < sizeof(one->msr) / 8; i++)
		n += differs("MSR", i, ((const u64 *)&one->msr)[i], ((const u64 *)&other->msr)[i]);
	for (unsigned i = 0; i < ARRAY_LEN(one->lapic.regs); i++)
		n += differs("APIC register", i, one->lapic.regs[i], other->lapic.regs[i]);
	return n;
}

/* Accessed and dirty bits are set at an access at the latest, and may be earlier. RF in the frame
 * of a fault is set by CPUs, but not by the lab's. */
static bool
same_word(u64 one, u64 other)
{
	u64 rf = (u64)RFLAGS_RF << 32 | RFLAGS_RF;

	return one == other || ((one & other & 1) && ((one ^ other) & ~0x60ull) == 0) ||
	       ((one ^ other) & ~rf) == 0;
}

static unsigned
differs_memory(struct memory *one, struct memory *other)
{
	const u64 *a = (const u64 *)(const void *)memory_ram_host(one);
	const u64 *b = (const u64 *)(const void *)memory_ram_host(other);
	unsigned n = 0;

	for (unsigned i = 0; i < RAM / 8; i++) {
		if (same_word(a[i], b[i]))
			continue;
		if (n++ < 10)
			differs("memory at", i * 8, a[i], b[i]);
	}
	return n;
}

/* A state of one engine is the same after it went through the other. */
static unsigned
differs_crossed(struct run *own, struct run *host)
{
	struct cpu_state *back = aligned_alloc(64, align_up(sizeof(*back), 64));
	unsigned n;

	assert_non_null(back);
	own->state->kvmclock = 123456789;
	own->state->tsc = 1ull << 40;
	own->state->host_tsc = 0; /* as from a file: no time passes between the two */
	assert_int_equal(engine_kvm.set_state(host->vcpu, own->state), 0);
	assert_int_equal(engine_kvm.get_state(host->vcpu, back), 0);
	n = differs_state(own->state, back) + differs("TSC", 0, own->state->tsc, back->tsc);
	/* KVM's arithmetic on clocks loses some ns. */
	assert_in_range(back->kvmclock, 123456789 - 1000, 123456789 + 1000000);
	assert_int_equal(engine_translator.set_state(own->vcpu, back), 0);
	assert_int_equal(engine_translator.get_state(own->vcpu, back), 0);
	n += differs_state(own->state, back);
	free(back);
	return n;
}

static void
test_guests(void **state)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < ARRAY_LEN(guests); i++) {
		struct run own, host;

		run_start(&own, &engine_translator, guests[i]);
		run_go(&own, &engine_translator);
		run_start(&host, &engine_kvm, guests[i]);
		run_go(&host, &engine_kvm);
		unsigned n = differs_state(own.state, host.state) +
			     differs_memory(own.memory, host.memory);
		n += differs_crossed(&own, &host);
		print_message("%s: %u differences\n", guests[i], n);
		bad += n;
		run_end(&own, &engine_translator);
		run_end(&host, &engine_kvm);
	}
	assert_int_equal(bad, 0);
}

/* ---- what binds a machine to the host's kernel ---- */

enum { CODE = 0x1000, WRITTEN = 0x3000, HOST_WRITTEN = 0x5000, HOLE = 0x20000, SMALL = 0x10000 };

/* Real mode: a byte to WRITTEN, a word to HOLE, where nothing is, and the end. */
static const u8 code[] = {
	0xa2, WRITTEN & 0xff, WRITTEN >> 8, /* mov [WRITTEN], al */
	0xb8, 0x00,	      HOLE >> 12,   /* mov ax, HOLE / 16 */
	0x8e, 0xd8,			    /* mov ds, ax */
	0xa3, 0x00,	      0x00,	    /* mov [0], ax */
	0xe6, DEBUG_EXIT,		    /* out DEBUG_EXIT, al */
};

static void
small_start(struct run *r)
{
	struct engine_config config = {
		.model = &model, .vcpus = 1, .device = device, .extint_vector = no_extint};

	memset(r, 0, sizeof(*r));
	r->state = aligned_alloc(64, align_up(sizeof(*r->state), 64));
	assert_non_null(r->state);
	assert_int_equal(memory_create(&r->memory, RAM), 0);
	config.memory = r->memory;
	assert_int_equal(memory_write(r->memory, CODE, code, sizeof(code)), 0);
	assert_int_equal(engine_kvm.create(&r->engine, &config), 0);
	assert_int_equal(engine_kvm.map(r->engine, 0, SMALL, 0, true), 0);
	assert_int_equal(engine_kvm.vcpu_create(r->engine, 0, &r->vcpu), 0);
}

static void
small_reset(struct run *r)
{
	cpu_state_reset(r->state, 0);
	r->state->seg[CPU_CS].base = 0;
	r->state->seg[CPU_CS].selector = 0;
	r->state->rip = CODE;
	r->state->lapic.regs[0x0f] = 0x1ff; /* software has enabled it */
	assert_int_equal(engine_kvm.set_state(r->vcpu, r->state), 0);
}

static void
small_run(struct run *r, struct engine_exit *exit)
{
	assert_int_equal(engine_kvm.run(r->vcpu, exit), 0);
}

static void
test_notify(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct engine_exit exit;
	u64 count = 0;
	struct run r;

	small_start(&r);
	small_reset(&r);
	assert_int_equal(engine_kvm.bind_notify(r.engine, HOLE, 2, fd), 0);
	small_run(&r, &exit);
	assert_int_equal(exit.kind, EXIT_PORT);
	assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	assert_int_equal(engine_kvm.unbind_notify(r.engine, HOLE, 2, fd), 0);
	small_reset(&r);
	small_run(&r, &exit);
	assert_int_equal(exit.kind, EXIT_MMIO);
	assert_int_equal(exit.mmio.gpa, HOLE);
	assert_int_equal(exit.mmio.size, 2);
	assert_true(exit.mmio.write);
	assert_int_equal(exit.mmio.data, HOLE >> 4);
	assert_int_equal(read(fd, &count, sizeof(count)), -1);
	/* A kick between an exit and its completion comes behind the instruction. */
	engine_kvm.kick(r.vcpu);
	small_run(&r, &exit);
	assert_int_equal(exit.kind, EXIT_KICKED);
	assert_int_equal(engine_kvm.get_state(r.vcpu, r.state), 0);
	assert_int_equal(r.state->rip, CODE + 11);
	run_end(&r, &engine_kvm);
	close(fd);
}

static bool
small_pending(struct run *r, unsigned vector)
{
	for (int i = 0; i < 200; i++) {
		assert_int_equal(engine_kvm.get_state(r->vcpu, r->state), 0);
		if (r->state->lapic.regs[0x20 + vector / 32] >> (vector % 32) & 1)
			return true;
		usleep(5000);
	}
	return false;
}

static void
test_irq(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	u64 one = 1;
	struct run r;

	small_start(&r);
	small_reset(&r);
	assert_int_equal(engine_kvm.bind_irq(r.engine, fd, 0xfee00000, 0x41), 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_true(small_pending(&r, 0x41));
	/* Another message for the same eventfd. */
	assert_int_equal(engine_kvm.bind_irq(r.engine, fd, 0xfee00000, 0x52), 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_true(small_pending(&r, 0x52));
	engine_kvm.send_msi(r.engine, 0xfee00000, 0x63);
	assert_true(small_pending(&r, 0x63));
	assert_int_equal(engine_kvm.unbind_irq(r.engine, fd), 0);
	assert_int_equal(engine_kvm.unbind_irq(r.engine, fd), -ENOENT);
	small_reset(&r);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	usleep(20000);
	assert_int_equal(engine_kvm.get_state(r.vcpu, r.state), 0);
	assert_int_equal(r.state->lapic.regs[0x20 + 0x52 / 32], 0);
	run_end(&r, &engine_kvm);
	close(fd);
}

static void
test_dirty(void **state)
{
	struct engine_exit exit;
	u64 bitmap = 0;
	struct run r;

	small_start(&r);
	/* Before it is first asked for, nothing is known. */
	assert_int_equal(engine_kvm.take_dirty(r.engine, 0, SMALL, &bitmap), 0);
	assert_int_equal(bitmap, 0xffff);
	small_reset(&r);
	do
		small_run(&r, &exit);
	while (exit.kind != EXIT_PORT);
	memory_written(r.memory, HOST_WRITTEN, 1);
	/* The other pages' marks wait for whoever asks for those. */
	assert_int_equal(engine_kvm.take_dirty(r.engine, HOST_WRITTEN, 4096, &bitmap), 0);
	assert_int_equal(bitmap, 1);
	assert_int_equal(engine_kvm.take_dirty(r.engine, 0, SMALL, &bitmap), 0);
	/* KVM may take a page for written that could have been: the code's. */
	assert_int_equal(bitmap & ~(1ull << (CODE / 4096)), 1u << (WRITTEN / 4096));
	assert_int_equal(engine_kvm.take_dirty(r.engine, 0, SMALL, &bitmap), 0);
	assert_int_equal(bitmap, 0);
	assert_int_equal(engine_kvm.unmap(r.engine, 0, SMALL), 0);
	assert_int_equal(engine_kvm.unmap(r.engine, 0, SMALL), -ENOENT);
	run_end(&r, &engine_kvm);
}

/* What is refused changes nothing. */
static void
test_refused(void **state)
{
	struct run r;

	small_start(&r);
	small_reset(&r);
	r.state->gpr[CPU_RBX] = 77;
	r.state->xcr0 = 0;
	assert_int_equal(engine_kvm.set_state(r.vcpu, r.state), -EINVAL);
	assert_int_equal(engine_kvm.get_state(r.vcpu, r.state), 0);
	assert_int_equal(r.state->gpr[CPU_RBX], 0);
	assert_int_equal(r.state->rip, CODE);
	run_end(&r, &engine_kvm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_guests),
					   cmocka_unit_test(test_notify),
					   cmocka_unit_test(test_irq), cmocka_unit_test(test_dirty),
					   cmocka_unit_test(test_refused)};
	struct engine_probe probe = {.usable = false};
	const char *missing;

	device = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (device >= 0)
		engine_kvm.probe(device, &probe);
	if (!probe.usable) {
		printf("no sound KVM here (%s): nothing to compare with\n",
		       probe.cause ? probe.cause : "no node");
		return 0;
	}
	if (cpu_model_compute(&model, "x86-64-v2", 1, &missing))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
