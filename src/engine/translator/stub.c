/*
 * Entering and leaving guest code. Vector state stays in the host's registers
 * across leaf calls; stub.enter loads it and leaving saves it, with MXCSR and
 * the x87 control word put back to what C expects.
 */
#include "engine/translator/stub.h"

#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/operand.h"

void
stub_save_flags(struct translation *t, struct emit *e)
{
	emit_mov(e, T1, RAX);
	emit8(e, 0x9f);					/* lahf */
	emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0); /* seto al */
	emit8(e, 0x66), emit8(e, 0x89), emit_rip(e, RAX, &t->flags, 0);
	emit_mov(e, RAX, T1);
}

void
stub_load_flags(struct translation *t, struct emit *e)
{
	emit_mov(e, T1, RAX);
	emit8(e, 0x0f), emit8(e, 0xb7), emit_rip(e, RAX, &t->flags, 0); /* movzx eax, word */
	emit8(e, 0x04), emit8(e, 0x7f);					/* add al, 0x7f */
	emit8(e, 0x9e);							/* sahf */
	emit_mov(e, RAX, T1);
}

static void
stub_store_gprs(struct vcpu *v, struct emit *e, unsigned mask)
{
	for (unsigned r = 0; r < CPU_GPRS; r++)
		if (mask & BIT(r) & ~(unsigned)HOMED_MASK)
			emit_store_var(e, &v->gpr[r], r);
}

static void
stub_load_gprs(struct vcpu *v, struct emit *e, unsigned mask)
{
	for (unsigned r = 0; r < CPU_GPRS; r++)
		if (mask & BIT(r) & ~(unsigned)HOMED_MASK)
			emit_load_var(e, r, &v->gpr[r]);
	emit_load_var(e, STACK, &vcpu_translation(v)->stack_addend); /* C has spoilt it */
}

enum {
	/* Not preserved by a C function, and RSP. */
	STUB_CALLER = BIT(RAX) | BIT(RCX) | BIT(RDX) | BIT(RSI) | BIT(RDI) | BIT(R8) | BIT(R9) |
		      BIT(R10) | BIT(RSP),
	STUB_CALLEE = BIT(RBX) | BIT(RBP) | BIT(R12) | BIT(R13),
	STUB_ALL = STUB_CALLER | STUB_CALLEE,
};

static const u32 stub_mxcsr = 0x1f80;
static const u16 stub_fcw = 0x37f;

enum { XSTATE_SAVE, XSTATE_RESTORE };

/* FXSAVE64 and FXRSTOR64: a CPU without XSAVE has no more than x87 and SSE. */
static void
stub_legacy_state(struct vcpu *v, struct emit *e, unsigned way)
{
	emit8(e, 0x48), emit8(e, 0x0f), emit8(e, 0xae), emit_rip(e, way, v->xsave, 0);
	emit8(e, 0x80), emit_rip(e, 1, v->xsave + XSAVE_BV, 1); /* or byte, imm8 */
	emit8(e, XSTATE_X87 | XSTATE_SSE);
}

/* Saves or restores x87, SSE and AVX at v->xsave. Spoils RAX, RDX, flags. */
static void
stub_xstate(struct vcpu *v, struct emit *e, unsigned way)
{
	unsigned op = way == XSTATE_SAVE ? 4 : 5; /* XSAVE64, XRSTOR64 */

	if (!stub_host_has_xsave()) {
		stub_legacy_state(v, e, way);
		return;
	}
	emit_mov_imm32(e, RAX, 7);
	emit_alu(e, ALU_XOR, false, RDX, RDX);
	emit8(e, 0x48), emit8(e, 0x0f), emit8(e, 0xae), emit_rip(e, op, v->xsave, 0);
}

static void
stub_make_enter(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);
	static const u8 pushes[] = {
		0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41,
		0x56, 0x41, 0x57, 0x48, 0x83, 0xec, 0x08}; /* rbx rbp r12-r15; sub rsp, 8 */

	t->stub.enter = emit_rx(e);
	for (unsigned i = 0; i < sizeof(pushes); i++)
		emit8(e, pushes[i]);
	emit_store_var(e, &t->host_rsp, RSP);
	stub_xstate(v, e, XSTATE_RESTORE);
	stub_load_flags(t, e);
	stub_load_gprs(v, e, STUB_ALL);
	emit_load_var(e, T0, &t->t0);
	emit_jmp_var(e, &t->resume);
}

/* Registers but for those in SAVED are stored, then back to C. */
static void
stub_make_leave(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);
	static const u8 pops[] = {0x48, 0x83, 0xc4, 0x08, 0x41, 0x5f, 0x41, 0x5e,
				  0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
	const u8 *mxcsr, *fcw;

	mxcsr = emit_rx(e);
	emit32(e, stub_mxcsr);
	fcw = emit_rx(e);
	emit32(e, stub_fcw);
	t->stub.leave_r = emit_rx(e);
	stub_save_flags(t, e);
	t->stub.leave_m = emit_rx(e);
	stub_store_gprs(v, e, STUB_ALL);
	emit_load_var(e, RSP, &t->host_rsp);
	stub_xstate(v, e, XSTATE_SAVE);
	emit8(e, 0x0f), emit8(e, 0xae), emit_rip(e, 2, mxcsr, 0); /* ldmxcsr */
	emit8(e, 0xdb), emit8(e, 0xe3);				  /* fninit */
	emit8(e, 0xd9), emit_rip(e, 5, fcw, 0);			  /* fldcw */
	for (unsigned i = 0; i < sizeof(pops); i++)
		emit8(e, pops[i]);
}

static void
stub_make_leave_signal(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);

	t->stub.leave_signal = emit_rx(e);
	emit_mov(e, T1, RAX);
	emit8(e, 0x9f);
	emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0);
	emit8(e, 0x66), emit8(e, 0x89), emit_rip(e, RAX, &t->flags_r, 0);
	emit_mov(e, RAX, T1);
	emit_store_var_imm32(e, &t->reason, LEAVE_SIGNAL);
	emit_jmp(e, t->stub.leave_m);
}

/* Calls FN(v) with registers of MASK in v->gpr. Result in RAX, flags of a test of it. */
static void
stub_call(struct vcpu *v, struct emit *e, const void *fn, unsigned mask)
{
	struct translation *t = vcpu_translation(v);

	stub_store_gprs(v, e, mask);
	emit_load_var(e, RSP, &t->host_rsp);
	emit_lea_rip(e, RDI, v);
	emit_mov_imm(e, RAX, (u64)fn);
	emit_call_reg(e, RAX);
	emit8(e, 0x48), emit8(e, 0x85), emit8(e, 0xc0); /* test rax, rax */
}

/* From a leaf call to leaving for REASON (or the one the leaf set, if < 0). */
static void
stub_give_up(struct vcpu *v, struct emit *e, int reason)
{
	struct translation *t = vcpu_translation(v);

	if (reason >= 0)
		emit_store_var_imm32(e, &t->reason, (u32)reason);
	stub_load_gprs(v, e, STUB_CALLER);
	emit_jmp(e, t->stub.leave_m);
}

/* T0 = linear in the page that HALF of the entry among the victims at STACK is of: it becomes the
 * host's, and the access goes on. Else falls through, with T0 as it was. */
static void
stub_victim(struct vcpu *v, struct emit *e, i32 half)
{
	const i32 at = (i32)(TLB_SIZE * sizeof(struct tlb_entry)) + half;
	struct translation *t = vcpu_translation(v);
	u8 *other[2];

	emit_alu_imm(e, ALU_AND, false, T1, ACCESS_SIZE);
	emit_alu_mem(e, ALU_SUB, T0, STACK, at);
	emit_alu_imm(e, ALU_CMP, true, T0, 4095);
	other[0] = emit_jcc(e, CC_A, emit_rx(e));
	emit_alu(e, ALU_ADD, true, T1, T0);
	emit_alu_imm(e, ALU_CMP, true, T1, 4096);
	other[1] = emit_jcc(e, CC_A, emit_rx(e));
	emit_alu_mem(e, ALU_ADD, T0, STACK, at + (i32)offsetof(struct tlb_entry, read_host));
	emit_load_var(e, STACK, &t->stack_addend);
	emit_jmp_var(e, &t->site);
	emit_patch(e, other[0], emit_rx(e));
	emit_patch(e, other[1], emit_rx(e));
	emit_alu_mem(e, ALU_ADD, T0, STACK, at);
}

/* T0 = linear, T1 = access, STACK = site, of an access that is not at the stack pointer. A page
 * that had to leave its place to another is used from where it is now, and at times is given its
 * place back by the leaf. */
static void
stub_make_miss_first(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);
	u8 *spent, *read, *slow;

	t->stub.miss = emit_rx(e);
	emit_store_var(e, &t->site, STACK);
	emit8(e, 0xff), emit_rip(e, 1, &t->victim_credit, 0); /* dec dword */
	spent = emit_jcc(e, CC_S, emit_rx(e));
	emit_store_var(e, &t->tmp2, T1);
	emit_mov(e, STACK, T0); /* tlb_victim */
	emit_shr_imm(e, STACK, 11);
	emit_alu(e, ALU_XOR, true, STACK, T0);
	emit_shr_imm(e, STACK, 7);
	emit_alu_imm(e, ALU_AND, false, STACK, (TLB_VICTIMS - 1) << 5);
	emit_alu_var(e, ALU_ADD, STACK, &t->tlb);
	emit_rex(e, false, 0, 0, T1), emit8(e, 0xf7); /* test T1, ACCESS_WRITE */
	emit8(e, 0xc0 | (T1 & 7)), emit32(e, ACCESS_WRITE);
	read = emit_jcc(e, CC_E, emit_rx(e));
	stub_victim(v, e, offsetof(struct tlb_entry, write));
	slow = emit_jmp(e, emit_rx(e));
	emit_patch(e, read, emit_rx(e));
	stub_victim(v, e, offsetof(struct tlb_entry, read));
	emit_patch(e, slow, emit_rx(e));
	emit_load_var(e, T1, &t->tmp2);
	emit_patch(e, spent, emit_rx(e));
	emit_load_var(e, STACK, &t->site);
	emit_jmp(e, t->stub.miss_slow);
}

/* T0 = linear (or offset), T1 = access, STACK = site: the leaf looks. */
static void
stub_make_miss(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);
	u8 *slow;

	t->stub.miss_slow = emit_rx(e);
	emit_store_var(e, &t->site, STACK);
	emit_store_var(e, &t->linear, T0);
	emit_store_var(e, &t->access, T1);
	stub_call(v, e, (const void *)leaf_access, STUB_CALLER);
	slow = emit_jcc(e, CC_E, emit_rx(e));
	emit_mov(e, T0, RAX);
	stub_load_gprs(v, e, STUB_CALLER);
	emit_jmp_var(e, &t->site);
	emit_patch(e, slow, emit_rx(e));
	stub_give_up(v, e, LEAVE_ACCESS);
}

/* T0 = linear, T1 = access, STACK = site, of an access at the stack pointer: on a page that is not
 * the stack's. Its TLB entry will do, with T0 such that adding STACK leads there. */
static void
stub_make_stack(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);
	u8 *spent, *miss;

	t->stub.stack = emit_rx(e);
	emit_store_var(e, &t->site, STACK);
	emit8(e, 0xff), emit_rip(e, 1, &t->stack_credit, 0); /* dec dword */
	spent = emit_jcc(e, CC_S, emit_rx(e));
	emit_store_var(e, &t->tmp2, T1);
	emit_mov(e, STACK, T0);
	emit_shr_imm(e, STACK, 7);
	emit_alu_imm(e, ALU_AND, false, STACK, (TLB_SIZE - 1) << 5);
	emit_alu_var(e, ALU_ADD, STACK, &t->tlb);
	emit_alu_imm(e, ALU_AND, false, T1, ACCESS_SIZE);
	emit_lea_sib(e, true, T1, T0, T1, 1, -1);
	emit_alu_imm(e, ALU_AND, true, T1, -4096);
	emit_alu_mem(e, ALU_CMP, T1, STACK, offsetof(struct tlb_entry, write));
	miss = emit_jcc(e, CC_NE, emit_rx(e));
	emit_alu_imm(e, ALU_AND, false, T0, 4095);
	emit_alu_mem(e, ALU_ADD, T0, STACK, offsetof(struct tlb_entry, write_host));
	emit_load_var(e, STACK, &t->stack_addend);
	emit_alu(e, ALU_SUB, true, T0, STACK);
	emit_jmp_var(e, &t->site);
	emit_patch(e, miss, emit_rx(e));
	emit_load_var(e, T1, &t->tmp2);
	emit_patch(e, spent, emit_rx(e));
	emit_load_var(e, STACK, &t->site);
	emit_jmp(e, t->stub.miss_slow);
}

/* T1 = access, STACK = where to go on: the bounce buffer holds what is to be stored. */
static void
stub_make_commit(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);

	t->stub.commit_r = emit_rx(e);
	emit_store_var(e, &t->site, STACK);
	emit_store_var(e, &t->access, T1);
	emit_store_var_imm32(e, &t->reason, LEAVE_COMMIT);
	emit_jmp(e, t->stub.leave_r);
	t->stub.commit_m = emit_rx(e);
	emit_store_var(e, &t->site, STACK);
	emit_store_var(e, &t->access, T1);
	emit_store_var_imm32(e, &t->reason, LEAVE_COMMIT);
	emit_jmp(e, t->stub.leave_m);
}

/* A leaf that answers where to go on. */
static void
stub_make_go(struct vcpu *v, struct emit *e, const void *fn, int reason, unsigned mask)
{
	struct translation *t = vcpu_translation(v);
	u8 *slow;

	stub_call(v, e, fn, mask);
	slow = emit_jcc(e, CC_E, emit_rx(e));
	emit_store_var(e, &t->resume, RAX);
	stub_load_gprs(v, e, mask);
	emit_jmp_var(e, &t->resume);
	emit_patch(e, slow, emit_rx(e));
	if (mask == STUB_ALL)
		stub_load_gprs(v, e, STUB_CALLEE);
	stub_give_up(v, e, reason);
}

static void
stub_make_leaves(struct vcpu *v, struct emit *e)
{
	struct translation *t = vcpu_translation(v);

	/* T1 = struct link */
	t->stub.link_r = emit_rx(e);
	emit_store_var(e, &t->link, T1);
	stub_save_flags(t, e);
	emit8(e, 0xeb), emit8(e, 7); /* over the store, which is so long */
	t->stub.link_m = emit_rx(e);
	emit_store_var(e, &t->link, T1);
	stub_make_go(v, e, (const void *)leaf_link, LEAVE_LINK, STUB_CALLER);
	/* T0 = linear address to go on at */
	t->stub.jump = emit_rx(e);
	emit_store_var(e, &t->linear, T0);
	stub_make_go(v, e, (const void *)leaf_jump, LEAVE_JUMP, STUB_CALLER);
	/* the same, T1 = t->branch */
	t->stub.branch = emit_rx(e);
	emit_store_var(e, &t->linear, T0);
	emit_store_var(e, &t->branch, T1);
	stub_make_go(v, e, (const void *)leaf_branch, -1, STUB_CALLER);
	/* T0 = struct helper_site */
	t->stub.helper = emit_rx(e);
	emit_store_var(e, &t->helper, T0);
	emit_store_var_imm32(e, &t->reason, LEAVE_HELPER);
	emit_jmp(e, t->stub.leave_m);
	/* the same, STACK = code behind the instruction (flags in M there) */
	t->stub.leaf_helper = emit_rx(e);
	emit_store_var(e, &t->helper, T0);
	emit_store_var(e, &t->site, STACK);
	stub_make_go(v, e, (const void *)leaf_helper, -1, STUB_CALLER);
	/* the same for one that may look at any register */
	t->stub.leaf_helper_all = emit_rx(e);
	emit_store_var(e, &t->helper, T0);
	emit_store_var(e, &t->site, STACK);
	stub_make_go(v, e, (const void *)leaf_helper, -1, STUB_ALL);
}

/* STAC or CLAC, T0 = where to go on, or five bytes on if the leaf is to do it: from one kernel set
 * to the other, as mode_select would. Spoils T1. */
static void
stub_make_ac(struct vcpu *v, struct emit *e, unsigned to)
{
	struct translation *t = vcpu_translation(v);
	struct tlb *old = t->sets[to ^ 1], *new = t->sets[to];
	u8 *slow[2];

	t->stub.ac[to] = emit_rx(e);
	emit8(e, 0xf7), emit_rip(e, 0, &v->cr4, 4), emit32(e, CR4_SMAP); /* test dword */
	slow[0] = emit_jcc(e, CC_E, emit_rx(e));
	emit8(e, 0x80), emit_rip(e, ALU_CMP, &new->code_stale, 1), emit8(e, 0);
	slow[1] = emit_jcc(e, CC_NE, emit_rx(e));
	emit_load_var(e, T1, &t->stack_page);
	emit_store_var(e, &old->stack_page, T1);
	emit_store_var(e, &old->stack_addend, STACK);
	emit_load_var(e, T1, &new->stack_page);
	emit_store_var(e, &t->stack_page, T1);
	emit_load_var(e, STACK, &new->stack_addend);
	emit_store_var(e, &t->stack_addend, STACK);
	emit_store_var_imm32(e, &t->stack_credit, 0);
	emit8(e, 0x81), emit_rip(e, ALU_XOR, &v->rflags, 4), emit32(e, RFLAGS_AC);
	emit_lea_rip(e, T1, new->entry);
	emit_store_var(e, &t->tlb, T1);
	emit_jmp_reg(e, T0);
	emit_patch(e, slow[0], emit_rx(e));
	emit_patch(e, slow[1], emit_rx(e));
	emit_alu_imm(e, ALU_ADD, true, T0, 5);
	emit_jmp_reg(e, T0);
}

void
stub_make(struct vcpu *v, struct emit *e)
{
	stub_make_enter(v, e);
	stub_make_leave(v, e);
	stub_make_leave_signal(v, e);
	stub_make_miss(v, e);
	stub_make_miss_first(v, e);
	stub_make_stack(v, e);
	stub_make_commit(v, e);
	stub_make_leaves(v, e);
	stub_make_ac(v, e, TLB_KERNEL);
	stub_make_ac(v, e, TLB_KERNEL_USER);
}

void
stub_run(struct translation *t)
{
	void (*enter)(void) = (void (*)(void))(u64)t->stub.enter;

	enter();
}
