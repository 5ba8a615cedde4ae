/*
 * Where another processor starts: real mode at 8000h, where this is copied.
 */
	.section .rodata
	.code16
	.global smp_trampoline, smp_trampoline_end
smp_trampoline:
	cli
	cld
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	%cs:smp_gdt - smp_trampoline
	mov	$0x11, %eax
	mov	%eax, %cr0
	ljmpl	$0x38, $smp_start32
	.balign 8
smp_gdt:
	.word	63
	.long	boot_gdt
smp_trampoline_end:

	.text
	.code32
smp_start32:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	smp_next_stack, %esp
	mov	smp_cr3, %eax
	mov	%eax, %cr3
	jmp	start_long

	.code64
	.global smp_start64
smp_start64:
	call	smp_main
	hlt
	.section .note.GNU-stack, "", @progbits
