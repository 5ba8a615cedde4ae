/*
 * Never ends: sleeps, and prints a dot at each tenth tick of its local APIC's timer. For tests
 * of what is done to a VM from outside; in no list.
 */
#include "lib/apic.h"
#include "lib/trap.h"

enum { VECTOR = 0x50, TICK_NS = 10000000 };

static volatile unsigned forever_ticks;

static void
forever_tick(struct trap_frame *f)
{
	(void)f;
	forever_ticks++;
	apic_eoi();
}

void
guest_main(void)
{
	unsigned said = 0;

	apic_enable();
	pic_init(0x20, 0xffff);
	trap_set_handler(VECTOR, forever_tick);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR | APIC_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, TICK_NS);
	print("forever\n");
	for (;;) {
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		if (forever_ticks / 10 == said)
			continue;
		said = forever_ticks / 10;
		print(".\n");
	}
}
