/*
 * Other processors of a 64-bit guest: started by INIT and SIPI, they wait for
 * work, spinning. CPU numbers are ours: 0 is the first, others in the order they came.
 */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "lib/trap.h"

/* Starts all of them, one after the other, by APIC id; returns how many CPUs there are. */
unsigned smp_start(void);
u32 smp_apic_id(unsigned cpu);
/* Runs FN(ARG) on CPU; smp_wait waits for its end: true if it came. */
void smp_call(unsigned cpu, void (*fn)(uptr), uptr arg);
bool smp_wait(unsigned cpu);

#endif
