/*
 * boot/: hand-made kernels of every kind, whole and damaged.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "boot/boot.h"
#include "boot/e820.h"

#include <elf.h> /* behind ours: its PF_ names are macros */

#define MIB (1ull << 20)

enum { INFO = 0x81000, CMDLINE = 0x90000 };

struct world {
	struct memory *mem;
	struct boot_config config;
	struct boot_file initrds[BOOT_INITRDS_MAX];
	struct cpu_state bsp;
	char why[256];
};

static int
file_of(const void *data, size_t size)
{
	int fd = memfd_create("test", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), (ssize_t)size);
	return fd;
}

static void
start(struct world *w, u64 ram)
{
	memset(w, 0, sizeof(*w));
	assert_int_equal(memory_create(&w->mem, ram), 0);
	w->config.initrds = w->initrds;
	w->config.cmdline = "console=ttyS0 quiet";
	w->config.rsdp = 0xe0000;
	w->config.kernel.name = "vmlinuz";
	w->config.phys_bits = 40;
}

static int
load(struct world *w, const void *kernel, size_t size)
{
	int rc;

	w->config.kernel.fd = file_of(kernel, size);
	rc = boot_load(w->mem, &w->config, &w->bsp, w->why, sizeof(w->why));
	close(w->config.kernel.fd);
	return rc;
}

static void
finish(struct world *w)
{
	for (unsigned i = 0; i < w->config.initrd_count; i++)
		close(w->initrds[i].fd);
	memory_destroy(w->mem);
}

static void
add_initrd(struct world *w, const char *text, const char *name)
{
	w->initrds[w->config.initrd_count].fd = file_of(text, strlen(text));
	w->initrds[w->config.initrd_count++].name = name;
}

static u8 *
at(struct world *w, u64 gpa)
{
	return memory_ptr(w->mem, gpa, 1);
}

/* An ELF program: one segment with TEXT at PADDR (VADDR in the upper half), perhaps a PVH note. */
static size_t
make_elf64(u8 *file, u64 paddr, const char *text, u32 pvh)
{
	static const u64 upper = 0xffffffff80000000ull;
	Elf64_Ehdr *h = (Elf64_Ehdr *)file;
	Elf64_Phdr *p = (Elf64_Phdr *)(file + sizeof(*h));
	u8 *note = file + 0x200;

	memset(file, 0, 0x400);
	memcpy(h->e_ident, ELFMAG, SELFMAG);
	h->e_ident[EI_CLASS] = ELFCLASS64;
	h->e_ident[EI_DATA] = ELFDATA2LSB;
	h->e_type = ET_EXEC;
	h->e_machine = EM_X86_64;
	h->e_entry = paddr + 4;
	h->e_phoff = sizeof(*h);
	h->e_phentsize = sizeof(*p);
	h->e_phnum = pvh ? 2 : 1;
	*p = (Elf64_Phdr){.p_type = PT_LOAD,
			  .p_offset = 0x300,
			  .p_vaddr = upper + paddr,
			  .p_paddr = paddr,
			  .p_filesz = strlen(text),
			  .p_memsz = 0x1000};
	p[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = 0x200, .p_filesz = 44};
	/* A note of another owner first. */
	put_le32(note, 4);
	put_le32(note + 4, 4);
	put_le32(note + 8, 18);
	memcpy(note + 12, "GNU", 4);
	put_le32(note + 20, 4);
	put_le32(note + 24, 4);
	put_le32(note + 28, 18);
	memcpy(note + 32, "Xen", 4);
	put_le32(note + 36, pvh);
	memcpy(file + 0x300, text, strlen(text));
	return 0x300 + strlen(text);
}

static size_t
make_elf32(u8 *file, u32 paddr, const char *text)
{
	Elf32_Ehdr *h = (Elf32_Ehdr *)file;
	Elf32_Phdr *p = (Elf32_Phdr *)(file + sizeof(*h));

	memset(file, 0, 0x400);
	memcpy(h->e_ident, ELFMAG, SELFMAG);
	h->e_ident[EI_CLASS] = ELFCLASS32;
	h->e_ident[EI_DATA] = ELFDATA2LSB;
	h->e_type = ET_EXEC;
	h->e_machine = EM_386;
	h->e_entry = paddr + 8;
	h->e_phoff = sizeof(*h);
	h->e_phentsize = sizeof(*p);
	h->e_phnum = 1;
	*p = (Elf32_Phdr){.p_type = PT_LOAD,
			  .p_offset = 0x300,
			  .p_vaddr = paddr,
			  .p_paddr = paddr,
			  .p_filesz = strlen(text),
			  .p_memsz = 0x1000};
	memcpy(file + 0x300, text, strlen(text));
	return 0x300 + strlen(text);
}

/* A bzImage of protocol 2.15 with five setup sectors around PAYLOAD. */
static size_t
make_bzimage(u8 *file, const void *payload, size_t size, u16 xloadflags)
{
	size_t kernel = (0x400 + size + 15) & ~15ull;

	memset(file, 0, 6 * 512 + kernel);
	file[0x1f1] = 5;
	put_le32(file + 0x1f4, (u32)(kernel / 16));
	put_le16(file + 0x1fe, 0xaa55);
	file[0x201] = 0x66;
	put_le32(file + 0x202, 0x53726448);
	put_le16(file + 0x206, 0x20f);
	file[0x211] = 1;
	put_le32(file + 0x22c, 0x7fffffff);
	put_le32(file + 0x230, 0x200000);
	file[0x234] = 1;
	put_le16(file + 0x236, xloadflags);
	put_le32(file + 0x238, 2047);
	put_le32(file + 0x248, 0x400);
	put_le32(file + 0x24c, (u32)size);
	put_le64(file + 0x258, 0x1000000);
	put_le32(file + 0x260, 0x300000);
	memcpy(file + 6 * 512 + 0x400, payload, size);
	memcpy(file + 6 * 512, "startup_32", 10);
	return 6 * 512 + kernel;
}

static void
check_long_mode(struct world *w, u64 entry)
{
	u8 *tables = at(w, w->bsp.cr3);

	assert_int_equal(w->bsp.rip, entry);
	assert_int_equal(w->bsp.gpr[CPU_RSI], INFO);
	assert_int_equal(w->bsp.seg[CPU_CS].selector, 0x10);
	assert_true(w->bsp.seg[CPU_CS].attr & SEGMENT_L);
	assert_int_equal(w->bsp.seg[CPU_DS].selector, 0x18);
	assert_int_equal(w->bsp.msr.efer, EFER_LME | EFER_LMA);
	assert_true((w->bsp.cr0 & CR0_PG) && (w->bsp.cr4 & CR4_PAE));
	/* The last 2 MiB below 4 GiB, by hand. */
	tables = at(w, get_le64(tables) & ~0xfffull);
	tables = at(w, get_le64(tables + 3 * 8) & ~0xfffull);
	assert_int_equal(get_le64(tables + 511 * 8), 0xffe00083);
}

static void
a_packed_kernel_as_it_is(void **state)
{
	static u8 file[8192];
	struct world w;
	size_t size = make_bzimage(file, "nothing known", 13, 1);

	start(&w, 64 * MIB);
	add_initrd(&w, "first", "a");
	add_initrd(&w, "second", "b");
	assert_int_equal(load(&w, file, size), 0);
	check_long_mode(&w, 0x1000200);
	assert_memory_equal(at(&w, 0x1000000), "startup_32", 10);
	assert_string_equal((char *)at(&w, CMDLINE), "console=ttyS0 quiet");
	assert_int_equal(get_le32(at(&w, INFO + 0x228)), CMDLINE);
	assert_int_equal(get_le64(at(&w, INFO + 0x70)), 0xe0000);
	assert_int_equal(*at(&w, INFO + 0x210), 0xff);
	assert_int_equal(get_le32(at(&w, INFO + 0x21c)), 16); /* 8 + 8 */
	assert_int_equal(get_le32(at(&w, INFO + 0x218)), 64 * MIB - 4096);
	assert_memory_equal(at(&w, 64 * MIB - 4096), "first\0\0\0second\0\0", 16);
	assert_int_equal(*at(&w, INFO + 0x1e8), 5);
	assert_int_equal(get_le64(at(&w, INFO + 0x2d0 + 3 * 20)), MIB);
	assert_int_equal(get_le64(at(&w, INFO + 0x2d0 + 3 * 20 + 8)), 63 * MIB);
	assert_int_equal(get_le16(at(&w, 0x40e)), 0x9fc0);
	finish(&w);
}

static size_t
make_packed_zstd(u8 *packed, const u8 *elf, size_t size)
{
	size_t n = ZSTD_compress(packed, 8192, elf, size, 1);

	put_le32(packed + n, (u32)size);
	return n + 4;
}

static size_t
make_packed_lz4(u8 *packed, const u8 *elf, size_t size)
{
	int n = LZ4_compress_default((const char *)elf, (char *)packed + 8, (int)size, 8192);

	put_le32(packed, 0x184c2102);
	put_le32(packed + 4, (u32)n);
	put_le32(packed + 8 + n, (u32)size);
	return (size_t)n + 12;
}

static void
a_packed_kernel_unpacked_here(void **state)
{
	static u8 elf[4096], packed[8400], file[16384];
	size_t elf_size = make_elf64(elf, 0x1000000, "vmlinux", 0), size;
	struct world w;

	for (int lz4 = 0; lz4 < 2; lz4++) {
		size = lz4 ? make_packed_lz4(packed, elf, elf_size)
			   : make_packed_zstd(packed, elf, elf_size);
		size = make_bzimage(file, packed, size, 1);
		start(&w, 64 * MIB);
		assert_int_equal(load(&w, file, size), 0);
		check_long_mode(&w, 0x1000004);
		assert_string_equal((char *)at(&w, 0x1000000), "vmlinux");
		w.config.keep_packed = true;
		assert_int_equal(load(&w, file, size), 0);
		check_long_mode(&w, 0x1000200);
		finish(&w);
	}
	/* Damaged inside: the kernel is left to find out itself. */
	file[6 * 512 + 0x400 + 20] ^= 0xff;
	put_le32(file + 6 * 512 + 0x400 + get_le32(file + 0x24c) - 4, 123);
	start(&w, 64 * MIB);
	assert_int_equal(load(&w, file, size), 0);
	check_long_mode(&w, 0x1000200);
	finish(&w);
}

static void
a_32_bit_kernel(void **state)
{
	static u8 file[8192];
	size_t size = make_bzimage(file, "nothing known", 13, 0);
	struct world w;

	start(&w, 64 * MIB);
	assert_int_equal(load(&w, file, size), 0);
	assert_int_equal(w.bsp.rip, 0x1000000);
	assert_int_equal(w.bsp.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(w.bsp.gpr[CPU_RSI], INFO);
	assert_true(w.bsp.seg[CPU_CS].attr & SEGMENT_DB);
	finish(&w);
}

static void
too_little_memory(void **state)
{
	static u8 file[8192];
	size_t size = make_bzimage(file, "nothing known", 13, 1);
	static char big[6 << 20];
	struct world w;

	start(&w, 5 * MIB); /* at 16 MiB there is none: low, and just enough */
	assert_int_equal(load(&w, file, size), 0);
	check_long_mode(&w, 0x200200);
	finish(&w);
	start(&w, 4 * MIB);
	assert_int_equal(load(&w, file, size), -ENOMEM);
	assert_non_null(strstr(w.why, "memory"));
	finish(&w);
	start(&w, 24 * MIB);
	memset(big, 'x', sizeof(big) - 1);
	add_initrd(&w, big, "big");
	assert_int_equal(load(&w, file, size), -ENOMEM);
	assert_non_null(strstr(w.why, "initrd"));
	finish(&w);
	start(&w, MIB / 2);
	assert_true(load(&w, file, size) < 0);
	assert_true(w.why[0] != '\0');
	finish(&w);
}

static void
damaged_images(void **state)
{
	static u8 file[8192], copy[8192];
	size_t size = make_bzimage(file, "nothing known", 13, 1);
	static char line[70000];
	struct world w;

	start(&w, 64 * MIB);
	assert_int_equal(load(&w, file, 0), -ENOEXEC);
	assert_non_null(strstr(w.why, "empty"));
	assert_int_equal(load(&w, file, size - 100), -ENOEXEC);
	assert_non_null(strstr(w.why, "truncated"));
	assert_int_equal(load(&w, file, 0x270), -ENOEXEC);
	memset(copy, 'A', sizeof(copy));
	assert_int_equal(load(&w, copy, sizeof(copy)), -ENOEXEC);
	assert_non_null(strstr(w.why, "not a kernel"));
	memcpy(copy, file, size);
	put_le32(copy + 0x230, 3); /* alignment */
	assert_int_equal(load(&w, copy, size), -ENOEXEC);
	memcpy(copy, file, size);
	put_le16(copy + 0x206, 0x203);
	assert_int_equal(load(&w, copy, size), -ENOEXEC);
	assert_non_null(strstr(w.why, "too old"));
	memset(line, 'x', sizeof(line) - 1);
	w.config.cmdline = line;
	assert_int_equal(load(&w, file, size), -E2BIG);
	finish(&w);
}

static void
pvh(void **state)
{
	static u8 file[4096];
	size_t size = make_elf64(file, 0x200000, "kernel", 0x200010);
	struct world w;
	u64 modules, map;

	start(&w, 16 * MIB);
	add_initrd(&w, "initramfs", "i");
	assert_int_equal(load(&w, file, size), 0);
	assert_int_equal(w.bsp.rip, 0x200010);
	assert_int_equal(w.bsp.gpr[CPU_RBX], INFO);
	assert_int_equal(w.bsp.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_memory_equal(at(&w, 0x200000), "kernel\0\0", 8);
	assert_int_equal(get_le32(at(&w, INFO)), 0x336ec578);
	assert_int_equal(get_le32(at(&w, INFO + 12)), 1);
	modules = get_le64(at(&w, INFO + 16));
	assert_memory_equal(at(&w, get_le64(at(&w, modules))), "initramfs\0\0\0", 12);
	assert_string_equal((char *)at(&w, get_le64(at(&w, INFO + 24))), "console=ttyS0 quiet");
	assert_int_equal(get_le64(at(&w, INFO + 32)), 0xe0000);
	map = get_le64(at(&w, INFO + 40));
	assert_int_equal(get_le32(at(&w, INFO + 48)), 5);
	assert_int_equal(get_le64(at(&w, map + 8)), 0x9fc00);
	assert_int_equal(get_le32(at(&w, map + 16)), E820_RAM);
	finish(&w);
}

static void
plain_vmlinux(void **state)
{
	static u8 file[4096];
	size_t size = make_elf64(file, 0x1000000, "kernel", 0);
	struct world w;

	start(&w, 32 * MIB);
	assert_int_equal(load(&w, file, size), 0);
	check_long_mode(&w, 0x1000004);
	assert_int_equal(get_le32(at(&w, INFO + 0x202)), 0x53726448);
	finish(&w);
}

static void
hostile_elf(void **state)
{
	static u8 file[4096];
	size_t size;
	Elf64_Phdr *p = (Elf64_Phdr *)(file + sizeof(Elf64_Ehdr));
	Elf64_Ehdr *h = (Elf64_Ehdr *)file;
	struct world w;

	start(&w, 16 * MIB);
	size = make_elf64(file, 0x200000, "kernel", 0);
	p->p_paddr = UINT64_MAX - 5;
	assert_true(load(&w, file, size) < 0);
	p->p_paddr = 0xe0000; /* over the firmware's tables */
	assert_true(load(&w, file, size) < 0);
	assert_non_null(strstr(w.why, "firmware"));
	p->p_paddr = 0;
	assert_true(load(&w, file, size) < 0);
	p->p_paddr = 0x200000;
	p->p_filesz = 0x2000; /* more than memsz */
	assert_true(load(&w, file, size) < 0);
	p->p_filesz = 0x800; /* more than the file */
	assert_true(load(&w, file, size) < 0);
	assert_non_null(strstr(w.why, "truncated"));
	p->p_filesz = 4;
	p->p_offset = UINT64_MAX - 2;
	assert_true(load(&w, file, size) < 0);
	p->p_offset = 0x300;
	p->p_memsz = UINT64_MAX;
	assert_true(load(&w, file, size) < 0);
	p->p_memsz = 0;
	p->p_filesz = 0;
	assert_true(load(&w, file, size) < 0); /* nothing to load */
	size = make_elf64(file, 0x200000, "kernel", 0);
	h->e_phoff = UINT64_MAX - 20;
	assert_true(load(&w, file, size) < 0);
	h->e_phoff = sizeof(*h);
	h->e_phnum = 0xffff;
	assert_true(load(&w, file, size) < 0);
	h->e_phnum = 1;
	h->e_machine = EM_AARCH64;
	assert_true(load(&w, file, size) < 0);
	assert_true(load(&w, file, 60) < 0);
	size = make_elf64(file, 0x200000, "kernel", 0x200000);
	put_le32(file + 0x200, 0xfffffffc);	   /* a note's name size */
	assert_int_equal(load(&w, file, size), 0); /* no PVH then */
	finish(&w);
}

static void
put_multiboot(u8 *to, u32 flags)
{
	put_le32(to, 0x1badb002);
	put_le32(to + 4, flags);
	put_le32(to + 8, 0u - 0x1badb002u - flags);
}

static void
multiboot_elf(void **state)
{
	static u8 file[4096];
	size_t size = make_elf32(file, 0x400000, "guest");
	struct world w;
	u8 *info, *modules, *map;

	put_multiboot(file + 0x100, 3);
	start(&w, 16 * MIB);
	w.config.kernel.name = "test.elf";
	w.config.cmdline = "a b";
	add_initrd(&w, "NR_CPUS=2", "env");
	add_initrd(&w, "more", NULL);
	assert_int_equal(load(&w, file, size), 0);
	assert_int_equal(w.bsp.rip, 0x400008);
	assert_int_equal(w.bsp.gpr[CPU_RAX], 0x2badb002);
	info = at(&w, w.bsp.gpr[CPU_RBX]);
	assert_int_equal(get_le32(info), 0x24d);
	assert_int_equal(get_le32(info + 4), 639);
	assert_int_equal(get_le32(info + 8), 15 * 1024);
	assert_string_equal((char *)at(&w, get_le32(info + 16)), "test.elf a b");
	assert_int_equal(get_le32(info + 20), 2);
	modules = at(&w, get_le32(info + 24));
	assert_int_equal(get_le32(modules), 0x401000);
	assert_int_equal(get_le32(modules + 4), 0x401009);
	assert_memory_equal(at(&w, 0x401000), "NR_CPUS=2", 9);
	assert_string_equal((char *)at(&w, get_le32(modules + 8)), "env");
	assert_int_equal(get_le32(modules + 16), 0x402000);
	map = at(&w, get_le32(info + 48));
	assert_int_equal(get_le32(map), 20);
	assert_int_equal(get_le64(map + 12), 0x9fc00);
	assert_int_equal(get_le32(info + 44), 5 * 24);
	assert_string_equal((char *)at(&w, get_le32(info + 64)), "Biga");
	finish(&w);
}

static void
multiboot_addresses(void **state)
{
	static u8 file[4096];
	struct world w;

	memset(file, 0, sizeof(file));
	put_multiboot(file + 0x40, BIT(16));
	put_le32(file + 0x4c, 0x100040); /* header_addr */
	put_le32(file + 0x50, 0x100000); /* load_addr */
	put_le32(file + 0x54, 0x100800); /* load_end_addr */
	put_le32(file + 0x58, 0x102000); /* bss_end_addr */
	put_le32(file + 0x5c, 0x100080); /* entry_addr */
	memcpy(file + 0x7fc, "endX", 4);
	start(&w, 8 * MIB);
	memset(at(&w, 0x100000), 0xee, 0x3000);
	assert_int_equal(load(&w, file, sizeof(file)), 0);
	assert_int_equal(w.bsp.rip, 0x100080);
	assert_memory_equal(at(&w, 0x1007fc), "endX\0\0\0\0", 8);
	assert_int_equal(*at(&w, 0x101fff), 0);
	assert_int_equal(*at(&w, 0x102000), 0xee);
	put_le32(file + 0x50, 0x100041); /* load address above the header */
	assert_true(load(&w, file, sizeof(file)) < 0);
	put_le32(file + 0x50, 0x0ff000); /* before the file's start */
	assert_true(load(&w, file, sizeof(file)) < 0);
	put_le32(file + 0x50, 0x100000);
	put_le32(file + 0x58, 0x100400);
	assert_true(load(&w, file, sizeof(file)) < 0);
	put_le32(file + 0x58, 0);
	put_le32(file + 0x54, 0xfff00000);
	assert_true(load(&w, file, sizeof(file)) < 0);
	put_multiboot(file + 0x40, BIT(16) | BIT(5)); /* a mandatory feature unknown */
	assert_int_equal(load(&w, file, sizeof(file)), -ENOTSUP);
	finish(&w);
}

static void
memory_map(void **state)
{
	struct e820_entry map[E820_MAX];
	struct memory *mem;
	unsigned n;

	assert_int_equal(memory_create(&mem, MEMORY_PCI_HOLE + 256 * MIB), 0);
	n = e820_build(mem, map);
	assert_int_equal(n, 6);
	for (unsigned i = 1; i < n; i++)
		assert_true(map[i].base >= map[i - 1].base + map[i - 1].size);
	assert_int_equal(map[n - 1].base, MEMORY_HIGH);
	assert_int_equal(map[n - 1].size, 256 * MIB);
	assert_int_equal(map[3].size, MEMORY_PCI_HOLE - MIB);
	memory_destroy(mem);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_packed_kernel_as_it_is),
		cmocka_unit_test(a_packed_kernel_unpacked_here),
		cmocka_unit_test(a_32_bit_kernel),
		cmocka_unit_test(too_little_memory),
		cmocka_unit_test(damaged_images),
		cmocka_unit_test(pvh),
		cmocka_unit_test(plain_vmlinux),
		cmocka_unit_test(hostile_elf),
		cmocka_unit_test(multiboot_elf),
		cmocka_unit_test(multiboot_addresses),
		cmocka_unit_test(memory_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
