/*
 * States to the KVM API's structures and back, and which states are refused. No system call.
 */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/kvm/convert.h"
#include "engine/kvm/judge.h"
#include "engine/kvm/kvm.h"

enum {
	REG_ID = 0x02,
	REG_TPR = 0x08,
	LVT_TIMER = 0x32,
	TIMER_INITIAL = 0x38,
	TIMER_CURRENT = 0x39,
	TIMER_DIVIDE = 0x3e,
	PERIODIC = BIT(17),
	DEADLINE = BIT(18),
	MASKED = BIT(16),
};
#define NOW 5000000000ull

static struct cpu_state *
state_new(void)
{
	struct cpu_state *s = aligned_alloc(64, align_up(sizeof(*s), 64));

	assert_non_null(s);
	cpu_state_reset(s, 0);
	return s;
}

/* Each byte another value, then what has a form of its own set right. */
static struct cpu_state *
state_filled(void)
{
	struct cpu_state *s = state_new();

	for (unsigned i = 0; i < CPU_GPRS; i++)
		s->gpr[i] = 0x1111111111111111ull * i + i;
	s->rip = 0xffffffff81000000ull;
	s->rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_ZF;
	for (unsigned i = 0; i < CPU_SEGMENTS; i++)
		s->seg[i] = (struct segment){0x1000 * i, 0xfffff + i, (u16)(8 * i),
					     (u16)(SEGMENT_P | SEGMENT_S | 3 | i << 8)};
	s->tr = (struct segment){0xfffffe0000003000ull, 0x206f, 0x40, SEGMENT_P | 11};
	s->ldt = (struct segment){0, 0, 0, 0};
	s->gdt = (struct descriptor_table){0xfffffe0000001000ull, 0x7f};
	s->idt = (struct descriptor_table){0xfffffe0000000000ull, 0xfff};
	s->cr0 = 0x80050033;
	s->cr2 = 0x7fff12345678;
	s->cr3 = 0x12345000;
	s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR;
	s->cr8 = 3;
	s->msr.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->dr[0] = 1, s->dr[1] = 2, s->dr[2] = 3, s->dr[3] = 4;
	s->dr6 = 0xffff0ff1;
	s->dr7 = 0x10402;
	return s;
}

static void
test_registers(void **opaque)
{
	struct cpu_state *from = state_filled(), *to = state_new();
	struct kvm_debugregs debug;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	convert_to_regs(from, &regs);
	convert_to_sregs(from, &sregs);
	convert_to_debug(from, &debug);
	assert_int_equal(regs.rbx, from->gpr[CPU_RBX]);
	assert_int_equal(regs.rsi, from->gpr[CPU_RSI]);
	assert_int_equal(sregs.tr.type, 11);
	assert_int_equal(sregs.ldt.unusable, 1);
	assert_int_equal(sregs.apic_base, from->lapic.base_msr);
	convert_from_regs(&regs, to);
	convert_from_sregs(&sregs, to);
	convert_from_debug(&debug, to);
	assert_memory_equal(to->gpr, from->gpr, sizeof(to->gpr));
	assert_memory_equal(to->seg, from->seg, sizeof(to->seg));
	assert_memory_equal(&to->tr, &from->tr, sizeof(to->tr));
	assert_memory_equal(&to->ldt, &from->ldt, sizeof(to->ldt));
	assert_memory_equal(to->dr, from->dr, sizeof(to->dr));
	assert_int_equal(to->rip, from->rip);
	assert_int_equal(to->rflags, from->rflags);
	assert_int_equal(to->gdt.base, from->gdt.base);
	assert_int_equal(to->idt.limit, from->idt.limit);
	assert_int_equal(to->cr0, from->cr0);
	assert_int_equal(to->cr2, from->cr2);
	assert_int_equal(to->cr3, from->cr3);
	assert_int_equal(to->cr4, from->cr4);
	assert_int_equal(to->cr8, from->cr8);
	assert_int_equal(to->msr.efer, from->msr.efer);
	assert_int_equal(to->dr6, from->dr6);
	assert_int_equal(to->dr7, from->dr7);
	free(from);
	free(to);
}

static void
events_cross(const struct cpu_events *events)
{
	struct cpu_state *from = state_new(), *to = state_new();
	struct kvm_vcpu_events k;

	from->events = *events;
	convert_to_events(from, &k);
	convert_from_events(&k, to);
	assert_memory_equal(&to->events, events, sizeof(*events));
	free(from);
	free(to);
}

static void
test_events(void **opaque)
{
	struct cpu_events e;

	memset(&e, 0, sizeof(e));
	events_cross(&e);
	e.nmi_pending = e.nmi_masked = e.shadow = true;
	events_cross(&e);
	e.exception_pending = e.exception_has_code = true;
	e.exception_vector = VECTOR_PF;
	e.exception_code = 7;
	events_cross(&e);
	memset(&e, 0, sizeof(e));
	e.interrupt_pending = true;
	e.interrupt_vector = 0xec;
	events_cross(&e);
}

/* What was being delivered when KVM came back is to be delivered again. */
static void
test_events_under_way(void **opaque)
{
	struct kvm_vcpu_events k = {.nmi = {.injected = 1, .masked = 1}};
	struct cpu_state *s = state_new();

	convert_from_events(&k, s);
	assert_true(s->events.nmi_pending);
	assert_false(s->events.nmi_masked);
	k = (struct kvm_vcpu_events){.exception = {.pending = 1, .nr = VECTOR_UD}};
	convert_from_events(&k, s);
	assert_true(s->events.exception_pending);
	assert_int_equal(s->events.exception_vector, VECTOR_UD);
	/* INT n is executed again. */
	k = (struct kvm_vcpu_events){.interrupt = {.injected = 1, .soft = 1, .nr = 0x80}};
	convert_from_events(&k, s);
	assert_false(s->events.interrupt_pending);
	/* Intel's CPUs refuse STI's shadow without IF. */
	s->events.shadow = true;
	s->rflags = RFLAGS_FIXED;
	convert_to_events(s, &k);
	assert_int_equal(k.interrupt.shadow, KVM_X86_SHADOW_INT_MOV_SS);
	free(s);
}

static void
test_run_states(void **opaque)
{
	for (enum cpu_run_state state = CPU_RUNNING; state <= CPU_WAIT_SIPI; state++)
		assert_int_equal(convert_from_mp_state(convert_to_mp_state(state)), state);
	assert_int_equal(convert_to_mp_state(CPU_WAIT_SIPI), KVM_MP_STATE_INIT_RECEIVED);
}

static void
test_xsave(void **opaque)
{
	struct cpu_state *from = state_new(), *to = state_new();
	struct kvm_xsave xsave;

	for (unsigned i = 0; i < CPU_XSAVE_SIZE; i++)
		from->xsave[i] = (u8)i;
	convert_to_xsave(from, &xsave);
	/* MXCSR's reserved bits, foreign components and compaction would be refused by XRSTOR. */
	assert_int_equal(get_le32((u8 *)xsave.region + 24) >> 16, 0);
	assert_int_equal(get_le64((u8 *)xsave.region + 512) & ~7ull, 0);
	assert_int_equal(get_le64((u8 *)xsave.region + 520), 0);
	convert_from_xsave(&xsave, to);
	assert_memory_equal(to->xsave + 32, from->xsave + 32, 416 - 32);
	assert_memory_equal(to->xsave + 576, from->xsave + 576, 256);
	free(from);
	free(to);
}

/* A timer set on one side is due at the same time on the other. */
static void
timer_crosses(u32 lvt, u32 initial, u32 divide, u64 gone)
{
	struct cpu_state *from = state_new(), *to = state_new();
	struct kvm_lapic_state k;

	from->lapic.regs[LVT_TIMER] = lvt;
	from->lapic.regs[TIMER_INITIAL] = initial;
	from->lapic.regs[TIMER_DIVIDE] = divide;
	from->lapic.timer_start_ns = NOW - gone;
	convert_to_lapic(from, NOW, &k);
	convert_from_lapic(&k, NOW, to);
	assert_int_equal(to->lapic.regs[TIMER_INITIAL], initial);
	/* To a count's length. */
	assert_true(to->lapic.timer_start_ns >= from->lapic.timer_start_ns);
	assert_true(to->lapic.timer_start_ns < from->lapic.timer_start_ns + 128);
	free(from);
	free(to);
}

static void
test_timer(void **opaque)
{
	struct cpu_state *from = state_new(), *to = state_new();
	struct kvm_lapic_state k;

	timer_crosses(0x40, 1000000, 0xb, 400000);
	timer_crosses(0x40, 1000000, 0x3, 4000000);
	timer_crosses(PERIODIC | 0x40, 1000000, 0xb, 1);
	/* One that has ended stays so: KVM would send its interrupt. */
	from->lapic.regs[LVT_TIMER] = 0x40;
	from->lapic.regs[TIMER_INITIAL] = 1000;
	from->lapic.timer_start_ns = 0;
	convert_to_lapic(from, NOW, &k);
	assert_int_equal(get_le32((u8 *)k.regs + TIMER_INITIAL * 16), 0);
	/* One that is due is not yet over. */
	from->lapic.timer_start_ns = NOW - 5000;
	convert_to_lapic(from, NOW, &k);
	assert_int_equal(get_le32((u8 *)k.regs + TIMER_INITIAL * 16), 1000);
	assert_int_equal(get_le32((u8 *)k.regs + TIMER_CURRENT * 16), 0);
	convert_from_lapic(&k, NOW, to);
	assert_int_equal(to->lapic.timer_start_ns, 0);
	/* In TSC-deadline mode nothing counts. */
	from->lapic.regs[LVT_TIMER] = DEADLINE | 0x40;
	from->lapic.timer_start_ns = 0;
	convert_to_lapic(from, NOW, &k);
	convert_from_lapic(&k, NOW, to);
	assert_int_equal(to->lapic.timer_start_ns, 0);
	free(from);
	free(to);
}

/* A timer in MODE with HAD left of its count, and with LEFT at the next reading. */
static bool
timer_passed(u32 mode, u32 had, u32 left)
{
	struct kvm_lapic_state before, after;

	memset(&before, 0, sizeof(before));
	put_le32((u8 *)before.regs + LVT_TIMER * 16, mode | 0x40);
	put_le32((u8 *)before.regs + TIMER_INITIAL * 16, 1000);
	after = before;
	put_le32((u8 *)before.regs + TIMER_CURRENT * 16, had);
	put_le32((u8 *)after.regs + TIMER_CURRENT * 16, left);
	return convert_timer_passed(&before, &after);
}

/* A count that ended while its state was read has an interrupt that is not in the IRR yet. */
static void
test_timer_passed(void **opaque)
{
	struct kvm_lapic_state none;

	assert_false(timer_passed(0, 700, 600));
	assert_true(timer_passed(0, 1, 0));
	assert_false(timer_passed(0, 0, 0)); /* before both */
	assert_false(timer_passed(PERIODIC, 700, 600));
	assert_true(timer_passed(PERIODIC, 10, 990));
	assert_true(timer_passed(PERIODIC, 10, 0));
	assert_false(timer_passed(DEADLINE, 0, 0));
	memset(&none, 0, sizeof(none));
	assert_false(convert_timer_passed(&none, &none));
}

/* Outside long mode L means nothing, and KVM would refuse it. */
static void
test_code_segment(void **opaque)
{
	struct cpu_state *s = state_new();
	struct kvm_sregs k;

	s->seg[CPU_CS].attr |= SEGMENT_L;
	convert_to_sregs(s, &k);
	assert_int_equal(k.cs.l, 0);
	s->cr0 = CR0_PE | CR0_PG;
	s->msr.efer = EFER_LME | EFER_LMA;
	convert_to_sregs(s, &k);
	assert_int_equal(k.cs.l, 1);
	free(s);
}

static void
test_lapic_registers(void **opaque)
{
	struct cpu_state *from = state_new(), *to = state_new();
	struct kvm_lapic_state k;

	for (unsigned i = 0x10; i < 0x30; i++)
		from->lapic.regs[i] = 0x01010101u * i;
	from->cr8 = 5;
	convert_to_lapic(from, NOW, &k);
	assert_int_equal(get_le32((u8 *)k.regs + REG_TPR * 16), 0x50);
	convert_from_lapic(&k, NOW, to);
	from->lapic.regs[REG_TPR] = 0x50;
	assert_memory_equal(to->lapic.regs, from->lapic.regs, sizeof(to->lapic.regs));
	free(from);
	free(to);
}

static void
test_judge(void **opaque)
{
	static struct cpu_model model;
	struct cpu_state *s = state_new();
	const char *missing;

	assert_int_equal(cpu_model_compute(&model, "x86-64-v2", 4, &missing), 0);
	assert_true(judge_state(s, &model, 0));
	assert_false(judge_state(s, &model, 1)); /* another's id */
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		cpu_state_reset(s, 0);                                                             \
		change;                                                                            \
		assert_false(judge_state(s, &model, 0));                                           \
	} while (0)
	REFUSED(s->cr0 = CR0_PG);
	REFUSED(s->cr0 |= BIT64(40));
	REFUSED(s->cr4 = BIT(31));
	REFUSED(s->cr4 = CR4_PCIDE);
	REFUSED(s->cr3 = BIT64(60));
	REFUSED(s->cr8 = 16);
	REFUSED(s->msr.efer = EFER_LMA);
	REFUSED(s->msr.efer = EFER_SVME);
	REFUSED(s->xcr0 = 0);
	REFUSED(s->xcr0 = 5);
	REFUSED(s->xcr0 = BIT64(62) | 1);
	REFUSED(s->rflags = RFLAGS_VM);
	REFUSED(s->rflags = BIT64(32));
	REFUSED(s->gdt.base = BIT64(63));
	REFUSED(s->msr.lstar = BIT64(50));
	REFUSED(s->msr.pat = 2);
	REFUSED(s->dr7 = BIT64(32));
	REFUSED(s->run_state = (enum cpu_run_state)9);
	REFUSED(s->events.exception_pending = true; s->events.exception_vector = 32);
	REFUSED(s->lapic.base_msr = BIT(10));
	REFUSED(s->lapic.regs[REG_ID] = 7u << 24);
	free(s);
}

/* ---- models ---- */

static struct kvm_cpuid2 *
supported(u32 leaf1_ecx, u32 leaf7_ebx, u32 extended_ecx)
{
	static const u32 leaves[] = {1, 7, 0x80000001};
	const u32 ecx[] = {leaf1_ecx, 0, extended_ecx}, ebx[] = {0, leaf7_ebx, 0};
	struct kvm_cpuid2 *table = kvm_cpuid_alloc();

	assert_non_null(table);
	table->nent = ARRAY_LEN(leaves);
	for (unsigned i = 0; i < ARRAY_LEN(leaves); i++)
		table->entries[i] = (struct kvm_cpuid_entry2){
			.function = leaves[i], .ecx = ecx[i], .ebx = ebx[i]};
	return table;
}

static struct cpu_model
some_model(const char *name)
{
	struct cpu_model model = {.count = 0};

	snprintf(model.name, sizeof(model.name), "%s", name);
	cpu_model_set(&model, 1, 0, 2, BIT(0) | BIT(17) | BIT(25)); /* SSE3, PCID, AES */
	cpu_model_set(&model, 7, 0, 1, BIT(5) | BIT(10));	    /* AVX2, INVPCID */
	cpu_model_set(&model, 0x80000001, 0, 2, BIT(0));	    /* LAHF */
	return model;
}

static void
test_model_cut(void **state)
{
	struct kvm_cpuid2 *table = supported(BIT(25) | BIT(28), BIT(10), BIT(0) | BIT(6));
	struct cpu_model model = some_model("x86-64-v3");

	assert_int_equal(kvm_model_fit_table(table, &model), 0);
	/* PCID goes; SSE3 and AVX2 are the floor's, so their lack is refused elsewhere. */
	assert_int_equal(cpu_model_get(&model, 1, 0, 2), BIT(0) | BIT(25));
	assert_int_equal(cpu_model_get(&model, 7, 0, 1), BIT(5) | BIT(10));
	assert_int_equal(cpu_model_get(&model, 0x80000001, 0, 2), BIT(0));
	free(table);
}

static void
test_model_host(void **state)
{
	struct kvm_cpuid2 *table = supported(0xffffffff, 0xffffffff, 0xffffffff);
	struct cpu_model model = some_model(CPU_MODEL_HOST), same = model;

	assert_int_equal(kvm_model_fit_table(table, &model), 0);
	assert_true(cpu_model_has(&model, 0x80000001, 0, 2, 6));  /* SSE4A */
	assert_false(cpu_model_has(&model, 0x80000001, 0, 2, 2)); /* SVM */
	assert_false(cpu_model_has(&model, 1, 0, 2, 5));	  /* VMX */
	assert_false(cpu_model_has(&model, 7, 0, 1, 16));	  /* AVX-512: no place in a state */
	assert_false(cpu_model_same(&model, &same));
	assert_true(cpu_model_same(&model, &model));
	free(table);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_events_under_way),
		cmocka_unit_test(test_run_states),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_timer_passed),
		cmocka_unit_test(test_code_segment),
		cmocka_unit_test(test_lapic_registers),
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_model_cut),
		cmocka_unit_test(test_model_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
