/*
 * One kernel file of foreign bytes through boot_load, for the loaders' fuzzers.
 * The guest's memory is kept between inputs. After a load that succeeded, what
 * the processor will use first must lie in RAM.
 */
#ifndef BOOT_TARGET_H
#define BOOT_TARGET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot/boot.h"

#define BOOT_TARGET_RAM (64ull << 20)

static inline void
boot_target_check(struct memory *mem, const struct cpu_state *bsp)
{
	if (!memory_ptr(mem, bsp->gdt.base, (u64)bsp->gdt.limit + 1))
		abort();
	if ((bsp->cr0 & CR0_PG) && !memory_ptr(mem, bsp->cr3, MEMORY_PAGE))
		abort();
	if (bsp->gpr[CPU_RSP] > BOOT_TARGET_RAM)
		abort();
}

static inline void
boot_target_run(const u8 *data, size_t size)
{
	static struct memory *mem;
	struct boot_file initrd = {.fd = memfd_create("initrd", MFD_CLOEXEC), .name = "initrd"};
	struct boot_config config = {
		.kernel = {.fd = memfd_create("kernel", MFD_CLOEXEC), .name = "kernel"},
		.initrds = &initrd,
		.initrd_count = 1,
		.cmdline = "quiet",
		.rsdp = 0xe0000,
		.phys_bits = 40,
	};
	struct cpu_state bsp;
	char why[200] = "";
	int rc;

	if (!mem && memory_create(&mem, BOOT_TARGET_RAM) < 0)
		abort();
	if (write(config.kernel.fd, data, size) != (ssize_t)size || write(initrd.fd, "abc", 3) != 3)
		abort();
	rc = boot_load(mem, &config, &bsp, why, sizeof(why));
	if (rc == 0)
		boot_target_check(mem, &bsp);
	else if (why[0] == '\0')
		abort(); /* a failure without a word */
	close(config.kernel.fd);
	close(initrd.fd);
}

#endif
