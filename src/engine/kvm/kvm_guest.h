/*
 * The guest of the self-test: code for kernel and user mode, where its parts lie in
 * guest-physical memory, and what it says by ports.
 */
#ifndef ENGINE_KVM_KVM_GUEST_H
#define ENGINE_KVM_KVM_GUEST_H

#include "base/types.h"

enum {
	GUEST_SIZE = 0x10000,
	GUEST_PML4 = 0x1000,
	GUEST_PDPT = 0x2000,
	GUEST_PD = 0x3000,
	GUEST_PT = 0x4000,
	GUEST_GDT = 0x5000,
	GUEST_TSS = 0x5100,
	GUEST_IDT = 0x6000,
	GUEST_STACK_TOP = 0x8000,
	GUEST_KERNEL = 0x8000,
	GUEST_USER = 0x9000,
	GUEST_USER_STACK_TOP = 0xb000,
	GUEST_DATA = 0xb000, /* not for user mode */
};

/* Selectors: as SYSCALL and SYSRET want them. */
enum {
	GUEST_CS = 0x08,
	GUEST_SS = 0x10,
	GUEST_USER_SS = 0x18,
	GUEST_USER_CS = 0x20,
	GUEST_TR = 0x28
};

enum {
	GUEST_PORT_STEP = 0x10, /* out: it begins with this step */
	GUEST_PORT_COUNT =
		0x12, /* in: how often to go round a loop of two instructions, 0: enough */
	GUEST_PORT_EXCEPTION = 0x13, /* out: unexpected; vector, and code segment << 8 */
	GUEST_PORT_WRONG = 0x14,     /* out: the step's result is wrong */
	GUEST_PORT_VALUE = 0x15,     /* out: something for the host to compare */
};

enum guest_step {
	GUEST_STEP_START,
	GUEST_STEP_KERNEL_SPEED,
	GUEST_STEP_CPUID, /* values: leaf 1 ECX, leaf 7 EBX */
	GUEST_STEP_POPCNT,
	GUEST_STEP_CMPXCHG16B,
	GUEST_STEP_INT3,
	GUEST_STEP_FPU,
	GUEST_STEP_XSAVE,
	GUEST_STEP_SYSRET,
	GUEST_STEP_USER_SPEED,
	GUEST_STEP_PAGE_FAULT,
	GUEST_STEP_INT80,
	GUEST_STEP_DONE,
};

/* In EDI at the start. */
enum { GUEST_HAS_XSAVE = BIT(0) };

/* To be copied to GUEST_KERNEL and GUEST_USER, less than a page each. Entry points are given
 * relative to the code's start; the vectors' are 16 bytes apart. */
extern const u8 guest_kernel[], guest_kernel_end[], guest_user[], guest_user_end[];
extern const u8 guest_vectors[], guest_int3[], guest_page_fault[], guest_int80[], guest_syscall[];

#endif
