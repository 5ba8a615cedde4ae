/*
 * Reset by the keyboard controller, port 64h.
 */
#include "lib/cpu.h"

void
guest_main(void)
{
	print("ending now\n");
	outb(0x64, 0xfe);
	for (volatile int i = 0; i < 100000000; i++)
		cpu_pause();
	print("FAIL: still here\n");
}
