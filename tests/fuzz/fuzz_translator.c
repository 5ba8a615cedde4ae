/*
 * The decoder and the translator on random bytes: guest code in every mode and
 * at both privilege levels. Whatever it does, the engine must answer with one
 * of its exits in the end (EXIT_FAILED where code runs outside of RAM).
 *
 * The first byte picks the mode, the next eight seed the registers, the rest
 * is code. A run ends after some exits, or is kicked after some milliseconds.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "engine/engine.h"

enum {
	FUZZ_RAM = 1 << 20,
	FUZZ_TABLES = 0x1000, /* page tables, then GDT, IDT, TSS */
	FUZZ_GDT = 0x6000,
	FUZZ_IDT = 0x7000,
	FUZZ_TSS = 0x8000,
	FUZZ_HANDLER = 0x9000,
	FUZZ_STACK = 0xf000,
	FUZZ_CODE = 0x10000,
	FUZZ_CODE_MAX = 4096,
	FUZZ_END_PORT = 0xf4,
	FUZZ_EXITS = 200,
	FUZZ_RUN_MS = 20,
};

enum fuzz_mode { REAL16, PROTECTED16, PROTECTED32, PAGED32, COMPAT32, LONG64, FUZZ_MODES };

struct fuzz {
	struct memory *memory;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct cpu_model model;
	u64 deadline_ms; /* [a] when to kick, 0 if nothing runs */
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64
fuzz_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

static void *
fuzz_watchdog(void *opaque)
{
	struct fuzz *f = opaque;

	for (;;) {
		struct timespec tick = {.tv_nsec = 5 * 1000 * 1000};
		u64 deadline;

		nanosleep(&tick, NULL);
		deadline = __atomic_load_n(&f->deadline_ms, __ATOMIC_ACQUIRE);
		if (deadline && fuzz_now_ms() > deadline)
			engine_translator.kick(f->vcpu);
	}
	return NULL;
}

static int
fuzz_extint(void *opaque)
{
	(void)opaque;
	return -1;
}

static void
fuzz_start(struct fuzz *f)
{
	struct engine_config config = {.vcpus = 1, .code_cache = 8 << 20};
	const char *missing;
	pthread_t thread;

	if (memory_create(&f->memory, FUZZ_RAM) ||
	    cpu_model_compute(&f->model, "x86-64-v3", 1, &missing))
		abort();
	config.memory = f->memory;
	config.model = &f->model;
	config.opaque = f;
	config.extint_vector = fuzz_extint;
	if (engine_translator.create(&f->engine, &config) ||
	    engine_translator.map(f->engine, 0, FUZZ_RAM, 0, true) ||
	    engine_translator.vcpu_create(f->engine, 0, &f->vcpu) ||
	    pthread_create(&thread, NULL, fuzz_watchdog, f))
		abort();
}

static u8 *
fuzz_ram(const struct fuzz *f, u64 gpa)
{
	return memory_ram_host(f->memory) + gpa;
}

/* The first MiB identity, writable, for users too; long modes see a 2 MiB page of RAM behind it. */
static void
fuzz_page_tables(const struct fuzz *f, enum fuzz_mode mode)
{
	u64 all = 7;

	if (mode == PAGED32) { /* two levels of 4-byte entries */
		put_le32(fuzz_ram(f, FUZZ_TABLES), (FUZZ_TABLES + 0x1000) | 7);
		for (u32 i = 0; i < 256; i++)
			put_le32(fuzz_ram(f, FUZZ_TABLES + 0x1000 + 4 * i), i << 12 | 7);
		return;
	}
	put_le64(fuzz_ram(f, FUZZ_TABLES), (FUZZ_TABLES + 0x1000) | all);
	put_le64(fuzz_ram(f, FUZZ_TABLES + 0x1000), (FUZZ_TABLES + 0x2000) | all);
	put_le64(fuzz_ram(f, FUZZ_TABLES + 0x2000), (FUZZ_TABLES + 0x3000) | all);
	put_le64(fuzz_ram(f, FUZZ_TABLES + 0x2008), 0x83 | 4); /* 2 MiB page of RAM again */
	for (u64 i = 0; i < 256; i++)
		put_le64(fuzz_ram(f, FUZZ_TABLES + 0x3000 + 8 * i), i << 12 | all);
}

/* Selectors 8 and 0x10 are the mode's code and data; all gates lead to one handler. */
static void
fuzz_tables(const struct fuzz *f, enum fuzz_mode mode)
{
	bool is_long = mode == LONG64 || mode == COMPAT32;
	u64 code = mode == LONG64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull;
	u64 user = 0x600000000000ull;

	if (mode == PROTECTED16)
		code = 0x008f9b000000ffffull;
	put_le64(fuzz_ram(f, FUZZ_GDT + 8), is_long ? 0x00af9b000000ffffull : code);
	put_le64(fuzz_ram(f, FUZZ_GDT + 16), 0x00cf93000000ffffull);
	put_le64(fuzz_ram(f, FUZZ_GDT + 24), code | user);
	put_le64(fuzz_ram(f, FUZZ_GDT + 32), 0x00cf93000000ffffull | user);
	put_le64(fuzz_ram(f, FUZZ_GDT + 40), 0x00008b0000000067ull | (u64)FUZZ_TSS << 16);
	for (unsigned i = 0; i < 256; i++) {
		u8 *gate = fuzz_ram(f, FUZZ_IDT + i * (is_long ? 16 : 8));

		put_le64(gate, 0x8e0000080000ull | FUZZ_HANDLER);
	}
	put_le32(fuzz_ram(f, FUZZ_TSS + 4), FUZZ_STACK);
	put_le32(fuzz_ram(f, FUZZ_TSS + 8), is_long ? 0 : 0x10);
	put_le16(fuzz_ram(f, FUZZ_TSS + 0x66), 0x68);
}

static void
fuzz_vectors(const struct fuzz *f)
{
	for (unsigned i = 0; i < 256; i++)
		put_le32(fuzz_ram(f, 4 * i), FUZZ_HANDLER >> 4 << 16);
}

static u64
fuzz_next(u64 *s)
{
	*s = *s * 6364136223846793005ull + 1442695040888963407ull;
	return *s >> 17;
}

static void
fuzz_registers(struct cpu_state *s, u64 seed)
{
	for (int i = 0; i < CPU_GPRS; i++) {
		u64 value = fuzz_next(&seed);

		s->gpr[i] = value & 1 ? value : value % FUZZ_RAM; /* half of them point at RAM */
	}
	s->gpr[CPU_RSP] = FUZZ_STACK - 0x800;
	s->rflags = RFLAGS_FIXED | (fuzz_next(&seed) & (RFLAGS_ARITH | RFLAGS_DF | RFLAGS_AC));
	if (fuzz_next(&seed) % 16 == 0)
		s->rflags |= RFLAGS_TF;
}

static void
fuzz_segments(struct cpu_state *s, enum fuzz_mode mode, unsigned cpl)
{
	unsigned common = SEGMENT_P | SEGMENT_S | cpl << SEGMENT_DPL_SHIFT | SEGMENT_G;

	for (int i = 0; i < CPU_SEGMENTS; i++)
		s->seg[i] = (struct segment){.selector = (u16)(cpl ? 0x23 : 0x10),
					     .limit = UINT32_MAX,
					     .attr = (u16)(common | SEGMENT_DB | 3)};
	s->seg[CPU_CS] = (struct segment){.selector = (u16)(cpl ? 0x1b : 0x08),
					  .limit = UINT32_MAX,
					  .attr = (u16)(common | 11)};
	if (mode == LONG64)
		s->seg[CPU_CS].attr |= SEGMENT_L;
	else if (mode != PROTECTED16)
		s->seg[CPU_CS].attr |= SEGMENT_DB;
	if (mode == PROTECTED16)
		s->seg[CPU_SS].attr &= (u16)~SEGMENT_DB;
}

static void
fuzz_state(struct cpu_state *s, enum fuzz_mode mode, unsigned cpl, u64 seed)
{
	cpu_state_reset(s, 0);
	fuzz_registers(s, seed);
	s->run_state = CPU_RUNNING;
	s->rip = FUZZ_CODE;
	if (mode == REAL16) {
		s->seg[CPU_CS] = (struct segment){.base = FUZZ_CODE,
						  .limit = 0xffff,
						  .selector = FUZZ_CODE >> 4,
						  .attr = 0x9b};
		s->rip = 0;
		return;
	}
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM;
	s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->xcr0 = 7;
	s->gdt = (struct descriptor_table){FUZZ_GDT, 0x37};
	s->idt = (struct descriptor_table){FUZZ_IDT, 0xfff};
	s->tr = (struct segment){
		.base = FUZZ_TSS, .limit = 0x67, .selector = 40, .attr = SEGMENT_P | 11};
	if (mode >= PAGED32) {
		s->cr0 |= CR0_PG;
		s->cr3 = FUZZ_TABLES;
	}
	if (mode >= COMPAT32) {
		s->cr4 |= CR4_PAE | CR4_FSGSBASE;
		s->msr.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	}
	fuzz_segments(s, mode, cpl);
}

static void
fuzz_run(struct fuzz *f)
{
	struct engine_exit exit = {0};

	__atomic_store_n(&f->deadline_ms, fuzz_now_ms() + FUZZ_RUN_MS, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < FUZZ_EXITS; i++) {
		if (engine_translator.run(f->vcpu, &exit))
			abort();
		if (exit.kind == EXIT_PORT && exit.port.write && exit.port.port == FUZZ_END_PORT)
			break;
		if (exit.kind == EXIT_PORT && !exit.port.write)
			exit.port.data = UINT32_MAX;
		else if (exit.kind == EXIT_MMIO && !exit.mmio.write)
			exit.mmio.data = UINT64_MAX;
		else if (exit.kind != EXIT_PORT && exit.kind != EXIT_MMIO && exit.kind != EXIT_EOI)
			break;
	}
	__atomic_store_n(&f->deadline_ms, 0, __ATOMIC_RELEASE);
}

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct fuzz fuzz; /* one engine for all inputs: starting one is slow */
	struct cpu_state state;
	enum fuzz_mode mode;

	if (size < 10 || size > FUZZ_CODE_MAX)
		return 0;
	if (!fuzz.engine)
		fuzz_start(&fuzz);
	mode = data[0] % FUZZ_MODES;
	/* What runs on behind the code is INT3, whose handler ends the run: HLT would wait. */
	memset(fuzz_ram(&fuzz, 0), 0, FUZZ_CODE);
	memset(fuzz_ram(&fuzz, FUZZ_CODE), 0xcc, FUZZ_RAM - FUZZ_CODE);
	put_le32(fuzz_ram(&fuzz, FUZZ_HANDLER), 0xf400e6 | FUZZ_END_PORT << 8); /* OUT; HLT */
	fuzz_page_tables(&fuzz, mode);
	if (mode == REAL16)
		fuzz_vectors(&fuzz);
	else
		fuzz_tables(&fuzz, mode);
	memcpy(fuzz_ram(&fuzz, FUZZ_CODE), data + 9, size - 9);
	memory_written(fuzz.memory, 0, FUZZ_RAM);
	fuzz_state(&state, mode, mode != REAL16 && (data[0] & 0x80) ? 3 : 0, get_le64(data + 1));
	if (engine_translator.set_state(fuzz.vcpu, &state))
		return 0;
	fuzz_run(&fuzz);
	return 0;
}
