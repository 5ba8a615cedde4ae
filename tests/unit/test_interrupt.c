/*
 * Delivery of exceptions and interrupts, and IRET: frames, stacks, levels, error
 * codes, double and triple faults, and the leaf IRETQ against the full one.
 */
#include "fake_vcpu.h"

#include "engine/translator/leaf/leaf_system.h"

static const struct insn iretq = {.mode = 64, .opcode = 0xcf, .opsize = 8, .len = 2, .rex = 0x48};
static const struct insn iretd = {.mode = 32, .opcode = 0xcf, .opsize = 4, .len = 1};
static const struct insn iretw = {.mode = 16, .opcode = 0xcf, .opsize = 2, .len = 1};
static const struct insn int80 = {.mode = 64, .opcode = 0xcd, .imm = 0x80, .len = 2};

static void
long_page_fault_from_user(void **state)
{
	struct vcpu *v = fake_vcpu(true, 3);
	u64 top = FAKE_KERNEL_STACK - 48;

	fake_gate(v, VECTOR_PF, FAKE_CS64, 0x8e, 0);
	vcpu_raise_code(v, VECTOR_PF, 6);
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_PF * 16);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->seg[CPU_CS].selector, FAKE_CS64);
	assert_int_equal(v->seg[CPU_SS].selector, 0);
	assert_int_equal(v->gpr[CPU_RSP], top);
	assert_int_equal(fake_last_flags, MMU_SUPERVISOR);
	assert_int_equal(fake_read64(top), 6);
	assert_int_equal(fake_read64(top + 8), 0x5000);
	assert_int_equal(fake_read64(top + 16), FAKE_CS64_3 | 3);
	assert_int_equal(fake_read64(top + 24), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF);
	assert_int_equal(fake_read64(top + 32), FAKE_USER_STACK);
	assert_int_equal(fake_read64(top + 40), FAKE_SS3 | 3);
	assert_int_equal(v->rflags, RFLAGS_FIXED);
	assert_false(v->event.pending);
}

static void
long_same_level_aligns_stack(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, 0x40, FAKE_CS64, 0x8f, 0); /* trap gate: IF stays */
	v->gpr[CPU_RSP] = FAKE_KERNEL_STACK - 3;
	assert_int_equal(interrupt_deliver_vector(v, 0x40), 0);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_KERNEL_STACK - 16 - 40);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP] + 24), FAKE_KERNEL_STACK - 3);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP] + 16), RFLAGS_FIXED | RFLAGS_IF);
	assert_int_equal(v->seg[CPU_SS].selector, FAKE_SS0);
	assert_true(v->rflags & RFLAGS_IF);
}

static void
long_ist_and_nmi_mask(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, VECTOR_NMI, FAKE_CS64, 0x8e, 1);
	assert_int_equal(interrupt_deliver_nmi(v), 0);
	assert_true(v->nmi_masked);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_IST_STACK - 40);
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_JUMP);
	assert_false(v->nmi_masked);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_KERNEL_STACK);
}

static void
gate_checks_of_int_n(void **state)
{
	struct vcpu *v = fake_vcpu(true, 3);

	fake_gate(v, 0x80, FAKE_CS64, 0x8e, 0); /* DPL 0 */
	assert_int_equal(interrupt_int(v, &int80), HELPER_FAULT);
	assert_int_equal(v->event.vector, VECTOR_GP);
	assert_int_equal(v->event.code, 0x80 * 8 + 2);
	assert_int_equal(v->cpl, 3);

	fake_gate(v, 0x80, FAKE_CS64, 0x6e, 0); /* not present */
	assert_int_equal(interrupt_int(v, &int80), HELPER_FAULT);
	assert_int_equal(v->event.vector, VECTOR_NP);
	assert_int_equal(v->event.code, 0x80 * 8 + 2);

	fake_gate(v, 0x80, FAKE_CS0, 0xee, 0); /* not 64-bit code */
	assert_int_equal(interrupt_int(v, &int80), HELPER_FAULT);
	assert_int_equal(v->event.code, FAKE_CS0);

	fake_gate(v, 0x80, FAKE_CS64, 0xee, 0);
	assert_int_equal(interrupt_int(v, &int80), HELPER_JUMP);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP]), 0x5002);
	assert_int_equal(v->rip, FAKE_HANDLER + 0x800);
}

static void
missing_gate_of_interrupt_has_ext(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, VECTOR_NP, FAKE_CS64, 0x8e, 0);
	fake_gate(v, 0x30, FAKE_CS64, 0x0e, 0);
	assert_int_equal(interrupt_deliver_vector(v, 0x30), 0);
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_NP * 16);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP]), 0x30 * 8 + 3);
}

static void
double_and_triple_fault(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, VECTOR_DF, FAKE_CS64, 0x8e, 1);
	vcpu_raise_code(v, VECTOR_GP, 0x18);
	assert_int_equal(interrupt_deliver_event(v), 0); /* #GP has no gate */
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_DF * 16);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_IST_STACK - 48);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP]), 0);

	v = fake_vcpu(true, 0);
	vcpu_raise_code(v, VECTOR_GP, 0x18);
	assert_int_equal(interrupt_deliver_event(v), -ESHUTDOWN);
}

static void
benign_then_fault_is_serial(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, VECTOR_GP, FAKE_CS64, 0x8e, 0);
	vcpu_raise(v, VECTOR_UD); /* no gate: type 0 raises #GP */
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_GP * 16);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP]), VECTOR_UD * 8 + 3);
}

static void
page_fault_on_stack_is_double(void **state)
{
	struct vcpu *v = fake_vcpu(true, 3);

	fake_gate(v, VECTOR_PF, FAKE_CS64, 0x8e, 0);
	fake_gate(v, VECTOR_DF, FAKE_CS64, 0x8e, 1);
	fake_bad_page = (FAKE_KERNEL_STACK - 8) >> 12;
	vcpu_raise_code(v, VECTOR_PF, 4);
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_DF * 16);
	assert_int_equal(v->cr2, FAKE_KERNEL_STACK - 48);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_IST_STACK - 48);
}

static void
debug_trap_sets_dr6(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	fake_gate(v, VECTOR_DB, FAKE_CS64, 0x8e, 0);
	v->dr6 |= 3;
	v->dr7 |= BIT(13);
	assert_int_equal(interrupt_debug_trap(v, BIT(14)), 0);
	assert_int_equal(v->dr6, 0xffff0ff0 | BIT(14));
	assert_int_equal(v->dr7, 0x400);
	assert_int_equal(fake_read64(v->gpr[CPU_RSP] + 16) & RFLAGS_RF, 0);
}

static void
protected_ring_change_and_back(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	u32 top = FAKE_KERNEL_STACK - 24;

	fake_gate(v, VECTOR_GP, FAKE_CS0, 0x8e, 0);
	vcpu_raise_code(v, VECTOR_GP, 0x1234);
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->gpr[CPU_RSP], top);
	assert_int_equal(v->seg[CPU_SS].selector, FAKE_SS0);
	assert_int_equal(fake_read32(top), 0x1234);
	assert_int_equal(fake_read32(top + 8), FAKE_CS3 | 3);
	assert_int_equal(fake_read32(top + 16), FAKE_USER_STACK);
	v->seg[CPU_DS] = fake_segment(FAKE_SS0); /* must be taken away on return */
	v->gpr[CPU_RSP] += 4;
	assert_int_equal(interrupt_iret(v, &iretd), HELPER_JUMP);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_USER_STACK);
	assert_int_equal(v->seg[CPU_DS].selector, 0);
	assert_int_equal(v->seg[CPU_DS].attr, 0);
	assert_int_equal(v->seg[CPU_ES].selector, FAKE_SS3 | 3);
	assert_true(v->rflags & RFLAGS_IF);
}

static void
bad_tss_stack_is_ts(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);

	fake_gate(v, VECTOR_TS, FAKE_CS3, 0x8e, 0); /* same level, so that it can be seen */
	fake_gate(v, 0x30, FAKE_CS0, 0x8e, 0);
	put_le16(fake_memory + FAKE_TSS + 8, FAKE_CS0);
	assert_int_equal(interrupt_deliver_vector(v, 0x30), 0);
	assert_int_equal(v->rip, FAKE_HANDLER + VECTOR_TS * 16);
	assert_int_equal(fake_read32(v->gpr[CPU_RSP]), FAKE_CS0 | 1);
}

static void
v86_out_and_in(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	u32 top = FAKE_KERNEL_STACK - 40;

	fake_gate(v, VECTOR_GP, FAKE_CS0, 0x8e, 0);
	v->rflags |= RFLAGS_VM;
	for (int i = 0; i < CPU_SEGMENTS; i++)
		v->seg[i] = (struct segment){.selector = (u16)(0x100 + i),
					     .base = 0x1000 + 16u * i,
					     .limit = 0xffff,
					     .attr = 0xf3};
	v->rip = 0x77;
	v->gpr[CPU_RSP] = 0x200;
	vcpu_raise_code(v, VECTOR_GP, 0);
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->cpl, 0);
	assert_false(v->rflags & RFLAGS_VM);
	assert_int_equal(v->seg[CPU_GS].attr, 0);
	assert_int_equal(v->gpr[CPU_RSP], top);
	assert_int_equal(fake_read32(top + 4), 0x77);
	assert_int_equal(fake_read32(top + 20), 0x102);
	assert_int_equal(fake_read32(top + 36), 0x105);
	v->gpr[CPU_RSP] += 4;
	assert_int_equal(interrupt_iret(v, &iretd), HELPER_JUMP);
	assert_true(v->rflags & RFLAGS_VM);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, 0x77);
	assert_int_equal(v->seg[CPU_GS].base, 0x1050);
	assert_int_equal(v->seg[CPU_GS].attr, 0xf3);
	assert_int_equal(v->gpr[CPU_RSP], 0x200);
	/* INT n at IOPL 0 */
	assert_int_equal(interrupt_int(v, &int80), HELPER_FAULT);
	assert_int_equal(v->event.vector, VECTOR_GP);
	assert_int_equal(v->event.code, 0);
}

static void
real_mode_and_back(void **state)
{
	struct vcpu *v = fake_vcpu_real();

	put_le32(fake_memory + 0x80 * 4, 0x20001234);
	v->rflags |= RFLAGS_TF;
	assert_int_equal(interrupt_int(v, &int80), HELPER_JUMP);
	assert_int_equal(v->rip, 0x1234);
	assert_int_equal(v->seg[CPU_CS].base, 0x20000);
	assert_int_equal(v->gpr[CPU_RSP], 0x6ffa);
	assert_int_equal(v->rflags, RFLAGS_FIXED);
	assert_int_equal(get_le16(fake_memory + 0x6ffa), 0x5002);
	assert_int_equal(interrupt_iret(v, &iretw), HELPER_JUMP);
	assert_int_equal(v->rip, 0x5002);
	assert_int_equal(v->gpr[CPU_RSP], 0x7000);
	assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF);
}

static void
real_mode_stack_wraps(void **state)
{
	struct vcpu *v = fake_vcpu_real();

	put_le32(fake_memory + 8 * 4, 0x1234); /* IRQ 0, not a double fault */
	v->gpr[CPU_RSP] = 0xabcd0002;
	assert_int_equal(interrupt_deliver_vector(v, 8), 0);
	assert_int_equal(v->gpr[CPU_RSP], 0xabcdfffc);
	assert_int_equal(get_le16(fake_memory), RFLAGS_FIXED | RFLAGS_IF);
	assert_int_equal(get_le16(fake_memory + 0xfffc), 0x5000);
	/* A limit that the table exceeds ends in shutdown. */
	v->idt.limit = 3;
	vcpu_raise(v, VECTOR_UD);
	assert_int_equal(interrupt_deliver_event(v), -ESHUTDOWN);
}

static void
iret_refuses(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	u64 *frame = (u64 *)(fake_memory + FAKE_USER_STACK);
	struct vcpu before;

	v->gpr[CPU_RSP] = FAKE_USER_STACK;
	frame[0] = 1ull << 60; /* not canonical */
	frame[1] = FAKE_CS64_3 | 3;
	frame[2] = 2;
	frame[3] = 0x1000;
	frame[4] = FAKE_SS3 | 3;
	before = *v;
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_FAULT);
	assert_int_equal(v->event.vector, VECTOR_GP);
	assert_int_equal(v->event.code, 0);
	v->event = before.event;
	assert_memory_equal(v, &before, offsetof(struct vcpu, xsave));

	frame[0] = 0x6000;
	frame[4] = FAKE_SS3; /* RPL 0 for CPL 3 */
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_FAULT);
	assert_int_equal(v->event.code, FAKE_SS3);
	frame[4] = 0; /* null at CPL 3 */
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_FAULT);
	assert_int_equal(v->event.code, 0);
	frame[1] = FAKE_CS64_3; /* DPL 3, RPL 0 */
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_FAULT);
	assert_int_equal(v->event.code, FAKE_CS64_3);
	v->rflags |= RFLAGS_NT;
	assert_int_equal(interrupt_iret(v, &iretq), HELPER_FAULT);
	assert_int_equal(v->event.code, 0);
}

/* The leaf IRETQ either declines or does exactly what the full one does. */
static void
leaf_iretq_is_iretq(void **state)
{
	static const u16 cs[] = {FAKE_CS64, FAKE_CS64_3 | 3, FAKE_CS0, FAKE_CS3 | 3, 0};
	static const u16 ss[] = {FAKE_SS0, FAKE_SS3 | 3, 0, FAKE_CS0, FAKE_SS3};
	static const u64 flags[] = {0x202, 0x10246, 0x3c7fd7 & ~RFLAGS_TF, RFLAGS_TF, 0xffffffff};
	unsigned fast = 0;

	for (unsigned i = 0; i < 5 * 5 * 5; i++) {
		struct vcpu *v = fake_vcpu(true, 0), leaf, before;
		u64 *frame = (u64 *)(fake_memory + FAKE_USER_STACK);
		int r;

		frame[0] = 0x6000;
		frame[1] = cs[i % 5];
		frame[2] = flags[i / 25];
		frame[3] = 0x7770;
		frame[4] = ss[i / 5 % 5];
		v->gpr[CPU_RSP] = FAKE_USER_STACK;
		v->seg[CPU_DS] = v->seg[CPU_ES] = (struct segment){0};
		v->nmi_masked = true; /* a pending NMI would follow: the run loop's business */
		assert_int_equal(leaf_iretq(v, &iretq), LEAF_SLOW);
		v->nmi_masked = false;
		before = *v;
		r = leaf_iretq(v, &iretq);
		leaf = *v;
		if (r == LEAF_SLOW) {
			assert_memory_equal(&leaf, &before, sizeof(leaf));
			continue;
		}
		fast++;
		assert_int_equal(r, LEAF_JUMP);
		*v = before;
		assert_int_equal(interrupt_iret(v, &iretq), HELPER_JUMP);
		assert_memory_equal(v, &leaf, offsetof(struct vcpu, xsave));
	}
	assert_true(fast >= 9);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_page_fault_from_user),
		cmocka_unit_test(long_same_level_aligns_stack),
		cmocka_unit_test(long_ist_and_nmi_mask),
		cmocka_unit_test(gate_checks_of_int_n),
		cmocka_unit_test(missing_gate_of_interrupt_has_ext),
		cmocka_unit_test(double_and_triple_fault),
		cmocka_unit_test(benign_then_fault_is_serial),
		cmocka_unit_test(page_fault_on_stack_is_double),
		cmocka_unit_test(debug_trap_sets_dr6),
		cmocka_unit_test(protected_ring_change_and_back),
		cmocka_unit_test(bad_tss_stack_is_ts),
		cmocka_unit_test(v86_out_and_in),
		cmocka_unit_test(real_mode_and_back),
		cmocka_unit_test(real_mode_stack_wraps),
		cmocka_unit_test(iret_refuses),
		cmocka_unit_test(leaf_iretq_is_iretq),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
