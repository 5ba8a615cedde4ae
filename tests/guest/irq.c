/*
 * Device interrupts: PIT through the PIC as ExtINT, PIT through the IOAPIC
 * (edge), the serial port's transmitter as an edge and as a level interrupt with
 * EOI, masks, remote IRR, PIC spurious and cascade, x2APIC.
 */
#include "lib/apic.h"
#include "lib/trap.h"

enum { PIC_BASE = 0x20, PIT_VECTOR = 0x50, SERIAL_VECTOR = 0x61, SERIAL = 0x3f8 };
enum { LEVEL = 1 << 15, REMOTE_IRR = 1 << 14 };

static volatile unsigned irq_count;
static volatile u32 irq_remote;

static void
irq_pic_handler(struct trap_frame *f)
{
	irq_count++;
	pic_eoi((unsigned)f->vector - PIC_BASE);
}

static void
irq_apic_handler(struct trap_frame *f)
{
	(void)f;
	irq_count++;
	apic_eoi();
}

/* Runs with interrupts on until COUNT came, or time is up. */
static bool
irq_wait(unsigned count)
{
	bool good;

	cpu_sti();
	good = WAIT_FOR(irq_count >= count);
	cpu_cli();
	return good;
}

/* The PIC's output is up and LVT0 masked: it waits, and is not lost. */
static void
irq_pic_held(void)
{
	if (guest_on_tcg()) /* it then delivers vector -1 */
		return;
	apic_write(APIC_LVT_LINT0, APIC_EXTINT | APIC_MASKED);
	pit_delay(5000);
	irq_count = 0;
	cpu_window();
	CHECK_EQ(irq_count, 0); /* masked at the APIC */
	outb(0x20, 0x0a);	/* IRR: it waits there */
	CHECK(inb(0x20) & 1);
	apic_write(APIC_LVT_LINT0, APIC_EXTINT);
	CHECK(irq_wait(1));
}

static void
irq_pic(void)
{
	irq_count = 0;
	trap_set_handler(PIC_BASE, irq_pic_handler);
	pic_init(PIC_BASE, 0xfffe);
	apic_write(APIC_LVT_LINT0, APIC_EXTINT);
	pit_start(2, 1193); /* 1 kHz */
	CHECK(irq_wait(5));
	/* HLT is ended by it. */
	irq_count = 0;
	while (irq_count < 3)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	CHECK(irq_count >= 3);
	outb(0x21, 0xff);
	cpu_window();
	irq_count = 0;
	pit_delay(5000);
	cpu_window();
	CHECK_EQ(irq_count, 0); /* masked at the PIC */
	outb(0x21, 0xfe);
	irq_pic_held();
	outb(0x21, 0xff);
	apic_write(APIC_LVT_LINT0, APIC_MASKED);
	CHECK_EQ(inb(0x21), 0xff);
}

static void
irq_pit_by_ioapic(void)
{
	irq_count = 0;
	trap_set_handler(PIT_VECTOR, irq_apic_handler);
	ioapic_route(2, PIT_VECTOR, (u8)apic_id()); /* edge; IRQ 0 is pin 2 (MADT) */
	pit_start(2, 2386);
	CHECK(irq_wait(5));
	ioapic_route(2, PIT_VECTOR | APIC_MASKED, (u8)apic_id());
	cpu_window();
	irq_count = 0;
	pit_delay(5000);
	cpu_window();
	CHECK_EQ(irq_count, 0);
	/* One-shot: one and no more. */
	ioapic_route(2, PIT_VECTOR, (u8)apic_id());
	pit_start(0, 1193);
	CHECK(irq_wait(1));
	irq_count = 0;
	pit_delay(5000);
	cpu_window();
	CHECK_EQ(irq_count, 0);
	ioapic_route(2, APIC_MASKED, 0);
}

/* The transmitter's interrupt; reading IIR ends it. */
static void
irq_serial_handler(struct trap_frame *f)
{
	(void)f;
	irq_remote = ioapic_read(0x10 + 2 * 4);
	if (++irq_count >= 3)
		(void)inb(SERIAL + 2);
	apic_eoi();
}

static void
irq_serial_level(void)
{
	irq_count = 0;
	trap_set_handler(SERIAL_VECTOR, irq_serial_handler);
	outb(SERIAL + 4, 0x0b); /* OUT2: interrupts reach the line */
	ioapic_route(4, SERIAL_VECTOR | LEVEL, (u8)apic_id());
	outb(SERIAL + 1, 2);
	/* The line stays up, so each EOI brings it again, until IIR is read at the third. */
	CHECK(irq_wait(3));
	CHECK(irq_remote & REMOTE_IRR);
	pit_delay(2000);
	cpu_window();
	CHECK_EQ(irq_count, 3);
	CHECK(!(ioapic_read(0x10 + 2 * 4) & REMOTE_IRR));
	outb(SERIAL + 1, 0);
	ioapic_route(4, APIC_MASKED, 0);
}

static void
irq_serial_edge(void)
{
	irq_count = 0;
	ioapic_route(4, SERIAL_VECTOR, (u8)apic_id());
	outb(SERIAL + 1, 2);
	CHECK(irq_wait(1));
	pit_delay(2000);
	cpu_window();
	CHECK_EQ(irq_count, 1); /* the line is still up, but there was one edge */
	(void)inb(SERIAL + 2);
	outb(SERIAL + 1, 0);
	outb(SERIAL + 4, 3);
	ioapic_route(4, APIC_MASKED, 0);
}

/* Redirection entries keep what is written, but for the read-only bits. */
static void
irq_registers(void)
{
	CHECK_EQ(ioapic_pins(), 24);
	for (unsigned pin = 0; pin < ioapic_pins(); pin++) {
		ioapic_route(pin, APIC_MASKED | LEVEL | (0x40 + pin), 0);
		CHECK_EQ(ioapic_read(0x10 + 2 * pin) & 0xffff, LEVEL | (0x40 + pin));
		ioapic_route(pin, APIC_MASKED, 0);
	}
	CHECK_EQ(apic_read(APIC_VERSION) & 0xf0, 0x10);
	CHECK((apic_read(APIC_VERSION) >> 16 & 0xff) >= 4);
}

static void
irq_x2apic(void)
{
	struct trap t;

	if (!(cpu_cpuid(1, 0).c & 1u << 21)) {
		check_skip("x2APIC");
		return;
	}
	apic_enable_x2();
	CHECK_EQ(cpu_read_msr(0x802), cpu_cpuid(0xb, 0).d);
	irq_count = 0;
	cpu_write_msr(0x83f, PIT_VECTOR); /* self IPI */
	cpu_window();
	CHECK_EQ(irq_count, 1);
	t = TRY(cpu_write_msr(0x80b, 1)); /* EOI takes 0 only */
	if (!guest_on_kvm())		  /* it takes all */
		CHECK_TRAP(t, VEC_GP, 0);
	t = TRY((void)cpu_read_msr(0x80e)); /* DFR is gone */
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(cpu_write_msr(MSR_APIC_BASE, cpu_read_msr(MSR_APIC_BASE) & ~APIC_BASE_X2));
	CHECK_TRAP(t, VEC_GP, 0); /* back to xAPIC only by way of off */
}

void
guest_main(void)
{
	apic_enable();
	pic_init(PIC_BASE, 0xffff);
	irq_registers();
	irq_pic();
	irq_pit_by_ioapic();
	irq_serial_level();
	irq_serial_edge();
	irq_x2apic();
}
