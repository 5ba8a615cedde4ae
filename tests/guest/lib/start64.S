/*
 * Start of a 64-bit guest by PVH (32-bit protected mode, EBX the start_info):
 * maps the first 4 GiB one to one with 2 MiB pages, enters long mode.
 * CR0 PG WP NE MP ET PE, CR4 PAE OSFXSR OSXMMEXCPT, EFER LME NXE SCE.
 */
	.section .note.Xen, "a", @note
	.balign 4
	.long	4, 8, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	start

	.section .bss
	.balign 4096
	.global boot_pml4
boot_pml4:
	.skip	4096
boot_pdpt:
	.skip	4096
boot_pd:
	.skip	4096 * 4
	.skip	16384
boot_stack:

	.text
	.code32
	.global start
start:
	cli
	cld
	mov	$boot_stack, %esp
	mov	%eax, %ebp
	movl	$boot_pdpt + 3, boot_pml4
	mov	$4, %ecx
	mov	$boot_pd + 3, %eax
	mov	$boot_pdpt, %edi
1:	mov	%eax, (%edi)
	add	$4096, %eax
	add	$8, %edi
	loop	1b
	mov	$2048, %ecx
	mov	$0x83, %eax
	mov	$boot_pd, %edi
1:	mov	%eax, (%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	1b
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	%ebp, %edi
	mov	%ebx, %esi
	lgdt	boot_gdt_pointer
	/* Also how other processors go on (smp16.S): 32-bit, CR3 loaded. */
	.global start_long
start_long:
	mov	$0x620, %eax
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	mov	$0x901, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmp	$0x08, $start64

	.code64
start64:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lldt	%ax
	mov	%esp, %esp
	fninit
	cmpl	$0, smp_next_stack(%rip)
	jne	smp_start64
	mov	%edi, %r12d
	mov	%esi, %r13d
	xor	%edi, %edi
	call	trap_init_cpu
	call	paging_init
	mov	%r12d, %edi
	mov	%r13d, %esi
	call	guest_start
	hlt

	.section .rodata
	.balign 16
	.global boot_gdt
boot_gdt:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
	.quad	0, 0, 0, 0, 0x00cf9b000000ffff
	.global boot_gdt_pointer
boot_gdt_pointer:
	.word	. - boot_gdt - 1
	.long	boot_gdt
	.section .note.GNU-stack, "", @progbits
