/*
 * 8042 with a PS/2 keyboard behind it (IBM PS/2 Technical Reference, keyboard
 * and auxiliary device controller). The second port is there but empty: what is
 * sent to it times out, so no mouse is found.
 *
 * A20 is always open: the bit is kept for guests that read it back.
 */
#include "device/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { I8042_QUEUE = 16 };

enum {
	STATUS_OUTPUT = BIT(0),
	STATUS_SYSTEM = BIT(2),
	STATUS_COMMAND = BIT(3),
	STATUS_UNLOCKED = BIT(4),
	STATUS_AUX = BIT(5),
	STATUS_TIMEOUT = BIT(6)
};
enum {
	CONFIG_IRQ = BIT(0),
	CONFIG_SYSTEM = BIT(2),
	CONFIG_NO_KEYBOARD = BIT(4),
	CONFIG_NO_AUX = BIT(5),
	CONFIG_TRANSLATE = BIT(6)
};
enum { OUTPUT_NOT_RESET = BIT(0), OUTPUT_A20 = BIT(1) };

enum i8042_command {
	I8042_READ_CONFIG = 0x20,
	I8042_WRITE_CONFIG = 0x60,
	I8042_NO_AUX = 0xa7,
	I8042_AUX = 0xa8,
	I8042_TEST_AUX = 0xa9,
	I8042_SELF_TEST = 0xaa,
	I8042_TEST_KEYBOARD = 0xab,
	I8042_NO_KEYBOARD = 0xad,
	I8042_KEYBOARD = 0xae,
	I8042_READ_OUTPUT = 0xd0,
	I8042_WRITE_OUTPUT = 0xd1,
	I8042_WRITE_KEYBOARD_BUFFER = 0xd2,
	I8042_WRITE_AUX_BUFFER = 0xd3,
	I8042_WRITE_AUX = 0xd4,
	I8042_CLOSE_A20 = 0xdd,
	I8042_OPEN_A20 = 0xdf,
	I8042_PULSE = 0xf0, /* to 0xff: pulses the output lines whose bits are 0 */
};

enum { KEYBOARD_ACK = 0xfa, KEYBOARD_PASSED = 0xaa, KEYBOARD_ECHO = 0xee };
enum {
	COMMAND_LEDS = 0xed,
	COMMAND_SCANCODES = 0xf0,
	COMMAND_ID = 0xf2,
	COMMAND_RATE = 0xf3,
	COMMAND_RESET = 0xff
};

struct i8042_byte {
	u8 value;
	bool aux, timeout;
};

struct i8042 {
	struct i8042_byte queue[I8042_QUEUE]; /* first is in the output buffer */
	unsigned count;
	u8 config, output;
	u8 last;	     /* what port 0x60 reads when there is nothing new */
	u8 command;	     /* waits for its byte on port 0x60; 0: none */
	u8 keyboard_command; /* likewise, the keyboard's */
	bool last_was_command;
	struct irq_line irq;
	struct device_host host;
	struct io_region *regions[2];
};

static void
i8042_update(struct i8042 *kbc)
{
	bool keyboard = kbc->count && !kbc->queue[0].aux;

	irq_set(&kbc->irq, keyboard && (kbc->config & CONFIG_IRQ));
}

static void
i8042_put(struct i8042 *kbc, u8 value, bool aux, bool timeout)
{
	if (kbc->count < I8042_QUEUE)
		kbc->queue[kbc->count++] = (struct i8042_byte){value, aux, timeout};
	i8042_update(kbc);
}

static void
i8042_answer(struct i8042 *kbc, u8 value)
{
	i8042_put(kbc, value, false, false);
}

static void
i8042_write_output(struct i8042 *kbc, u8 value)
{
	kbc->output = value | OUTPUT_NOT_RESET;
	if (!(value & OUTPUT_NOT_RESET))
		kbc->host.reset(kbc->host.opaque);
}

static void
i8042_write_command(struct i8042 *kbc, u8 value)
{
	kbc->last_was_command = true;
	kbc->command = 0;
	switch (value) {
	case I8042_READ_CONFIG:
		i8042_answer(kbc, kbc->config);
		return;
	case I8042_WRITE_CONFIG:
	case I8042_WRITE_OUTPUT:
	case I8042_WRITE_KEYBOARD_BUFFER:
	case I8042_WRITE_AUX_BUFFER:
	case I8042_WRITE_AUX:
		kbc->command = value;
		return;
	case I8042_NO_AUX:
		kbc->config |= CONFIG_NO_AUX;
		return;
	case I8042_AUX:
		kbc->config &= (u8)~CONFIG_NO_AUX;
		return;
	case I8042_SELF_TEST:
		kbc->count = 0;
		i8042_answer(kbc, 0x55);
		return;
	case I8042_TEST_AUX:
	case I8042_TEST_KEYBOARD:
		i8042_answer(kbc, 0);
		return;
	case I8042_NO_KEYBOARD:
		kbc->config |= CONFIG_NO_KEYBOARD;
		return;
	case I8042_KEYBOARD:
		kbc->config &= (u8)~CONFIG_NO_KEYBOARD;
		return;
	case I8042_READ_OUTPUT:
		i8042_answer(kbc, kbc->output);
		return;
	case I8042_CLOSE_A20:
		kbc->output &= (u8)~OUTPUT_A20;
		return;
	case I8042_OPEN_A20:
		kbc->output |= OUTPUT_A20;
		return;
	}
	if (value >= I8042_PULSE && !(value & BIT(0)))
		kbc->host.reset(kbc->host.opaque);
}

static void
i8042_write_keyboard(struct i8042 *kbc, u8 value)
{
	u8 command = kbc->keyboard_command;

	kbc->keyboard_command = 0;
	if (value == KEYBOARD_ECHO && !command) {
		i8042_answer(kbc, KEYBOARD_ECHO);
		return;
	}
	i8042_answer(kbc, KEYBOARD_ACK);
	if (command) {
		if (command == COMMAND_SCANCODES && value == 0)
			i8042_answer(kbc, 2); /* the set in use */
		return;
	}
	switch (value) {
	case COMMAND_LEDS:
	case COMMAND_SCANCODES:
	case COMMAND_RATE:
		kbc->keyboard_command = value;
		break;
	case COMMAND_ID:
		i8042_answer(kbc, 0xab);
		i8042_answer(kbc, kbc->config & CONFIG_TRANSLATE ? 0x41 : 0x83);
		break;
	case COMMAND_RESET:
		i8042_answer(kbc, KEYBOARD_PASSED);
		break;
	}
}

static void
i8042_write_data(struct i8042 *kbc, u8 value)
{
	u8 command = kbc->command;

	kbc->last_was_command = false;
	kbc->command = 0;
	switch (command) {
	case I8042_WRITE_CONFIG:
		kbc->config = value;
		i8042_update(kbc);
		break;
	case I8042_WRITE_OUTPUT:
		i8042_write_output(kbc, value);
		break;
	case I8042_WRITE_KEYBOARD_BUFFER:
		i8042_answer(kbc, value);
		break;
	case I8042_WRITE_AUX_BUFFER:
		i8042_put(kbc, value, true, false);
		break;
	case I8042_WRITE_AUX: /* nobody there */
		i8042_put(kbc, 0xfe, true, true);
		break;
	default:
		i8042_write_keyboard(kbc, value);
		break;
	}
}

static u8
i8042_read_data(struct i8042 *kbc)
{
	if (!kbc->count)
		return kbc->last;
	kbc->last = kbc->queue[0].value;
	kbc->count--;
	for (unsigned i = 0; i < kbc->count; i++)
		kbc->queue[i] = kbc->queue[i + 1];
	irq_set(&kbc->irq, false); /* each byte is an edge of its own */
	i8042_update(kbc);
	return kbc->last;
}

static u8
i8042_read_status(const struct i8042 *kbc)
{
	u8 status = STATUS_UNLOCKED | (kbc->config & CONFIG_SYSTEM ? STATUS_SYSTEM : 0);

	if (kbc->count) {
		status |= STATUS_OUTPUT;
		if (kbc->queue[0].aux)
			status |= STATUS_AUX;
		if (kbc->queue[0].timeout)
			status |= STATUS_TIMEOUT;
	}
	if (kbc->last_was_command)
		status |= STATUS_COMMAND;
	return status;
}

static u64
i8042_port_read_data(void *opaque, u64 offset, unsigned size)
{
	(void)offset;
	(void)size;
	return i8042_read_data(opaque);
}

static void
i8042_port_write_data(void *opaque, u64 offset, unsigned size, u64 value)
{
	(void)offset;
	(void)size;
	i8042_write_data(opaque, (u8)value);
}

static u64
i8042_port_read_status(void *opaque, u64 offset, unsigned size)
{
	(void)offset;
	(void)size;
	return i8042_read_status(opaque);
}

static void
i8042_port_write_command(void *opaque, u64 offset, unsigned size, u64 value)
{
	(void)offset;
	(void)size;
	i8042_write_command(opaque, (u8)value);
}

static const struct io_ops i8042_data_ops = {i8042_port_read_data, i8042_port_write_data};
static const struct io_ops i8042_command_ops = {i8042_port_read_status, i8042_port_write_command};

void
i8042_reset(struct i8042 *kbc)
{
	kbc->count = 0;
	kbc->config = CONFIG_SYSTEM | CONFIG_TRANSLATE; /* as a BIOS leaves it */
	kbc->output = OUTPUT_NOT_RESET | OUTPUT_A20;
	kbc->last = kbc->command = kbc->keyboard_command = 0;
	kbc->last_was_command = false;
	i8042_update(kbc);
}

int
i8042_create(struct i8042 **out, const struct device_host *host, struct irq_line keyboard)
{
	struct i8042 *kbc = calloc(1, sizeof(*kbc));

	if (!kbc)
		return -ENOMEM;
	kbc->host = *host;
	kbc->irq = keyboard;
	kbc->regions[0] = memory_add_ports(host->memory, 0x60, 1, &i8042_data_ops, kbc);
	kbc->regions[1] = memory_add_ports(host->memory, 0x64, 1, &i8042_command_ops, kbc);
	if (!kbc->regions[0] || !kbc->regions[1]) {
		i8042_destroy(kbc);
		return -ENOMEM;
	}
	i8042_reset(kbc);
	*out = kbc;
	return 0;
}

void
i8042_destroy(struct i8042 *kbc)
{
	if (!kbc)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(kbc->regions); i++)
		if (kbc->regions[i])
			memory_remove_region(kbc->host.memory, kbc->regions[i]);
	free(kbc);
}

/* ---- saved state ---- */

static const struct state_field i8042_byte_fields[] = {
	STATE_NUMBER(struct i8042_byte, value),
	STATE_FLAG(struct i8042_byte, aux),
	STATE_FLAG(struct i8042_byte, timeout),
	STATE_END,
};

static const struct state_field i8042_fields[] = {
	STATE_STRUCTS(struct i8042, queue, i8042_byte_fields),
	STATE_MAX(struct i8042, count, I8042_QUEUE),
	STATE_NUMBER(struct i8042, config),
	STATE_NUMBER(struct i8042, output),
	STATE_NUMBER(struct i8042, last),
	STATE_NUMBER(struct i8042, command),
	STATE_NUMBER(struct i8042, keyboard_command),
	STATE_FLAG(struct i8042, last_was_command),
	STATE_END,
};

static const struct state_type i8042_state_type = {"i8042", 1, i8042_fields, NULL, NULL};

void
i8042_state(struct i8042 *kbc, struct state_list *list)
{
	state_list_add(list, &i8042_state_type, 0, kbc, sizeof(*kbc));
}
