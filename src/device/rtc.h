/*
 * The MC146818 real-time clock with 128 bytes of CMOS memory at ports 0x70 and
 * 0x71. It follows the host's clock (UTC) by an offset that the guest changes
 * when it sets the time. Everything under the machine's lock.
 */
#ifndef DEVICE_RTC_H
#define DEVICE_RTC_H

#include "bus/device.h"
#include "bus/irq.h"

struct rtc;

/* The memory size goes where a BIOS leaves it. 0 or -errno. */
int rtc_create(struct rtc **out, const struct device_host *host, struct irq_line irq,
	       unsigned vcpus);
void rtc_destroy(struct rtc *rtc);
/* Interrupts off; time and memory stay, as with the battery. */
void rtc_reset(struct rtc *rtc);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void rtc_state(struct rtc *rtc, struct state_list *list);

#endif
