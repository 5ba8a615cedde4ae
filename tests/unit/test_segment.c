/*
 * Segment loads, questions about selectors, table registers, far transfers and
 * task switches.
 */
#include "fake_vcpu.h"

#include "engine/translator/privileged.h"

enum { GATE = FAKE_FREE, DATA = FAKE_FREE + 8, TSS2 = FAKE_FREE + 16, LDT = FAKE_FREE + 24 };

static void
assert_fault(struct vcpu *v, int result, u8 vector, u32 code)
{
	assert_int_equal(result, HELPER_FAULT);
	assert_true(v->event.pending);
	assert_int_equal(v->event.vector, vector);
	assert_int_equal(v->event.code, code);
	v->event.pending = false;
}

static void
data_segment_checks(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);

	fake_descriptor(DATA, 0x12345678, 0xfff, 0xf2); /* not accessed yet */
	assert_int_equal(segment_load(v, CPU_FS, DATA | 3), 0);
	assert_int_equal(v->seg[CPU_FS].base, 0x12345678);
	assert_int_equal(v->seg[CPU_FS].limit, 0xfff);
	assert_int_equal(v->seg[CPU_FS].attr, 0xf3);
	assert_int_equal(fake_descriptor_high(DATA) & 0xff00, 0xf300);

	assert_fault(v, segment_load(v, CPU_DS, FAKE_SS0 | 3), VECTOR_GP, FAKE_SS0);
	assert_fault(v, segment_load(v, CPU_DS, FAKE_TR), VECTOR_GP, FAKE_TR);
	assert_fault(v, segment_load(v, CPU_DS, 0x107), VECTOR_GP, 0x104); /* no LDT */
	assert_fault(v, segment_load(v, CPU_DS, 0x100), VECTOR_GP, 0x100); /* beyond the GDT */
	fake_descriptor(DATA, 0, 0xfff, 0x73);
	assert_fault(v, segment_load(v, CPU_DS, DATA | 3), VECTOR_NP, DATA);
	assert_fault(v, segment_load(v, CPU_SS, DATA | 3), VECTOR_SS, DATA);
	assert_fault(v, segment_load(v, CPU_SS, FAKE_CS3 | 3), VECTOR_GP, FAKE_CS3);
	assert_fault(v, segment_load(v, CPU_SS, 0), VECTOR_GP, 0);
	fake_descriptor(DATA, 0, 0xfff, 0xf8); /* execute only */
	assert_fault(v, segment_load(v, CPU_DS, DATA | 3), VECTOR_GP, DATA);
	fake_descriptor(DATA, 0, 0xfff, 0x9f); /* conforming code of DPL 0 is for everyone */
	assert_int_equal(segment_load(v, CPU_DS, DATA | 3), 0);
	assert_int_equal(segment_load(v, CPU_DS, 3), 0);
	assert_int_equal(v->seg[CPU_DS].attr, 0);
}

static void
null_stack_segment(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	assert_int_equal(segment_load(v, CPU_SS, 0), 0);
	assert_fault(v, segment_load(v, CPU_SS, 1), VECTOR_GP, 0);
	v = fake_vcpu(true, 3);
	assert_fault(v, segment_load(v, CPU_SS, 3), VECTOR_GP, 0);
}

static void
mov_ss_shadows(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	struct insn in = {.mode = 64, .opcode = 0x8e, .opsize = 4, .len = 2, .reg = CPU_SS};

	assert_int_equal(segment_mov_to(v, &in), 0);
	assert_true(v->shadow_ss);
	in.reg = CPU_CS;
	assert_int_equal(segment_mov_to(v, &in), HELPER_FAULT);
	assert_int_equal(v->event.vector, VECTOR_UD);
	in.reg = 7;
	assert_int_equal(segment_mov_to(v, &in), HELPER_FAULT);
}

static void
push_pop_and_far_load(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);
	struct insn in = {.mode = 32, .opcode = 0x1e, .opsize = 4, .len = 1};

	assert_int_equal(segment_push(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_KERNEL_STACK - 4);
	assert_int_equal(fake_read32(FAKE_KERNEL_STACK - 4), FAKE_SS0);
	in.opcode = 0x07;
	v->seg[CPU_ES] = (struct segment){0};
	assert_int_equal(segment_pop(v, &in), 0);
	assert_int_equal(v->seg[CPU_ES].selector, FAKE_SS0);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_KERNEL_STACK);
	put_le32(fake_memory + 0x6000, 0xdeadbeef);
	put_le16(fake_memory + 0x6004, FAKE_SS3 | 3);
	in = (struct insn){.mode = 32,
			   .map = 1,
			   .opcode = 0xb4,
			   .opsize = 4,
			   .mem = true,
			   .seg = CPU_DS,
			   .base = INSN_NO_REG,
			   .disp = 0x6000,
			   .reg = CPU_RSI};
	assert_int_equal(segment_load_far(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RSI], 0xdeadbeef);
	assert_int_equal(v->seg[CPU_FS].selector, FAKE_SS3 | 3);
}

static void
inquiries(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	struct insn in = {
		.mode = 32, .map = 1, .opcode = 0x02, .opsize = 4, .reg = CPU_RBX, .rm = CPU_RCX};

	v->gpr[CPU_RCX] = FAKE_SS3;
	assert_int_equal(table_lar_lsl(v, &in), 0);
	assert_true(v->rflags & RFLAGS_ZF);
	assert_int_equal(v->gpr[CPU_RBX] & 0xf0ff00, 0xc0f300);
	in.opcode = 0x03;
	assert_int_equal(table_lar_lsl(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RBX], 0xffffffff);
	v->gpr[CPU_RCX] = FAKE_SS0; /* not visible at CPL 3 */
	assert_int_equal(table_lar_lsl(v, &in), 0);
	assert_false(v->rflags & RFLAGS_ZF);
	assert_int_equal(v->gpr[CPU_RBX], 0xffffffff);
	v->gpr[CPU_RCX] = 0;
	assert_int_equal(table_lar_lsl(v, &in), 0);
	assert_false(v->rflags & RFLAGS_ZF);

	in = (struct insn){.mode = 32, .map = 1, .opcode = 0, .reg = 5, .rm = CPU_RCX, .opsize = 4};
	v->gpr[CPU_RCX] = FAKE_SS3;
	assert_int_equal(table_group6(v, &in), 0); /* VERW */
	assert_true(v->rflags & RFLAGS_ZF);
	v->gpr[CPU_RCX] = FAKE_CS3;
	assert_int_equal(table_group6(v, &in), 0);
	assert_false(v->rflags & RFLAGS_ZF);
	in.reg = 4; /* VERR */
	assert_int_equal(table_group6(v, &in), 0);
	assert_true(v->rflags & RFLAGS_ZF);

	in = (struct insn){.mode = 32, .opcode = 0x63, .reg = CPU_RBX, .rm = CPU_RCX, .opsize = 2};
	v->gpr[CPU_RBX] = 3;
	v->gpr[CPU_RCX] = 0xffff0008;
	assert_int_equal(table_arpl(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RCX], 0xffff000b);
	assert_true(v->rflags & RFLAGS_ZF);
}

static void
table_registers(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	struct insn in = {.mode = 64, .map = 1, .opcode = 0, .reg = 3, .rm = CPU_RCX, .opsize = 4};
	struct insn lgdt = {.mode = 64,
			    .map = 1,
			    .opcode = 1,
			    .reg = 2,
			    .mem = true,
			    .base = INSN_NO_REG,
			    .seg = CPU_DS,
			    .disp = 0x6000,
			    .opsize = 8};

	fake_descriptor(TSS2, 0x3000, 0x67, SEGMENT_P | 9);
	put_le32(fake_memory + FAKE_GDT + TSS2 + 8, 0xffff8000);
	v->gpr[CPU_RCX] = TSS2;
	assert_int_equal(table_group6(v, &in), 0); /* LTR */
	assert_int_equal(v->tr.base, 0xffff800000003000ull);
	assert_int_equal(v->tr.attr & SEGMENT_TYPE, 11);
	assert_int_equal(fake_descriptor_high(TSS2) & 0xf00, 0xb00);
	assert_fault(v, table_group6(v, &in), VECTOR_GP, TSS2); /* busy now */
	v->gpr[CPU_RCX] = 0;
	assert_fault(v, table_group6(v, &in), VECTOR_GP, 0);
	in.reg = 2; /* LLDT of null */
	assert_int_equal(table_group6(v, &in), 0);
	assert_int_equal(v->ldt.attr, 0);

	put_le16(fake_memory + 0x6000, 0x7f);
	put_le64(fake_memory + 0x6002, 0xffff800000001000ull);
	assert_int_equal(table_load(v, &lgdt), 0);
	assert_int_equal(v->gdt.limit, 0x7f);
	assert_int_equal(v->gdt.base, 0xffff800000001000ull);
	put_le64(fake_memory + 0x6002, 0x800000001000ull);
	assert_fault(v, table_load(v, &lgdt), VECTOR_GP, 0);
	lgdt.reg = 0;
	lgdt.disp = 0x6100;
	assert_int_equal(table_store(v, &lgdt), 0);
	assert_int_equal(fake_read64(0x6102), 0xffff800000001000ull);
	v->cpl = 3;
	v->cr4 |= CR4_UMIP;
	assert_fault(v, table_store(v, &lgdt), VECTOR_GP, 0);
	v->cr4 = CR4_PAE;
	assert_int_equal(table_store(v, &lgdt), 0);
}

static void
far_call_through_gate_and_back(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	struct insn call = {
		.mode = 32, .opcode = 0x9a, .opsize = 4, .len = 7, .imm = 0x999, .imm2 = GATE | 3};
	struct insn ret = {.mode = 32, .opcode = 0xca, .opsize = 4, .len = 3, .imm = 8};
	u32 top = FAKE_KERNEL_STACK - 24;

	/* 32-bit call gate, DPL 3, two parameters, to CS0:0x4321 */
	put_le32(fake_memory + FAKE_GDT + GATE, FAKE_CS0 << 16 | 0x4321);
	put_le32(fake_memory + FAKE_GDT + GATE + 4, 0xec02);
	put_le32(fake_memory + FAKE_USER_STACK, 0x11111111);
	put_le32(fake_memory + FAKE_USER_STACK + 4, 0x22222222);
	assert_int_equal(far_call(v, &call), HELPER_JUMP);
	assert_int_equal(v->rip, 0x4321);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->seg[CPU_CS].selector, FAKE_CS0);
	assert_int_equal(v->gpr[CPU_RSP], top);
	assert_int_equal(fake_read32(top), 0x5007);
	assert_int_equal(fake_read32(top + 4), FAKE_CS3 | 3);
	assert_int_equal(fake_read32(top + 8), 0x11111111);
	assert_int_equal(fake_read32(top + 12), 0x22222222);
	assert_int_equal(fake_read32(top + 16), FAKE_USER_STACK);
	assert_int_equal(fake_read32(top + 20), FAKE_SS3 | 3);
	assert_int_equal(far_return(v, &ret), HELPER_JUMP);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, 0x5007);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_USER_STACK + 8);
	assert_int_equal(v->seg[CPU_SS].selector, FAKE_SS3 | 3);

	call.imm2 = GATE;
	put_le32(fake_memory + FAKE_GDT + GATE + 4, 0x8c02); /* DPL 0 */
	assert_fault(v, far_call(v, &call), VECTOR_GP, GATE);
	put_le32(fake_memory + FAKE_GDT + GATE + 4, 0x6c02); /* not present */
	assert_fault(v, far_call(v, &call), VECTOR_NP, GATE);
	put_le32(fake_memory + FAKE_GDT + GATE + 4, 0xec02);
	assert_fault(v, far_jump(v, &call), VECTOR_GP, FAKE_CS0); /* a jump stays at its level */
}

static void
far_direct_checks(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);
	struct insn jump = {
		.mode = 32, .opcode = 0xea, .opsize = 4, .len = 7, .imm = 0x1000, .imm2 = FAKE_CS0};

	assert_int_equal(far_jump(v, &jump), HELPER_JUMP);
	assert_int_equal(v->rip, 0x1000);
	jump.imm2 = FAKE_CS3;
	assert_fault(v, far_jump(v, &jump), VECTOR_GP, FAKE_CS3);
	jump.imm2 = FAKE_SS0;
	assert_fault(v, far_jump(v, &jump), VECTOR_GP, FAKE_SS0);
	jump.imm2 = 0;
	assert_fault(v, far_jump(v, &jump), VECTOR_GP, 0);
	fake_descriptor(DATA, 0, 0xfff, 0x49b);
	jump.imm2 = DATA; /* 0x1000 is beyond the limit */
	assert_fault(v, far_jump(v, &jump), VECTOR_GP, 0);
}

static void
real_mode_far(void **state)
{
	struct vcpu *v = fake_vcpu_real();
	struct insn call = {
		.mode = 16, .opcode = 0x9a, .opsize = 2, .len = 5, .imm = 0x10, .imm2 = 0x2000};
	struct insn ret = {.mode = 16, .opcode = 0xcb, .opsize = 2, .len = 1};

	assert_int_equal(far_call(v, &call), HELPER_JUMP);
	assert_int_equal(v->seg[CPU_CS].base, 0x20000);
	assert_int_equal(v->rip, 0x10);
	assert_int_equal(v->gpr[CPU_RSP], 0x6ffc);
	assert_int_equal(far_return(v, &ret), HELPER_JUMP);
	assert_int_equal(v->seg[CPU_CS].base, 0);
	assert_int_equal(v->rip, 0x5005);
	assert_int_equal(segment_load(v, CPU_DS, 0x1234), 0);
	assert_int_equal(v->seg[CPU_DS].base, 0x12340);
}

static void
make_task(u32 at, u32 eip, u16 cs)
{
	u8 *tss = fake_memory + at;

	put_le32(tss + 0x20, eip);
	put_le32(tss + 0x24, RFLAGS_FIXED);
	put_le32(tss + 0x28, 0xaaaa);
	put_le32(tss + 0x38, FAKE_IST_STACK);
	put_le16(tss + 0x48, FAKE_SS0);
	put_le16(tss + 0x4c, cs);
	put_le16(tss + 0x50, FAKE_SS0);
	put_le16(tss + 0x54, FAKE_SS0);
}

static void
task_switch_and_return(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);
	struct insn call = {.mode = 32, .opcode = 0x9a, .opsize = 4, .len = 7, .imm2 = TSS2};
	struct insn iret = {.mode = 32, .opcode = 0xcf, .opsize = 4, .len = 1};

	fake_descriptor(TSS2, 0x3000, 0x67, SEGMENT_P | 9);
	make_task(0x3000, 0x6000, FAKE_CS0);
	v->gpr[CPU_RAX] = 0x1111;
	assert_int_equal(far_call(v, &call), HELPER_JUMP);
	assert_int_equal(v->rip, 0x6000);
	assert_int_equal(v->gpr[CPU_RAX], 0xaaaa);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_IST_STACK);
	assert_int_equal(v->tr.selector, TSS2);
	assert_true(v->rflags & RFLAGS_NT);
	assert_true(v->cr0 & CR0_TS);
	assert_int_equal(v->seg[CPU_DS].selector, FAKE_SS0);
	assert_int_equal(get_le16(fake_memory + 0x3000), FAKE_TR);
	assert_int_equal(fake_read32(FAKE_TSS + 0x20), 0x5007);
	assert_int_equal(fake_read32(FAKE_TSS + 0x28), 0x1111);
	assert_int_equal(fake_descriptor_high(TSS2) & 0xf00, 0xb00);

	v->rip = 0x6001;
	assert_int_equal(interrupt_iret(v, &iret), HELPER_JUMP);
	assert_int_equal(v->tr.selector, FAKE_TR);
	assert_int_equal(v->rip, 0x5007);
	assert_int_equal(v->gpr[CPU_RAX], 0x1111);
	assert_false(v->rflags & RFLAGS_NT);
	assert_int_equal(fake_read32(0x3020), 0x6002);
	assert_int_equal(fake_descriptor_high(TSS2) & 0xf00, 0x900);
}

static void
task_faults(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);
	struct insn jump = {.mode = 32, .opcode = 0xea, .opsize = 4, .len = 7, .imm2 = TSS2};

	fake_descriptor(TSS2, 0x3000, 0x67, SEGMENT_P | 11);
	assert_fault(v, far_jump(v, &jump), VECTOR_GP, TSS2); /* busy */
	fake_descriptor(TSS2, 0x3000, 0x66, SEGMENT_P | 9);
	assert_fault(v, far_jump(v, &jump), VECTOR_TS, TSS2);
	fake_descriptor(TSS2, 0x3000, 0x67, 9);
	assert_fault(v, far_jump(v, &jump), VECTOR_NP, TSS2);
	assert_int_equal(v->tr.selector, FAKE_TR);
	/* A bad CS is the new task's fault. */
	fake_descriptor(TSS2, 0x3000, 0x67, SEGMENT_P | 9);
	make_task(0x3000, 0x6000, FAKE_SS0);
	assert_fault(v, far_jump(v, &jump), VECTOR_TS, FAKE_SS0);
	assert_int_equal(v->tr.selector, TSS2);
	assert_int_equal(v->rip, 0x6000);
}

static void
interrupt_through_task_gate(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);

	fake_descriptor(TSS2, 0x3000, 0x67, SEGMENT_P | 9);
	make_task(0x3000, 0x6000, FAKE_CS0);
	fake_gate(v, VECTOR_DF, TSS2, 0x85, 0);
	vcpu_raise_code(v, VECTOR_GP, 0); /* no gate for it: double fault */
	assert_int_equal(interrupt_deliver_event(v), 0);
	assert_int_equal(v->tr.selector, TSS2);
	assert_int_equal(v->rip, 0x6000);
	assert_int_equal(v->gpr[CPU_RSP], FAKE_IST_STACK - 4);
	assert_int_equal(fake_read32(FAKE_IST_STACK - 4), 0);
	assert_int_equal(fake_read32(FAKE_TSS + 0x20), 0x5000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_segment_checks),
		cmocka_unit_test(null_stack_segment),
		cmocka_unit_test(mov_ss_shadows),
		cmocka_unit_test(push_pop_and_far_load),
		cmocka_unit_test(inquiries),
		cmocka_unit_test(table_registers),
		cmocka_unit_test(far_call_through_gate_and_back),
		cmocka_unit_test(far_direct_checks),
		cmocka_unit_test(real_mode_far),
		cmocka_unit_test(task_switch_and_return),
		cmocka_unit_test(task_faults),
		cmocka_unit_test(interrupt_through_task_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
