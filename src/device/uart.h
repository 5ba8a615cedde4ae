/*
 * A 16550A serial port. Output leaves by a callback that may refuse bytes for
 * now (the transmitter then stays busy); input is taken from the host only as
 * far as there is room. No baud rate is imitated, so it needs no timers.
 * Everything under the machine's lock.
 */
#ifndef DEVICE_UART_H
#define DEVICE_UART_H

#include "bus/device.h"
#include "bus/irq.h"

struct uart;

struct uart_host {
	void *opaque;
	/* The guest sent LEN bytes; returns how many were taken. After fewer, the rest waits
	 * for uart_output_ready. */
	size_t (*output)(void *opaque, const u8 *data, size_t len);
	/* There is room for input again after uart_input took less than it was given. May be NULL.
	 */
	void (*input_ready)(void *opaque);
};

/* Eight ports at PORT. UART_HOST is copied. 0 or -ENOMEM. */
int uart_create(struct uart **out, const struct device_host *host, u16 port, struct irq_line irq,
		const struct uart_host *uart_host);
void uart_destroy(struct uart *uart);
void uart_reset(struct uart *uart);

/* Bytes from the host: how many of LEN were taken. */
size_t uart_input(struct uart *uart, const u8 *data, size_t len);
/* The output callback can take bytes again. */
void uart_output_ready(struct uart *uart);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void uart_state(struct uart *uart, struct state_list *list);

#endif
