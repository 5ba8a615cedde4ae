/*
 * One test of an instruction or a short block: code, registers and memory to
 * start from, and what a CPU made of it. The same case is run bare on the host
 * (bare.c) and by the translator (guest.c); compare.c judges.
 *
 *	CASE_CODE	slots of code, executable, filled with INT3
 *	CASE_DATA	page 0 absent, 1 2 writable, 3 absent, 4 writable, 5 read-only,
 *			6 writable, 7 absent; never executable
 *
 * Both runs see these at the same linear addresses, at privilege level 3.
 */
#ifndef INSN_CASE_H
#define INSN_CASE_H

#include "base/types.h"

enum {
	CASE_PAGE = 4096,
	CASE_CODE = 0x10000000,
	CASE_CODE_SIZE = 0x20000,
	CASE_SLOT = 512,
	CASE_SLOTS = 240,
	CASE_DATA = 0x20000000,
	CASE_DATA_PAGES = 8,
	CASE_DATA_SIZE = CASE_DATA_PAGES * CASE_PAGE,
	CASE_XSAVE = 832,
	CASE_OVERLAY = 576, /* bytes of memory that a case sets */
	CASE_GS_BASE = 0x12340,
	CASE_BATCH = 32,
	CASE_SKIPPED = 0xfd, /* the guest side has no such instruction */
	CASE_HUNG = 0xfe,    /* result.vector: it did not end */
	CASE_NO_EXIT = 0xff, /* the engine ended otherwise: result.error has the exit */
};

struct insn_case {
	u64 seed;
	u8 mode; /* 64 or 32 */
	u8 code[CASE_SLOT];
	unsigned slot, entry, length; /* of the instruction (or block) at code + entry */
	u64 gpr[16];
	u64 rflags;
	u8 xsave[CASE_XSAVE];
	u64 overlay_at;
	unsigned overlay_size;
	u8 overlay[CASE_OVERLAY];
	bool any_address; /* a fault may name any byte it touched: accesses of several parts */
	u64 ignored_at; /* 4 bytes of memory that may differ (MXCSR_MASK: what the model has), or 0
			 */
	/* Flags that a later instruction of the block overwrites before any reads them may be
	 * anything where a fault ends it: translated code does not keep them. */
	bool dead_flags;
	unsigned bare_w0;  /* offset in code of a byte whose VEX.W the bare side clears, or 0 */
	u32 flags_ignored; /* undefined ones, of instructions that only helpers do */
};

struct insn_result {
	unsigned vector; /* 3: reached an INT3 */
	u32 error;
	u64 cr2;
	u64 gpr[16], rip, rflags;
	u8 xsave[CASE_XSAVE];
	u8 memory[CASE_DATA_SIZE];
};

static inline u64
case_slot_address(unsigned slot)
{
	/* half a slot off, so that some slots straddle two pages */
	return CASE_CODE + CASE_SLOT / 2 + (u64)slot * CASE_SLOT;
}

static inline bool
case_page_present(unsigned page)
{
	return page != 0 && page != 3 && page != 7;
}

static inline bool
case_page_writable(unsigned page)
{
	return case_page_present(page) && page != 5;
}

/* random.c: all randomness of a case comes from its seed. */
struct rng {
	u64 s;
};

u64 rng_next(struct rng *rng);
static inline unsigned
rng_below(struct rng *rng, unsigned n)
{
	return (unsigned)((rng_next(rng) >> 11) % n);
}
static inline bool
rng_percent(struct rng *rng, unsigned percent)
{
	return rng_below(rng, 100) < percent;
}
u64 rng_value(struct rng *rng);			       /* an integer, often a telling one */
void rng_vector(struct rng *rng, u8 *p, unsigned len); /* integers and floating point */
void rng_state(struct rng *rng, struct insn_case *c);  /* all registers and the overlay's bytes */
/* The memory that every case starts from, before its overlay. */
void case_memory(u8 memory[CASE_DATA_SIZE]);

/* forms.c: every instruction form to be tested, found by decoding. */
struct form {
	u16 mnemonic;
	u8 mode;
	u8 prefix; /* 0, 66, F2, F3 */
	u8 second; /* a second one (66 with F2), or 0 */
	bool vex, w, l, mem, modrm;
	u8 pp, map, opcode, modrm_byte;
	u64 signature;
};

unsigned forms_find(struct form **out, unsigned mode);
const char *form_name(const struct form *form);

/* generate.c: where FS points on the bare side, to be told before the first case */
void generate_set_fs_base(u64 base);
/* case SEED of FORM; false if no such case could be made. */
bool generate_case(struct insn_case *c, const struct form *form, u64 seed);
/* blocks.c: a block of several instructions and branches. */
bool generate_block(struct insn_case *c, const struct form *forms, unsigned count, u64 seed);

/* bare.c */
struct bare;
struct bare *bare_start(void); /* forks: call before the engine exists */
u64 bare_fs_base(const struct bare *bare);
void bare_run(struct bare *bare, const struct insn_case *cases, struct insn_result *results,
	      unsigned count);
void bare_stop(struct bare *bare);

/* guest.c */
struct guest;
struct guest *guest_start(u64 fs_base);
void guest_run(struct guest *guest, const struct insn_case *cases, struct insn_result *results,
	       unsigned count);
void guest_stop(struct guest *guest);

/* compare.c: compare_results prints every difference. */
bool compare_equal(const struct insn_case *c, const struct insn_result *bare,
		   const struct insn_result *guest);
bool compare_results(const struct insn_case *c, const struct insn_result *bare,
		     const struct insn_result *guest, const char *name);
void compare_print_case(const struct insn_case *c);
void compare_print_result(const char *who, const struct insn_result *r);

#endif
