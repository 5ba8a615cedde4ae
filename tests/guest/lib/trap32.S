/*
 * Trap entries, trap_arm and the way to user mode, 32-bit.
 */
	.text
	.code32

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
	pusha
	push	%ds
	push	%es
	push	%fs
	push	%gs
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	cld
	mov	%esp, %eax
	mov	%esp, %ebp
	and	$-16, %esp
	sub	$12, %esp
	push	%eax
	call	trap_handle
	mov	%ebp, %esp
	pop	%gs
	pop	%fs
	pop	%es
	pop	%ds
	popa
	add	$8, %esp
	iret

	/* int trap_arm(struct trap_catch *) */
	.global trap_arm
trap_arm:
	mov	4(%esp), %eax
	mov	%ebx, 0(%eax)
	mov	%ebp, 4(%eax)
	mov	%esi, 8(%eax)
	mov	%edi, 12(%eax)
	mov	%esp, 16(%eax)
	mov	(%esp), %ecx
	mov	%ecx, 20(%eax)
	pushf
	pop	24(%eax)
	sub	$8, %esp
	push	%eax
	call	trap_arm_catch
	add	$12, %esp
	ret

	/* void trap_resume(struct trap_catch *): trap_arm returns again, with 1. An IRET on the
	 * saved stack, so that it also ends an NMI. */
	.global trap_resume
trap_resume:
	mov	4(%esp), %edx
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	16(%edx), %esp
	mov	0(%edx), %ebx
	mov	4(%edx), %ebp
	mov	8(%edx), %esi
	mov	12(%edx), %edi
	add	$4, %esp
	push	24(%edx)
	push	$0x08
	push	20(%edx)
	mov	$1, %eax
	iret

	/* trap_enter_user(ip, cs, flags, sp, ss, arg) */
	.global trap_enter_user
trap_enter_user:
	mov	%esp, %ebp
	mov	$0x23, %eax
	mov	%eax, %ds
	mov	%eax, %es
	push	20(%ebp)
	push	16(%ebp)
	push	12(%ebp)
	push	8(%ebp)
	push	4(%ebp)
	xor	%eax, %eax
	iret

	.section .user, "ax"
	.global user_stub
user_stub:
	int	$0x80
	.section .note.GNU-stack, "", @progbits
