/*
 * The translator's half of a vCPU: soft TLBs, jump caches, code cache, and the
 * variables that translated code reaches RIP-relative. It lies in one mapping
 * together with struct vcpu and the code, so that all are within 2 GiB:
 *
 *	struct vcpu | struct translation | TLBs and jump caches | code (executable view)
 *
 * Register convention of translated code: guest registers are in the host
 * register of the same number, but for the three in T0, T1 and STACK, whose guest
 * values live in vcpu.gpr[] at all times; T0 and T1 are scratch, STACK leads to
 * the page of the stack (see stack_page).  Arithmetic
 * flags are in RFLAGS ("R"), or in `flags` ("M"), or both, or dead; a block's
 * entry takes them in M, its inner entry in R.
 *
 * Everything here is touched by the vCPU's own thread only, except what says [a]
 * (atomic, any thread) or [m] (under mail.lock).
 */
#ifndef TRANSLATOR_TRANSLATION_H
#define TRANSLATOR_TRANSLATION_H

#include <pthread.h>

#include "base/types.h"
#include "engine/translator/vcpu.h"

enum { T0 = 15, T1 = 14, STACK = 11 };
#define HOMED_MASK (BIT(15) | BIT(14) | BIT(11))

enum {
	TLB_BITS = 11,
	TLB_SIZE = 1 << TLB_BITS,
	TLB_VICTIMS = 128, /* behind them: what they had to give up their place */
	TLB_ALL = TLB_SIZE + TLB_VICTIMS,
	JUMP_BITS = 14,
	JUMP_SIZE = 1 << JUMP_BITS,
	TLB_CODE = 4096,
	TLB_CODE_PROBES = 8,
	TLB_CODE_BIG = 16,
	TLB_SLOTS = 16, /* address spaces of user mode kept at once */
	TLB_LARGE = 16,
	TLB_LOG = 256,
	BLOCK_HASH_BITS = 18,
	BLOCK_HASH = 1 << BLOCK_HASH_BITS,
	MAIL_MAX = 64,
	BOUNCE_SIZE = 1024,
	STACK_CREDIT = 16,
	VICTIM_CREDIT = 16,
};

/* A tag is the linear page with bits 0-11 zero. Where there is none it is a page that belongs to
 * another index, so that no address that comes here is near it. */
#define TLB_EMPTY(index) ((u64)((index) % TLB_SIZE ^ 1u) << 12)
#define TLB_NONE (~0ull)
/* No address is within a page of it but such that the host faults on as well. */
#define STACK_NONE (1ull << 63)

/* The two halves are apart, so a page that is read and another that is written do not drive each
 * other out. 32 bytes: the index is one shift and mask of the address. */
struct tlb_entry {
	u64 read, write;	   /* tags */
	u64 read_host, write_host; /* host addresses of the pages */
};

/* Index of the place among the victims for the page of LINEAR. */
static inline unsigned
tlb_victim(u64 linear)
{
	return TLB_SIZE + ((unsigned)(linear >> 12 ^ linear >> 23) & (TLB_VICTIMS - 1));
}

/* The same for fetching code, which only searches for blocks use. A jump cache holds nothing but
 * what was found through the entries that stand here (or stood, if code_evicted): when they go,
 * it goes. */
struct tlb_code {
	u64 page; /* tag, or TLB_NONE */
	u64 ram;  /* RAM offset of the page */
};

/* Where pages larger than 4 KiB were met, so that INVLPG elsewhere stays precise. */
struct tlb_large {
	u64 start[TLB_LARGE]; /* of a 1 GiB range */
	unsigned count;	      /* TLB_LARGE + 1: anywhere */
};

struct jump_cache {
	struct jump {
		u64 linear; /* mode_clear_jumps says what stands where it is empty */
		const u8 *code;
	} jump[JUMP_SIZE];
	u64 epoch; /* another one each time it is emptied */
};

/* Before the code of a block with an instruction that crosses into a second page: for
 * which page_va and jump cache epoch the second page was seen to be the block's. */
struct crossing {
	u64 page_va, epoch;
};

/* One set of translations: kernel without or with access to user pages, or one
 * user address space. */
struct tlb {
	struct tlb_entry entry[TLB_ALL];
	struct tlb_code code[TLB_CODE];
	struct tlb_code
		big[TLB_CODE_BIG]; /* the same for runs of 2 MiB, as kernels map themselves */
	unsigned big_count;
	bool code_evicted;
	bool code_stale; /* flushed: to be compared with the tables before they are used again */
	struct tlb_large large, code_large;
	u16 log[TLB_LOG];   /* kernel sets: indices of non-global entries */
	unsigned log_count; /* TLB_LOG + 1: too many */
	bool victims;	    /* there may be some */
	bool exec_nonglobal;
	u64 key;		      /* user sets: what address space, TLB_NONE if free */
	u64 used;		      /* for eviction */
	u64 stack_page, stack_addend; /* while another set is in use */
	u32 jumps_mode;
	struct jump_cache *jumps;
};

enum { TLB_KERNEL, TLB_KERNEL_USER, TLB_USER_FIRST, TLB_SETS = TLB_USER_FIRST + TLB_SLOTS };

/* Why guest code was left. */
enum leave_reason {
	LEAVE_JUMP,   /* `linear` is where to go on */
	LEAVE_BRANCH, /* the branch that `branch` tells has a target where no code can be */
	LEAVE_LINK,   /* `link` is to be followed */
	LEAVE_ACCESS, /* a memory access that the TLB cannot serve: access, linear, site */
	LEAVE_COMMIT, /* a store that was made to the bounce buffer: access, linear, site */
	LEAVE_HELPER, /* helper: a full helper is to run */
	LEAVE_SIGNAL, /* signal_pc, signal_trap: a fault or poll in translated code */
};

/* What an access descriptor says. */
enum {
	ACCESS_SIZE = 0x3ff,
	ACCESS_READ = BIT(10),
	ACCESS_WRITE = BIT(11),
	ACCESS_SEG_SHIFT = 12,	 /* 3 bits */
	ACCESS_OFFSET = BIT(15), /* `linear` is still an offset into the segment */
	ACCESS_INSN_SHIFT = 16,	 /* 8 bits: number of the instruction in its block */
	ACCESS_LOCK = BIT(24),
	ACCESS_FLOWS = BIT(27),	  /* CALL: the instruction goes on elsewhere */
	ACCESS_STACK = BIT(26),	  /* the operation is at T0 + STACK */
	ACCESS_ALIGNED = BIT(25), /* #GP if not aligned to its size */
};

/* What `branch` says: page offset of the instruction, and above it, signed, what to add to its
 * stack pointer to have it as it was. */
enum { BRANCH_AT = 0xfff, BRANCH_KNOWN = BIT(12), BRANCH_UNDO_SHIFT = 13 };

/* The mode in which code is translated. */
enum {
	MODE_CODE64 = BIT(0),
	MODE_CODE32 = BIT(1),
	MODE_STACK32 = BIT(2),
	MODE_FLAT_DATA = BIT(3), /* DS, ES, SS: base 0, limit 4 GiB, writable */
	MODE_FLAT_CODE = BIT(4),
	MODE_NO_X87 = BIT(5), /* CR0.EM or TS */
	MODE_NO_SSE = BIT(6), /* #UD: EM, or no OSFXSR */
	MODE_TS = BIT(7),
	MODE_NO_AVX = BIT(8), /* OSXSAVE, XCR0 */
	MODE_SINGLE = BIT(9), /* one instruction a block, no links */
	MODE_ALIGN = BIT(10), /* CR0.AM, AC and CPL 3 */
	MODE_PROTECTED = BIT(11),
	MODE_CPL0 = BIT(12),
};

/* Where flags are. */
enum { FLAGS_R = 1, FLAGS_M = 2 };

/* A place in a block's code where a fault or poll may strike. */
struct site {
	u16 host;  /* offset from the block's code */
	u16 guest; /* offset in the page of the instruction, or where a poll goes on */
	u8 flags;  /* where flags are */
	bool poll;
	bool cold; /* HOST is from the block's cold code */
};

struct block;

/* A direct jump inside one page, waiting for its target or patched to it. */
struct link {
	u8 *place;	   /* of the displacement, written view */
	const u8 *stub;	   /* where it goes while not linked */
	struct link *next; /* links into the same block */
	u16 target;	   /* page offset */
	bool to_r;	   /* flags are in R: enter there */
};

/* An instruction served by C. */
struct helper_site {
	struct insn in;
	helper_fn *fn;
	helper_fn *leaf; /* fast version, or NULL */
	u16 guest;	 /* page offset */
};

struct block {
	/* What a search reads is in one line of the cache. */
	u64 ram;  /* RAM offset of the first byte */
	u64 ram2; /* of the second page, if an instruction crosses; else UINT64_MAX */
	struct block *hash_next;
	const u8 *entry;	   /* executable view: with flags in M */
	struct crossing *crossing; /* written view, NULL if none */
	u32 mode;
	u16 guest, guest_len; /* page offset and length of the guest code */
	struct block *page_next[2];
	struct link *incoming;
	u8 *code;	   /* written view */
	const u8 *entry_r; /* executable view: with flags in RFLAGS */
	u8 *cold;	   /* written view of its slow paths */
	u32 code_len, cold_len;
	u8 insns;
	bool dead;
	u16 site_count;
	struct site *sites;
	u16 *insn_at; /* insns + 1 offsets from the block's start */
};

struct mail {
	enum mail_kind { MAIL_DROP_CODE, MAIL_DROP_WRITES } kind;
	u64 page;
};

struct translation {
	/* Reached by translated code. */
	u64 page_va;	/* linear address of the page in which guest code runs */
	const u8 *poll; /* [a] what it points to is loaded at back edges; NULL when kicked */
	u16 flags;	/* M: AH as LAHF gives it, AL = OF */
	u16 flags_r;	/* RFLAGS when a signal struck, same form */
	struct tlb_entry *tlb;
	struct jump_cache *jumps;
	u64 host_rsp;
	u64 t0; /* T0 on entry */
	u64 tmp, tmp2;
	/* The stack's page: tag, and what its addresses are away from the host's; the latter is in
	 * STACK as well while guest code runs. Forgotten whenever a TLB entry may have gone. */
	u64 stack_page, stack_addend;
	i32 stack_credit;  /* misses to take before another page becomes the stack's */
	i32 victim_credit; /* accesses by victims to serve before one gets its place back */
	const u8 *site;	   /* where to go on after a leaf or slow path */
	const u8 *resume;  /* where stub_enter goes */
	u64 linear;
	u64 access;
	u64 seg_read_end[CPU_SEGMENTS]; /* offset at or above which an access is not simply allowed
					 */
	u64 seg_write_end[CPU_SEGMENTS];
	u64 branch;
	struct link *link;
	struct helper_site *helper;
	u32 reason;
	u32 mode;
	u32 irq_waiting; /* an interrupt could be taken if only IF were set */
	u8 bounce[BOUNCE_SIZE] ALIGNED(64);

	/* The rest. */
	u8 poll_word; /* what `poll` points to when not kicked */
	u32 in_guest; /* [a] between entering and leaving run: others must wait for acknowledgements
		       */
	u64 signal_pc;
	int signal_trap;
	bool block_died; /* the block that runs was dropped: leave it after this instruction */
	u64 watch_hits;	 /* DR6 bits of data breakpoints hit by the instruction */
	struct tlb *sets[TLB_SETS];
	unsigned user_set; /* index of the current user set */
	u64 tick;

	u8 *region; /* the whole mapping */
	size_t region_size;
	int code_fd;
	u8 *code_rw; /* written view */
	const u8 *code_rx;
	/* The first part of the cache holds what runs, the second, from cold_start on, what seldom
	 * does. */
	size_t code_size, code_stubs, code_used;
	size_t cold_start, cold_used;
	u8 *arena; /* block records */
	size_t arena_size, arena_used;
	u32 *hash;		    /* heads of chains: place in the arena / 16 + 1, 0 if empty */
	struct block **page_blocks; /* by RAM page */
	struct block **by_address;  /* all blocks in order of their code */
	size_t block_count, block_max;
	u64 flushes;
	struct {
		u64 jumps, links, fills, leaves, helpers, accesses, translated;
	} count; /* how often each slow way was taken */

	struct {
		const u8 *enter, *leave_r, *leave_m, *leave_signal;
		const u8 *miss, *miss_slow, *stack, *commit_r, *commit_m;
		const u8 *link_r, *link_m, *jump, *branch, *helper, *leaf_helper, *leaf_helper_all;
		const u8 *ac[2]; /* to TLB_KERNEL, to TLB_KERNEL_USER */
	} stub;

	struct {
		pthread_mutex_t lock;
		pthread_cond_t wake; /* halted vCPUs wait here */
		struct mail queue[MAIL_MAX];
		unsigned count;	  /* [m] */
		u64 posted, done; /* [m] */
		bool kick;	  /* [m] engine_kick */
		bool overflow;	  /* [m] */
		bool init, sipi;  /* [m] taken at an instruction boundary, INIT first */
		u8 sipi_vector;	  /* [m] */
	} mail;

	u8 *signal_stack; /* of the thread that runs the vCPU, NULL: it has not run */
	bool timer_armed;
	u64 timer_deadline;
	void *timer;	    /* timer_t */
	bool answer_due;    /* the last exit was a question: its answer comes with the next run */
	bool writing_later; /* the last exit was a queued store */
	bool halt_told;
	bool leave_wanted; /* by engine_kick, at the next instruction boundary */
	bool flush_wanted; /* all blocks are to be dropped, at the next instruction boundary */
	bool starts_later; /* INIT or SIPI may wait for the end of the instruction under way */
	bool again;	   /* the helper asked to be run again: a step of a repetition is done */
	u32 eoi[8];	   /* level-triggered vectors that ended, not yet told to the machine */
	bool eoi_any;
	u64 commit_gpa[2]; /* where the bounce buffer is to be stored */
	u64 mmio_writes_count, mmio_writes_next;
	struct {
		u64 gpa, data;
		u8 size;
	} mmio_writes[72];
};

/* Shared by the vCPUs of one VM. */
enum { VCPUS_MAX = 16 };

/* BIGA_TRANSLATOR in the environment: the slow twins of fast paths, for tests. */
enum {
	OPTION_NOCHAIN = BIT(0), /* no direct links, no jump cache */
	OPTION_SINGLE = BIT(1),	 /* blocks of one instruction, every access the slow way */
	OPTION_NOLEAF = BIT(2),	 /* full helpers only */
	OPTION_STATS = BIT(3),	 /* counts, at the end, to the log */
};

struct engine {
	struct memory *memory;
	const struct cpu_model *model;
	struct engine_config config;
	unsigned vcpus;
	struct vcpu *vcpu[VCPUS_MAX];
	u8 *ram;
	u64 ram_size, low_size;
	u16 *page_code;	      /* [a] by RAM page: vCPUs that may hold translations of it */
	u16 *page_writers;    /* [a] vCPUs that may hold write entries to it */
	u64 *dirty;	      /* [a] bitmap by RAM page, NULL while not tracked */
	u32 extint;	      /* [a] the PIC's output */
	u64 state_tsc;	      /* [a] host TSC that all states taken or set stand for, 0: none yet */
	pthread_mutex_t lock; /* notifies, routes */
	struct engine_notify {
		u64 gpa;
		unsigned size;
		int fd;
	} notify[128];
	unsigned notify_count;
	u32 exclusive;	   /* [a] index + 1 of the vCPU that runs alone for a locked access, or 0 */
	size_t code_cache; /* bytes of code a vCPU */
	u32 options;
};

static inline struct translation *
vcpu_translation(const struct vcpu *v)
{
	return v->tr_state;
}

/* Whether somebody wants the vCPU to leave guest code. */
static inline bool
translation_kicked(const struct translation *t)
{
	return __atomic_load_n(&t->poll, __ATOMIC_SEQ_CST) == NULL;
}

/* The stack's page may not be what it was. */
static inline void
translation_forget_stack(struct translation *t)
{
	t->stack_page = STACK_NONE;
	t->stack_credit = 0;
	for (unsigned i = 0; i < TLB_SETS; i++)
		t->sets[i]->stack_page = STACK_NONE;
}

/* RAM offset of GPA, or UINT64_MAX where there is no RAM. */
static inline u64
engine_ram_offset(const struct engine *e, u64 gpa)
{
	if (gpa < e->low_size)
		return gpa;
	if (gpa >= MEMORY_HIGH && gpa - MEMORY_HIGH < e->ram_size - e->low_size)
		return gpa - MEMORY_HIGH + e->low_size;
	return UINT64_MAX;
}

/* M form of the arithmetic flags, and back. */
static inline u16
flags_to_m(u64 rflags)
{
	return (u16)((rflags & 0xd5) << 8 | 0x200 | ((rflags >> 11) & 1));
}

static inline u64
flags_from_m(u16 m)
{
	return ((u64)(m >> 8) & 0xd5) | ((m & 1) ? RFLAGS_OF : 0u);
}

#endif
