/*
 * Finds out what kind of kernel a file holds, has it loaded, and sets what
 * firmware would have set before any kernel runs: BIOS data area, memory types,
 * local APIC in virtual-wire mode.
 */
#include "boot/boot.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "boot/elf.h"
#include "boot/loader.h"

enum {
	BDA_EBDA = 0x40e,	 /* segment of the EBDA */
	BDA_BASE_MEMORY = 0x413, /* KiB below it */
	LAPIC_SVR = 0x0f,	 /* register offsets / 16 */
	LAPIC_LVT0 = 0x35,
	LAPIC_LVT1 = 0x36,
	LVT_EXTINT = 0x700,
	LVT_NMI = 0x400,
	SVR_ENABLED = 0x1ff,
	MTRR_ENABLED = BIT(11),
	MTRR_MASK_VALID = BIT(11),
	MTRR_WRITE_BACK = 6,
};

static int
boot_open(struct boot_loader *l)
{
	struct stat st;

	if (fstat(l->config->kernel.fd, &st) < 0)
		return loader_fail(l, -errno, "kernel %s cannot be read: %s", l->name,
				   strerror(errno));
	if (!S_ISREG(st.st_mode))
		return loader_fail(l, -EINVAL, "kernel %s is not a regular file", l->name);
	if (st.st_size == 0)
		return loader_fail(l, -ENOEXEC, "kernel %s is empty; copy it again", l->name);
	l->kernel = (struct boot_source){.fd = l->config->kernel.fd, .size = (u64)st.st_size};
	return 0;
}

static int
boot_load_kind(struct boot_loader *l)
{
	u64 size = l->kernel.size < LOADER_HEAD ? l->kernel.size : LOADER_HEAD;
	u8 head[LOADER_HEAD];
	int rc;

	rc = loader_read(l, &l->kernel, 0, head, size);
	if (rc < 0)
		return rc;
	if (linux_recognises(head, size))
		return linux_load(l, head, size);
	if (multiboot_recognises(head, size))
		return multiboot_load(l, head, size);
	if (elf_recognises(head, size))
		return linux_load_elf(l);
	return loader_fail(l, -ENOEXEC,
			   "%s is not a kernel that can be booted: give a bzImage (vmlinuz), "
			   "an ELF file with PVH note or a multiboot 1 file",
			   l->name);
}

static int
boot_bios_data(struct boot_loader *l)
{
	u8 ebda[2], base[2];

	put_le16(ebda, E820_EBDA >> 4);
	put_le16(base, E820_EBDA >> 10);
	if (memory_write(l->mem, BDA_EBDA, ebda, sizeof(ebda)) < 0 ||
	    memory_write(l->mem, BDA_BASE_MEMORY, base, sizeof(base)) < 0 ||
	    !memory_ptr(l->mem, 0, E820_ONE_MIB))
		return loader_fail(l, -ENOMEM,
				   "the VM's memory is too small; give it 2 MiB at least");
	return 0;
}

/* RAM is write-back, the hole below 4 GiB uncached: 256 MiB at 0xb0000000, 1 GiB above. */
static void
boot_memory_types(struct cpu_msrs *msr, unsigned phys_bits)
{
	u64 address = (1ull << (phys_bits < 36 || phys_bits > 52 ? 36 : phys_bits)) - 1;

	msr->mtrr_def_type = MTRR_ENABLED | MTRR_WRITE_BACK;
	msr->mtrr_base[0] = MEMORY_PCI_HOLE;
	msr->mtrr_mask[0] = (address & ~((256ull << 20) - 1)) | MTRR_MASK_VALID;
	msr->mtrr_base[1] = 0xc0000000;
	msr->mtrr_mask[1] = (address & ~((1ull << 30) - 1)) | MTRR_MASK_VALID;
}

static void
boot_processor(struct cpu_state *bsp, unsigned phys_bits)
{
	boot_memory_types(&bsp->msr, phys_bits);
	bsp->lapic.regs[LAPIC_SVR] = SVR_ENABLED;
	bsp->lapic.regs[LAPIC_LVT0] = LVT_EXTINT;
	bsp->lapic.regs[LAPIC_LVT1] = LVT_NMI;
}

int
boot_load(struct memory *mem, const struct boot_config *config, struct cpu_state *bsp, char *why,
	  size_t why_size)
{
	struct boot_loader l = {
		.mem = mem,
		.config = config,
		.bsp = bsp,
		.name = config->kernel.name ? config->kernel.name : "file",
		.why = why,
		.why_size = why_size,
	};
	int rc;

	if (why_size > 0)
		why[0] = '\0';
	cpu_state_reset(bsp, 0);
	boot_processor(bsp, config->phys_bits);
	if (config->initrd_count > BOOT_INITRDS_MAX)
		return loader_fail(&l, -E2BIG, "too many initrds: %u, %d can be taken",
				   config->initrd_count, BOOT_INITRDS_MAX);
	rc = boot_bios_data(&l);
	if (rc == 0)
		rc = boot_open(&l);
	if (rc == 0)
		rc = boot_load_kind(&l);
	return rc;
}
