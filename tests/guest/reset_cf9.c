/*
 * Reset by the reset control register, port cf9h.
 */
#include "lib/cpu.h"

void
guest_main(void)
{
	print("ending now\n");
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	for (volatile int i = 0; i < 100000000; i++)
		cpu_pause();
	print("FAIL: still here\n");
}
