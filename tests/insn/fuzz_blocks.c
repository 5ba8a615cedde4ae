/*
 * fuzz_blocks: random blocks of 5 to 30 instructions with branches and loops,
 * bare and translated.
 *
 *	fuzz_blocks [--mode 64|32] [--cases N] [--seed S]
 *	fuzz_blocks --case SEED [--mode M]	one block again, with all registers
 *	fuzz_blocks --bare			the bare side against itself
 *
 * Ends with "N cases, N failed" and status 0 or 1.
 *
 * Of a block's registers R14 (EBX in 32-bit code) is the base of its memory
 * operands and R15 (ESI) counts its loop: no instruction writes them. Every
 * block ends: branches go forward but for that loop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu_state.h"
#include "zydis.h"

enum { BLOCK_MAX = 30, BLOCK_ATTEMPTS = 200, BLOCK_ENTRY = 8, BLOCK_SPACE = 380 };

struct block_builder {
	struct insn_case *c;
	const struct form *forms;
	unsigned form_count;
	struct rng rng;
	unsigned at;		    /* bytes of code so far */
	unsigned starts[BLOCK_MAX]; /* where instructions begin */
	unsigned count;
};

static unsigned
block_base(const struct block_builder *b)
{
	return b->c->mode == 64 ? 14 : CPU_RBX;
}

static unsigned
block_counter(const struct block_builder *b)
{
	return b->c->mode == 64 ? 15 : CPU_RSI;
}

/* A memory operand [base + disp32], some bytes around the base. */
static unsigned
block_put_memory(struct block_builder *b, u8 *bytes, unsigned n, unsigned reg)
{
	i32 disp = (i32)rng_below(&b->rng, 1600) - 800;

	if (rng_percent(&b->rng, 75))
		disp &= ~31;
	if (rng_percent(&b->rng, 2))
		disp += 3 * CASE_PAGE; /* where it faults */
	bytes[n++] = (u8)(0x80 | reg << 3 | (block_base(b) & 7));
	memcpy(bytes + n, &disp, 4);
	return n + 4;
}

static unsigned
block_put_form(struct block_builder *b, u8 *bytes, const struct form *f)
{
	unsigned n = 0, reg = rng_below(&b->rng, 8);
	bool wide = b->c->mode == 64;
	u8 rb = wide && f->mem ? 1 : 0; /* REX.B for r14 */
	u8 rrx = wide ? (u8)(rng_next(&b->rng) & (f->mem ? 4 : 5)) : 0;

	if (rng_percent(&b->rng, 50))
		reg = (f->modrm_byte >> 3) & 7;
	if (f->vex) {
		u8 vvvv = (u8)(rng_next(&b->rng) & 0x78);

		bytes[n++] = 0xc4;
		bytes[n++] = (u8)((0xe0 & ~((rrx | rb) << 5)) | f->map);
		bytes[n++] = (u8)(f->w << 7 | (wide ? vvvv : vvvv | 0x40) | f->l << 2 | f->pp);
	} else {
		u8 rex = (u8)(rrx | rb | f->w << 3);

		if (f->prefix)
			bytes[n++] = f->prefix;
		if (f->second)
			bytes[n++] = f->second;
		if (wide && (rex || rng_percent(&b->rng, 20)))
			bytes[n++] = 0x40 | rex;
		if (f->map)
			bytes[n++] = 0x0f;
		if (f->map > 1)
			bytes[n++] = f->map == 2 ? 0x38 : 0x3a;
	}
	bytes[n++] = f->opcode;
	if (f->mem)
		n = block_put_memory(b, bytes, n, reg);
	else if (f->modrm)
		bytes[n++] = (u8)(0xc0 | reg << 3 | rng_below(&b->rng, 8));
	while (n < 24)
		bytes[n++] = (u8)rng_next(&b->rng);
	return n;
}

/* Registers that a block must keep: the base, the counter, the stack's. */
static bool
block_keeps_registers(const struct block_builder *b, const struct decoded *d)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *op = &d->op[i];
		ZydisRegister full;
		unsigned id;

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
		if (ZydisRegisterGetClass(full) != ZYDIS_REGCLASS_GPR64)
			continue;
		id = (unsigned)ZydisRegisterGetId(full);
		if (id == block_base(b) || id == block_counter(b) || id == CPU_RSP)
			return false;
	}
	return true;
}

/* Implicit memory operands would need registers of their own. */
static bool
block_plain_memory(const struct block_builder *b, const struct decoded *d)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *op = &d->op[i];

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM ||
		    op->mem.type == ZYDIS_MEMOP_TYPE_VSIB || op->mem.index != ZYDIS_REGISTER_NONE)
			return false;
		if ((unsigned)ZydisRegisterGetId(op->mem.base) != block_base(b))
			return false;
	}
	return true;
}

static bool
block_suits(const struct block_builder *b, const struct decoded *d)
{
	switch (d->insn.mnemonic) {
	case ZYDIS_MNEMONIC_BT: /* a bit string reaches anywhere */
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_FLDENV: /* x87 pointers would show */
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_LDMXCSR: /* unmasks everything, mostly */
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_FLDCW:
		return false;
	default:
		break;
	}
	return d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE &&
	       d->insn.meta.category != ZYDIS_CATEGORY_RET &&
	       d->insn.meta.category != ZYDIS_CATEGORY_IO &&
	       d->insn.meta.category != ZYDIS_CATEGORY_IOSTRINGOP &&
	       d->insn.meta.category != ZYDIS_CATEGORY_FLAGOP &&
	       d->insn.meta.category != ZYDIS_CATEGORY_DECIMAL &&
	       d->insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVE &&
	       d->insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVEC &&
	       d->insn.meta.isa_ext != ZYDIS_ISA_EXT_XSAVEOPT && block_keeps_registers(b, d) &&
	       block_plain_memory(b, d);
}

static void
block_emit(struct block_builder *b, const u8 *bytes, unsigned len)
{
	memcpy(b->c->code + b->at, bytes, len);
	b->at += len;
}

static void
block_add_form(struct block_builder *b)
{
	for (unsigned tries = 0; tries < BLOCK_ATTEMPTS; tries++) {
		const struct form *f = &b->forms[rng_below(&b->rng, b->form_count)];
		struct decoded d;
		u8 bytes[32];

		/* Mostly what programs are made of. */
		if ((f->vex || f->map > 1) && rng_percent(&b->rng, 70))
			continue;
		block_put_form(b, bytes, f);
		if (!form_decode(b->c->mode, bytes, 15, &d) || form_signature(&d) != f->signature ||
		    !block_suits(b, &d))
			continue;
		block_emit(b, bytes, d.insn.length);
		return;
	}
}

/* PUSH and POP by pairs around nothing; a stack that stays balanced enough. */
static void
block_add_stack(struct block_builder *b)
{
	static const u8 regs[] = {0, 1, 2, 5, 7};
	u8 push = (u8)(0x50 + regs[rng_below(&b->rng, ARRAY_LEN(regs))]);
	u8 pop = (u8)(0x58 + regs[rng_below(&b->rng, ARRAY_LEN(regs))]);

	block_emit(b, &push, 1);
	if (rng_percent(&b->rng, 50))
		block_emit(b, &pop, 1);
}

/* A conditional or plain jump over the next instructions; filled in by block_fix. */
static void
block_add_jump(struct block_builder *b)
{
	u8 bytes[6] = {0x0f, (u8)(0x80 | rng_below(&b->rng, 16))};

	if (rng_percent(&b->rng, 15)) {
		bytes[0] = 0xe9;
		block_emit(b, bytes, 5);
	} else {
		block_emit(b, bytes, 6);
	}
}

static bool
block_is_jump(const u8 *code)
{
	return code[0] == 0xe9 || (code[0] == 0x0f && (code[1] & 0xf0) == 0x80);
}

/* Jumps go to the start of one of the instructions behind. */
static void
block_fix(struct block_builder *b, const bool *jump)
{
	for (unsigned i = 0; i < b->count; i++) {
		u8 *code = b->c->code + b->starts[i];
		unsigned len = code[0] == 0xe9 ? 5 : 6;
		unsigned to = i + 1 + rng_below(&b->rng, 4);
		i32 offset;

		if (!jump[i] || !block_is_jump(code))
			continue;
		offset = (i32)(to < b->count ? b->starts[to] : b->at) - (i32)(b->starts[i] + len);
		memcpy(code + len - 4, &offset, 4);
	}
}

/* dec counter; jnz to the block's start */
static void
block_add_loop(struct block_builder *b)
{
	u8 dec64[] = {0x49, 0xff, 0xcf}, dec32[] = {0xff, 0xce};
	u8 jnz[6] = {0x0f, 0x85};
	i32 offset;

	if (b->c->mode == 64)
		block_emit(b, dec64, sizeof(dec64));
	else
		block_emit(b, dec32, sizeof(dec32));
	offset = (i32)BLOCK_ENTRY - (i32)(b->at + 6);
	memcpy(jnz + 2, &offset, 4);
	block_emit(b, jnz, 6);
}

bool
generate_block(struct insn_case *c, const struct form *forms, unsigned count, u64 seed)
{
	struct block_builder b = {.c = c, .forms = forms, .form_count = count, .rng = {.s = seed}};
	bool jump[BLOCK_MAX] = {false};
	unsigned want;

	memset(c, 0, sizeof(*c));
	c->seed = seed;
	c->mode = forms->mode;
	c->slot = (unsigned)(rng_next(&b.rng) % CASE_SLOTS);
	c->entry = BLOCK_ENTRY;
	rng_state(&b.rng, c);
	memset(c->code, 0xcc, sizeof(c->code));
	b.at = BLOCK_ENTRY;
	want = 5 + rng_below(&b.rng, 26);
	while (b.count < want && b.at < BLOCK_SPACE) {
		unsigned kind = rng_below(&b.rng, 100);

		b.starts[b.count] = b.at;
		jump[b.count] = kind < 12;
		if (kind < 12)
			block_add_jump(&b);
		else if (kind < 18)
			block_add_stack(&b);
		else
			block_add_form(&b);
		b.count++;
	}
	block_fix(&b, jump);
	if (rng_percent(&b.rng, 60))
		block_add_loop(&b);
	c->length = b.at - BLOCK_ENTRY;
	c->dead_flags = true;
	c->overlay_at = CASE_DATA + CASE_PAGE;
	for (int i = 8; c->mode == 32 && i < 16; i++)
		c->gpr[i] = 0;
	for (int i = 0; c->mode == 32 && i < 8; i++)
		c->gpr[i] = (u32)c->gpr[i];
	c->gpr[block_base(&b)] = CASE_DATA + 2 * CASE_PAGE - 64 * rng_below(&b.rng, 20);
	c->gpr[block_counter(&b)] = 1 + rng_below(&b.rng, 40);
	c->gpr[CPU_RSP] = CASE_DATA + CASE_PAGE + 2048;
	return true;
}

/*
 * The program
 */

struct fuzz {
	struct form *forms;
	unsigned form_count, mode;
	u64 cases, first, one;
	bool bare_only, single;
	struct bare *bare;
	struct guest *guest;
	struct insn_case batch[CASE_BATCH];
	struct insn_result bare_results[CASE_BATCH], guest_results[CASE_BATCH];
	u64 failed, faults;
};

static void
fuzz_run_batch(struct fuzz *f, unsigned count)
{
	bare_run(f->bare, f->batch, f->bare_results, count);
	if (f->bare_only)
		bare_run(f->bare, f->batch, f->guest_results, count);
	else
		guest_run(f->guest, f->batch, f->guest_results, count);
	for (unsigned i = 0; i < count; i++) {
		f->faults += f->bare_results[i].vector != VECTOR_BP;
		if (!compare_results(&f->batch[i], &f->bare_results[i], &f->guest_results[i],
				     "block"))
			f->failed++;
	}
	fflush(stdout);
}

static void
fuzz_run_both(struct fuzz *f)
{
	bare_run(f->bare, f->batch, f->bare_results, 1);
	guest_run(f->guest, f->batch, f->guest_results, 1);
}

/* Ends the block ever later, until the two differ: the instruction before is to blame, or the
 * first after a jump. */
static void
fuzz_locate(struct fuzz *f)
{
	struct insn_case *c = &f->batch[0], whole = *c;
	struct decoded d;

	for (unsigned at = c->entry; at < whole.entry + whole.length; at += d.insn.length) {
		if (!form_decode(c->mode, whole.code + at, 15, &d))
			break;
		*c = whole;
		c->code[at] = 0xcc;
		c->length = at - c->entry;
		fuzz_run_both(f);
		if (compare_equal(c, f->bare_results, f->guest_results))
			continue;
		printf("differs when ended here:\n");
		compare_results(c, f->bare_results, f->guest_results, "block");
		break;
	}
	*c = whole;
}

static void
fuzz_one(struct fuzz *f)
{
	generate_block(f->batch, f->forms, f->form_count, f->one);
	compare_print_case(f->batch);
	f->cases = 1;
	if (!f->bare_only)
		fuzz_locate(f);
	fuzz_run_batch(f, 1);
	compare_print_result("bare", f->bare_results);
	compare_print_result("guest", f->guest_results);
}

static void
fuzz_all(struct fuzz *f)
{
	for (u64 done = 0; done < f->cases && f->failed < 20;) {
		unsigned n = 0;

		for (; n < CASE_BATCH && done < f->cases; n++, done++)
			generate_block(&f->batch[n], f->forms, f->form_count, f->first + done);
		fuzz_run_batch(f, n);
	}
}

static bool
fuzz_options(struct fuzz *f, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--bare") == 0) {
			f->bare_only = true;
			continue;
		}
		if (!value)
			return false;
		if (strcmp(argv[i], "--mode") == 0)
			f->mode = (unsigned)atoi(value);
		else if (strcmp(argv[i], "--cases") == 0)
			f->cases = strtoull(value, NULL, 0);
		else if (strcmp(argv[i], "--seed") == 0)
			f->first = strtoull(value, NULL, 0);
		else if (strcmp(argv[i], "--case") == 0)
			f->single = true, f->one = strtoull(value, NULL, 0);
		else
			return false;
		i++;
	}
	return f->mode == 64 || f->mode == 32;
}

int
main(int argc, char **argv)
{
	struct fuzz *f = calloc(1, sizeof(*f));

	if (!f)
		return 2;
	f->mode = 64;
	f->cases = 2000;
	if (!fuzz_options(f, argc, argv)) {
		fprintf(stderr, "usage: fuzz_blocks [--mode 64|32] [--cases N] [--seed S] "
				"[--case SEED] [--bare]\n");
		return 2;
	}
	f->form_count = forms_find(&f->forms, f->mode);
	f->bare = bare_start();
	generate_set_fs_base(bare_fs_base(f->bare));
	if (!f->bare_only)
		f->guest = guest_start(bare_fs_base(f->bare));
	if (f->single)
		fuzz_one(f);
	else
		fuzz_all(f);
	printf("%u-bit blocks, %llu ended by a fault\n%llu cases, %llu failed\n", f->mode,
	       (unsigned long long)f->faults, (unsigned long long)f->cases,
	       (unsigned long long)f->failed);
	bare_stop(f->bare);
	if (f->guest)
		guest_stop(f->guest);
	return f->failed ? 1 : 0;
}
