/*
 * The PC. Read pc_create from top to bottom: it is the list of what is in the
 * machine.
 *
 *	gpa	0xb0000000	PCI configuration space (ECAM), 256 MiB
 *		0xc0000000	BARs, to 0xfec00000
 *		0xfec00000	I/O APIC
 *		0xfed00000	HPET
 *		0xfee00000	local APICs (the engine's)
 *		0xff000000	testdev
 *		0x000ff000	VM generation identifier, above the tables
 *	PCI	00.0 host bridge, 02.0 console, 03.0 rng, 04.0.. networks, 08.0.. disks,
 *		1f.0 LPC bridge
 *	IRQ	0 PIT, 1 keyboard, 4 COM1, 8 RTC, 9 SCI, 10 and 11 PCI without IOAPIC
 *	GSI	2 PIT, 1, 4, 8, 9 as IRQ, 16..23 PIRQA..PIRQH
 *
 * Several sources may share an input: each owns one bit of it, and the input
 * is high while any bit is set.
 */
#include "machine/pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/e820.h"
#include "bus/pci.h"
#include "device/acpi_pm.h"
#include "device/debug_exit.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/lpc.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/port92.h"
#include "device/q35.h"
#include "device/rtc.h"
#include "device/testdev.h"
#include "device/uart.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "device/vmgenid.h"
#include "machine/acpi.h"
#include "machine/stream.h"
#include "state/state.h"

enum { IRQ_TIMER = 0, IRQ_KEYBOARD = 1, IRQ_COM1 = 4, IRQ_RTC = 8 };
enum { GSI_TIMER = 2, GSI_PIRQ_A = 16, ISA_IRQS = 16 };
enum { SLOT_CONSOLE = 2, SLOT_RNG = 3, SLOT_NET = 4, SLOT_DISK = 8 };
enum { PORT_COM1 = 0x3f8 };
enum { TABLES_SIZE = VMGENID_GPA - E820_TABLES };

/* Who may drive an input. */
enum pc_source { SOURCE_DEVICE, SOURCE_HPET, SOURCE_PIRQ, SOURCE_TEST };

struct pc {
	struct device_host host;
	struct hypervisor *hypervisor;
	unsigned vcpus;
	u8 phys_bits;

	u32 irq_sources[ISA_IRQS];		 /* of the 8259 inputs, a bit each */
	u32 pin_sources[IOAPIC_PINS];		 /* of the IOAPIC inputs */
	bool legacy_hpet;			 /* HPET has taken IRQ 0 and 8 over */
	bool extint;				 /* what the engine was last told */
	struct ioapic_route routes[IOAPIC_PINS]; /* likewise */
	struct pci_windows windows;

	struct pic *pic;
	struct ioapic *ioapic;
	struct pit *pit;
	struct rtc *rtc;
	struct hpet *hpet;
	struct uart *uart;
	struct i8042 *i8042;
	struct port92 *port92;
	struct acpi_pm *pm;
	struct fw_cfg *fw_cfg;
	struct vmgenid *vmgenid;
	struct debug_exit *debug_exit;
	struct testdev *testdev;
	struct stream *serial, *console_stream;
	struct pci_bus *bus;
	struct q35 *q35;
	struct lpc *lpc;
	struct virtio_console *console;
	struct virtio_blk *disks[MACHINE_DISKS_MAX];
};

/* ---- interrupt wiring ---- */

static void
pc_set_pic(struct pc *pc, unsigned irq, enum pc_source source, bool level)
{
	u32 *sources = &pc->irq_sources[irq];

	*sources = level ? *sources | BIT(source) : *sources & ~BIT(source);
	if (pc->pic)
		pic_set_irq(pc->pic, irq, *sources != 0);
}

static void
pc_set_pin(struct pc *pc, unsigned pin, enum pc_source source, bool level)
{
	u32 *sources = &pc->pin_sources[pin];

	*sources = level ? *sources | BIT(source) : *sources & ~BIT(source);
	if (pc->ioapic)
		ioapic_set_pin(pc->ioapic, pin, *sources != 0);
}

/* An ISA interrupt reaches both controllers. */
static void
pc_set_irq(struct pc *pc, unsigned irq, enum pc_source source, bool level)
{
	pc_set_pic(pc, irq, source, level);
	pc_set_pin(pc, irq == IRQ_TIMER ? GSI_TIMER : irq, source, level);
}

static void
pc_device_irq(void *opaque, unsigned irq, bool level)
{
	struct pc *pc = opaque;

	if (pc->legacy_hpet && (irq == IRQ_TIMER || irq == IRQ_RTC))
		level = false;
	pc_set_irq(pc, irq, SOURCE_DEVICE, level);
}

static struct irq_line
pc_irq(struct pc *pc, unsigned irq)
{
	return (struct irq_line){.set = pc_device_irq, .opaque = pc, .pin = irq};
}

static void
pc_hpet_irq(void *opaque, unsigned irq, bool level)
{
	pc_set_irq(opaque, irq, SOURCE_HPET, level);
}

static void
pc_hpet_pin(void *opaque, unsigned pin, bool level)
{
	pc_set_pin(opaque, pin, SOURCE_HPET, level);
}

static void
pc_hpet_legacy(void *opaque, bool on)
{
	struct pc *pc = opaque;

	pc->legacy_hpet = on;
	pc_device_irq(pc, IRQ_TIMER, false);
	pc_device_irq(pc, IRQ_RTC, false);
	if (pc->pit)
		pit_wake(pc->pit);
}

static void
pc_pirq(void *opaque, unsigned pirq, bool level)
{
	struct pc *pc = opaque;

	lpc_set_pirq(pc->lpc, pirq, level);
}

static void
pc_pirq_irq(void *opaque, unsigned irq, bool level)
{
	pc_set_pic(opaque, irq, SOURCE_PIRQ, level);
}

static void
pc_pirq_pin(void *opaque, unsigned pin, bool level)
{
	pc_set_pin(opaque, pin, SOURCE_PIRQ, level);
}

static void
pc_test_irq(void *opaque, unsigned pin, bool level)
{
	struct pc *pc = opaque;

	if (pin < ISA_IRQS)
		pc_set_irq(pc, pin, SOURCE_TEST, level);
	else if (pin < IOAPIC_PINS)
		pc_set_pin(pc, pin, SOURCE_TEST, level);
}

/* INTR of the 8259 pair. */
static void
pc_intr(void *opaque, unsigned pin, bool level)
{
	struct pc *pc = opaque;

	(void)pin;
	if (level == pc->extint)
		return;
	pc->extint = level;
	hypervisor_set_extint(pc->hypervisor, level);
}

int
pc_acknowledge(struct pc *pc)
{
	return pic_acknowledge(pc->pic);
}

void
pc_eoi(struct pc *pc, u8 vector)
{
	ioapic_eoi(pc->ioapic, vector);
}

static void
pc_listeners_changed(void *opaque)
{
	struct pc *pc = opaque;

	if (pc->pit)
		pit_wake(pc->pit);
}

/* Whether a tick of the PIT would change anything. */
static bool
pc_pit_heard(void *opaque)
{
	const struct pc *pc = opaque;

	if (pc->legacy_hpet)
		return false;
	return !pic_deaf(pc->pic, IRQ_TIMER) || !ioapic_masked(pc->ioapic, GSI_TIMER);
}

static void
pc_ioapic_changed(void *opaque)
{
	struct pc *pc = opaque;
	struct ioapic_route routes[IOAPIC_PINS];

	if (!pc->ioapic)
		return;
	memset(routes, 0, sizeof(routes));
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic_message(pc->ioapic, pin, &routes[pin].address, &routes[pin].data,
			       &routes[pin].level);
	if (memcmp(routes, pc->routes, sizeof(routes))) {
		memcpy(pc->routes, routes, sizeof(routes));
		hypervisor_set_routes(pc->hypervisor, routes, IOAPIC_PINS);
	}
	pc_listeners_changed(pc);
}

/* ---- byte streams ---- */

static size_t
pc_serial_output(void *opaque, const u8 *data, size_t len)
{
	struct pc *pc = opaque;

	return stream_write(pc->serial, data, len);
}

static void
pc_serial_room(void *opaque)
{
	struct pc *pc = opaque;

	stream_input_ready(pc->serial);
}

static size_t
pc_serial_input(void *opaque, const u8 *data, size_t len)
{
	struct pc *pc = opaque;

	return uart_input(pc->uart, data, len);
}

static void
pc_serial_ready(void *opaque)
{
	struct pc *pc = opaque;

	uart_output_ready(pc->uart);
}

static size_t
pc_console_output(void *opaque, const u8 *data, size_t len)
{
	struct pc *pc = opaque;

	return stream_write(pc->console_stream, data, len);
}

static void
pc_console_room(void *opaque)
{
	struct pc *pc = opaque;

	stream_input_ready(pc->console_stream);
}

static size_t
pc_console_input(void *opaque, const u8 *data, size_t len)
{
	struct pc *pc = opaque;

	return virtio_console_input(pc->console, data, len);
}

static void
pc_console_ready(void *opaque)
{
	struct pc *pc = opaque;

	virtio_console_resume(pc->console);
}

void
pc_flush(struct pc *pc)
{
	if (pc->serial)
		stream_flush(pc->serial);
	if (pc->console_stream)
		stream_flush(pc->console_stream);
}

/* ---- creation ---- */

static int
pc_create_interrupts(struct pc *pc)
{
	const struct ioapic_host ioapic_host = {pc, pc_ioapic_changed};
	struct irq_line intr = {.set = pc_intr, .opaque = pc};
	int err;

	err = pic_create(&pc->pic, &pc->host, intr, pc_listeners_changed, pc);
	if (!err)
		err = ioapic_create(&pc->ioapic, &pc->host, &ioapic_host);
	return err;
}

static int
pc_create_timers(struct pc *pc)
{
	const struct pit_host pit_host = {pc, pc_pit_heard};
	const struct hpet_host hpet_host = {pc, pc_hpet_pin, pc_hpet_irq, pc_hpet_legacy};
	int err;

	err = pit_create(&pc->pit, &pc->host, pc_irq(pc, IRQ_TIMER), &pit_host);
	if (!err)
		err = rtc_create(&pc->rtc, &pc->host, pc_irq(pc, IRQ_RTC), pc->vcpus);
	if (!err)
		err = hpet_create(&pc->hpet, &pc->host, &hpet_host);
	return err;
}

static int
pc_create_serial(struct pc *pc, const struct machine_config *config)
{
	const struct uart_host uart_host = {pc, pc_serial_output, pc_serial_room};
	const struct stream_device device = {pc, pc_serial_input, pc_serial_ready};
	int err;

	err = stream_create(&pc->serial, pc->host.loop, &config->serial);
	if (!err)
		err = uart_create(&pc->uart, &pc->host, PORT_COM1, pc_irq(pc, IRQ_COM1),
				  &uart_host);
	if (!err)
		stream_attach(pc->serial, &device);
	return err;
}

static int
pc_create_misc(struct pc *pc, const struct machine_config *config)
{
	int err;

	err = acpi_pm_create(&pc->pm, &pc->host, pc_irq(pc, ACPI_SCI_IRQ));
	if (!err)
		err = vmgenid_create(&pc->vmgenid, &pc->host, pc->pm);
	if (!err)
		err = i8042_create(&pc->i8042, &pc->host, pc_irq(pc, IRQ_KEYBOARD));
	if (!err)
		err = port92_create(&pc->port92, &pc->host);
	if (!err)
		err = fw_cfg_create(&pc->fw_cfg, &pc->host, pc->vcpus);
	if (!err && config->debug_exit)
		err = debug_exit_create(&pc->debug_exit, &pc->host);
	if (!err && config->testdev)
		err = testdev_create(&pc->testdev, &pc->host, pc_test_irq, pc);
	return err;
}

static int
pc_create_chipset(struct pc *pc)
{
	const struct lpc_host lpc_host = {pc, pc_pirq_pin, pc_pirq_irq};
	struct irq_line pirq[PCI_PIRQS];
	int err;

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		pirq[i] = (struct irq_line){.set = pc_pirq, .opaque = pc, .pin = i};
	err = pci_bus_create(&pc->bus, &pc->host, pirq);
	if (!err)
		err = q35_create(pc->bus, &pc->host, &pc->q35);
	if (!err)
		err = lpc_create(pc->bus, &pc->host, &lpc_host, pc->pm, &pc->lpc);
	return err;
}

static int
pc_create_console(struct pc *pc, const struct machine_config *config)
{
	const struct virtio_console_host console = {pc, pc_console_output, pc_console_room};
	const struct stream_device device = {pc, pc_console_input, pc_console_ready};
	int err;

	if (!config->virtio_console)
		return 0;
	err = stream_create(&pc->console_stream, pc->host.loop, &config->console);
	if (!err)
		err = virtio_console_create(pc->bus, SLOT_CONSOLE, &pc->host, &console,
					    &pc->console);
	if (!err)
		stream_attach(pc->console_stream, &device);
	return err;
}

static int
pc_create_net(struct pc *pc, unsigned index, struct machine_net *net)
{
	struct virtio_net_config config = {.fd = net->fd, .offloads = true};
	struct virtio_net *device;
	int err;

	memcpy(config.mac, net->mac, sizeof(config.mac));
	err = virtio_net_create(pc->bus, SLOT_NET + index, &pc->host, &config, &device);
	if (!err)
		net->fd = -1;
	return err;
}

static int
pc_create_disk(struct pc *pc, unsigned index, struct machine_disk *disk)
{
	struct block *block;
	int err;

	err = block_open_raw(&block, disk->fd, disk->readonly, pc->host.loop, disk->engine);
	if (err)
		return err;
	disk->fd = -1;
	err = virtio_blk_create(pc->bus, SLOT_DISK + index, &pc->host, block,
				disk->serial ? disk->serial : "", &pc->disks[index]);
	if (err)
		block->ops->close(block);
	return err;
}

static int
pc_create_virtio(struct pc *pc, struct machine_config *config, char *why, size_t why_size)
{
	int err = pc_create_console(pc, config);

	if (!err && config->rng)
		err = virtio_rng_create(pc->bus, SLOT_RNG, &pc->host);
	for (unsigned i = 0; i < config->net_count && !err; i++) {
		err = pc_create_net(pc, i, &config->nets[i]);
		if (err)
			snprintf(why, why_size, "network %u cannot be attached: %s", i,
				 strerror(-err));
	}
	for (unsigned i = 0; i < config->disk_count && !err; i++) {
		err = pc_create_disk(pc, i, &config->disks[i]);
		if (err)
			snprintf(why, why_size, "disk %u cannot be opened: %s", i, strerror(-err));
	}
	return err;
}

/* Addresses for BARs: below the IOAPIC, and above RAM as far as the processors reach. */
static void
pc_lay_out(struct pc *pc)
{
	u64 top = 1ull << pc->phys_bits;
	u64 above = align_up(MEMORY_HIGH + memory_high_size(pc->host.memory), 1ull << 30);

	pc->windows = (struct pci_windows){.mem32 = E820_ECAM + E820_ECAM_SIZE,
					   .mem32_size = IOAPIC_GPA - (E820_ECAM + E820_ECAM_SIZE),
					   .io = 0xc000,
					   .io_size = 0x4000};
	if (above < top) {
		pc->windows.mem64 = above;
		pc->windows.mem64_size = top - above < 1ull << 35 ? top - above : 1ull << 35;
	}
}

int
pc_create(struct pc **out, const struct pc_config *config, char *why, size_t why_size)
{
	struct machine_config *machine = config->machine;
	struct pc *pc = calloc(1, sizeof(*pc));
	int err;

	why[0] = 0;
	if (!pc)
		return -ENOMEM;
	pc->host = *config->host;
	pc->hypervisor = config->hypervisor;
	pc->vcpus = machine->vcpus;
	pc->phys_bits = config->phys_bits;
	pc_lay_out(pc);
	err = pc_create_interrupts(pc);
	if (!err)
		err = pc_create_timers(pc);
	if (!err)
		err = pc_create_serial(pc, machine);
	if (!err)
		err = pc_create_misc(pc, machine);
	if (!err)
		err = pc_create_chipset(pc);
	if (!err)
		err = pc_create_virtio(pc, machine, why, why_size);
	if (err) {
		if (!why[0])
			snprintf(why, why_size, "the devices cannot be created: %s",
				 strerror(-err));
		pc_destroy(pc);
		return err;
	}
	*out = pc;
	return 0;
}

void
pc_destroy(struct pc *pc)
{
	if (!pc)
		return;
	if (pc->bus)
		pci_bus_destroy(pc->bus);
	pc->lpc = NULL;
	stream_destroy(pc->console_stream);
	testdev_destroy(pc->testdev);
	debug_exit_destroy(pc->debug_exit);
	fw_cfg_destroy(pc->fw_cfg);
	port92_destroy(pc->port92);
	i8042_destroy(pc->i8042);
	vmgenid_destroy(pc->vmgenid);
	acpi_pm_destroy(pc->pm);
	uart_destroy(pc->uart);
	stream_destroy(pc->serial);
	hpet_destroy(pc->hpet);
	rtc_destroy(pc->rtc);
	pit_destroy(pc->pit);
	ioapic_destroy(pc->ioapic);
	pic_destroy(pc->pic);
	free(pc);
}

/* ---- power-on ---- */

static void
pc_reset_devices(struct pc *pc)
{
	pci_bus_reset(pc->bus);
	hpet_reset(pc->hpet);
	rtc_reset(pc->rtc);
	pit_reset(pc->pit);
	uart_reset(pc->uart);
	acpi_pm_reset(pc->pm);
	i8042_reset(pc->i8042);
	port92_reset(pc->port92);
	fw_cfg_reset(pc->fw_cfg);
	if (pc->testdev)
		testdev_reset(pc->testdev);
	ioapic_reset(pc->ioapic);
	pic_reset(pc->pic);
}

/* PCI without an IOAPIC, and SCI, are level-triggered at the 8259. */
static void
pc_set_up_pic(struct pc *pc, const u8 line[PCI_PIRQS])
{
	u32 levels = BIT(ACPI_SCI_IRQ);

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		levels |= BIT(line[i]);
	memory_port_write(pc->host.memory, 0x4d0, 1, levels & 0xff);
	memory_port_write(pc->host.memory, 0x4d1, 1, levels >> 8 & 0xff);
}

static u64
pc_write_tables(struct pc *pc, const u8 line[PCI_PIRQS])
{
	struct acpi_board board = {
		.vcpus = pc->vcpus, .windows = pc->windows, .ecam = Q35_ECAM_GPA};
	u8 *tables = calloc(1, TABLES_SIZE);
	long used = -ENOMEM;

	memcpy(board.pic_irq, line, sizeof(board.pic_irq));
	if (tables)
		used = acpi_build(&board, E820_TABLES, tables, TABLES_SIZE);
	if (used > 0)
		used = memory_write(pc->host.memory, E820_TABLES, tables, TABLES_SIZE);
	vmgenid_reset(pc->vmgenid);
	free(tables);
	return used < 0 ? 0 : E820_TABLES;
}

u64
pc_power_on(struct pc *pc)
{
	/* BARs where a guest without 64-bit addresses reaches them too. */
	struct pci_windows windows = pc->windows;
	u8 line[PCI_PIRQS];

	pc_reset_devices(pc);
	q35_set_up(pc->q35);
	lpc_set_up(pc->lpc, line);
	windows.mem64_size = 0;
	pci_bus_assign(pc->bus, &windows, line);
	pc_set_up_pic(pc, line);
	return pc_write_tables(pc, line);
}

void
pc_power_button(struct pc *pc)
{
	acpi_pm_power_button(pc->pm);
}

bool
pc_quiet(const struct pc *pc)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 address;
		u32 data;
		bool level;

		/* An unmasked input is one that is in use, but for the 8259's virtual wire. */
		if (ioapic_message(pc->ioapic, pin, &address, &data, &level) &&
		    (data >> 8 & 7) != 7)
			return false;
	}
	return true;
}

/* ---- saved state ---- */

int
pc_settle(struct pc *pc, u64 deadline_ns, char *why, size_t why_size)
{
	int err = 0;

	for (unsigned i = 0; i < MACHINE_DISKS_MAX && !err; i++) {
		if (pc->disks[i])
			err = virtio_blk_settle(pc->disks[i], deadline_ns);
		if (err)
			snprintf(why, why_size,
				 err == -ETIMEDOUT
					 ? "disk %u does not end its requests in time; is its host "
					   "reachable?"
					 : "disk %u cannot be written to the end: %s",
				 i, strerror(-err));
	}
	pc_flush(pc);
	return err;
}

static const struct state_field pc_fields[] = {
	STATE_NUMBERS(struct pc, irq_sources, BIT(SOURCE_TEST + 1) - 1),
	STATE_NUMBERS(struct pc, pin_sources, BIT(SOURCE_TEST + 1) - 1),
	STATE_FLAG(struct pc, legacy_hpet),
	STATE_END,
};

static const struct state_type pc_state_type = {"board", 1, pc_fields, NULL, NULL};

/* What a part needs to be right when its loaded hook runs comes before it. */
void
pc_state(struct pc *pc, struct state_list *list)
{
	state_list_add(list, &pc_state_type, 0, pc, sizeof(*pc));
	pic_state(pc->pic, list);
	ioapic_state(pc->ioapic, list);
	pit_state(pc->pit, list);
	rtc_state(pc->rtc, list);
	hpet_state(pc->hpet, list);
	uart_state(pc->uart, list);
	acpi_pm_state(pc->pm, list);
	i8042_state(pc->i8042, list);
	port92_state(pc->port92, list);
	fw_cfg_state(pc->fw_cfg, list);
	vmgenid_state(pc->vmgenid, list);
	if (pc->testdev)
		testdev_state(pc->testdev, list);
	pci_bus_state(pc->bus, list);
}

int
pc_new_generation(struct pc *pc)
{
	return vmgenid_renew(pc->vmgenid);
}
