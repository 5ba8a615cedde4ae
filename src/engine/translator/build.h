/*
 * Building one block: shared by translate.c (what is in it, and flag
 * liveness), generate.c (re-encoding, memory operands), flow.c (stack and control
 * flow), fast.c (system instructions) and classify.c (what may run natively).
 */
#ifndef TRANSLATOR_BUILD_H
#define TRANSLATOR_BUILD_H

#include "engine/translator/block.h"
#include "engine/translator/emit.h"
#include "engine/translator/leaf/leaf.h"
#include "engine/translator/translation.h"

enum {
	BUILD_INSNS = 32,
	BUILD_ACCESSES = 3 * BUILD_INSNS,
	BUILD_EXITS = BUILD_INSNS + 2,
	BUILD_SITES = 6 * BUILD_INSNS,
	BUILD_CODE_MAX = 24 * 1024,
};

/* How an instruction is translated. */
enum build_kind {
	BUILD_NATIVE,	/* re-encoded */
	BUILD_NOTHING,	/* NOP, prefetch */
	BUILD_HELPER,	/* ends the block; C does it */
	BUILD_LEAF,	/* leaf, falling back to the helper; goes on */
	BUILD_LEAF_END, /* leaf that jumps */
	BUILD_FAST,	/* done in the block, by the leaf where that is not enough */
	BUILD_LEA,
	BUILD_CLD,
	BUILD_STD,
	BUILD_PUSH,
	BUILD_POP,
	BUILD_LEAVE,
	BUILD_CALL, /* direct */
	BUILD_CALL_INDIRECT,
	BUILD_JMP,
	BUILD_JMP_INDIRECT,
	BUILD_RET,
	BUILD_JCC,
	BUILD_LOOP, /* LOOP*, JCXZ */
};

struct build_insn {
	struct insn in;
	enum build_kind kind;
	helper_fn *fn; /* HELPER, LEAF: the full helper */
	leaf_fn *leaf;
	u16 at;	  /* page offset */
	u32 live; /* flags needed at or after it */
	u32 live_after;
};

/* The operation that follows a translated address: done once on the fast path and
 * once on the bounce buffer. */
enum build_op {
	OP_NATIVE,     /* the instruction itself, memory operand at T0 */
	OP_BIT,	       /* BT and kin with a register: bit offset, reduced, in t->tmp */
	OP_STORE_PUSH, /* what PUSH stores, then the stack pointer */
	OP_STORE_CALL, /* return address, then the stack pointer */
	OP_LOAD_POP,
	OP_LOAD_LEAVE,
	OP_LOAD_TMP, /* operand to t->tmp */
	OP_LOAD_RET, /* target to T0, then the stack pointer */
};

struct build_access {
	u8 *miss;	/* displacement of the jump taken on a miss */
	u8 *limit;	/* on a failed segment limit, or NULL */
	const u8 *fast; /* where the operation stands */
	const u8 *after;
	struct build_insn *insn;
	enum build_op op;
	u32 access;
	u8 flags; /* before the operation */
	u8 flags_after;
};

struct build_exit {
	u8 *place;  /* displacement to patch, or NULL to fall into */
	i64 target; /* page offset, perhaps outside the page */
	u16 at;	    /* page offset of the jump */
	u8 flags;
	u32 branch;  /* what the jump is, as in t->branch, or 0 where code just goes on */
	u8 truncate; /* operand size that cuts the target: 2 or 4, 0 none */
};

struct build {
	struct vcpu *v;
	struct translation *t;
	struct emit e;	  /* where code goes now */
	struct emit cold; /* where slow paths go */
	u8 *start, *cold_start;
	bool in_cold;	 /* e and cold have changed places */
	const u8 *entry; /* executable view: with flags in M */
	struct crossing *crossing;
	u8 *other[2]; /* jumps of its check */
	u32 mode;
	u8 flags;      /* FLAGS_R | FLAGS_M */
	bool at_stack; /* the operation under way is at T0 + STACK rather than T0 */
	bool full;     /* ran out of some table: the block is to be given up */
	u64 linear, ram, ram2;
	unsigned count;
	struct build_insn insn[BUILD_INSNS];
	unsigned access_count, exit_count, site_count;
	struct build_access access[BUILD_ACCESSES];
	struct build_exit exit[BUILD_EXITS];
	struct site site[BUILD_SITES];
};

/* classify.c: fills kind, fn and leaf. */
void classify(struct build *b, struct build_insn *bi);
/* Whether a vector operand in memory must be aligned to its size, or #GP. */
bool classify_aligned(const struct insn *in);
/* Whether an instruction stays in the block and another may follow. */
bool classify_ends_block(const struct build_insn *bi);

/* generate.c */
/* From here on code goes to the other part of the cache. */
void generate_switch(struct build *b);
void generate_site(struct build *b, u16 guest, bool poll);
void generate_need_r(struct build *b);		      /* flags into RFLAGS */
void generate_need_m(struct build *b);		      /* flags into M, if live anywhere */
void generate_may_clobber(struct build *b, u32 live); /* RFLAGS will be spoilt */
/* T0 = linear address of the memory operand; checked, it becomes a host address. */
void generate_address(struct build *b, struct build_insn *bi);
/* LEA's value in T0. */
void generate_offset(struct build *b, const struct build_insn *bi);
/* Checks T0 (linear, or an offset into IN's segment if it has to be added) and does OP. */
void generate_access(struct build *b, struct build_insn *bi, enum build_op op, u32 access,
		     bool segmented);
void generate_operation(struct build *b, struct build_insn *bi, enum build_op op);
void generate_native(struct build *b, struct build_insn *bi);
void generate_lea(struct build *b, struct build_insn *bi);
void generate_slow_paths(struct build *b);

/* flow.c */
void flow_operation(struct build *b, struct build_insn *bi, enum build_op op);
void flow_generate(struct build *b, struct build_insn *bi);
void flow_helper(struct build *b, struct build_insn *bi);
/* Calls the helper of BI, with flags in M; a leaf goes on at AFTER, or behind the call if NULL. */
void flow_call_helper(struct build *b, struct build_insn *bi, const u8 *after);
/* PUSH of t->tmp. */
void flow_push_tmp(struct build *b, struct build_insn *bi);
/* Leaves the block for TARGET, a page offset. */
void flow_exit(struct build *b, const struct build_exit *x);
void flow_exits(struct build *b);

/* fast.c: system instructions that need no call. */
bool fast_has(const struct build *b, const struct insn *in);
/* Whether all arithmetic flags must be right at it. */
bool fast_reads_flags(const struct build *b, const struct insn *in);
void fast_generate(struct build *b, struct build_insn *bi);

/* translate.c: the block at LINEAR, new; NULL if the fetch faults (event raised). */
struct block *translate(struct vcpu *v, u64 linear);

static inline bool
homed(unsigned reg)
{
	return reg < CPU_GPRS && (BIT(reg) & HOMED_MASK) != 0;
}

#endif
