/*
 * The same cases run by the translator's C helpers alone, called directly on a
 * vCPU with flat fake memory: so that rare.c, vector_mem.c, string.c (and
 * its leaf) and xstate.c meet the bare CPU also where translated code has a
 * faster way. Cases of instructions without such a helper are passed over.
 *
 * Stands in for guest.c; defines what the helpers need of mmu.c and vcpu.c.
 */
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "case.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mmu.h"
#include "engine/translator/rare.h"

struct guest {
	struct vcpu *v;
	struct cpu_model model;
	u64 fs_base;
};

/* What the fake mmu reads and writes: the result of the case under way. */
static u8 *direct_memory;
static const struct insn_case *direct_case;

int
vcpu_raise(struct vcpu *v, u8 vector)
{
	v->event = (struct pending_event){.pending = true, .vector = vector};
	return HELPER_FAULT;
}

int
vcpu_raise_code(struct vcpu *v, u8 vector, u32 code)
{
	v->event = (struct pending_event){
		.pending = true, .has_code = true, .vector = vector, .code = code};
	return HELPER_FAULT;
}

static bool
direct_in_code(u64 linear)
{
	return linear >= CASE_CODE && linear < CASE_CODE + CASE_CODE_SIZE;
}

/* 0, or the page fault's error code. */
static u32
direct_error(u64 linear, bool write)
{
	u64 page = (linear - CASE_DATA) / CASE_PAGE;
	u32 error = PF_U | (write ? PF_W : 0);

	if (direct_in_code(linear))
		return 0;
	if (linear < CASE_DATA || page >= CASE_DATA_PAGES || !case_page_present((unsigned)page))
		return error;
	return write && !case_page_writable((unsigned)page) ? error | PF_P : 0;
}

static int
direct_check(struct vcpu *v, u64 linear, unsigned len, bool write)
{
	for (unsigned i = 0; i < len; i++) {
		u32 error = direct_error(linear + i, write);

		if (error == 0)
			continue;
		v->cr2 = linear + i;
		return vcpu_raise_code(v, VECTOR_PF, error);
	}
	return 0;
}

/* Code is only read where a case's operand strays there: its own slot, INT3 elsewhere. */
static u8
direct_code_byte(u64 linear)
{
	u64 at = linear - case_slot_address(direct_case->slot);

	return at < CASE_SLOT ? direct_case->code[at] : 0xcc;
}

int
mmu_read(struct vcpu *v, u64 linear, void *buf, unsigned len, unsigned flags)
{
	int r = direct_check(v, linear, len, (flags & MMU_WRITE_INTENT) != 0);
	u8 *out = buf;

	for (unsigned i = 0; r == 0 && i < len; i++)
		out[i] = direct_in_code(linear + i) ? direct_code_byte(linear + i)
						    : direct_memory[linear + i - CASE_DATA];
	return r;
}

int
mmu_write(struct vcpu *v, u64 linear, const void *buf, unsigned len, unsigned flags)
{
	int r = direct_check(v, linear, len, true);
	const u8 *in = buf;

	(void)flags;
	for (unsigned i = 0; r == 0 && i < len; i++)
		if (!direct_in_code(linear + i))
			direct_memory[linear + i - CASE_DATA] = in[i];
	return r;
}

int
mmu_check_write(struct vcpu *v, u64 linear, unsigned len, unsigned flags)
{
	(void)flags;
	return direct_check(v, linear, len, true);
}

int
mmu_linear(struct vcpu *v, enum cpu_segment seg, u64 offset, unsigned len, bool write, u64 *linear)
{
	u8 vector = seg == CPU_SS ? VECTOR_SS : VECTOR_GP;

	if (!vcpu_64bit(v)) {
		*linear = (u32)(v->seg[seg].base + offset);
		return (write && seg == CPU_CS) || offset + len - 1 > UINT32_MAX
			       ? vcpu_raise_code(v, vector, 0)
			       : 0;
	}
	*linear = offset + (seg == CPU_FS || seg == CPU_GS ? v->seg[seg].base : 0);
	if (!vcpu_canonical(*linear) || !vcpu_canonical(*linear + len - 1))
		return vcpu_raise_code(v, vector, 0);
	return 0;
}

u64
mmu_offset(const struct vcpu *v, const struct insn *in)
{
	u64 sum = (u64)in->disp;

	if (in->base == INSN_RIP)
		sum += v->rip + in->len;
	else if (in->base < CPU_GPRS)
		sum += v->gpr[in->base];
	if (in->index < CPU_GPRS)
		sum += v->gpr[in->index] * in->scale;
	return in->addrsize == 8 ? sum : sum & ((1ull << (in->addrsize * 8)) - 1);
}

int
mmu_operand(struct vcpu *v, const struct insn *in, unsigned len, bool write, u64 *linear)
{
	return mmu_linear(v, (enum cpu_segment)in->seg, mmu_offset(v, in), len, write, linear);
}

int
mmu_port_read(struct vcpu *v, u16 port, unsigned size, u32 *value)
{
	(void)port;
	(void)size;
	*value = 0;
	return vcpu_raise_code(v, VECTOR_GP, 0);
}

int
mmu_port_write(struct vcpu *v, u16 port, unsigned size, u32 value)
{
	return mmu_port_read(v, port, size, &value);
}

u8 *
leaf_host(struct vcpu *v, u64 linear, unsigned len, unsigned write)
{
	if (direct_in_code(linear) || (linear & (CASE_PAGE - 1)) + len > CASE_PAGE)
		return NULL;
	for (unsigned i = 0; i < len; i++)
		if (direct_error(linear + i, write))
			return NULL;
	(void)v;
	return direct_memory + (linear - CASE_DATA);
}

/*
 * Which helper
 */

static const struct {
	u16 mnemonic;
	helper_fn *helper, *leaf;
} direct_helpers[] = {
	{ZYDIS_MNEMONIC_AAA, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_AAS, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_AAM, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_AAD, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_DAA, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_DAS, rare_bcd, NULL},
	{ZYDIS_MNEMONIC_PUSHA, rare_pusha, NULL},
	{ZYDIS_MNEMONIC_PUSHAD, rare_pusha, NULL},
	{ZYDIS_MNEMONIC_POPA, rare_popa, NULL},
	{ZYDIS_MNEMONIC_POPAD, rare_popa, NULL},
	{ZYDIS_MNEMONIC_BOUND, rare_bound, NULL},
	{ZYDIS_MNEMONIC_SALC, rare_salc, NULL},
	{ZYDIS_MNEMONIC_ENTER, rare_enter, NULL},
	{ZYDIS_MNEMONIC_LEAVE, rare_leave, NULL},
	{ZYDIS_MNEMONIC_XLAT, rare_xlat, NULL},
	{ZYDIS_MNEMONIC_PUSH, rare_push, NULL},
	{ZYDIS_MNEMONIC_POP, rare_pop, NULL},
	{ZYDIS_MNEMONIC_CALL, rare_call, NULL},
	{ZYDIS_MNEMONIC_JMP, rare_jmp, NULL},
	{ZYDIS_MNEMONIC_RET, rare_ret, NULL},
	{ZYDIS_MNEMONIC_LOOP, rare_loop, NULL},
	{ZYDIS_MNEMONIC_LOOPE, rare_loop, NULL},
	{ZYDIS_MNEMONIC_LOOPNE, rare_loop, NULL},
	{ZYDIS_MNEMONIC_JCXZ, rare_loop, NULL},
	{ZYDIS_MNEMONIC_JECXZ, rare_loop, NULL},
	{ZYDIS_MNEMONIC_JRCXZ, rare_loop, NULL},
	{ZYDIS_MNEMONIC_MASKMOVQ, vector_maskmov_bytes, NULL},
	{ZYDIS_MNEMONIC_MASKMOVDQU, vector_maskmov_bytes, NULL},
	{ZYDIS_MNEMONIC_VMASKMOVDQU, vector_maskmov_bytes, NULL},
	{ZYDIS_MNEMONIC_VMASKMOVPS, vector_maskmov, NULL},
	{ZYDIS_MNEMONIC_VMASKMOVPD, vector_maskmov, NULL},
	{ZYDIS_MNEMONIC_VPMASKMOVD, vector_maskmov, NULL},
	{ZYDIS_MNEMONIC_VPMASKMOVQ, vector_maskmov, NULL},
	{ZYDIS_MNEMONIC_VGATHERDPS, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VGATHERDPD, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VGATHERQPS, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VGATHERQPD, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VPGATHERDD, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VPGATHERDQ, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VPGATHERQD, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VPGATHERQQ, vector_gather, NULL},
	{ZYDIS_MNEMONIC_VZEROUPPER, vector_zero, NULL},
	{ZYDIS_MNEMONIC_VZEROALL, vector_zero, NULL},
	{ZYDIS_MNEMONIC_MOVSB, string_movs, leaf_string},
	{ZYDIS_MNEMONIC_MOVSW, string_movs, leaf_string},
	{ZYDIS_MNEMONIC_MOVSQ, string_movs, leaf_string},
	{ZYDIS_MNEMONIC_CMPSB, string_cmps, leaf_string},
	{ZYDIS_MNEMONIC_CMPSW, string_cmps, leaf_string},
	{ZYDIS_MNEMONIC_CMPSQ, string_cmps, leaf_string},
	{ZYDIS_MNEMONIC_STOSB, string_stos, leaf_string},
	{ZYDIS_MNEMONIC_STOSW, string_stos, leaf_string},
	{ZYDIS_MNEMONIC_STOSD, string_stos, leaf_string},
	{ZYDIS_MNEMONIC_STOSQ, string_stos, leaf_string},
	{ZYDIS_MNEMONIC_LODSB, string_lods, leaf_string},
	{ZYDIS_MNEMONIC_LODSW, string_lods, leaf_string},
	{ZYDIS_MNEMONIC_LODSD, string_lods, leaf_string},
	{ZYDIS_MNEMONIC_LODSQ, string_lods, leaf_string},
	{ZYDIS_MNEMONIC_SCASB, string_scas, leaf_string},
	{ZYDIS_MNEMONIC_SCASW, string_scas, leaf_string},
	{ZYDIS_MNEMONIC_SCASD, string_scas, leaf_string},
	{ZYDIS_MNEMONIC_SCASQ, string_scas, leaf_string},
	{ZYDIS_MNEMONIC_INSB, string_ins, NULL},
	{ZYDIS_MNEMONIC_INSW, string_ins, NULL},
	{ZYDIS_MNEMONIC_INSD, string_ins, NULL},
	{ZYDIS_MNEMONIC_OUTSB, string_outs, NULL},
	{ZYDIS_MNEMONIC_OUTSW, string_outs, NULL},
	{ZYDIS_MNEMONIC_OUTSD, string_outs, NULL},
	{ZYDIS_MNEMONIC_FXSAVE, xstate_fxsave, NULL},
	{ZYDIS_MNEMONIC_FXSAVE64, xstate_fxsave, NULL},
	{ZYDIS_MNEMONIC_FXRSTOR, xstate_fxrstor, NULL},
	{ZYDIS_MNEMONIC_FXRSTOR64, xstate_fxrstor, NULL},
	{ZYDIS_MNEMONIC_LDMXCSR, xstate_ldmxcsr, NULL},
	{ZYDIS_MNEMONIC_VLDMXCSR, xstate_ldmxcsr, NULL},
	{ZYDIS_MNEMONIC_STMXCSR, xstate_stmxcsr, NULL},
	{ZYDIS_MNEMONIC_VSTMXCSR, xstate_stmxcsr, NULL},
	{ZYDIS_MNEMONIC_XSAVE, xstate_xsave, NULL},
	{ZYDIS_MNEMONIC_XSAVE64, xstate_xsave, NULL},
	{ZYDIS_MNEMONIC_XRSTOR, xstate_xrstor, NULL},
	{ZYDIS_MNEMONIC_XRSTOR64, xstate_xrstor, NULL},
	{ZYDIS_MNEMONIC_XSAVEOPT, xstate_xsaveopt, NULL},
	{ZYDIS_MNEMONIC_XSAVEOPT64, xstate_xsaveopt, NULL},
	{ZYDIS_MNEMONIC_XSAVEC, xstate_xsavec, NULL},
	{ZYDIS_MNEMONIC_XSAVEC64, xstate_xsavec, NULL},
	{ZYDIS_MNEMONIC_FLDENV, xstate_fldenv, NULL},
	{ZYDIS_MNEMONIC_FNSTENV, xstate_fnstenv, NULL},
	{ZYDIS_MNEMONIC_FRSTOR, xstate_frstor, NULL},
	{ZYDIS_MNEMONIC_FNSAVE, xstate_fnsave, NULL},
};

/* MOVSD and CMPSD are also names of SSE2 instructions; A5 and A7 with them is the string. */
static bool
direct_find(const struct insn *in, helper_fn **helper, helper_fn **leaf)
{
	if (in->map == 0 && (in->opcode == 0xa5 || in->opcode == 0xa7)) {
		*helper = in->opcode == 0xa5 ? string_movs : string_cmps;
		*leaf = leaf_string;
		return true;
	}
	if (in->mnemonic == ZYDIS_MNEMONIC_PUSH && (in->map == 1 || in->opcode < 0x40))
		return false; /* of a segment register */
	for (unsigned i = 0; i < ARRAY_LEN(direct_helpers); i++)
		if (direct_helpers[i].mnemonic == in->mnemonic) {
			*helper = direct_helpers[i].helper;
			*leaf = direct_helpers[i].leaf;
			return true;
		}
	return false;
}

/*
 * Running
 */

static void
direct_state(struct guest *g, const struct insn_case *c)
{
	struct vcpu *v = g->v;

	memset(v, 0, sizeof(*v));
	memcpy(v->gpr, c->gpr, sizeof(v->gpr));
	v->rip = case_slot_address(c->slot) + c->entry;
	v->rflags = c->rflags;
	v->cpl = 3;
	v->model = &g->model;
	v->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP;
	v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	v->msr.efer = EFER_LMA | EFER_LME;
	v->xcr0 = 7;
	for (int i = 0; i < CPU_SEGMENTS; i++)
		v->seg[i] =
			(struct segment){.limit = UINT32_MAX,
					 .attr = SEGMENT_P | SEGMENT_S | SEGMENT_DB | 3 | 3 << 5};
	v->seg[CPU_CS].attr = (u16)(SEGMENT_P | SEGMENT_S | 11 | 3 << 5 |
				    (c->mode == 64 ? SEGMENT_L : SEGMENT_DB));
	v->seg[CPU_FS].base = g->fs_base;
	v->seg[CPU_GS].base = CASE_GS_BASE;
	memcpy(v->xsave, c->xsave, CASE_XSAVE);
}

/* What the next fetch meets: an INT3 of the slot, or a fault. */
static void
direct_arrive(struct vcpu *v, struct insn_result *r, unsigned mode)
{
	u64 page = (v->rip - CASE_DATA) / CASE_PAGE;
	bool data =
		v->rip >= CASE_DATA && page < CASE_DATA_PAGES && case_page_present((unsigned)page);

	r->rip = v->rip;
	if (mode == 64 && !vcpu_canonical(v->rip)) {
		r->vector = VECTOR_GP;
	} else if (direct_in_code(v->rip)) {
		r->vector = VECTOR_BP;
		r->rip++;
	} else {
		r->vector = VECTOR_PF;
		r->error = PF_U | PF_I | (data ? PF_P : 0);
		r->cr2 = v->rip;
	}
}

static int
direct_execute(struct vcpu *v, const struct insn *in, helper_fn *helper, helper_fn *leaf)
{
	int r = HELPER_AGAIN;

	for (unsigned i = 0; r == HELPER_AGAIN && i < 100000; i++) {
		r = leaf ? leaf(v, in) : LEAF_SLOW;
		if (r == LEAF_SLOW)
			r = helper(v, in);
		else
			r = r == LEAF_AGAIN ? HELPER_AGAIN : HELPER_NEXT;
	}
	return r;
}

static void
direct_result(struct vcpu *v, const struct insn *in, int outcome, struct insn_result *r)
{
	if (outcome == HELPER_NEXT)
		v->rip += in->len;
	if (outcome == HELPER_FAULT) {
		r->vector = v->event.vector;
		r->error = v->event.code;
		r->cr2 = v->cr2;
		r->rip = v->rip;
	} else if (outcome == HELPER_NEXT || outcome == HELPER_JUMP) {
		direct_arrive(v, r, in->mode);
	} else {
		r->vector = CASE_NO_EXIT;
	}
	memcpy(r->gpr, v->gpr, sizeof(r->gpr));
	r->rflags = v->rflags;
	memcpy(r->xsave, v->xsave, CASE_XSAVE);
}

/* As the host's XRSTOR would make the registers of the image. */
static void
direct_read_xsave(struct insn_result *r)
{
	u64 bv;

	memcpy(&bv, r->xsave + 512, 8);
	if (!(bv & 4))
		memset(r->xsave + 576, 0, 256);
	if (!(bv & 2))
		memset(r->xsave + 160, 0, 256);
	if (bv & 1)
		return;
	memset(r->xsave, 0, 24);
	memset(r->xsave + 32, 0, 128);
	r->xsave[0] = 0x7f;
	r->xsave[1] = 0x03;
}

static void
direct_run_one(struct guest *g, const struct insn_case *c, struct insn_result *r)
{
	helper_fn *helper, *leaf;
	struct insn in;

	memset(r, 0, sizeof(*r));
	case_memory(r->memory);
	if (c->overlay_size)
		memcpy(r->memory + (c->overlay_at - CASE_DATA), c->overlay, c->overlay_size);
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++)
		if (!case_page_present(page))
			memset(r->memory + page * CASE_PAGE, 0, CASE_PAGE);
	direct_memory = r->memory;
	direct_case = c;
	direct_state(g, c);
	if (insn_decode(&in, c->code + c->entry, c->length, c->mode) ||
	    !direct_find(&in, &helper, &leaf)) {
		r->vector = CASE_SKIPPED;
		return;
	}
	direct_result(g->v, &in, direct_execute(g->v, &in, helper, c->seed & 1 ? leaf : NULL), r);
	direct_read_xsave(r);
}

void
guest_run(struct guest *g, const struct insn_case *cases, struct insn_result *results,
	  unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		direct_run_one(g, &cases[i], &results[i]);
}

struct guest *
guest_start(u64 fs_base)
{
	struct guest *g = calloc(1, sizeof(*g));

	const char *missing;

	if (!g || cpu_model_compute(&g->model, "x86-64-v3", 1, &missing))
		abort();
	g->fs_base = fs_base;
	g->v = aligned_alloc(64, (sizeof(*g->v) + 63) & ~63ul);
	if (!g->v)
		abort();
	return g;
}

void
guest_stop(struct guest *g)
{
	free(g->v);
	free(g);
}
