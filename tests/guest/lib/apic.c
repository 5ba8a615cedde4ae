/*
 * Interrupt controllers and the PIT (see apic.h).
 */
#include "lib/apic.h"

static bool
apic_is_x2(void)
{
	return cpu_read_msr(MSR_APIC_BASE) & APIC_BASE_X2;
}

u32
apic_read(u32 reg)
{
	if (apic_is_x2())
		return (u32)cpu_read_msr(0x800 + (reg >> 4));
	return *(volatile u32 *)(APIC_MMIO + reg);
}

void
apic_write(u32 reg, u32 value)
{
	if (apic_is_x2())
		cpu_write_msr(0x800 + (reg >> 4), value);
	else
		*(volatile u32 *)(APIC_MMIO + reg) = value;
}

u32
apic_id(void)
{
	u32 id = apic_read(APIC_ID);

	return apic_is_x2() ? id : id >> 24;
}

void
apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

void
apic_enable(void)
{
	cpu_write_msr(MSR_APIC_BASE, cpu_read_msr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
	apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS_VECTOR);
	apic_write(APIC_TPR, 0);
}

void
apic_enable_x2(void)
{
	cpu_write_msr(MSR_APIC_BASE, cpu_read_msr(MSR_APIC_BASE) | APIC_BASE_ENABLE | APIC_BASE_X2);
	apic_enable();
}

void
apic_ipi(u32 destination, u32 icr)
{
	if (apic_is_x2()) {
		cpu_write_msr(0x830, (u64)destination << 32 | icr);
		return;
	}
	apic_write(APIC_ICR_HIGH, destination << 24);
	apic_write(APIC_ICR, icr);
	(void)WAIT_FOR(!(apic_read(APIC_ICR) & APIC_PENDING));
}

u32
ioapic_read(u32 index)
{
	*(volatile u32 *)IOAPIC_MMIO = index;
	return *(volatile u32 *)(IOAPIC_MMIO + 0x10);
}

void
ioapic_write(u32 index, u32 value)
{
	*(volatile u32 *)IOAPIC_MMIO = index;
	*(volatile u32 *)(IOAPIC_MMIO + 0x10) = value;
}

void
ioapic_route(unsigned pin, u32 low, u8 destination)
{
	ioapic_write(0x10 + 2 * pin, APIC_MASKED);
	ioapic_write(0x11 + 2 * pin, (u32)destination << 24);
	ioapic_write(0x10 + 2 * pin, low);
}

unsigned
ioapic_pins(void)
{
	return (ioapic_read(1) >> 16 & 0xff) + 1;
}

void
pic_init(u8 base, u16 mask)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, base);
	outb(0xa1, (u8)(base + 8));
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, (u8)mask);
	outb(0xa1, (u8)(mask >> 8));
}

void
pic_eoi(unsigned line)
{
	if (line >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

void
pit_start(unsigned mode, u16 count)
{
	outb(0x43, (u8)(0x30 | mode << 1));
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

void
pit_delay(unsigned us)
{
	for (; us; us -= us > 10000 ? 10000 : us) {
		unsigned part = us > 10000 ? 10000 : us;
		unsigned count = part * 1193 / 1000 + 1;

		outb(0x61, (u8)((inb(0x61) & ~2u) | 1));
		outb(0x43, 0xb0); /* channel 2, mode 0 */
		outb(0x42, (u8)count);
		outb(0x42, (u8)(count >> 8));
		while (!(inb(0x61) & 0x20))
			cpu_pause();
	}
}
