/*
 * Trap entries, trap_arm and the way to user mode, 64-bit.
 */
	.text
	.code64

	.altmacro
	.macro ENTRY n
	.balign 8
trap_entry_\n:
	.if (\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17) || (\n == 21) || (\n == 29) || (\n == 30)
	.else
	push	$0
	.endif
	push	$\n
	jmp	trap_common
	.section .rodata
	.long	trap_entry_\n
	.text
	.endm

	.section .rodata
	.balign 4
	.global trap_entries
trap_entries:
	.text
	.set	i, 0
	.rept	256
	ENTRY	%i
	.set	i, i + 1
	.endr

trap_common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	trap_handle
	mov	%rbp, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	/* int trap_arm(struct trap_catch *) */
	.global trap_arm
trap_arm:
	mov	%rbx, 0(%rdi)
	mov	%rbp, 8(%rdi)
	mov	%r12, 16(%rdi)
	mov	%r13, 24(%rdi)
	mov	%r14, 32(%rdi)
	mov	%r15, 40(%rdi)
	mov	%rsp, 48(%rdi)
	mov	(%rsp), %rax
	mov	%rax, 56(%rdi)
	pushf
	pop	64(%rdi)
	sub	$8, %rsp
	call	trap_arm_catch
	add	$8, %rsp
	ret

	/* void trap_resume(struct trap_catch *): trap_arm returns again, with 1. By IRET, so
	 * that it ends an NMI and reloads CS and SS. */
	.global trap_resume
trap_resume:
	mov	0(%rdi), %rbx
	mov	8(%rdi), %rbp
	mov	16(%rdi), %r12
	mov	24(%rdi), %r13
	mov	32(%rdi), %r14
	mov	40(%rdi), %r15
	mov	48(%rdi), %rcx
	add	$8, %rcx
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	push	$0x10
	push	%rcx
	push	64(%rdi)
	push	$0x08
	push	56(%rdi)
	mov	$1, %eax
	iretq

	/* trap_enter_user(ip, cs, flags, sp, ss, arg) */
	.global trap_enter_user
trap_enter_user:
	push	%r8
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	mov	%r9, %rdi
	xor	%eax, %eax
	iretq

	.section .user, "ax"
	.global user_stub
user_stub:
	int	$0x80
	.section .note.GNU-stack, "", @progbits
