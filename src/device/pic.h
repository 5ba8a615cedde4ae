/*
 * The two cascaded 8259A interrupt controllers of a PC at ports 0x20/0x21 and
 * 0xa0/0xa1, and the edge/level registers of the chipset at 0x4d0/0x4d1.
 * Everything under the machine's lock.
 */
#ifndef DEVICE_PIC_H
#define DEVICE_PIC_H

#include "bus/device.h"
#include "bus/irq.h"

struct pic;

/* OUTPUT is INTR towards the processor. UNMASKED, if not NULL, is called when the guest
 * changed a mask. 0 or -ENOMEM. */
int pic_create(struct pic **out, const struct device_host *host, struct irq_line output,
	       void (*unmasked)(void *opaque), void *opaque);
void pic_destroy(struct pic *pic);
void pic_reset(struct pic *pic);

/* Level of input IRQ 0 to 15 (2 is the cascade and ignored). */
void pic_set_irq(struct pic *pic, unsigned irq, bool level);
/* The interrupt acknowledge cycle: the vector, or -1 if INTR is not asserted. */
int pic_acknowledge(struct pic *pic);
/* Whether one more edge on IRQ would change nothing that the guest can see. */
bool pic_deaf(const struct pic *pic, unsigned irq);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void pic_state(struct pic *pic, struct state_list *list);

#endif
