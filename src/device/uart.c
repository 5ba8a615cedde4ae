/*
 * 16550A (National PC16550D data sheet, section 8).
 *
 * Bytes received wait in a queue larger than the chip's FIFO, so that a paste
 * is not lost while the guest is busy; the guest sees at most 16 of them.
 * A received byte is reported at once, as data available when the trigger level
 * is reached, else as the character timeout that would follow anyway.
 */
#include "device/uart.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/state.h"

enum { UART_FIFO = 16, UART_QUEUE = 256 };

enum { UART_DATA, UART_IER, UART_IIR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR };

enum { IER_RX = BIT(0), IER_TX = BIT(1), IER_LINE = BIT(2), IER_MODEM = BIT(3) };
enum {
	IIR_MODEM = 0x0,
	IIR_NONE = 0x1,
	IIR_TX = 0x2,
	IIR_RX = 0x4,
	IIR_LINE = 0x6,
	IIR_TIMEOUT = 0xc,
	IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = BIT(0), FCR_CLEAR_RX = BIT(1), FCR_CLEAR_TX = BIT(2) };
enum { LCR_DLAB = BIT(7) };
enum {
	MCR_DTR = BIT(0),
	MCR_RTS = BIT(1),
	MCR_OUT1 = BIT(2),
	MCR_OUT2 = BIT(3),
	MCR_LOOP = BIT(4)
};
enum {
	LSR_DATA = BIT(0),
	LSR_OVERRUN = BIT(1),
	LSR_BREAK = BIT(4),
	LSR_THRE = BIT(5),
	LSR_TEMT = BIT(6)
};
enum {
	MSR_DCTS = BIT(0),
	MSR_DDSR = BIT(1),
	MSR_TERI = BIT(2),
	MSR_DDCD = BIT(3),
	MSR_CTS = BIT(4),
	MSR_DSR = BIT(5),
	MSR_RI = BIT(6),
	MSR_DCD = BIT(7),
	MSR_LINES = 0xf0
};

struct uart {
	u8 ier, lcr, mcr, msr, scr;
	u8 line_errors;	 /* LSR's sticky bits */
	u8 trigger;	 /* receive FIFO level */
	bool fifo;	 /* FIFO mode */
	bool tx_pending; /* the "transmitter empty" interrupt is due */
	u16 divisor;
	u8 rx[UART_QUEUE];
	unsigned rx_head, rx_count;
	u8 tx[UART_FIFO];
	unsigned tx_count;
	bool input_refused;
	struct irq_line irq;
	struct uart_host host;
	struct memory *memory;
	struct io_region *region;
};

static unsigned
uart_depth(const struct uart *uart)
{
	return uart->fifo ? UART_FIFO : 1;
}

/* The most urgent interrupt (table 4 of the data sheet). */
static u8
uart_cause(const struct uart *uart)
{
	if ((uart->ier & IER_LINE) && uart->line_errors)
		return IIR_LINE;
	if ((uart->ier & IER_RX) && uart->rx_count)
		return !uart->fifo || uart->rx_count >= uart->trigger ? IIR_RX : IIR_TIMEOUT;
	if ((uart->ier & IER_TX) && uart->tx_pending)
		return IIR_TX;
	if ((uart->ier & IER_MODEM) && (uart->msr & ~MSR_LINES))
		return IIR_MODEM;
	return IIR_NONE;
}

static void
uart_update(struct uart *uart)
{
	/* OUT2 gates the interrupt on a PC's board. */
	bool gate = (uart->mcr & MCR_OUT2) && !(uart->mcr & MCR_LOOP);

	irq_set(&uart->irq, gate && uart_cause(uart) != IIR_NONE);
}

static void
uart_flush(struct uart *uart)
{
	size_t taken;

	if (!uart->tx_count)
		return;
	taken = uart->host.output(uart->host.opaque, uart->tx, uart->tx_count);
	if (taken > uart->tx_count)
		taken = uart->tx_count;
	uart->tx_count -= (unsigned)taken;
	memmove(uart->tx, uart->tx + taken, uart->tx_count);
	if (!uart->tx_count)
		uart->tx_pending = true;
}

void
uart_output_ready(struct uart *uart)
{
	uart_flush(uart);
	uart_update(uart);
}

static void
uart_receive(struct uart *uart, u8 byte)
{
	if (uart->rx_count == UART_QUEUE) {
		uart->line_errors |= LSR_OVERRUN;
		return;
	}
	uart->rx[(uart->rx_head + uart->rx_count++) % UART_QUEUE] = byte;
}

size_t
uart_input(struct uart *uart, const u8 *data, size_t len)
{
	size_t taken = 0;

	/* A port in loopback is cut off from its pins. */
	if (!(uart->mcr & MCR_LOOP))
		while (taken < len && uart->rx_count < UART_QUEUE)
			uart_receive(uart, data[taken++]);
	if (taken < len)
		uart->input_refused = true;
	uart_update(uart);
	return taken;
}

static void
uart_input_room(struct uart *uart)
{
	if (!uart->input_refused || uart->rx_count > UART_QUEUE / 2 || (uart->mcr & MCR_LOOP))
		return;
	uart->input_refused = false;
	if (uart->host.input_ready)
		uart->host.input_ready(uart->host.opaque);
}

static u8
uart_read_data(struct uart *uart)
{
	u8 byte;

	if (!uart->rx_count)
		return 0;
	byte = uart->rx[uart->rx_head];
	uart->rx_head = (uart->rx_head + 1) % UART_QUEUE;
	uart->rx_count--;
	uart_input_room(uart);
	return byte;
}

static void
uart_write_data(struct uart *uart, u8 byte)
{
	uart->tx_pending = false;
	if (uart->mcr & MCR_LOOP) {
		if (uart->rx_count < uart_depth(uart))
			uart_receive(uart, byte);
		else
			uart->line_errors |= LSR_OVERRUN;
		uart->tx_pending = true;
		return;
	}
	if (uart->tx_count == uart_depth(uart))
		uart->tx_count--; /* full: the last byte is overwritten, as in the chip */
	uart->tx[uart->tx_count++] = byte;
	uart_flush(uart);
}

static u8
uart_read_iir(struct uart *uart)
{
	u8 cause = uart_cause(uart);

	if (cause == IIR_TX)
		uart->tx_pending = false;
	return cause | (uart->fifo ? IIR_FIFOS : 0);
}

static void
uart_write_fcr(struct uart *uart, u8 value)
{
	static const u8 triggers[4] = {1, 4, 8, 14};
	bool fifo = value & FCR_ENABLE;

	if (fifo != uart->fifo)
		value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	uart->fifo = fifo;
	uart->trigger = triggers[value >> 6];
	/* Only what the guest could have seen is dropped; what the host sent ahead stays. */
	if (value & FCR_CLEAR_RX) {
		unsigned seen = uart->rx_count < UART_FIFO ? uart->rx_count : UART_FIFO;

		uart->rx_head = (uart->rx_head + seen) % UART_QUEUE;
		uart->rx_count -= seen;
		uart_input_room(uart);
	}
	if (value & FCR_CLEAR_TX) {
		uart->tx_count = 0;
		uart->tx_pending = true;
	}
}

static void
uart_write_ier(struct uart *uart, u8 value)
{
	/* Switching the transmitter interrupt on while it is empty raises it at once. */
	if ((value & IER_TX) && !(uart->ier & IER_TX) && !uart->tx_count)
		uart->tx_pending = true;
	uart->ier = value & 0x0f;
}

/* Modem lines: in loopback those that MCR drives, else a peer that is always there. */
static u8
uart_modem_lines(const struct uart *uart)
{
	u8 lines = 0;

	if (!(uart->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	if (uart->mcr & MCR_RTS)
		lines |= MSR_CTS;
	if (uart->mcr & MCR_DTR)
		lines |= MSR_DSR;
	if (uart->mcr & MCR_OUT1)
		lines |= MSR_RI;
	if (uart->mcr & MCR_OUT2)
		lines |= MSR_DCD;
	return lines;
}

static void
uart_write_mcr(struct uart *uart, u8 value)
{
	u8 lines, changed;

	uart->mcr = value & 0x1f;
	lines = uart_modem_lines(uart);
	changed = (lines ^ uart->msr) & MSR_LINES;
	if (lines & MSR_RI)
		changed &= (u8)~MSR_RI; /* RI counts its trailing edge only */
	uart->msr = (u8)(lines | (uart->msr & ~MSR_LINES) | changed >> 4);
	uart_input_room(uart);
}

static u8
uart_read_lsr(struct uart *uart)
{
	u8 lsr = uart->line_errors;

	uart->line_errors = 0;
	if (uart->rx_count)
		lsr |= LSR_DATA;
	if (!uart->tx_count)
		lsr |= LSR_THRE | LSR_TEMT;
	return lsr;
}

static u8
uart_read_msr(struct uart *uart)
{
	u8 msr = uart->msr;

	uart->msr &= MSR_LINES;
	return msr;
}

static u8
uart_read_register(struct uart *uart, u64 offset)
{
	bool dlab = uart->lcr & LCR_DLAB;

	switch (offset) {
	case UART_DATA:
		return dlab ? (u8)uart->divisor : uart_read_data(uart);
	case UART_IER:
		return dlab ? (u8)(uart->divisor >> 8) : uart->ier;
	case UART_IIR:
		return uart_read_iir(uart);
	case UART_LCR:
		return uart->lcr;
	case UART_MCR:
		return uart->mcr;
	case UART_LSR:
		return uart_read_lsr(uart);
	case UART_MSR:
		return uart_read_msr(uart);
	default:
		return uart->scr;
	}
}

static void
uart_write_divisor(struct uart *uart, unsigned byte, u8 value)
{
	uart->divisor &= (u16) ~(0xff << byte * 8);
	uart->divisor |= (u16)(value << byte * 8);
}

static void
uart_write_register(struct uart *uart, u64 offset, u8 value)
{
	if (offset <= UART_IER && (uart->lcr & LCR_DLAB)) {
		uart_write_divisor(uart, (unsigned)offset, value);
		return;
	}
	switch (offset) {
	case UART_DATA:
		uart_write_data(uart, value);
		break;
	case UART_IER:
		uart_write_ier(uart, value);
		break;
	case UART_IIR:
		uart_write_fcr(uart, value);
		break;
	case UART_LCR:
		uart->lcr = value;
		break;
	case UART_MCR:
		uart_write_mcr(uart, value);
		break;
	case UART_SCR:
		uart->scr = value;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

static u64
uart_port_read(void *opaque, u64 offset, unsigned size)
{
	struct uart *uart = opaque;
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)uart_read_register(uart, offset + i) << (i * 8);
	uart_update(uart);
	return value;
}

static void
uart_port_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct uart *uart = opaque;

	for (unsigned i = 0; i < size; i++)
		uart_write_register(uart, offset + i, (u8)(value >> (i * 8)));
	uart_update(uart);
}

static const struct io_ops uart_ops = {uart_port_read, uart_port_write};

void
uart_reset(struct uart *uart)
{
	uart->ier = uart->lcr = uart->mcr = uart->scr = uart->line_errors = 0;
	uart->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	uart->fifo = uart->tx_pending = false;
	uart->trigger = 1;
	uart->divisor = 12;
	uart->rx_count = uart->tx_count = 0;
	uart_input_room(uart);
	uart_update(uart);
}

int
uart_create(struct uart **out, const struct device_host *host, u16 port, struct irq_line irq,
	    const struct uart_host *uart_host)
{
	struct uart *uart = calloc(1, sizeof(*uart));

	if (!uart)
		return -ENOMEM;
	uart->irq = irq;
	uart->host = *uart_host;
	uart->memory = host->memory;
	uart->region = memory_add_ports(host->memory, port, 8, &uart_ops, uart);
	if (!uart->region) {
		free(uart);
		return -ENOMEM;
	}
	uart_reset(uart);
	*out = uart;
	return 0;
}

void
uart_destroy(struct uart *uart)
{
	if (!uart)
		return;
	memory_remove_region(uart->memory, uart->region);
	free(uart);
}

/* ---- saved state ---- */

static const struct state_field uart_fields[] = {
	STATE_MAX(struct uart, ier, 0x0f),
	STATE_NUMBER(struct uart, lcr),
	STATE_MAX(struct uart, mcr, 0x1f),
	STATE_NUMBER(struct uart, msr),
	STATE_NUMBER(struct uart, scr),
	STATE_NUMBER(struct uart, line_errors),
	STATE_RANGE(struct uart, trigger, 1, 14),
	STATE_FLAG(struct uart, fifo),
	STATE_FLAG(struct uart, tx_pending),
	STATE_NUMBER(struct uart, divisor),
	STATE_BYTES(struct uart, rx),
	STATE_MAX(struct uart, rx_head, UART_QUEUE - 1),
	STATE_MAX(struct uart, rx_count, UART_QUEUE),
	STATE_BYTES(struct uart, tx),
	STATE_MAX(struct uart, tx_count, UART_FIFO),
	STATE_END,
};

static bool
uart_state_check(const void *staged)
{
	const struct uart *uart = staged;

	return uart->tx_count <= uart_depth(uart);
}

/* Whoever is at the other end now has not been refused anything, and takes bytes. */
static void
uart_state_loaded(void *object)
{
	struct uart *uart = object;

	uart->input_refused = false;
	uart_output_ready(uart);
}

static const struct state_type uart_state_type = {"uart", 1, uart_fields, uart_state_check,
						  uart_state_loaded};

void
uart_state(struct uart *uart, struct state_list *list)
{
	state_list_add(list, &uart_state_type, 0, uart, sizeof(*uart));
}
