/*
 * Runs cases through the translator: a guest of one vCPU in 64-bit mode whose
 * tables are written by hand, entered at privilege level 3 by set_state; every
 * exception's handler is a HLT, and the frame on the kernel's stack tells what
 * happened.
 *
 *	gpa 0x1000 GDT, 0x2000 IDT, 0x3000 TSS, 0x5000 handlers (16 bytes each)
 *	    0x8000 top of the kernel's stack, 0x10000 page tables
 *	    0x100000 the code pages, 0x200000 the data pages
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "case.h"
#include "engine/engine.h"

enum {
	GUEST_RAM = 4 << 20,
	GUEST_GDT = 0x1000,
	GUEST_IDT = 0x2000,
	GUEST_TSS = 0x3000,
	GUEST_HANDLERS = 0x5000,
	GUEST_STACK = 0x8000,
	GUEST_TABLES = 0x10000,
	GUEST_CODE = 0x100000,
	GUEST_DATA = 0x200000,
	GUEST_KERNEL_CS = 0x10,
	GUEST_CS32 = 0x23,
	GUEST_SS = 0x2b,
	GUEST_CS64 = 0x33,
	GUEST_TR = 0x40,
	GUEST_LIMIT_MS = 5000,
};

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4 };
#define PTE_NX (1ull << 63)

struct guest {
	struct memory *memory;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct cpu_model model;
	u8 pristine[CASE_DATA_SIZE];
	u64 fs_base;
	pthread_t watchdog;
	pthread_mutex_t lock;
	u64 started_ms; /* [lock] of the run under way, 0 if none */
	bool stopping;	/* [lock] */
	bool hung;	/* [lock] */
};

static const struct engine_ops *const guest_ops = &engine_translator;

static u8 *
guest_ptr(const struct guest *g, u64 gpa, u64 len)
{
	u8 *p = memory_ptr(g->memory, gpa, len);

	if (!p)
		abort();
	return p;
}

/*
 * Tables
 */

static void
guest_put_entry(struct guest *g, u64 table, unsigned index, u64 value)
{
	put_le64(guest_ptr(g, table + 8u * index, 8), value);
}

/* PML4, PDPT, PD, then a page table each for the kernel's, the code's and the data's 2 MiB. */
static void
guest_page_tables(struct guest *g)
{
	u64 pml4 = GUEST_TABLES, pdpt = pml4 + 0x1000, pd = pdpt + 0x1000, kernel = pd + 0x1000;
	u64 code = kernel + 0x1000, data = code + 0x1000;
	u64 all = PTE_P | PTE_W | PTE_U;

	guest_put_entry(g, pml4, 0, pdpt | all);
	guest_put_entry(g, pdpt, 0, pd | all);
	guest_put_entry(g, pd, 0, kernel | all);
	guest_put_entry(g, pd, CASE_CODE >> 21, code | all);
	guest_put_entry(g, pd, CASE_DATA >> 21, data | all);
	for (unsigned i = 0; i < 512; i++)
		guest_put_entry(g, kernel, i, (u64)i << 12 | PTE_P | PTE_W);
	for (unsigned i = 0; i < CASE_CODE_SIZE / CASE_PAGE; i++)
		guest_put_entry(g, code, i, (GUEST_CODE + ((u64)i << 12)) | all);
	for (unsigned i = 0; i < CASE_DATA_PAGES; i++)
		if (case_page_present(i))
			guest_put_entry(g, data, i,
					(GUEST_DATA + ((u64)i << 12)) | PTE_P | PTE_U | PTE_NX |
						(case_page_writable(i) ? PTE_W : 0));
}

static void
guest_descriptors(struct guest *g)
{
	static const u64 gdt[8] = {
		[GUEST_KERNEL_CS >> 3] = 0x00af9b000000ffffull,
		[3] = 0x00cf93000000ffffull,
		[GUEST_CS32 >> 3] = 0x00cffb000000ffffull,
		[GUEST_SS >> 3] = 0x00cff3000000ffffull,
		[GUEST_CS64 >> 3] = 0x00affb000000ffffull,
	};

	for (unsigned i = 0; i < ARRAY_LEN(gdt); i++)
		guest_put_entry(g, GUEST_GDT, i, gdt[i]);
	guest_put_entry(g, GUEST_GDT, GUEST_TR >> 3, 0x00008b0000000067ull | (u64)GUEST_TSS << 16);
	for (unsigned i = 0; i < 256; i++) {
		u64 handler = GUEST_HANDLERS + 16u * i;
		u64 dpl = i == 3 || i == 4 ? 3 : 0;

		guest_put_entry(g, GUEST_IDT, 2 * i,
				(handler & 0xffff) | GUEST_KERNEL_CS << 16 |
					(0x8e00ull | dpl << 13) << 32 | (handler >> 16) << 48);
		memset(guest_ptr(g, handler, 16), 0xf4, 16); /* HLT */
	}
	put_le64(guest_ptr(g, GUEST_TSS + 4, 8), GUEST_STACK); /* RSP0 */
	put_le16(guest_ptr(g, GUEST_TSS + 0x66, 2), 0xffff);   /* no I/O bitmap */
}

static struct segment
guest_segment(u16 selector, unsigned attr)
{
	return (struct segment){.selector = selector, .attr = (u16)attr, .limit = 0xffffffff};
}

static void
guest_state(const struct guest *g, const struct insn_case *c, struct cpu_state *s)
{
	unsigned user = SEGMENT_P | SEGMENT_S | 3u << SEGMENT_DPL_SHIFT | SEGMENT_G;

	cpu_state_reset(s, 0);
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = GUEST_TABLES;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->msr.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = 7;
	s->gdt = (struct descriptor_table){GUEST_GDT, 0x4f};
	s->idt = (struct descriptor_table){GUEST_IDT, 0xfff};
	s->tr = (struct segment){
		.base = GUEST_TSS, .limit = 0x67, .selector = GUEST_TR, .attr = SEGMENT_P | 11};
	s->ldt = (struct segment){.attr = 2};
	for (int i = 0; i < CPU_SEGMENTS; i++)
		s->seg[i] = guest_segment(GUEST_SS, user | SEGMENT_DB | 3);
	s->seg[CPU_CS] = c->mode == 64 ? guest_segment(GUEST_CS64, user | SEGMENT_L | 11)
				       : guest_segment(GUEST_CS32, user | SEGMENT_DB | 11);
	s->seg[CPU_FS] = s->seg[CPU_GS] = (struct segment){.attr = 0};
	s->seg[CPU_FS].base = g->fs_base;
	s->seg[CPU_GS].base = CASE_GS_BASE;
	memcpy(s->gpr, c->gpr, sizeof(s->gpr));
	s->rip = case_slot_address(c->slot) + c->entry;
	s->rflags = c->rflags;
	memcpy(s->xsave, c->xsave, CASE_XSAVE);
	s->run_state = CPU_RUNNING;
}

/*
 * One case
 */

static void
guest_prepare(struct guest *g, const struct insn_case *c)
{
	u8 *data = guest_ptr(g, GUEST_DATA, CASE_DATA_SIZE);
	u64 code = GUEST_CODE + (case_slot_address(c->slot) - CASE_CODE);

	memcpy(data, g->pristine, CASE_DATA_SIZE);
	if (c->overlay_size)
		memcpy(data + (c->overlay_at - CASE_DATA), c->overlay, c->overlay_size);
	memory_written(g->memory, GUEST_DATA, CASE_DATA_SIZE);
	memcpy(guest_ptr(g, code, CASE_SLOT), c->code, CASE_SLOT);
	memory_written(g->memory, code, CASE_SLOT);
}

static bool
guest_has_code(unsigned vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* The handler's address is the vector; what the CPU pushed is on the kernel's stack. */
static void
guest_read_frame(const struct guest *g, const struct cpu_state *s, struct insn_result *r)
{
	const u8 *frame = guest_ptr(g, GUEST_STACK - 48, 48);

	r->vector = (unsigned)((s->rip - GUEST_HANDLERS) / 16);
	if (guest_has_code(r->vector))
		r->error = get_le32(frame);
	r->rip = get_le64(frame + 8);
	r->rflags = get_le64(frame + 24);
	r->gpr[CPU_RSP] = get_le64(frame + 32);
	if (r->vector == VECTOR_PF)
		r->cr2 = s->cr2;
}

/* A component whose XSTATE_BV bit is clear is in its initial state. */
static void
guest_read_xsave(const struct cpu_state *s, struct insn_result *r)
{
	u64 bv = get_le64(s->xsave + 512);

	memcpy(r->xsave, s->xsave, CASE_XSAVE);
	if (!(bv & 4))
		memset(r->xsave + 576, 0, 256);
	if (!(bv & 2))
		memset(r->xsave + 160, 0, 256);
	if (!(bv & 1)) {
		memset(r->xsave, 0, 24);
		memset(r->xsave + 32, 0, 128);
		put_le16(r->xsave, 0x37f);
	}
}

static void
guest_read(const struct guest *g, const struct cpu_state *s, struct insn_result *r)
{
	memcpy(r->gpr, s->gpr, sizeof(r->gpr));
	r->rip = s->rip;
	r->rflags = s->rflags;
	if (r->vector == 0 && s->rip > GUEST_HANDLERS && s->rip < GUEST_HANDLERS + 16 * 256)
		guest_read_frame(g, s, r);
	else
		r->vector = CASE_NO_EXIT;
	guest_read_xsave(s, r);
	memcpy(r->memory, guest_ptr(g, GUEST_DATA, CASE_DATA_SIZE), CASE_DATA_SIZE);
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++)
		if (!case_page_present(page))
			memset(r->memory + page * CASE_PAGE, 0, CASE_PAGE);
}

static u64
guest_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

static void
guest_watch(struct guest *g, bool running)
{
	pthread_mutex_lock(&g->lock);
	g->started_ms = running ? guest_now_ms() : 0;
	g->hung = false;
	pthread_mutex_unlock(&g->lock);
}

static void
guest_run_one(struct guest *g, const struct insn_case *c, struct insn_result *r)
{
	struct cpu_state state;
	struct engine_exit exit = {0};

	memset(r, 0, sizeof(*r));
	guest_prepare(g, c);
	guest_state(g, c, &state);
	if (guest_ops->set_state(g->vcpu, &state)) {
		r->vector = CASE_NO_EXIT;
		return;
	}
	guest_watch(g, true);
	if (guest_ops->run(g->vcpu, &exit) || exit.kind != EXIT_HALT) {
		r->vector = exit.kind == EXIT_KICKED ? CASE_HUNG : CASE_NO_EXIT;
		r->error = exit.kind;
		if (exit.kind == EXIT_FAILED)
			printf("    engine: %.160s\n", exit.failed.why);
	}
	guest_watch(g, false);
	guest_ops->get_state(g->vcpu, &state);
	guest_read(g, &state, r);
}

void
guest_run(struct guest *g, const struct insn_case *cases, struct insn_result *results,
	  unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		guest_run_one(g, &cases[i], &results[i]);
}

/* Kicks a run that does not end. */
static void *
guest_watchdog(void *opaque)
{
	struct guest *g = opaque;
	bool stop = false;

	while (!stop) {
		struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};

		nanosleep(&tick, NULL);
		pthread_mutex_lock(&g->lock);
		if (g->started_ms && guest_now_ms() - g->started_ms > GUEST_LIMIT_MS)
			guest_ops->kick(g->vcpu);
		stop = g->stopping;
		pthread_mutex_unlock(&g->lock);
	}
	return NULL;
}

static void
guest_die(const char *what)
{
	fprintf(stderr, "insn-test: %s\n", what);
	exit(2);
}

static int
guest_no_extint(void *opaque)
{
	(void)opaque;
	return -1;
}

struct guest *
guest_start(u64 fs_base)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct engine_config config = {.vcpus = 1, .extint_vector = guest_no_extint};
	const char *missing = NULL;

	if (!g || memory_create(&g->memory, GUEST_RAM))
		guest_die("no memory");
	if (cpu_model_compute(&g->model, "x86-64-v3", 1, &missing))
		guest_die(missing ? missing : "no CPU model");
	config.memory = g->memory;
	config.model = &g->model;
	config.opaque = g;
	g->fs_base = fs_base;
	pthread_mutex_init(&g->lock, NULL);
	case_memory(g->pristine);
	if (guest_ops->create(&g->engine, &config) ||
	    guest_ops->map(g->engine, 0, GUEST_RAM, 0, true) ||
	    guest_ops->vcpu_create(g->engine, 0, &g->vcpu))
		guest_die("the engine does not start");
	memset(guest_ptr(g, GUEST_CODE, CASE_CODE_SIZE), 0xcc, CASE_CODE_SIZE);
	guest_page_tables(g);
	guest_descriptors(g);
	if (pthread_create(&g->watchdog, NULL, guest_watchdog, g))
		guest_die("no thread");
	return g;
}

void
guest_stop(struct guest *g)
{
	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	pthread_mutex_unlock(&g->lock);
	pthread_join(g->watchdog, NULL);
	guest_ops->vcpu_destroy(g->vcpu);
	guest_ops->destroy(g->engine);
	memory_destroy(g->memory);
	free(g);
}
