/*
 * Whether two CPUs made the same of a case, and if not, what differs, printed
 * so that a person can replay it.
 */
#include <stdio.h>
#include <string.h>

#include "cpu/cpu_state.h"
#include "zydis.h"

static const char *const compare_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					      "r12", "r13", "r14", "r15"};

static void
compare_u64(const char *name, u64 bare, u64 guest)
{
	if (bare == guest)
		return;
	printf("    %-8s bare %016llx guest %016llx\n", name, (unsigned long long)bare,
	       (unsigned long long)guest);
}

static void
compare_bytes(const char *name, unsigned n, const u8 *bare, const u8 *guest, unsigned len)
{
	if (memcmp(bare, guest, len) == 0)
		return;
	printf("    %s%-5u bare ", name, n);
	for (unsigned i = len; i-- > 0;)
		printf("%02x", bare[i]);
	printf(" guest ");
	for (unsigned i = len; i-- > 0;)
		printf("%02x", guest[i]);
	printf("\n");
}

static void
compare_memory(const struct insn_result *bare, const struct insn_result *guest)
{
	unsigned shown = 0;

	for (unsigned i = 0; i < CASE_DATA_SIZE; i += 16) {
		if (memcmp(bare->memory + i, guest->memory + i, 16) == 0)
			continue;
		if (shown++ < 4)
			compare_bytes("mem +", i, bare->memory + i, guest->memory + i, 16);
	}
}

static void
compare_xsave(const u8 *bare, const u8 *guest)
{
	compare_u64("fcw", bare[0] | bare[1] << 8, guest[0] | guest[1] << 8);
	compare_u64("fsw", bare[2] | bare[3] << 8, guest[2] | guest[3] << 8);
	compare_u64("ftw", bare[4], guest[4]);
	compare_bytes("mxcsr", 0, bare + 24, guest + 24, 4);
	for (unsigned i = 0; i < 8; i++)
		compare_bytes("st", i, bare + 32 + 16 * i, guest + 32 + 16 * i, 10);
	for (unsigned i = 0; i < 16; i++) {
		compare_bytes("xmm", i, bare + 160 + 16 * i, guest + 160 + 16 * i, 16);
		compare_bytes("ymmh", i, bare + 576 + 16 * i, guest + 576 + 16 * i, 16);
	}
}

/* RF depends on how the CPU was left; ID, NT and others a user cannot set are the system's. */
static u64
compare_flags(const struct insn_case *c, unsigned vector, u64 flags)
{
	if (c->dead_flags && vector != VECTOR_BP)
		flags &= ~(u64)RFLAGS_ARITH;
	return flags & (RFLAGS_ARITH | RFLAGS_DF | RFLAGS_TF) & ~(u64)c->flags_ignored;
}

static bool
compare_same_st(const struct insn_result *a, const struct insn_result *b)
{
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->xsave + 32 + 16 * i, b->xsave + 32 + 16 * i, 10) != 0)
			return false;
	return true;
}

/* The host kernel's half of the address space, and the first pages, are present on one side only.
 */
static bool
compare_same_error(const struct insn_result *a, const struct insn_result *b)
{
	u32 ignored = (i64)a->cr2 < 0x200000 ? PF_P : 0;

	return ((a->error ^ b->error) & ~ignored) == 0;
}

static bool
compare_same_fault(const struct insn_case *c, const struct insn_result *a,
		   const struct insn_result *b)
{
	if (a->vector == VECTOR_PF)
		return compare_same_error(a, b) &&
		       (c->any_address ? a->cr2 - b->cr2 + CASE_PAGE < 2 * CASE_PAGE
				       : a->cr2 == b->cr2);
	return a->vector != VECTOR_GP || a->error == b->error;
}

static bool
compare_same_memory(const struct insn_case *c, const struct insn_result *a,
		    const struct insn_result *b)
{
	u64 at = c->ignored_at - CASE_DATA;

	if (at + 4 > CASE_DATA_SIZE)
		at = CASE_DATA_SIZE - 4; /* absent: equal */
	return memcmp(a->memory, b->memory, at) == 0 &&
	       memcmp(a->memory + at + 4, b->memory + at + 4, CASE_DATA_SIZE - at - 4) == 0;
}

bool
compare_equal(const struct insn_case *c, const struct insn_result *a, const struct insn_result *b)
{
	return a->vector == b->vector && a->rip == b->rip &&
	       memcmp(a->gpr, b->gpr, sizeof(a->gpr)) == 0 &&
	       compare_flags(c, a->vector, a->rflags) == compare_flags(c, a->vector, b->rflags) &&
	       compare_same_memory(c, a, b) && memcmp(a->xsave, b->xsave, 5) == 0 &&
	       memcmp(a->xsave + 24, b->xsave + 24, 4) == 0 &&
	       memcmp(a->xsave + 160, b->xsave + 160, 256) == 0 &&
	       memcmp(a->xsave + 576, b->xsave + 576, 256) == 0 && compare_same_st(a, b) &&
	       compare_same_fault(c, a, b);
}

static void
compare_fault(const struct insn_result *bare, const struct insn_result *guest)
{
	if (bare->vector == VECTOR_PF || bare->vector == VECTOR_GP)
		compare_u64("error", bare->error, guest->error);
	if (bare->vector == VECTOR_PF)
		compare_u64("cr2", bare->cr2, guest->cr2);
}

void
compare_print_case(const struct insn_case *c)
{
	u64 at = case_slot_address(c->slot) + c->entry;
	unsigned end = c->entry + c->length;

	for (unsigned i = c->entry; i < end;) {
		char text[128];
		struct decoded d;
		ZydisFormatter formatter;

		if (!form_decode(c->mode, c->code + i, CASE_SLOT - i < 15 ? CASE_SLOT - i : 15, &d))
			break;
		ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
		ZydisFormatterFormatInstruction(&formatter, &d.insn, d.op,
						d.insn.operand_count_visible, text, sizeof(text),
						at + i - c->entry, NULL);
		printf("    %08llx  ", (unsigned long long)(at + i - c->entry));
		for (unsigned k = 0; k < d.insn.length; k++)
			printf("%02x", c->code[i + k]);
		printf("  %s\n", text);
		i += d.insn.length;
	}
}

void
compare_print_result(const char *who, const struct insn_result *r)
{
	printf("  %s: vector %u error %x cr2 %llx rip %llx rflags %llx\n", who, r->vector, r->error,
	       (unsigned long long)r->cr2, (unsigned long long)r->rip,
	       (unsigned long long)r->rflags);
	for (int i = 0; i < 16; i++)
		printf("%s%s=%016llx%s", i % 4 ? " " : "    ", compare_names[i],
		       (unsigned long long)r->gpr[i], i % 4 == 3 ? "\n" : "");
}

bool
compare_results(const struct insn_case *c, const struct insn_result *bare,
		const struct insn_result *guest, const char *name)
{
	if (compare_equal(c, bare, guest))
		return true;
	printf("FAIL %s --mode %u --case 0x%llx\n", name, c->mode, (unsigned long long)c->seed);
	compare_print_case(c);
	compare_u64("vector", bare->vector, guest->vector);
	compare_fault(bare, guest);
	compare_u64("rip", bare->rip, guest->rip);
	compare_u64("rflags", compare_flags(c, bare->vector, bare->rflags),
		    compare_flags(c, bare->vector, guest->rflags));
	for (int i = 0; i < 16; i++)
		compare_u64(compare_names[i], bare->gpr[i], guest->gpr[i]);
	compare_xsave(bare->xsave, guest->xsave);
	compare_memory(bare, guest);
	return false;
}
