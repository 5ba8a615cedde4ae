/*
 * Start of a 32-bit guest by multiboot 1: protected mode, paging off, our GDT.
 * CR0 PE ET NE MP, CR4 OSFXSR OSXMMEXCPT.
 */
	.section .multiboot, "a"
	.balign 4
	.long	0x1badb002, 0x3, -(0x1badb002 + 0x3)

	.section .bss
	.balign 16
	.skip	16384
boot_stack:

	.text
	.code32
	.global start
start:
	cli
	cld
	mov	$boot_stack, %esp
	mov	%eax, %esi
	mov	%ebx, %edi
	lgdt	boot_gdt_pointer
	ljmp	$0x08, $1f
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lldt	%ax
	mov	$0x33, %eax
	mov	%eax, %cr0
	mov	$0x600, %eax
	mov	%eax, %cr4
	fninit
	push	$0
	call	trap_init_cpu
	add	$4, %esp
	sub	$4, %esp
	push	%edi
	push	%esi
	call	guest_start
	hlt

	.section .rodata
	.balign 16
boot_gdt:
	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
	.word	. - boot_gdt - 1
	.long	boot_gdt
	.section .note.GNU-stack, "", @progbits
