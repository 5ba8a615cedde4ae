/*
 * See kvm_guest.h. What a kernel does all the time, and what incomplete KVMs get wrong:
 * each step is announced, done, and its result checked.
 */
#include "engine/kvm/kvm_guest.h"

/* Numbers of kvm_guest.h, which an assembler does not read. */
_Static_assert(GUEST_PORT_STEP == 0x10 && GUEST_PORT_COUNT == 0x12 &&
		       GUEST_PORT_EXCEPTION == 0x13 && GUEST_PORT_WRONG == 0x14 &&
		       GUEST_PORT_VALUE == 0x15,
	       "ports");
_Static_assert(GUEST_STEP_KERNEL_SPEED == 1 && GUEST_STEP_CPUID == 2 && GUEST_STEP_POPCNT == 3 &&
		       GUEST_STEP_CMPXCHG16B == 4 && GUEST_STEP_INT3 == 5 && GUEST_STEP_FPU == 6 &&
		       GUEST_STEP_XSAVE == 7 && GUEST_STEP_SYSRET == 8 &&
		       GUEST_STEP_USER_SPEED == 9 && GUEST_STEP_PAGE_FAULT == 10 &&
		       GUEST_STEP_INT80 == 11 && GUEST_STEP_DONE == 12,
	       "steps");
_Static_assert(GUEST_DATA == 0xb000 && GUEST_USER == 0x9000 && GUEST_USER_STACK_TOP == 0xb000,
	       "addresses");

#define STEP(n) "mov $" #n ", %eax; out %eax, $0x10\n"

__asm__(".pushsection .rodata\n"
	".balign 16\n"
	".globl guest_kernel, guest_kernel_end, guest_vectors, guest_int3\n"
	".globl guest_page_fault, guest_int80, guest_syscall, guest_user, guest_user_end\n"
	"guest_kernel:\n"

	STEP(1) "1:	in $0x12, %eax\n"
		"	test %eax, %eax\n"
		"	jz 3f\n"
		"2:	dec %eax\n"
		"	jnz 2b\n"
		"	jmp 1b\n"
		"3:\n"

	STEP(2) "	mov $1, %eax\n"
		"	xor %ecx, %ecx\n"
		"	cpuid\n"
		"	mov %ecx, %eax\n"
		"	out %eax, $0x15\n"
		"	mov $7, %eax\n"
		"	xor %ecx, %ecx\n"
		"	cpuid\n"
		"	mov %ebx, %eax\n"
		"	out %eax, $0x15\n"

	STEP(3) "	mov $0xff0f, %ecx\n"
		"	popcnt %ecx, %eax\n"
		"	cmp $12, %eax\n"
		"	jne guest_wrong\n"

	STEP(4) "	xor %eax, %eax\n"
		"	xor %edx, %edx\n"
		"	mov $1, %ebx\n"
		"	mov $2, %ecx\n"
		"	lock cmpxchg16b 0xb100\n"
		"	jnz guest_wrong\n"
		"	cmpq $1, 0xb100\n"
		"	jne guest_wrong\n"
		"	cmpq $2, 0xb108\n"
		"	jne guest_wrong\n"

	STEP(5) "	xor %r15d, %r15d\n"
		"	int3\n"
		"	cmp $1, %r15d\n"
		"	jne guest_wrong\n"

	STEP(6) "	fninit\n"
		"	fld1\n"
		"	fnclex\n"
		"	fistpl 0xb110\n"
		"	cmpl $1, 0xb110\n"
		"	jne guest_wrong\n"

	/* What XSETBV has set must still be there after an exit. */
	STEP(7) "	test $1, %edi\n"
		"	jz 1f\n"
		"	mov %cr4, %rax\n"
		"	or $0x40000, %rax\n"
		"	mov %rax, %cr4\n"
		"	xor %ecx, %ecx\n"
		"	xor %edx, %edx\n"
		"	mov $3, %eax\n"
		"	xsetbv\n" STEP(7) "	xor %ecx, %ecx\n"
					  "	xgetbv\n"
					  "	cmp $3, %eax\n"
					  "	jne guest_wrong\n"
					  "	mov $0x5a5a, %ebx\n"
					  "	movq %rbx, %xmm3\n"
					  "	xor %edx, %edx\n"
					  "	xsave 0xb200\n"
					  "	pxor %xmm3, %xmm3\n"
					  "	mov $3, %eax\n"
					  "	xrstor 0xb200\n"
					  "	movq %xmm3, %rax\n"
					  "	cmp $0x5a5a, %rax\n"
					  "	jne guest_wrong\n"
					  "1:\n"

	STEP(8) "	mov $0x9000, %ecx\n"
		"	mov $2, %r11d\n"
		"	mov $0xb000, %esp\n"
		"	sysretq\n"

		/* Where SYSCALL arrives: at CPL 3, the port access faults. */
		"guest_syscall:\n" STEP(
			9) "	in $0x12, %eax\n"
			   "	test %eax, %eax\n"
			   "	jnz 1f\n" STEP(
				   10) "	xor %eax, %eax\n"
				       "1:	sysretq\n"

				       "guest_int3:\n"
				       "	inc %r15d\n"
				       "	iretq\n"

				       /* A read by user mode of what is there, but not for it; its
					  address; goes on behind it. */
				       "guest_page_fault:\n"
				       "	cmpq $5, (%rsp)\n"
				       "	jne guest_wrong\n"
				       "	testb $3, 16(%rsp)\n"
				       "	jz guest_wrong\n"
				       "	mov %cr2, %rax\n"
				       "	cmp $0xb000, %rax\n"
				       "	jne guest_wrong\n" STEP(
					       11) "	add $8, %rsp\n"
						   "	addq $7, (%rsp)\n"
						   "	iretq\n"

						   "guest_int80:\n" STEP(
							   12) "1:	hlt\n"
							       "	jmp 1b\n"

							       "guest_wrong:\n"
							       "	out %eax, $0x14\n"
							       "	jmp guest_wrong\n"

							       /* The frame's code segment is behind
								  RIP, and behind an error code if
								  there is one. */
							       ".balign 16\n"
							       "guest_vectors:\n"
							       ".set guest_n, 0\n"
							       ".rept 32\n"
							       "	.balign 16\n"
							       "	mov $guest_n, %eax\n"
							       "	jmp guest_exception\n"
							       "	.set guest_n, guest_n + 1\n"
							       ".endr\n"
							       "guest_exception:\n"
							       "	mov 8(%rsp), %ebx\n"
							       "	cmp $8, %eax\n"
							       "	jb 1f\n"
							       "	cmp $14, %eax\n"
							       "	ja 1f\n"
							       "	mov 16(%rsp), %ebx\n"
							       "1:	shl $8, %ebx\n"
							       "	or %ebx, %eax\n"
							       "	out %eax, $0x13\n"
							       "	jmp guest_exception\n"
							       "guest_kernel_end:\n"

							       "guest_user:\n"
							       "1:	syscall\n"
							       "	test %eax, %eax\n"
							       "	jz 3f\n"
							       "2:	dec %eax\n"
							       "	jnz 2b\n"
							       "	jmp 1b\n"
							       "3:	mov 0xb000, %eax\n" /* seven
											       bytes
											     */
							       "	int $0x80\n"
							       "	ud2\n"
							       "guest_user_end:\n"
							       ".popsection\n");
