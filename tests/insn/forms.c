/*
 * Every instruction form that is tested: the opcode space is walked, each
 * encoding decoded by Zydis, and kept if it is a user-level instruction of our
 * feature set that gives the same result each time.
 */
#include <stdlib.h>
#include <string.h>

#include "zydis.h"

/* Results that depend on time, chance, the machine or a system's tables; or that leave the test. */
static const u16 form_excluded[] = {
	ZYDIS_MNEMONIC_RDTSC,	 ZYDIS_MNEMONIC_RDTSCP,	   ZYDIS_MNEMONIC_RDPMC,
	ZYDIS_MNEMONIC_RDPID,	 ZYDIS_MNEMONIC_CPUID,	   ZYDIS_MNEMONIC_XGETBV,
	ZYDIS_MNEMONIC_SYSCALL,	 ZYDIS_MNEMONIC_SYSENTER,  ZYDIS_MNEMONIC_SYSRET,
	ZYDIS_MNEMONIC_SYSEXIT,	 ZYDIS_MNEMONIC_INT,	   ZYDIS_MNEMONIC_INT1,
	ZYDIS_MNEMONIC_INT3,	 ZYDIS_MNEMONIC_INTO,	   ZYDIS_MNEMONIC_IRET,
	ZYDIS_MNEMONIC_IRETD,	 ZYDIS_MNEMONIC_IRETQ,	   ZYDIS_MNEMONIC_WRFSBASE,
	ZYDIS_MNEMONIC_WRGSBASE, ZYDIS_MNEMONIC_LAR,	   ZYDIS_MNEMONIC_LSL,
	ZYDIS_MNEMONIC_VERR,	 ZYDIS_MNEMONIC_VERW,	   ZYDIS_MNEMONIC_SGDT,
	ZYDIS_MNEMONIC_SIDT,	 ZYDIS_MNEMONIC_SLDT,	   ZYDIS_MNEMONIC_STR,
	ZYDIS_MNEMONIC_SMSW,	 ZYDIS_MNEMONIC_LDS,	   ZYDIS_MNEMONIC_LES,
	ZYDIS_MNEMONIC_LFS,	 ZYDIS_MNEMONIC_LGS,	   ZYDIS_MNEMONIC_LSS,
	ZYDIS_MNEMONIC_ARPL,	 ZYDIS_MNEMONIC_VMCALL,	   ZYDIS_MNEMONIC_VMMCALL,
	ZYDIS_MNEMONIC_CLZERO,	 ZYDIS_MNEMONIC_MONITORX,  ZYDIS_MNEMONIC_MWAITX,
	ZYDIS_MNEMONIC_UD0,	 ZYDIS_MNEMONIC_XSAVES,	   ZYDIS_MNEMONIC_XRSTORS,
	ZYDIS_MNEMONIC_XSAVES64, ZYDIS_MNEMONIC_XRSTORS64, ZYDIS_MNEMONIC_FSETPM287_NOP,
	ZYDIS_MNEMONIC_ENDBR32,	 ZYDIS_MNEMONIC_ENDBR64,   ZYDIS_MNEMONIC_CLDEMOTE,
	ZYDIS_MNEMONIC_SWAPGS,	 ZYDIS_MNEMONIC_XSETBV,
};

static const u8 form_extensions[] = {
	ZYDIS_ISA_EXT_ADOX_ADCX, ZYDIS_ISA_EXT_AES,	 ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH,
	ZYDIS_ISA_EXT_AVX,	 ZYDIS_ISA_EXT_AVX2,	 ZYDIS_ISA_EXT_AVX2GATHER,
	ZYDIS_ISA_EXT_AVXAES,	 ZYDIS_ISA_EXT_BASE,	 ZYDIS_ISA_EXT_BMI1,
	ZYDIS_ISA_EXT_BMI2,	 ZYDIS_ISA_EXT_CLFSH,	 ZYDIS_ISA_EXT_CLFLUSHOPT,
	ZYDIS_ISA_EXT_CLWB,	 ZYDIS_ISA_EXT_F16C,	 ZYDIS_ISA_EXT_FMA,
	ZYDIS_ISA_EXT_LONGMODE,	 ZYDIS_ISA_EXT_LZCNT,	 ZYDIS_ISA_EXT_MMX,
	ZYDIS_ISA_EXT_MOVBE,	 ZYDIS_ISA_EXT_PAUSE,	 ZYDIS_ISA_EXT_PCLMULQDQ,
	ZYDIS_ISA_EXT_RDWRFSGS,	 ZYDIS_ISA_EXT_SHA,	 ZYDIS_ISA_EXT_SSE,
	ZYDIS_ISA_EXT_SSE2,	 ZYDIS_ISA_EXT_SSE3,	 ZYDIS_ISA_EXT_SSE4,
	ZYDIS_ISA_EXT_SSSE3,	 ZYDIS_ISA_EXT_X87,	 ZYDIS_ISA_EXT_XSAVE,
	ZYDIS_ISA_EXT_XSAVEC,	 ZYDIS_ISA_EXT_XSAVEOPT,
};

/* One decoder a mode; they are constant once made. */
static void
form_decoder(ZydisDecoder *decoder, unsigned mode)
{
	if (mode == 64)
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
}

/* Zydis 4.0 sees R13D as the base of SIB encodings that have none (mod 00, base 101, REX.B). */
static void
form_no_base(struct decoded *d)
{
	if (!(d->insn.attributes & ZYDIS_ATTRIB_HAS_SIB) || d->insn.raw.modrm.mod != 0 ||
	    d->insn.raw.sib.base != 5)
		return;
	for (unsigned i = 0; i < d->insn.operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    d->op[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
			d->op[i].mem.base = ZYDIS_REGISTER_NONE;
			d->op[i].mem.disp.has_displacement = true;
			d->op[i].mem.disp.value = d->insn.raw.disp.value;
		}
}

bool
form_decode(unsigned mode, const u8 *bytes, unsigned len, struct decoded *d)
{
	ZydisDecoder decoder;

	form_decoder(&decoder, mode);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, len, &d->insn, d->op)))
		return false;
	form_no_base(d);
	return true;
}

static u64
form_mix(u64 h, u64 value)
{
	h = (h ^ value) * 0x100000001b3ull;
	return h ^ (h >> 29);
}

static bool
form_is_high_byte(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

u64
form_signature(const struct decoded *d)
{
	const ZydisDecodedInstruction *z = &d->insn;
	u64 h = 0xcbf29ce484222325ull;

	h = form_mix(h, z->mnemonic);
	h = form_mix(h, (u64)z->opcode_map << 16 | (u64)z->opcode << 8 | (u64)z->encoding);
	h = form_mix(h, z->operand_width);
	h = form_mix(h, z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
					 ZYDIS_ATTRIB_HAS_REPNE));
	for (unsigned i = 0; i < z->operand_count_visible; i++) {
		const ZydisDecodedOperand *op = &d->op[i];

		h = form_mix(h, (u64)op->type << 24 | op->size);
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
			h = form_mix(h, ZydisRegisterGetClass(op->reg.value));
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
		    op->encoding == ZYDIS_OPERAND_ENCODING_NONE)
			h = form_mix(h, (u64)op->reg.value); /* fixed, such as CL or ST0 */
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && form_is_high_byte(op->reg.value))
			h = form_mix(h, 1);
	}
	return h;
}

static bool
form_system(const struct decoded *d)
{
	switch (d->insn.meta.category) {
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SMAP:
	case ZYDIS_CATEGORY_VTX:
		return true;
	case ZYDIS_CATEGORY_SYSTEM:
		return d->insn.mnemonic != ZYDIS_MNEMONIC_HLT;
	default:
		return d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	}
}

/* MOV and POP to segment registers, and control and debug registers. */
static bool
form_touches_segments(const struct decoded *d)
{
	for (unsigned i = 0; i < d->insn.operand_count_visible; i++) {
		ZydisRegisterClass class;

		if (d->op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		class = ZydisRegisterGetClass(d->op[i].reg.value);
		if (class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG)
			return true;
		if (class == ZYDIS_REGCLASS_SEGMENT &&
		    (d->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			return true;
	}
	return false;
}

static bool
form_wanted(const struct decoded *d)
{
	if (form_system(d) || form_touches_segments(d))
		return false;
	/* 0F 0D of registers: nothing on Intel's CPUs, #UD on AMD's */
	if (d->insn.opcode == 0x0d && d->insn.mnemonic == ZYDIS_MNEMONIC_NOP)
		return false;
	for (unsigned i = 0; i < ARRAY_LEN(form_excluded); i++)
		if (form_excluded[i] == d->insn.mnemonic)
			return false;
	for (unsigned i = 0; i < ARRAY_LEN(form_extensions); i++)
		if (form_extensions[i] == d->insn.meta.isa_ext)
			return true;
	return false;
}

struct form_list {
	struct form *forms;
	unsigned count, room;
	u64 *seen; /* open hash of signatures */
	unsigned mode;
};

enum { FORM_HASH = 1 << 15 };

static bool
form_seen(struct form_list *list, u64 signature)
{
	unsigned at = signature % FORM_HASH;

	for (; list->seen[at]; at = (at + 1) % FORM_HASH)
		if (list->seen[at] == signature)
			return true;
	list->seen[at] = signature;
	return false;
}

static void
form_keep(struct form_list *list, const struct form *form)
{
	if (list->count == list->room) {
		list->room = list->room ? 2 * list->room : 1024;
		list->forms = realloc(list->forms, list->room * sizeof(*list->forms));
		if (!list->forms)
			abort();
	}
	list->forms[list->count++] = *form;
}

static unsigned
form_opcode_bytes(const struct form *f, u8 *out)
{
	unsigned n = 0;

	if (f->vex) {
		out[n++] = 0xc4;
		out[n++] = (u8)(0xe0 | f->map);
		out[n++] = (u8)(f->w << 7 | 0x78 | f->l << 2 | f->pp);
	} else {
		if (f->prefix)
			out[n++] = f->prefix;
		if (f->second)
			out[n++] = f->second;
		if (f->w)
			out[n++] = 0x48;
		if (f->map)
			out[n++] = 0x0f;
		if (f->map > 1)
			out[n++] = f->map == 2 ? 0x38 : 0x3a;
	}
	out[n++] = f->opcode;
	return n;
}

/* Tries one encoding; modrm_byte is taken as it is. */
static void
form_try(struct form_list *list, struct form *f)
{
	u8 bytes[24] = {0};
	struct decoded d;
	unsigned n = form_opcode_bytes(f, bytes);

	bytes[n++] = f->modrm_byte;
	if (!form_decode(list->mode, bytes, 15, &d) || !form_wanted(&d))
		return;
	f->modrm = (d.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
	f->mem = f->modrm && (f->modrm_byte >> 6) != 3;
	f->mnemonic = (u16)d.insn.mnemonic;
	f->mode = (u8)list->mode;
	f->signature = form_signature(&d);
	if (!form_seen(list, f->signature))
		form_keep(list, f);
}

static void
form_try_modrm(struct form_list *list, struct form *f)
{
	for (unsigned reg = 0; reg < 8; reg++) {
		f->modrm_byte = (u8)(reg << 3); /* memory */
		form_try(list, f);
		f->modrm_byte = (u8)(reg << 3 | 4); /* and a SIB byte, for gathers */
		form_try(list, f);
		for (unsigned rm = 0; rm < 8; rm++) {
			f->modrm_byte = (u8)(0xc0 | reg << 3 | rm);
			form_try(list, f);
		}
	}
}

static bool
form_is_prefix(unsigned map, unsigned opcode, unsigned mode)
{
	if (map != 0)
		return false;
	switch (opcode) {
	case 0x0f:
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return mode == 64 && opcode >= 0x40 && opcode < 0x50;
	}
}

static void
form_walk_legacy(struct form_list *list)
{
	static const u8 prefixes[][2] = {{0, 0},    {0x66, 0},	  {0xf3, 0},
					 {0xf2, 0}, {0x66, 0xf2}, {0x66, 0xf3}};

	for (unsigned p = 0; p < ARRAY_LEN(prefixes); p++)
		for (unsigned w = 0; w < (list->mode == 64 ? 2 : 1); w++)
			for (unsigned at = 0; at < 4 * 256; at++) {
				struct form f = {.prefix = prefixes[p][0],
						 .second = prefixes[p][1],
						 .w = w,
						 .map = (u8)(at >> 8),
						 .opcode = (u8)at};

				if (!form_is_prefix(f.map, f.opcode, list->mode))
					form_try_modrm(list, &f);
			}
}

static void
form_walk_vex(struct form_list *list)
{
	for (unsigned at = 256; at < 4 * 256; at++)
		for (unsigned k = 0; k < 16; k++) {
			struct form f = {.vex = true,
					 .pp = k & 3,
					 .w = (k >> 2) & 1,
					 .l = (k >> 3) & 1,
					 .map = (u8)(at >> 8),
					 .opcode = (u8)at};

			form_try_modrm(list, &f);
		}
}

unsigned
forms_find(struct form **out, unsigned mode)
{
	struct form_list list = {.mode = mode};

	list.seen = calloc(FORM_HASH, sizeof(*list.seen));
	if (!list.seen)
		abort();
	form_walk_legacy(&list);
	form_walk_vex(&list);
	free(list.seen);
	*out = list.forms;
	return list.count;
}

const char *
form_name(const struct form *form)
{
	return ZydisMnemonicGetString((ZydisMnemonic)form->mnemonic);
}
