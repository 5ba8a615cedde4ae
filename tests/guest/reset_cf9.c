/*
 * Reset by the reset control register, port cf9h: the machine starts again. A byte in the
 * CMOS RAM, which a reset keeps, tells the second time from the first.
 */
#include "lib/cpu.h"

enum { CMOS_BYTE = 0x50, MARK_BYTE = 0xa5 };

void
guest_main(void)
{
	outb(0x70, CMOS_BYTE);
	if (inb(0x71) == MARK_BYTE) {
		CHECK(true);
		return;
	}
	outb(0x70, CMOS_BYTE);
	outb(0x71, MARK_BYTE);
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	for (volatile int i = 0; i < 100000000; i++)
		cpu_pause();
	CHECK(false);
}
