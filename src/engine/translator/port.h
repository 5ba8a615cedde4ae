/*
 * Whether the code that runs may access an I/O port (AMD64 APM 2, 12.2.4).
 */
#ifndef TRANSLATOR_PORT_H
#define TRANSLATOR_PORT_H

#include "engine/translator/vcpu.h"

/* 0, HELPER_FAULT (#GP(0) or a page fault of the bitmap), or HELPER_EXIT. */
int port_check(struct vcpu *v, u16 port, unsigned size);

/* To be called after an access: notes the I/O breakpoints that it hit (13.1, CR4.DE). */
void port_watch(struct vcpu *v, u16 port, unsigned size);

#endif
