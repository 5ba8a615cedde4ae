/*
 * Real mode, without any firmware: segments by shifting, interrupts and
 * exceptions through the vector table, far transfers, 32-bit operands and
 * addresses, limits of 64 KiB, big real mode, BCD and stack-frame instructions,
 * single step, a timer interrupt. The 16-bit part runs at 1000:0000 and leaves
 * numbers behind; the 32-bit part looks at them.
 * bits: 32
 */
#include "lib/apic.h"
#include "lib/trap.h"

enum { REAL_BASE = 0x10000, REAL_RESULTS = 0xf00, REAL_SIZE = 0x2000 };

extern const u8 real_start[], real_end[], real_prot[];
void real_run(void);
u32 real_saved_esp, real_entry[2];

__asm__(".text\n.code32\n"
	"real_run:\n\t"
	"pusha; mov %esp, real_saved_esp\n\t"
	"sidt real_old_idt; sgdt 0x10000 + real_gdt - real_start\n\t"
	"ljmp *real_entry\n"
	"real_back:\n\t"
	"mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n\t"
	"mov real_saved_esp, %esp; lidt real_old_idt; popa; ret\n\t"
	".bss\nreal_old_idt: .skip 8\n"

	".section .rodata\n.code16\n"
	".set RES, 0xf00\n"
	".macro RESULT n, reg\n\tmov \\reg, %cs:RES + 2 * \\n\n.endm\n"
	".macro VECTOR n, label\n\tmovw $\\label - real_start, %es:4 * \\n\n\t"
	"movw $0x1000, %es:4 * \\n + 2\n.endm\n"
	"real_start:\n"
	"real_prot:\n\t"
	"mov $0x48, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %fs\n\t"
	"mov $0x10, %ax; mov %ax, %gs\n\t" /* 4 GiB limit: stays, big real mode */
	"mov $0x1f00, %sp\n\t"
	"lidtl real_idt - real_start\n\t"
	"mov %cr0, %eax; and $~1, %al; mov %eax, %cr0\n\t"
	"ljmp $0x1000, $real16 - real_start\n"
	"real_idt: .word 0x3ff; .long 0\n"
	"real_gdt: .word 0; .long 0\n"
	"real16:\n\t"
	"mov $0x1234, %ax; mov $0x400000, %ebx; movl %gs:(%ebx), %ebx\n\t" /* GS was not loaded:
									      still 4 GiB, base 0 */
	"RESULT 0, %bx\n\t"
	"mov $0x1000, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x1f00, %sp\n\t"
	"xor %ax, %ax; mov %ax, %es; mov %ax, %fs\n\t"
	"VECTOR 0, real_v0; VECTOR 1, real_v1; VECTOR 3, real_v3; VECTOR 4, real_v4\n\t"
	"VECTOR 5, real_v5; VECTOR 6, real_v6; VECTOR 8, real_timer; VECTOR 13, real_v13; VECTOR "
	"0x40, real_v40\n\t"
	/* 1: INT n; the handler sees IF clear, pushed flags with IF as before */
	"cli; int $0x40; RESULT 1, %ax\n\t"
	/* 2: #DE, saved IP is the instruction's */
	"xor %cx, %cx; mov $1, %ax; xor %dx, %dx\n"
	"real_div: div %cx\n\t"
	"RESULT 2, %ax\n\t"
	/* 3, 4: segment arithmetic; the last paragraph reaches beyond 1 MiB (A20 is on) */
	"mov $0x2000, %ax; mov %ax, %es; movw $0x4321, %es:0x10\n\t"
	"mov $0x1fff, %ax; mov %ax, %es; mov %es:0x20, %ax; RESULT 3, %ax\n\t"
	"mov $0xffff, %ax; mov %ax, %es; movw $0x8765, %es:0x10; mov %es:0x10, %ax; RESULT 4, "
	"%ax\n\t"
	/* 5: far call and return; 6: the same by pointer in memory */
	"lcall $0x1000, $real_far - real_start; RESULT 5, %ax\n\t"
	"xor %ax, %ax; lcall *real_pointer - real_start; RESULT 6, %ax\n\t"
	/* 7, 8: LES, and 32-bit operands */
	"les real_pointer2 - real_start, %bx; mov %es, %ax; add %bx, %ax; RESULT 7, %ax\n\t"
	"mov $0x12345678, %eax; rol $16, %eax; RESULT 8, %ax\n\t"
	/* 9: 32-bit address with scale */
	"mov $0x200, %eax; mov $4, %ecx; movl $0xcafe, 0x1000(%eax, %ecx, 4); movw 0x1210, %ax; "
	"RESULT 9, %ax\n\t"
	/* 10: 16-bit addresses wrap */
	"mov $0xfff0, %bx; movw $0x5a5a, 0x1220; mov 0x1230(%bx), %ax; RESULT 10, %ax\n\t"
	/* 11: BCD */
	"mov $0x15, %al; add $0x27, %al; daa; aam; RESULT 11, %ax\n\t"
	/* 12: ENTER and LEAVE give the stack back */
	"mov %sp, %si; enter $16, $0; leave; sub %sp, %si; RESULT 12, %si\n\t"
	/* 13: PUSHA, POPA */
	"mov $0x1111, %bx; pusha; xor %bx, %bx; popa; RESULT 13, %bx\n\t"
	/* 14 to 17: INT3, INTO, BOUND, UD2 by their handlers' counts */
	"int3; mov $0x7fff, %ax; inc %ax; into; mov $9, %ax\n"
	"real_bound: bound %ax, real_bounds - real_start\n"
	"real_ud: ud2\n\t"
	/* 18: single step, counted */
	"xor %dx, %dx; pushf; pop %ax; or $0x100, %ax; push %ax; popf; nop; nop; pushf; pop %ax\n\t"
	"and $~0x100, %ax; push %ax; popf; RESULT 18, %dx\n\t"
	/* 19: SMSW says real mode */
	"smsw %ax; and $1, %ax; RESULT 19, %ax\n\t"
	/* 20: strings, with DF */
	"push %ds; pop %es; std; mov $real_text_end - real_start - 1, %si; mov $0x1303, %di; mov "
	"$4, %cx\n\t"
	"rep movsb; cld; mov 0x1300, %ax; RESULT 20, %ax\n\t"
	/* 21: XLAT, LOOP */
	"mov $real_text - real_start, %bx; mov $2, %al; xlat; xor %ah, %ah; mov $5, %cx\n"
	"1: inc %ah; loop 1b; RESULT 21, %ax\n\t"
	/* 22: the timer's interrupt ends HLT */
	"xor %bp, %bp; 1: sti; hlt; cli; cmp $3, %bp; jb 1b; RESULT 22, %bp\n\t"
	/* 23: a word at FFFFh crosses the limit: #GP by vector 13; the handler skips 3 bytes */
	"mov $0, %dx\n"
	"real_limit: mov 0xffff, %ax\n\t"
	"RESULT 23, %dx\n\t"
	/* 24: so does a 32-bit address beyond 64 KiB, 67h 8Bh 03h: 3 bytes as well */
	"mov $0, %dx; mov $0x10000, %ebx\n\t"
	"movw (%ebx), %ax\n\t"
	"RESULT 24, %dx\n\t"
	/* 25: FLAGS' upper bits by POPF */
	"mov $0x7000, %ax; push %ax; popf; pushf; pop %ax; and $0xf000, %ax; RESULT 25, %ax; push "
	"$0; popf\n\t"
	"lgdtl real_gdt - real_start\n\t"
	"mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n\t"
	"ljmpl $0x08, $real_back\n"
	"real_far: mov $0xfa7, %ax; lret\n"
	"real_v40: pushf; pop %ax; and $0x200, %ax; add $0x40, %ax; iret\n"
	"real_v0: push %bp; mov %sp, %bp; mov $0xbad, %ax; cmpw $real_div - real_start, 2(%bp); "
	"jne 1f\n\t"
	"mov $0xd0d0, %ax; 1: addw $2, 2(%bp); pop %bp; iret\n"
	"real_v1: inc %dx; iret\n"
	"real_v3: incw %cs:RES + 2 * 14; iret\n"
	"real_v4: incw %cs:RES + 2 * 15; iret\n"
	"real_v5: push %bp; mov %sp, %bp; cmpw $real_bound - real_start, 2(%bp); jne 1f\n\t"
	"incw %cs:RES + 2 * 16; 1: addw $4, 2(%bp); pop %bp; iret\n"
	"real_v6: push %bp; mov %sp, %bp; cmpw $real_ud - real_start, 2(%bp); jne 1f\n\t"
	"incw %cs:RES + 2 * 17; 1: addw $2, 2(%bp); pop %bp; iret\n"
	"real_v13: push %bp; mov %sp, %bp; addw $3, 2(%bp); inc %dx; pop %bp; iret\n"
	"real_timer: inc %bp; push %ax; mov $0x20, %al; out %al, $0x20; pop %ax; iret\n"
	"real_pointer: .word real_far - real_start, 0x1000\n"
	"real_pointer2: .word 0x11, 0x2200\n"
	"real_bounds: .word 1, 5\n"
	"real_text: .ascii \"abcd\"\n"
	"real_text_end:\n"
	"real_end:\n"
	".code32\n.text\n");

static u16
real_result(unsigned n)
{
	u16 value;

	memcpy(&value, (void *)(REAL_BASE + REAL_RESULTS + 2 * n), 2);
	return value;
}

static void
real_prepare(void)
{
	void *base = (void *)REAL_BASE;

	CHECK(real_end - real_start < REAL_RESULTS);
	memset(base, 0, REAL_SIZE);
	memcpy(base, real_start, (size_t)(real_end - real_start));
	trap_gdt[SEL_FREE / 8] = 0x00009b010000ffff;	 /* 16-bit code at 10000h */
	trap_gdt[SEL_FREE / 8 + 1] = 0x000093010000ffff; /* and data */
	real_entry[0] = 0;
	real_entry[1] = SEL_FREE;
	apic_enable();
	apic_write(APIC_LVT_LINT0, APIC_EXTINT);
	pic_init(8, 0xfffe);
	pit_start(2, 1193);
}

static void
real_check(unsigned n, u16 want)
{
	if (real_result(n) != want)
		print("     result %u\n", n);
	CHECK_EQ(real_result(n), want);
}

void
guest_main(void)
{
	static const u16 want[] = {0,	   0x40,   0xd0d0, 0x4321, 0x8765, 0xfa7, 0xfa7,
				   0x2211, 0x1234, 0xcafe, 0x5a5a, 0x0606, 0,	  0x1111,
				   1,	   1,	   1,	   1,	   0,	   0,	  0x6261,
				   0x0563, 3,	   1,	   1,	   0x7000};

	real_prepare();
	real_run();
	outb(0x21, 0xff);
	real_check(0, *(u16 *)0x400000);
	for (unsigned i = 1; i < ARRAY_LEN(want); i++) {
		if (i == 18) { /* behind each instruction from the first NOP to the POPF */
			real_check(18, 7);
			continue;
		}
		if (i == 22) { /* a late tick may come with the next one behind it */
			CHECK(real_result(i) >= want[i]);
			continue;
		}
		if ((i == 23 || i == 24) && guest_on_tcg())
			continue; /* it checks no limits */
		real_check(i, want[i]);
	}
	/* Once more: nothing of the first time may be left in the way. */
	real_prepare();
	real_run();
	outb(0x21, 0xff);
	real_check(1, 0x40);
	CHECK(real_result(22) >= 3);
}
