/*
 * ACPI tables. Everything that they promise is in device/acpi_pm.c, lpc.c,
 * hpet.c, ioapic.c and machine/pc.c; nothing else is promised: no sleep states
 * but S5, no keyboard controller to probe for, no VGA.
 */
#include "machine/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "device/acpi_pm.h"
#include "device/hpet.h"
#include "device/ioapic.h"
#include "device/lpc.h"
#include "device/vmgenid.h"
#include "machine/aml.h"

enum { ACPI_HEADER = 36, ACPI_RSDP = 36, ACPI_FACS = 64, ACPI_FADT = 276 };
#define LAPIC_GPA 0xfee00000u
enum { GSI_PIRQ_A = 16, PCI_PINS = 4 };

/* Tables under construction. */
struct acpi {
	u8 *out;
	size_t size, used;
	u64 gpa;
	bool failed;
};

/* Room for LEN zeroed bytes at a multiple of ALIGN, or NULL. */
static u8 *
acpi_room(struct acpi *acpi, size_t len, size_t align)
{
	size_t at = align_up(acpi->used, align);

	if (acpi->failed || at > acpi->size || len > acpi->size - at) {
		acpi->failed = true;
		return NULL;
	}
	acpi->used = at + len;
	return memset(acpi->out + at, 0, len);
}

static u64
acpi_gpa(const struct acpi *acpi, const u8 *table)
{
	return acpi->gpa + (u64)(table - acpi->out);
}

static u8
acpi_checksum(const u8 *data, size_t len)
{
	u8 sum = 0;

	while (len--)
		sum += *data++;
	return (u8)-sum;
}

/* Table header (5.2.6), once its content stands. */
static void
acpi_seal(u8 *table, const char *signature, u8 revision, size_t len)
{
	memcpy(table, signature, 4);
	put_le32(table + 4, (u32)len);
	table[8] = revision;
	table[9] = 0;
	memcpy(table + 10, "BIGA  ", 6);
	memcpy(table + 16, "BIGAPC  ", 8);
	put_le32(table + 24, 1);
	memcpy(table + 28, "BIGA", 4);
	put_le32(table + 32, 1);
	table[9] = acpi_checksum(table, len);
}

/* ---- DSDT ---- */

/* One _PRT: every slot and pin to a GSI, or to the 8259 input its PIRQ is routed to. */
static void
acpi_routes(struct aml *aml, const struct acpi_board *board, const char *name, bool apic)
{
	aml_name(aml, name);
	aml_package(aml, PCI_SLOTS * PCI_PINS);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < PCI_PINS; pin++) {
			unsigned pirq = pci_pirq(slot, pin + 1);

			aml_package(aml, 4);
			aml_integer(aml, slot << 16 | 0xffff);
			aml_integer(aml, pin);
			aml_integer(aml, 0);
			aml_integer(aml, apic ? GSI_PIRQ_A + pirq : board->pic_irq[pirq]);
			aml_end(aml);
		}
	}
	aml_end(aml);
}

static void
acpi_prt(struct aml *aml, const struct acpi_board *board)
{
	acpi_routes(aml, board, "PRTA", true);
	acpi_routes(aml, board, "PRTP", false);
	aml_method(aml, "_PRT", 0);
	aml_if(aml);
	aml_path(aml, "\\PICM");
	aml_return(aml);
	aml_path(aml, "PRTA");
	aml_end(aml);
	aml_return(aml);
	aml_path(aml, "PRTP");
	aml_end(aml);
}

/* Leaves all of PCI Express's native control to the guest (PCI Firmware 3.3, 4.5.1). */
static void
acpi_osc(struct aml *aml)
{
	aml_method(aml, "_OSC", 4);
	aml_dword_field(aml);
	aml_arg(aml, 3);
	aml_integer(aml, 0);
	aml_path(aml, "CDW1");
	aml_if(aml);
	aml_equal(aml);
	aml_arg(aml, 0);
	aml_uuid(aml, "33DB4D5B-1FF7-401C-9657-7441C03DD766");
	aml_return(aml);
	aml_arg(aml, 3);
	aml_end(aml);
	aml_or(aml);
	aml_path(aml, "CDW1");
	aml_integer(aml, 4); /* unrecognized UUID */
	aml_path(aml, "CDW1");
	aml_return(aml);
	aml_arg(aml, 3);
	aml_end(aml);
}

static void
acpi_pci_resources(struct aml *aml, const struct acpi_board *board)
{
	const struct pci_windows *w = &board->windows;

	aml_name(aml, "_CRS");
	aml_resources(aml);
	aml_bus_range(aml, 0, PCI_ECAM_BUSES);
	aml_io(aml, 0xcf8, 8);
	aml_io_range(aml, 0, 0xcf8);
	aml_io_range(aml, 0xd00, 0x10000 - 0xd00);
	aml_memory_range32(aml, (u32)w->mem32, (u32)w->mem32_size);
	if (w->mem64_size)
		aml_memory_range64(aml, w->mem64, w->mem64_size);
	aml_end(aml);
}

struct acpi_isa_device {
	const char *name, *id;
	u16 port;
	u8 ports;
	int irq;
};

static void
acpi_isa_device(struct aml *aml, const struct acpi_isa_device *device)
{
	aml_device(aml, device->name);
	aml_name(aml, "_HID");
	aml_eisaid(aml, device->id);
	aml_name(aml, "_UID");
	aml_integer(aml, 1);
	aml_name(aml, "_CRS");
	aml_resources(aml);
	aml_io(aml, device->port, device->ports);
	if (device->irq >= 0)
		aml_irq(aml, (unsigned)device->irq);
	aml_end(aml);
	aml_end(aml);
}

/* The timer lists no interrupt: with legacy replacement it is the HPET's. */
static void
acpi_lpc(struct aml *aml)
{
	static const struct acpi_isa_device devices[] = {
		{"COM1", "PNP0501", 0x3f8, 8, 4},
		{"RTC", "PNP0B00", 0x70, 2, 8},
		{"PIT", "PNP0100", 0x40, 4, -1},
	};

	aml_device(aml, "LPC");
	aml_name(aml, "_ADR");
	aml_integer(aml, LPC_SLOT << 16);
	for (unsigned i = 0; i < ARRAY_LEN(devices); i++)
		acpi_isa_device(aml, &devices[i]);
	aml_end(aml);
}

/* Addresses that are taken although no device lists them. */
static void
acpi_motherboard(struct aml *aml, const struct acpi_board *board)
{
	aml_device(aml, "MBRD");
	aml_name(aml, "_HID");
	aml_eisaid(aml, "PNP0C02");
	aml_name(aml, "_UID");
	aml_integer(aml, 1);
	aml_name(aml, "_CRS");
	aml_resources(aml);
	aml_memory32(aml, (u32)board->ecam, (u32)PCI_ECAM_SIZE);
	aml_io(aml, ACPI_PM_BASE, ACPI_PM_SIZE);
	aml_io(aml, ACPI_SMI_COMMAND, 2);
	aml_io(aml, 0x61, 1);
	aml_io(aml, 0x92, 1);
	aml_io(aml, 0x4d0, 2);
	aml_io(aml, 0x510, 2);
	aml_end(aml);
	aml_end(aml);
}

static void
acpi_hpet_device(struct aml *aml)
{
	aml_device(aml, "HPET");
	aml_name(aml, "_HID");
	aml_eisaid(aml, "PNP0103");
	aml_name(aml, "_UID");
	aml_integer(aml, 0);
	aml_name(aml, "_CRS");
	aml_resources(aml);
	aml_memory32(aml, (u32)HPET_GPA, HPET_SIZE);
	aml_end(aml);
	aml_end(aml);
}

static void
acpi_processors(struct aml *aml, unsigned vcpus)
{
	char name[5];

	for (unsigned i = 0; i < vcpus; i++) {
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_device(aml, name);
		aml_name(aml, "_HID");
		aml_string(aml, "ACPI0007");
		aml_name(aml, "_UID");
		aml_integer(aml, i);
		aml_end(aml);
	}
}

static void
acpi_pci_root(struct aml *aml, const struct acpi_board *board)
{
	aml_device(aml, "PCI0");
	aml_name(aml, "_HID");
	aml_eisaid(aml, "PNP0A08");
	aml_name(aml, "_CID");
	aml_eisaid(aml, "PNP0A03");
	aml_name(aml, "_UID");
	aml_integer(aml, 0);
	aml_name(aml, "_SEG");
	aml_integer(aml, 0);
	aml_name(aml, "_BBN");
	aml_integer(aml, 0);
	acpi_pci_resources(aml, board);
	acpi_osc(aml);
	acpi_prt(aml, board);
	acpi_lpc(aml);
	aml_end(aml);
}

/* Microsoft's specification asks for _CID, _DDN and ADDR; guests look for either name. */
static void
acpi_generation(struct aml *aml)
{
	aml_device(aml, "VGEN");
	aml_name(aml, "_HID");
	aml_string(aml, "BIGA0001");
	aml_name(aml, "_CID");
	aml_string(aml, "VM_Gen_Counter");
	aml_name(aml, "_DDN");
	aml_string(aml, "VM_Gen_Counter");
	aml_name(aml, "ADDR");
	aml_package(aml, 2);
	aml_integer(aml, (u32)VMGENID_GPA);
	aml_integer(aml, VMGENID_GPA >> 32);
	aml_end(aml);
	aml_end(aml);
}

/* What general-purpose events mean. */
static void
acpi_events(struct aml *aml)
{
	char name[8];

	snprintf(name, sizeof(name), "_E%02X", VMGENID_GPE);
	aml_scope(aml, "\\_GPE");
	aml_method(aml, name, 0);
	aml_notify(aml);
	aml_path(aml, "\\_SB.VGEN");
	aml_integer(aml, 0x80);
	aml_end(aml);
	aml_end(aml);
}

static void
acpi_dsdt_body(struct aml *aml, const struct acpi_board *board)
{
	aml_name(aml, "\\_S5");
	aml_package(aml, 4);
	aml_integer(aml, ACPI_SLEEP_OFF);
	aml_integer(aml, ACPI_SLEEP_OFF);
	aml_integer(aml, 0);
	aml_integer(aml, 0);
	aml_end(aml);
	aml_name(aml, "\\PICM");
	aml_integer(aml, 0);
	aml_method(aml, "\\_PIC", 1);
	aml_store(aml);
	aml_arg(aml, 0);
	aml_path(aml, "\\PICM");
	aml_end(aml);
	aml_scope(aml, "\\_SB");
	acpi_pci_root(aml, board);
	acpi_motherboard(aml, board);
	acpi_hpet_device(aml);
	acpi_processors(aml, board->vcpus);
	acpi_generation(aml);
	aml_end(aml);
	acpi_events(aml);
}

static const u8 *
acpi_dsdt(struct acpi *acpi, const struct acpi_board *board)
{
	u8 *table = acpi_room(acpi, ACPI_HEADER, 16);
	struct aml aml;

	if (!table)
		return NULL;
	aml_init(&aml, table + ACPI_HEADER, acpi->size - acpi->used);
	acpi_dsdt_body(&aml, board);
	if (aml.failed || aml.depth) {
		acpi->failed = true;
		return NULL;
	}
	acpi->used += aml.len;
	acpi_seal(table, "DSDT", 2, ACPI_HEADER + aml.len);
	return table;
}

/* ---- fixed tables ---- */

enum { SPACE_MEMORY = 0, SPACE_IO = 1 };

/* Generic address structure (5.2.3.2). */
static void
acpi_address(u8 *at, u8 space, u8 bits, u8 access, u64 address)
{
	at[0] = space;
	at[1] = bits;
	at[2] = 0;
	at[3] = access;
	put_le64(at + 4, address);
}

static const u8 *
acpi_facs(struct acpi *acpi)
{
	u8 *table = acpi_room(acpi, ACPI_FACS, 64);

	if (!table)
		return NULL;
	memcpy(table, "FACS", 4);
	put_le32(table + 4, ACPI_FACS);
	table[32] = 2; /* version */
	return table;
}

/* Register blocks (5.2.9): the 32-bit fields and their extended twins. */
static void
acpi_fadt_registers(u8 *t)
{
	put_le32(t + 48, ACPI_SMI_COMMAND);
	t[52] = ACPI_ENABLE;
	t[53] = ACPI_DISABLE;
	put_le32(t + 56, ACPI_PM_BASE + ACPI_PM1_EVENT);
	put_le32(t + 64, ACPI_PM_BASE + ACPI_PM1_CONTROL);
	put_le32(t + 76, ACPI_PM_BASE + ACPI_PM_TIMER);
	put_le32(t + 80, ACPI_PM_BASE + ACPI_GPE0);
	t[88] = 4;
	t[89] = 2;
	t[91] = 4;
	t[92] = ACPI_GPE0_SIZE;
	acpi_address(t + 148, SPACE_IO, 32, 2, ACPI_PM_BASE + ACPI_PM1_EVENT);
	acpi_address(t + 172, SPACE_IO, 16, 2, ACPI_PM_BASE + ACPI_PM1_CONTROL);
	acpi_address(t + 208, SPACE_IO, 32, 3, ACPI_PM_BASE + ACPI_PM_TIMER);
	acpi_address(t + 220, SPACE_IO, ACPI_GPE0_SIZE * 8, 1, ACPI_PM_BASE + ACPI_GPE0);
	/* Reset by port 0xcf9. */
	acpi_address(t + 116, SPACE_IO, 8, 1, 0xcf9);
	t[128] = 0x06;
}

enum {
	FADT_WBINVD = BIT(0),
	FADT_C1 = BIT(2),
	FADT_NO_SLEEP_BUTTON = BIT(5),
	FADT_NO_FIXED_RTC = BIT(6),
	FADT_RESET = BIT(10),
	FADT_LEGACY_DEVICES = BIT(0),
	FADT_NO_VGA = BIT(2),
	FADT_NO_ASPM = BIT(4),
};

static const u8 *
acpi_fadt(struct acpi *acpi, const u8 *facs, const u8 *dsdt)
{
	u8 *t = acpi_room(acpi, ACPI_FADT, 16);

	if (!t || !facs || !dsdt)
		return NULL;
	put_le32(t + 36, (u32)acpi_gpa(acpi, facs));
	put_le32(t + 40, (u32)acpi_gpa(acpi, dsdt));
	put_le64(t + 140, acpi_gpa(acpi, dsdt));
	t[45] = 4; /* preferred profile: enterprise server */
	put_le16(t + 46, ACPI_SCI_IRQ);
	acpi_fadt_registers(t);
	put_le16(t + 96, 0xfff); /* no C2, no C3 */
	put_le16(t + 98, 0xfff);
	t[108] = 0x32; /* century */
	put_le16(t + 109, FADT_LEGACY_DEVICES | FADT_NO_VGA | FADT_NO_ASPM);
	put_le32(t + 112,
		 FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_RESET);
	t[131] = 3; /* 6.3 */
	acpi_seal(t, "FACP", 6, ACPI_FADT);
	return t;
}

/* MADT entries (5.2.12). */
static void
acpi_madt_processor(struct acpi *acpi, unsigned id)
{
	u8 *e;

	if (id < 255) {
		e = acpi_room(acpi, 8, 1);
		if (!e)
			return;
		e[0] = 0;
		e[1] = 8;
		e[2] = e[3] = (u8)id;
		put_le32(e + 4, 1);
		return;
	}
	e = acpi_room(acpi, 16, 1);
	if (!e)
		return;
	e[0] = 9;
	e[1] = 16;
	put_le32(e + 4, id);
	put_le32(e + 8, 1);
	put_le32(e + 12, id);
}

static void
acpi_madt_override(struct acpi *acpi, u8 irq, u8 gsi, u16 flags)
{
	u8 *e = acpi_room(acpi, 10, 1);

	if (!e)
		return;
	e[0] = 2;
	e[1] = 10;
	e[3] = irq;
	put_le32(e + 4, gsi);
	put_le16(e + 8, flags);
}

static void
acpi_madt_ioapic(struct acpi *acpi)
{
	u8 *e = acpi_room(acpi, 12, 1);

	if (!e)
		return;
	e[0] = 1;
	e[1] = 12;
	e[2] = 0; /* what its id register says after reset */
	put_le32(e + 4, (u32)IOAPIC_GPA);
}

/* NMI comes in at LINT1 of all processors. */
static void
acpi_madt_nmi(struct acpi *acpi)
{
	u8 *e = acpi_room(acpi, 6, 1);

	if (!e)
		return;
	e[0] = 4;
	e[1] = 6;
	e[2] = 0xff;
	e[5] = 1;
}

static const u8 *
acpi_madt(struct acpi *acpi, const struct acpi_board *board)
{
	u8 *table = acpi_room(acpi, ACPI_HEADER + 8, 16);

	if (!table)
		return NULL;
	put_le32(table + 36, LAPIC_GPA);
	put_le32(table + 40, 1); /* there is an 8259 pair too */
	for (unsigned i = 0; i < board->vcpus; i++)
		acpi_madt_processor(acpi, i);
	acpi_madt_ioapic(acpi);
	acpi_madt_override(acpi, 0, 2, 0);
	acpi_madt_override(acpi, ACPI_SCI_IRQ, ACPI_SCI_IRQ, 0x000d); /* level, active high */
	acpi_madt_nmi(acpi);
	if (acpi->failed)
		return NULL;
	acpi_seal(table, "APIC", 4, (size_t)(acpi->out + acpi->used - table));
	return table;
}

static const u8 *
acpi_mcfg(struct acpi *acpi, const struct acpi_board *board)
{
	enum { SIZE = ACPI_HEADER + 8 + 16 };
	u8 *table = acpi_room(acpi, SIZE, 16);

	if (!table)
		return NULL;
	put_le64(table + 44, board->ecam);
	table[55] = PCI_ECAM_BUSES - 1;
	acpi_seal(table, "MCFG", 1, SIZE);
	return table;
}

static const u8 *
acpi_hpet(struct acpi *acpi)
{
	enum { SIZE = ACPI_HEADER + 20 };
	u8 *table = acpi_room(acpi, SIZE, 16);

	if (!table)
		return NULL;
	put_le32(table + 36, HPET_CAPABILITIES);
	acpi_address(table + 40, SPACE_MEMORY, 64, 0, HPET_GPA);
	put_le16(table + 53, 128); /* shortest period that loses nothing, in ticks */
	acpi_seal(table, "HPET", 1, SIZE);
	return table;
}

static void
acpi_rsdp(u8 *rsdp, u64 xsdt)
{
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "BIGA  ", 6);
	rsdp[15] = 2;
	put_le32(rsdp + 20, ACPI_RSDP);
	put_le64(rsdp + 24, xsdt);
	rsdp[8] = acpi_checksum(rsdp, 20);
	rsdp[32] = acpi_checksum(rsdp, ACPI_RSDP);
}

long
acpi_build(const struct acpi_board *board, u64 gpa, u8 *out, size_t size)
{
	struct acpi acpi = {.out = out, .size = size, .gpa = gpa};
	enum { TABLES = 4, XSDT_SIZE = ACPI_HEADER + 8 * TABLES };
	const u8 *tables[TABLES];
	u8 *rsdp = acpi_room(&acpi, ACPI_RSDP, 16);
	u8 *xsdt = acpi_room(&acpi, XSDT_SIZE, 16);
	const u8 *facs = acpi_facs(&acpi);

	tables[0] = acpi_fadt(&acpi, facs, acpi_dsdt(&acpi, board));
	tables[1] = acpi_madt(&acpi, board);
	tables[2] = acpi_mcfg(&acpi, board);
	tables[3] = acpi_hpet(&acpi);
	if (acpi.failed)
		return -ENOSPC;
	for (unsigned i = 0; i < TABLES; i++)
		put_le64(xsdt + ACPI_HEADER + 8 * i, acpi_gpa(&acpi, tables[i]));
	acpi_seal(xsdt, "XSDT", 1, XSDT_SIZE);
	acpi_rsdp(rsdp, acpi_gpa(&acpi, xsdt));
	return (long)acpi.used;
}
