/*
 * The simplest guest: a line on the serial port, then the end.
 * bits: 32
 */
#include "lib/guest.h"

void
guest_main(void)
{
	print("hello\n");
	CHECK_EQ(guest_boot_eax, 0x2badb002);
}
