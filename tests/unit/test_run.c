/*
 * The translator's run loop as a machine sees it: where a kick takes effect,
 * that an answered access is never asked for twice, what setting a state
 * forgets, one TSC for all vCPUs, INIT and SIPI. The guests are a few bytes in
 * real mode, in 1 MiB of RAM; what is behind it is nobody's.
 */
#include "unit.h"

#include <stdlib.h>
#include <time.h>

#include "engine/engine.h"

enum {
	RAM = 1 << 20,
	CODE = 0x1000,
	HANDLER = 0x2000,
	STACK = 0x8000,
	VECTOR = 0x40,
	PORT = 0x123,
	LAPIC_SVR = 0xf,
	VCPUS = 2,
};

struct machine {
	struct memory *memory;
	struct engine *engine;
	struct engine_vcpu *vcpu[VCPUS];
	struct cpu_model model;
	struct cpu_state state;
	struct engine_exit exit;
};

static int
no_extint(void *opaque)
{
	(void)opaque;
	return -1;
}

static int
setup(void **state)
{
	struct machine *m = aligned_alloc(64, align_up(sizeof(*m), 64));
	struct engine_config config = {.vcpus = VCPUS, .code_cache = 4 << 20};
	const char *missing;

	memset(m, 0, sizeof(*m));
	assert_int_equal(memory_create(&m->memory, RAM), 0);
	assert_int_equal(cpu_model_compute(&m->model, "x86-64-v2", VCPUS, &missing), 0);
	config.memory = m->memory;
	config.model = &m->model;
	config.extint_vector = no_extint;
	assert_int_equal(engine_translator.create(&m->engine, &config), 0);
	assert_int_equal(engine_translator.map(m->engine, 0, RAM, 0, true), 0);
	for (unsigned i = 0; i < VCPUS; i++)
		assert_int_equal(engine_translator.vcpu_create(m->engine, i, &m->vcpu[i]), 0);
	*state = m;
	return 0;
}

static int
teardown(void **state)
{
	struct machine *m = *state;

	for (unsigned i = 0; i < VCPUS; i++)
		engine_translator.vcpu_destroy(m->vcpu[i]);
	engine_translator.destroy(m->engine);
	memory_destroy(m->memory);
	free(m);
	return 0;
}

static void
put(struct machine *m, u64 gpa, const void *bytes, size_t n)
{
	assert_int_equal(memory_write(m->memory, gpa, bytes, n), 0);
}

/* vCPU 0 is about to run BYTES in real mode, local APIC on, PORT in DX. */
static void
start(struct machine *m, const void *bytes, size_t n, u64 rflags)
{
	struct cpu_state *s = &m->state;
	u16 vector[2] = {HANDLER, 0};

	put(m, CODE, bytes, n);
	put(m, VECTOR * 4, vector, sizeof(vector));
	cpu_state_reset(s, 0);
	s->seg[CPU_CS] = (struct segment){.limit = 0xffff, .attr = s->seg[CPU_CS].attr};
	s->rip = CODE;
	s->gpr[CPU_RSP] = STACK;
	s->gpr[CPU_RDX] = PORT;
	s->rflags = RFLAGS_FIXED | rflags;
	s->lapic.regs[LAPIC_SVR] = 0x1ff;
	assert_int_equal(engine_translator.set_state(m->vcpu[0], s), 0);
}

static enum engine_exit_kind
run(struct machine *m)
{
	assert_int_equal(engine_translator.run(m->vcpu[0], &m->exit), 0);
	return m->exit.kind;
}

static const struct cpu_state *
get(struct machine *m, unsigned index)
{
	assert_int_equal(engine_translator.get_state(m->vcpu[index], &m->state), 0);
	return &m->state;
}

static const u8 in_hlt[] = {0xec, 0xf4}; /* in al, dx; hlt */

static void
kick_before_the_first_instruction(void **state)
{
	struct machine *m = *state;

	start(m, in_hlt, sizeof(in_hlt), 0);
	engine_translator.kick(m->vcpu[0]);
	assert_int_equal(run(m), EXIT_KICKED);
	assert_int_equal(get(m, 0)->rip, CODE);
	assert_int_equal(run(m), EXIT_PORT);
}

static void
kick_waits_for_an_answered_port(void **state)
{
	struct machine *m = *state;

	start(m, in_hlt, sizeof(in_hlt), 0);
	assert_int_equal(run(m), EXIT_PORT);
	assert_false(m->exit.port.write);
	assert_int_equal(m->exit.port.port, PORT);
	m->exit.port.data = 0x5a;
	engine_translator.kick(m->vcpu[0]);
	assert_int_equal(run(m), EXIT_KICKED);
	assert_int_equal(get(m, 0)->rip, CODE + 1);
	assert_int_equal(get(m, 0)->gpr[CPU_RAX] & 0xff, 0x5a);
	assert_int_equal(run(m), EXIT_HALT);
}

static void
kick_waits_for_a_queued_store(void **state)
{
	static const u8 code[] = {0xb8, 0xff, 0xff, 0x8e, 0xd8, /* mov ax, -1; mov ds, ax */
				  0xa2, 0x10, 0x00, 0xf4};	/* mov [0x10], al; hlt */
	struct machine *m = *state;

	start(m, code, sizeof(code), 0);
	assert_int_equal(run(m), EXIT_MMIO);
	assert_true(m->exit.mmio.write);
	assert_int_equal(m->exit.mmio.gpa, RAM);
	assert_int_equal(m->exit.mmio.data, 0xff);
	engine_translator.kick(m->vcpu[0]);
	assert_int_equal(run(m), EXIT_KICKED);
	assert_int_equal(get(m, 0)->rip, CODE + 8);
	assert_int_equal(run(m), EXIT_HALT);
}

/* An interrupt that comes while the machine answers is taken behind the instruction. */
static void
interrupt_waits_for_an_answered_port(void **state)
{
	static const u8 handler[] = {0x88, 0xc3, 0xee, 0xf4}; /* mov bl, al; out dx, al; hlt */
	struct machine *m = *state;
	u16 frame[3];

	put(m, HANDLER, handler, sizeof(handler));
	start(m, in_hlt, sizeof(in_hlt), RFLAGS_IF);
	assert_int_equal(run(m), EXIT_PORT);
	assert_false(m->exit.port.write);
	m->exit.port.data = 0x5a;
	engine_translator.send_msi(m->engine, 0xfee00000, VECTOR);
	assert_int_equal(run(m), EXIT_PORT);
	assert_true(m->exit.port.write);
	assert_int_equal(m->exit.port.data, 0x5a);
	assert_int_equal(memory_read(m->memory, STACK - 6, frame, sizeof(frame)), 0);
	assert_int_equal(frame[0], CODE + 1);
}

static void
new_state_forgets_the_old_one(void **state)
{
	struct machine *m = *state;

	start(m, in_hlt, sizeof(in_hlt), 0);
	assert_int_equal(run(m), EXIT_PORT);
	m->exit.port.data = 0x11;
	start(m, in_hlt, sizeof(in_hlt), 0);
	assert_int_equal(run(m), EXIT_PORT); /* asked anew */
	m->exit.port.data = 0x22;
	assert_int_equal(run(m), EXIT_HALT);
	assert_int_equal(get(m, 0)->gpr[CPU_RAX] & 0xff, 0x22);
	start(m, in_hlt + 1, 1, 0);
	assert_int_equal(run(m), EXIT_HALT); /* told again */
}

static void
string_input_hits_io_breakpoint(void **state)
{
	static const u8 code[] = {0xf3, 0x6c, 0xf4}; /* rep insb; hlt */
	static const u8 handler[] = {0xf4};
	static const u16 vector[2] = {HANDLER, 0};
	struct machine *m = *state;

	put(m, HANDLER, handler, sizeof(handler));
	put(m, VECTOR_DB * 4, vector, sizeof(vector));
	start(m, code, sizeof(code), 0);
	m->state.gpr[CPU_RCX] = 3;
	m->state.gpr[CPU_RDI] = 0x4000;
	m->state.cr4 = CR4_DE;
	m->state.dr[0] = PORT;
	m->state.dr7 = 0x400 | 1 | 2 << 16;
	assert_int_equal(engine_translator.set_state(m->vcpu[0], &m->state), 0);
	assert_int_equal(run(m), EXIT_PORT);
	assert_int_equal(run(m), EXIT_HALT);
	assert_int_equal(get(m, 0)->gpr[CPU_RCX], 2);
	assert_int_equal(get(m, 0)->rip, HANDLER + 1);
	assert_int_equal(get(m, 0)->dr6 & 0xf, 1);
}

/* RF holds for all steps of a repetition, also those between which the machine is asked. */
static void
resume_flag_holds_for_a_repetition(void **state)
{
	static const u8 code[] = {0xf3, 0x6c, 0xf4}; /* rep insb; hlt */
	struct machine *m = *state;

	start(m, code, sizeof(code), RFLAGS_RF);
	m->state.gpr[CPU_RCX] = 3;
	m->state.gpr[CPU_RDI] = 0x4000;
	m->state.dr[0] = CODE;
	m->state.dr7 = 0x400 | 1;
	assert_int_equal(engine_translator.set_state(m->vcpu[0], &m->state), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(run(m), EXIT_PORT);
	assert_int_equal(run(m), EXIT_HALT);
	assert_int_equal(get(m, 0)->rip, CODE + 3);
	assert_int_equal(get(m, 0)->rflags & RFLAGS_RF, 0);
}

/* Past the segment's end: the jump faults, and the frame says where it is. */
static void
branch_beyond_the_limit_faults_itself(void **state)
{
	static const u8 code[] = {0x66, 0xe9, 0x00,
				  0x00, 0x01, 0x00}; /* jmp near +0x10000, 32 bits */
	static const u8 handler[] = {0xf4};
	static const u16 vector[2] = {HANDLER, 0};
	struct machine *m = *state;
	u16 frame[3];

	put(m, HANDLER, handler, sizeof(handler));
	put(m, VECTOR_GP * 4, vector, sizeof(vector));
	start(m, code, sizeof(code), 0);
	assert_int_equal(run(m), EXIT_HALT);
	assert_int_equal(get(m, 0)->rip, HANDLER + 1);
	assert_int_equal(memory_read(m->memory, STACK - 6, frame, sizeof(frame)), 0);
	assert_int_equal(frame[0], CODE);
}

static void
one_tsc_for_all(void **state)
{
	struct timespec pause = {.tv_nsec = 3000000};
	struct machine *m = *state;
	u64 first;

	for (unsigned i = 0; i < VCPUS; i++) {
		cpu_state_reset(&m->state, i);
		assert_int_equal(engine_translator.set_state(m->vcpu[i], &m->state), 0);
		nanosleep(&pause, NULL);
	}
	first = get(m, 0)->tsc;
	nanosleep(&pause, NULL);
	assert_int_equal(get(m, 1)->tsc, first);
	start(m, in_hlt, sizeof(in_hlt), 0);
	run(m);
	first = get(m, 1)->tsc;
	assert_true(first > 0); /* it runs on */
	assert_int_equal(get(m, 1)->tsc, first);
}

static void
run_second(struct machine *m)
{
	engine_translator.kick(m->vcpu[1]);
	assert_int_equal(engine_translator.run(m->vcpu[1], &m->exit), 0);
	assert_int_equal(m->exit.kind, EXIT_KICKED);
}

static void
init_then_sipi(void **state)
{
	enum { INIT = 0x4500, SIPI = 0x4600 };
	const u64 second = 0xfee01000;
	struct machine *m = *state;

	/* Kicked at once, so that it goes no further than taking what was sent. */
	engine_translator.send_msi(m->engine, second, SIPI | 3); /* void: INIT comes after it */
	engine_translator.send_msi(m->engine, second, INIT);
	run_second(m);
	assert_int_equal(get(m, 1)->run_state, CPU_WAIT_SIPI);
	engine_translator.send_msi(m->engine, second, INIT);
	engine_translator.send_msi(m->engine, second, SIPI | 7);
	engine_translator.send_msi(m->engine, second, SIPI | 8); /* the first counts */
	run_second(m);
	assert_int_equal(get(m, 1)->run_state, CPU_RUNNING);
	assert_int_equal(get(m, 1)->seg[CPU_CS].base, 0x7000);
	assert_int_equal(get(m, 1)->rip, 0);
}

/* HLT with interrupts off: only an NMI ends it. */
static void
nmi_wakes_a_halted_processor(void **state)
{
	static const u8 handler[] = {0xee, 0xcf, 0xf4}; /* out dx, al; iret */
	static const u16 vector[2] = {HANDLER, 0};
	struct machine *m = *state;

	put(m, HANDLER, handler, sizeof(handler));
	put(m, VECTOR_NMI * 4, vector, sizeof(vector));
	start(m, in_hlt + 1, 1, 0);
	assert_int_equal(run(m), EXIT_HALT);
	engine_translator.send_msi(m->engine, 0xfee00000, 4 << 8);
	assert_int_equal(run(m), EXIT_PORT);
	assert_int_equal(get(m, 0)->rip, HANDLER);
	assert_true(get(m, 0)->events.nmi_masked);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(kick_before_the_first_instruction),
		TEST(kick_waits_for_an_answered_port),
		TEST(kick_waits_for_a_queued_store),
		TEST(interrupt_waits_for_an_answered_port),
		TEST(new_state_forgets_the_old_one),
		TEST(string_input_hits_io_breakpoint),
		TEST(resume_flag_holds_for_a_repetition),
		TEST(branch_beyond_the_limit_faults_itself),
		TEST(one_tsc_for_all),
		TEST(init_then_sipi),
		TEST(nmi_wakes_a_halted_processor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
