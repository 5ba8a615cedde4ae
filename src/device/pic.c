/*
 * 8259A, two of them (Intel 8259A data sheet; ICH9 data sheet, 5.8 and 13.4).
 * The master's INTR is the output line; the slave's drives the master's IR2.
 *
 * Invariant: after each entry the output line equals "the master has a request
 * that beats what is in service". An edge is latched in IRR until acknowledged,
 * a level follows its line. Modes that PCs have no use for (MCS-80, buffered)
 * are accepted and without effect.
 */
#include "device/pic.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { PIC_CASCADE = 2, PIC_SPURIOUS = 7 };

enum { ICW1_IC4 = BIT(0), ICW1_SNGL = BIT(1), ICW1_INIT = BIT(4) };
enum { ICW4_AEOI = BIT(1), ICW4_SFNM = BIT(4) };
enum { OCW2_EOI = BIT(5), OCW2_SL = BIT(6), OCW2_R = BIT(7) };
enum {
	OCW3_RIS = BIT(0),
	OCW3_RR = BIT(1),
	OCW3_POLL = BIT(2),
	OCW3 = BIT(3),
	OCW3_SMM = BIT(5),
	OCW3_ESMM = BIT(6)
};

enum pic_init { PIC_READY, PIC_WANTS_ICW2, PIC_WANTS_ICW3, PIC_WANTS_ICW4 };

struct pic_chip {
	u8 irr, isr, imr;
	u8 lines;  /* levels of the inputs */
	u8 elcr;   /* 1: level-triggered */
	u8 base;   /* vector of input 0 */
	u8 lowest; /* input of lowest priority: 7 unless rotated */
	enum pic_init init;
	bool wants_icw4, single;
	bool auto_eoi, rotate_auto, special_nested, special_mask;
	bool read_isr, poll;
	bool master;
};

struct pic {
	struct pic_chip chip[2];
	struct irq_line output;
	struct memory *memory;
	struct io_region *regions[3];
	void (*unmasked)(void *opaque);
	void *opaque;
};

/* Inputs that may be level-triggered: not the timer, keyboard, cascade, RTC, FPU. */
static const u8 pic_elcr_mask[2] = {0xf8, 0xde};

/* Distance of the most urgent input in SET from the top: 0 to 7, or 8 if empty. */
static unsigned
pic_priority(const struct pic_chip *chip, u8 set)
{
	unsigned distance = 0;

	while (distance < 8 && !(set & BIT((chip->lowest + 1u + distance) & 7)))
		distance++;
	return distance;
}

/* The input that requests service now, or -1. */
static int
pic_requesting(const struct pic_chip *chip)
{
	unsigned wanted = pic_priority(chip, chip->irr & (u8)~chip->imr);
	u8 in_service = chip->isr;

	if (wanted == 8)
		return -1;
	if (chip->special_mask)
		in_service &= (u8)~chip->imr;
	if (chip->special_nested && chip->master)
		in_service &= (u8)~BIT(PIC_CASCADE);
	if (wanted >= pic_priority(chip, in_service))
		return -1;
	return (int)((chip->lowest + 1u + wanted) & 7);
}

static void
pic_chip_set(struct pic_chip *chip, unsigned input, bool level)
{
	u8 bit = (u8)BIT(input);

	if (level && ((chip->elcr & bit) || !(chip->lines & bit)))
		chip->irr |= bit;
	if (!level && (chip->elcr & bit))
		chip->irr &= (u8)~bit;
	if (level)
		chip->lines |= bit;
	else
		chip->lines &= (u8)~bit;
}

static void
pic_update(struct pic *pic)
{
	bool slave = pic_requesting(&pic->chip[1]) >= 0;

	/* The cascade behaves as a level: while the slave asks, the master sees it. */
	if (slave)
		pic->chip[0].irr |= BIT(PIC_CASCADE);
	else
		pic->chip[0].irr &= (u8)~BIT(PIC_CASCADE);
	irq_set(&pic->output, pic_requesting(&pic->chip[0]) >= 0);
}

static void
pic_chip_acknowledge(struct pic_chip *chip, unsigned input)
{
	u8 bit = (u8)BIT(input);

	if (!chip->auto_eoi)
		chip->isr |= bit;
	else if (chip->rotate_auto)
		chip->lowest = (u8)input;
	if (!(chip->elcr & bit))
		chip->irr &= (u8)~bit;
}

int
pic_acknowledge(struct pic *pic)
{
	struct pic_chip *chip = &pic->chip[0];
	int input = pic_requesting(chip);

	if (input < 0)
		return -1;
	pic_chip_acknowledge(chip, (unsigned)input);
	if (input == PIC_CASCADE) {
		chip = &pic->chip[1];
		input = pic_requesting(chip);
		if (input >= 0)
			pic_chip_acknowledge(chip, (unsigned)input);
		else
			input = PIC_SPURIOUS;
	}
	pic_update(pic);
	return chip->base + input;
}

void
pic_set_irq(struct pic *pic, unsigned irq, bool level)
{
	if (irq > 15 || irq == PIC_CASCADE)
		return;
	pic_chip_set(&pic->chip[irq / 8], irq % 8, level);
	pic_update(pic);
}

bool
pic_deaf(const struct pic *pic, unsigned irq)
{
	const struct pic_chip *chip = &pic->chip[irq / 8 & 1];
	u8 bit = (u8)BIT(irq % 8);

	return (chip->imr & bit) && ((chip->irr & bit) || (chip->elcr & bit));
}

static void
pic_chip_init(struct pic_chip *chip, u8 icw1)
{
	chip->irr = chip->lines & chip->elcr;
	chip->isr = chip->imr = 0;
	chip->lowest = 7;
	chip->auto_eoi = chip->rotate_auto = chip->special_nested = chip->special_mask = false;
	chip->read_isr = chip->poll = false;
	chip->wants_icw4 = icw1 & ICW1_IC4;
	chip->single = icw1 & ICW1_SNGL;
	chip->init = PIC_WANTS_ICW2;
}

static void
pic_chip_eoi(struct pic_chip *chip, u8 ocw2)
{
	unsigned input = ocw2 & 7u;

	if (!(ocw2 & OCW2_SL)) {
		u8 in_service = chip->isr;
		unsigned distance;

		if (chip->special_mask)
			in_service &= (u8)~chip->imr;
		distance = pic_priority(chip, in_service);
		if (distance == 8)
			return;
		input = (chip->lowest + 1u + distance) & 7;
	}
	chip->isr &= (u8)~BIT(input);
	if (ocw2 & OCW2_R)
		chip->lowest = (u8)input;
}

static void
pic_chip_ocw2(struct pic_chip *chip, u8 value)
{
	if (value & OCW2_EOI)
		pic_chip_eoi(chip, value);
	else if (!(value & OCW2_SL))
		chip->rotate_auto = value & OCW2_R;
	else if (value & OCW2_R)
		chip->lowest = value & 7;
}

static void
pic_chip_ocw3(struct pic_chip *chip, u8 value)
{
	if (value & OCW3_POLL)
		chip->poll = true;
	else if (value & OCW3_RR)
		chip->read_isr = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		chip->special_mask = value & OCW3_SMM;
}

static void
pic_chip_write_command(struct pic_chip *chip, u8 value)
{
	if (value & ICW1_INIT)
		pic_chip_init(chip, value);
	else if (value & OCW3)
		pic_chip_ocw3(chip, value);
	else
		pic_chip_ocw2(chip, value);
}

static void
pic_chip_write_data(struct pic_chip *chip, u8 value)
{
	switch (chip->init) {
	case PIC_READY:
		chip->imr = value;
		break;
	case PIC_WANTS_ICW2:
		chip->base = value & 0xf8;
		if (!chip->single)
			chip->init = PIC_WANTS_ICW3;
		else
			chip->init = chip->wants_icw4 ? PIC_WANTS_ICW4 : PIC_READY;
		break;
	case PIC_WANTS_ICW3: /* how the chips are wired is fixed */
		chip->init = chip->wants_icw4 ? PIC_WANTS_ICW4 : PIC_READY;
		break;
	case PIC_WANTS_ICW4:
		chip->auto_eoi = value & ICW4_AEOI;
		chip->special_nested = value & ICW4_SFNM;
		chip->init = PIC_READY;
		break;
	}
}

static u8
pic_chip_poll(struct pic_chip *chip)
{
	int input = pic_requesting(chip);

	chip->poll = false;
	if (input < 0)
		return 0;
	pic_chip_acknowledge(chip, (unsigned)input);
	return (u8)(0x80 | input);
}

static u64
pic_port_read(struct pic *pic, unsigned index, u64 offset)
{
	struct pic_chip *chip = &pic->chip[index];
	u8 value;

	if (chip->poll) {
		value = pic_chip_poll(chip);
		pic_update(pic);
		return value;
	}
	if (offset & 1)
		return chip->imr;
	return chip->read_isr ? chip->isr : chip->irr;
}

static void
pic_port_write(struct pic *pic, unsigned index, u64 offset, u8 value)
{
	struct pic_chip *chip = &pic->chip[index];

	if (offset & 1)
		pic_chip_write_data(chip, value);
	else
		pic_chip_write_command(chip, value);
	pic_update(pic);
	if ((offset & 1) && pic->unmasked)
		pic->unmasked(pic->opaque);
}

static u64
pic_master_read(void *opaque, u64 offset, unsigned size)
{
	(void)size;
	return pic_port_read(opaque, 0, offset);
}

static void
pic_master_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	(void)size;
	pic_port_write(opaque, 0, offset, (u8)value);
}

static u64
pic_slave_read(void *opaque, u64 offset, unsigned size)
{
	(void)size;
	return pic_port_read(opaque, 1, offset);
}

static void
pic_slave_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	(void)size;
	pic_port_write(opaque, 1, offset, (u8)value);
}

static u64
pic_elcr_read(void *opaque, u64 offset, unsigned size)
{
	struct pic *pic = opaque;
	u64 both = pic->chip[0].elcr | (u64)pic->chip[1].elcr << 8;

	(void)size;
	return both >> (offset * 8);
}

static void
pic_elcr_set(struct pic_chip *chip, u8 elcr)
{
	/* An input that becomes level-triggered now follows its line. */
	chip->irr = (chip->irr & (u8)~elcr) | (chip->lines & elcr);
	chip->elcr = elcr;
}

static void
pic_elcr_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pic *pic = opaque;

	for (unsigned i = (unsigned)offset; i < offset + size && i < 2; i++) {
		pic_elcr_set(&pic->chip[i], (u8)value & pic_elcr_mask[i]);
		value >>= 8;
	}
	pic_update(pic);
}

static const struct io_ops pic_master_ops = {pic_master_read, pic_master_write};
static const struct io_ops pic_slave_ops = {pic_slave_read, pic_slave_write};
static const struct io_ops pic_elcr_ops = {pic_elcr_read, pic_elcr_write};

void
pic_reset(struct pic *pic)
{
	for (unsigned i = 0; i < 2; i++) {
		struct pic_chip *chip = &pic->chip[i];

		*chip = (struct pic_chip){.lines = chip->lines, .master = i == 0};
		chip->lowest = 7;
		chip->imr = 0xff; /* a firmware's state: nothing before the guest asks */
		chip->base = i ? 0x70 : 0x08;
	}
	pic_update(pic);
}

int
pic_create(struct pic **out, const struct device_host *host, struct irq_line output,
	   void (*unmasked)(void *opaque), void *opaque)
{
	struct pic *pic = calloc(1, sizeof(*pic));

	if (!pic)
		return -ENOMEM;
	pic->output = output;
	pic->memory = host->memory;
	pic->unmasked = unmasked;
	pic->opaque = opaque;
	pic->regions[0] = memory_add_ports(host->memory, 0x20, 2, &pic_master_ops, pic);
	pic->regions[1] = memory_add_ports(host->memory, 0xa0, 2, &pic_slave_ops, pic);
	pic->regions[2] = memory_add_ports(host->memory, 0x4d0, 2, &pic_elcr_ops, pic);
	if (!pic->regions[0] || !pic->regions[1] || !pic->regions[2]) {
		pic_destroy(pic);
		return -ENOMEM;
	}
	pic_reset(pic);
	*out = pic;
	return 0;
}

void
pic_destroy(struct pic *pic)
{
	if (!pic)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(pic->regions); i++)
		if (pic->regions[i])
			memory_remove_region(pic->memory, pic->regions[i]);
	free(pic);
}

/* ---- saved state ---- */

static const struct state_field pic_chip_fields[] = {
	STATE_NUMBER(struct pic_chip, irr),
	STATE_NUMBER(struct pic_chip, isr),
	STATE_NUMBER(struct pic_chip, imr),
	STATE_NUMBER(struct pic_chip, lines),
	STATE_NUMBER(struct pic_chip, elcr),
	STATE_MAX(struct pic_chip, base, 0xf8),
	STATE_MAX(struct pic_chip, lowest, 7),
	STATE_MAX(struct pic_chip, init, PIC_WANTS_ICW4),
	STATE_FLAG(struct pic_chip, wants_icw4),
	STATE_FLAG(struct pic_chip, single),
	STATE_FLAG(struct pic_chip, auto_eoi),
	STATE_FLAG(struct pic_chip, rotate_auto),
	STATE_FLAG(struct pic_chip, special_nested),
	STATE_FLAG(struct pic_chip, special_mask),
	STATE_FLAG(struct pic_chip, read_isr),
	STATE_FLAG(struct pic_chip, poll),
	STATE_END,
};

static const struct state_field pic_fields[] = {
	STATE_STRUCTS(struct pic, chip, pic_chip_fields),
	STATE_END,
};

/* A vector is base + input and has to stay one. */
static bool
pic_state_check(const void *staged)
{
	const struct pic *pic = staged;

	for (unsigned i = 0; i < 2; i++)
		if ((pic->chip[i].base & 7) || (pic->chip[i].elcr & ~pic_elcr_mask[i]))
			return false;
	return true;
}

static void
pic_state_loaded(void *object)
{
	pic_update(object);
}

static const struct state_type pic_state_type = {"pic", 1, pic_fields, pic_state_check,
						 pic_state_loaded};

void
pic_state(struct pic *pic, struct state_list *list)
{
	state_list_add(list, &pic_state_type, 0, pic, sizeof(*pic));
}
