/*
 * When interrupts and NMIs are taken: shadows of STI and MOV SS, POPF, HLT,
 * NMI blocked until IRET, TPR and CR8 with priorities.
 */
#include "lib/apic.h"
#include "lib/trap.h"

enum { VECTOR = 0x70 };

static volatile unsigned shadow_count, shadow_nmis, shadow_depth, shadow_deepest;
static volatile uptr shadow_ip;
static volatile u8 shadow_order[8];

static void
shadow_note(struct trap_frame *f)
{
	shadow_ip = f->ip;
	shadow_order[shadow_count++ & 7] = (u8)f->vector;
	apic_eoi();
}

static void
shadow_send(u8 vector)
{
	shadow_count = 0;
	apic_ipi(0, APIC_SELF | APIC_ASSERT | vector);
}

static void
shadow_sti(void)
{
	shadow_send(VECTOR);
	__asm__ volatile("sti\n\tnop\n771:\tnop\n\tcli\n\tmovq $771b, trap_mark" : : : "memory");
	CHECK_EQ(shadow_count, 1);
	CHECK_EQ(shadow_ip, trap_mark); /* behind one instruction */
	shadow_send(VECTOR);
	__asm__ volatile("sti; cli; nop" : : : "memory");
	CHECK_EQ(shadow_count, 0);
	/* STI with IF already set makes no shadow, and POPF never does. */
	__asm__ volatile("pushf; orl $0x200, (%%rsp); popf\n771:\tnop; cli; movq $771b, trap_mark"
			 :
			 :
			 : "memory", "cc");
	CHECK_EQ(shadow_count, 1);
	CHECK_EQ(shadow_ip, trap_mark);
}

static void
shadow_mov_ss(void)
{
	shadow_send(VECTOR);
	__asm__ volatile(
		"mov %%ss, %%eax; pushf; orl $0x200, (%%rsp); sti; mov %%eax, %%ss; cli\n\t"
		"popf; nop; cli"
		:
		:
		: "rax", "memory", "cc");
	CHECK_EQ(shadow_count, 1);
	shadow_send(VECTOR);
	/* STI; MOV SS; NOP: each holds its successor, but two in a row need not add up. */
	__asm__ volatile("mov %%ss, %%eax; sti; mov %%eax, %%ss\n771:\tnop\n\tnop; cli\n\t"
			 "movq $771b, trap_mark"
			 :
			 :
			 : "rax", "memory");
	CHECK_EQ(shadow_count, 1);
	CHECK(shadow_ip == trap_mark || shadow_ip == trap_mark + 1);
}

static void
shadow_halt(void)
{
	shadow_send(VECTOR);
	__asm__ volatile("sti; hlt\n771:\tcli; movq $771b, trap_mark" : : : "memory");
	CHECK_EQ(shadow_count, 1);
	CHECK_EQ(shadow_ip, trap_mark); /* it woke the HLT, behind it */
}

static void
shadow_nmi(struct trap_frame *f)
{
	(void)f;
	shadow_nmis++;
	if (++shadow_depth > shadow_deepest)
		shadow_deepest = shadow_depth;
	if (shadow_nmis == 1) {
		apic_ipi(0, APIC_NMI | APIC_ASSERT); /* to APIC 0: this one; waits until the IRET */
		for (int i = 0; i < 1000; i++)
			cpu_pause();
	}
	shadow_depth--;
}

static void
shadow_nonmaskable(void)
{
	trap_set_handler(VEC_NMI, shadow_nmi);
	apic_ipi(0, APIC_NMI | APIC_ASSERT);
	CHECK(WAIT_FOR(shadow_nmis == 2));
	CHECK_EQ(shadow_deepest, 1);
	/* INT 2 is no NMI and blocks none. */
	shadow_nmis = 10;
	__asm__ volatile("int $2");
	CHECK_EQ(shadow_nmis, 11);
	apic_ipi(0, APIC_NMI | APIC_ASSERT);
	CHECK(WAIT_FOR(shadow_nmis == 12));
}

static void
shadow_int3(struct trap_frame *f)
{
	(void)f;
	shadow_count++;
}

/* An exception inside an NMI handler: its IRET ends the blocking. */
static void
shadow_nmi_nested(struct trap_frame *f)
{
	(void)f;
	shadow_nmis++;
	if (++shadow_depth > shadow_deepest)
		shadow_deepest = shadow_depth;
	if (shadow_nmis == 1) {
		__asm__ volatile("int3");
		apic_ipi(0, APIC_NMI | APIC_ASSERT);
		(void)WAIT_FOR(shadow_nmis == 2);
	}
	shadow_depth--;
}

static void
shadow_unblock(void)
{
	shadow_nmis = shadow_depth = shadow_deepest = shadow_count = 0;
	trap_set_handler(VEC_NMI, shadow_nmi_nested);
	trap_set_handler(VEC_BP, shadow_int3);
	apic_ipi(0, APIC_NMI | APIC_ASSERT);
	CHECK(WAIT_FOR(shadow_nmis == 2));
	CHECK_EQ(shadow_count, 1);
	CHECK_EQ(shadow_deepest, 2);
	trap_set_handler(VEC_BP, NULL);
}

static void
shadow_priorities(void)
{
	shadow_count = 0;
	cpu_write_cr8(8);
	CHECK_EQ(apic_read(APIC_TPR), 0x80);
	apic_ipi(0, APIC_SELF | APIC_ASSERT | 0x75);
	apic_ipi(0, APIC_SELF | APIC_ASSERT | 0x95);
	apic_ipi(0, APIC_SELF | APIC_ASSERT | 0xa5);
	CHECK_EQ(apic_read(APIC_IRR + 0x30), 1u << 0x15);
	CHECK_EQ(apic_read(APIC_IRR + 0x40), 1u << 0x15);
	cpu_window();
	CHECK_EQ(shadow_count, 2);
	CHECK_EQ(shadow_order[0], 0xa5);
	CHECK_EQ(shadow_order[1], 0x95);
	__asm__ volatile("sti; mov %0, %%cr8; nop; nop; cli" : : "r"(7ul) : "memory");
	CHECK_EQ(shadow_count, 2); /* class 7 is not above 7 */
	__asm__ volatile("sti; mov %0, %%cr8; nop; nop; cli" : : "r"(6ul) : "memory");
	CHECK_EQ(shadow_count, 3);
	CHECK_EQ(shadow_order[2], 0x75);
	apic_write(APIC_TPR, 0x35);
	CHECK_EQ(cpu_read_cr8(), 3);
	apic_write(APIC_TPR, 0);
}

/* A handler that lets higher ones in: PPR follows ISR. */
static void
shadow_outer(struct trap_frame *f)
{
	shadow_order[shadow_count++ & 7] = (u8)f->vector;
	CHECK_EQ(apic_read(APIC_PPR), 0x70);
	CHECK_EQ(apic_read(APIC_ISR + 0x30), 1u << 0x10);
	apic_ipi(0, APIC_SELF | APIC_ASSERT | 0x72);
	apic_ipi(0, APIC_SELF | APIC_ASSERT | 0x95);
	cpu_window();
	shadow_order[shadow_count++ & 7] = 1;
	apic_eoi();
}

static void
shadow_nesting(void)
{
	trap_set_handler(VECTOR, shadow_outer);
	shadow_send(VECTOR);
	cpu_window();
	CHECK_EQ(shadow_count, 4);
	CHECK_EQ(shadow_order[0], VECTOR);
	CHECK_EQ(shadow_order[1], 0x95);
	CHECK_EQ(shadow_order[2], 1);
	CHECK_EQ(shadow_order[3], 0x72);
}

void
guest_main(void)
{
	static const u8 vectors[] = {VECTOR, 0x72, 0x75, 0x95, 0xa5};

	apic_enable();
	for (unsigned i = 0; i < sizeof(vectors); i++)
		trap_set_handler(vectors[i], shadow_note);
	shadow_sti();
	shadow_mov_ss();
	shadow_halt();
	shadow_nonmaskable();
	shadow_unblock();
	shadow_priorities();
	shadow_nesting();
}
