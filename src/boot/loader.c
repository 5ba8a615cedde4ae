/*
 * The loaders' common ground. Sizes come from files and headers that nobody
 * vouches for: every range is checked here before a byte of guest memory is
 * touched.
 */
#include "boot/loader.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

enum {
	LOADER_LOWEST = 0x1000, /* below: interrupt table and BIOS data */
	SELECTOR_CODE = 0x10,
	SELECTOR_DATA = 0x18,
	SELECTOR_TSS = 0x20,
	INITRD_ALIGN = 4096,
};

#define GDT_CODE_32 0x00cf9b000000ffffull
#define GDT_CODE_64 0x00af9b000000ffffull
#define GDT_DATA 0x00cf93000000ffffull
#define GDT_TSS 0x00008b0000000067ull

int
loader_fail(struct boot_loader *l, int error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(l->why, l->why_size, fmt, args);
	va_end(args);
	return error;
}

static int
loader_pread(int fd, void *buf, u64 len, u64 offset)
{
	u8 *to = buf;
	ssize_t n;

	while (len > 0) {
		n = pread(fd, to, len < (1u << 30) ? len : (1u << 30), (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		to += n;
		offset += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

int
loader_read(struct boot_loader *l, const struct boot_source *from, u64 offset, void *buf, u64 len)
{
	int rc;

	if (offset > from->size || len > from->size - offset)
		return loader_fail(
			l, -ENOEXEC,
			"kernel %s is truncated: it needs %llu bytes more; copy it again", l->name,
			(unsigned long long)(offset + len - from->size));
	if (len == 0)
		return 0;
	if (from->data) {
		memcpy(buf, from->data + offset, len);
		return 0;
	}
	rc = loader_pread(from->fd, buf, len, offset);
	if (rc < 0)
		return loader_fail(l, rc, "kernel %s cannot be read: %s", l->name, strerror(-rc));
	return 0;
}

u8 *
loader_place(struct boot_loader *l, u64 gpa, u64 len)
{
	u8 *host = memory_ptr(l->mem, gpa, len);

	if (!host) {
		loader_fail(l, -ENOMEM,
			    "kernel %s does not fit into memory: it needs %#llx bytes at %#llx; "
			    "give the VM more memory",
			    l->name, (unsigned long long)len, (unsigned long long)gpa);
		return NULL;
	}
	if (gpa < LOADER_LOWEST || (gpa < E820_ONE_MIB && gpa + len > LOADER_AREA)) {
		loader_fail(l, -ENOEXEC,
			    "kernel %s wants to be at %#llx, where firmware has its tables",
			    l->name, (unsigned long long)gpa);
		return NULL;
	}
	if (gpa + len > l->kernel_end)
		l->kernel_end = gpa + len;
	return host;
}

int
loader_fill(struct boot_loader *l, const struct boot_source *from, u64 offset, u64 len, u64 gpa,
	    u64 total)
{
	u8 *host;
	int rc;

	if (total == 0)
		return 0;
	if (len > total)
		return loader_fail(l, -ENOEXEC,
				   "kernel %s is damaged: a segment's file part exceeds it",
				   l->name);
	host = loader_place(l, gpa, total);
	if (!host)
		return -ENOEXEC;
	rc = loader_read(l, from, offset, host, len);
	if (rc < 0)
		return rc;
	memset(host + len, 0, total - len);
	memory_written(l->mem, gpa, total);
	return 0;
}

static const char *
loader_initrd_name(const struct boot_loader *l, unsigned i)
{
	return l->config->initrds[i].name ? l->config->initrds[i].name : "file";
}

int
loader_initrd_size(struct boot_loader *l, unsigned i, u64 *size)
{
	struct stat st;

	if (fstat(l->config->initrds[i].fd, &st) < 0)
		return loader_fail(l, -errno, "initrd %s cannot be read: %s",
				   loader_initrd_name(l, i), strerror(errno));
	if (!S_ISREG(st.st_mode))
		return loader_fail(l, -EINVAL, "initrd %s is not a regular file",
				   loader_initrd_name(l, i));
	*size = (u64)st.st_size;
	return 0;
}

int
loader_initrd_read(struct boot_loader *l, unsigned i, u64 gpa, u64 size)
{
	void *host = memory_ptr(l->mem, gpa, size);
	int rc;

	if (size == 0)
		return 0;
	if (!host)
		return loader_fail(l, -ENOMEM, "initrd %s is too large for the VM's memory",
				   loader_initrd_name(l, i));
	rc = loader_pread(l->config->initrds[i].fd, host, size, 0);
	if (rc < 0)
		return loader_fail(l, rc, "initrd %s cannot be read: %s", loader_initrd_name(l, i),
				   strerror(-rc));
	memory_written(l->mem, gpa, size);
	return 0;
}

static int
loader_initrd_total(struct boot_loader *l, u64 sizes[], u64 *total)
{
	int rc;

	*total = 0;
	for (unsigned i = 0; i < l->config->initrd_count; i++) {
		rc = loader_initrd_size(l, i, &sizes[i]);
		if (rc < 0)
			return rc;
		if (sizes[i] > memory_ram_size(l->mem))
			sizes[i] = memory_ram_size(l->mem); /* too large, said by the caller */
		*total += align_up(sizes[i], 4);
	}
	return 0;
}

int
loader_initrds(struct boot_loader *l, u64 limit)
{
	u64 sizes[BOOT_INITRDS_MAX], total, gpa, end = memory_low_size(l->mem);
	static const u32 zero;
	int rc;

	rc = loader_initrd_total(l, sizes, &total);
	if (rc < 0 || total == 0)
		return rc;
	if (end > limit)
		end = limit;
	if (total > end || align_down(end - total, INITRD_ALIGN) < l->kernel_end)
		return loader_fail(
			l, -ENOMEM,
			"initrd of %llu MiB and kernel of %llu MiB are too large for the "
			"VM's memory; give it more",
			(unsigned long long)(total >> 20),
			(unsigned long long)(l->kernel_end >> 20));
	gpa = align_down(end - total, INITRD_ALIGN);
	l->initrd_base = gpa;
	l->initrd_size = total;
	for (unsigned i = 0; i < l->config->initrd_count; i++) {
		rc = loader_initrd_read(l, i, gpa, sizes[i]);
		if (rc < 0)
			return rc;
		gpa += sizes[i];
		memory_write(l->mem, gpa, &zero, (4 - sizes[i] % 4) % 4);
		gpa = align_up(gpa, 4);
	}
	return 0;
}

int
loader_cmdline(struct boot_loader *l, u64 max)
{
	const char *text = l->config->cmdline ? l->config->cmdline : "";
	size_t len = strlen(text);

	if (max > LOADER_CMDLINE_SIZE - 1)
		max = LOADER_CMDLINE_SIZE - 1;
	if (len > max)
		return loader_fail(
			l, -E2BIG,
			"the kernel's command line is too long: %zu bytes, %s takes %llu", len,
			l->name, (unsigned long long)max);
	return memory_write(l->mem, LOADER_CMDLINE, text, len + 1);
}

/* Selectors 0x10, 0x18 and 0x20 in memory and, the same, in the segment registers. */
static int
loader_segments(struct boot_loader *l, bool long_mode)
{
	static const u16 data_attr = SEGMENT_P | SEGMENT_S | SEGMENT_DB | SEGMENT_G | 3;
	u16 code_attr =
		SEGMENT_P | SEGMENT_S | SEGMENT_G | 11 | (long_mode ? SEGMENT_L : SEGMENT_DB);
	struct cpu_state *s = l->bsp;
	u8 gdt[64] = {0};

	put_le64(gdt + SELECTOR_CODE, long_mode ? GDT_CODE_64 : GDT_CODE_32);
	put_le64(gdt + SELECTOR_DATA, GDT_DATA);
	put_le64(gdt + SELECTOR_TSS, GDT_TSS);
	for (int i = 0; i < CPU_SEGMENTS; i++)
		s->seg[i] = (struct segment){
			.limit = 0xffffffff, .selector = SELECTOR_DATA, .attr = data_attr};
	s->seg[CPU_CS] =
		(struct segment){.limit = 0xffffffff, .selector = SELECTOR_CODE, .attr = code_attr};
	s->tr = (struct segment){.limit = 0x67, .selector = SELECTOR_TSS, .attr = SEGMENT_P | 11};
	s->ldt = (struct segment){.limit = 0xffff, .attr = SEGMENT_P | 2};
	s->gdt = (struct descriptor_table){.base = LOADER_GDT, .limit = sizeof(gdt) - 1};
	s->idt = (struct descriptor_table){.base = 0, .limit = 0};
	return memory_write(l->mem, LOADER_GDT, gdt, sizeof(gdt));
}

/* One PML4 and one PDPT entry for each of four directories of 2 MiB pages. */
static int
loader_page_tables(struct boot_loader *l)
{
	u8 *table = memory_ptr(l->mem, LOADER_TABLES, 6 * MEMORY_PAGE);
	static const u64 flags = 3; /* present, writable */

	if (!table)
		return -EFAULT;
	memset(table, 0, 2 * MEMORY_PAGE);
	put_le64(table, (LOADER_TABLES + MEMORY_PAGE) | flags);
	for (u64 i = 0; i < 4; i++)
		put_le64(table + MEMORY_PAGE + i * 8,
			 (LOADER_TABLES + (2 + i) * MEMORY_PAGE) | flags);
	for (u64 i = 0; i < 4 * 512; i++)
		put_le64(table + 2 * MEMORY_PAGE + i * 8, i << 21 | 0x80 | flags);
	memory_written(l->mem, LOADER_TABLES, 6 * MEMORY_PAGE);
	return 0;
}

static int
loader_too_small(struct boot_loader *l)
{
	return loader_fail(l, -ENOMEM, "the VM's memory is too small to load a kernel");
}

int
loader_enter_64(struct boot_loader *l, u64 entry)
{
	struct cpu_state *s = l->bsp;

	if (loader_segments(l, true) < 0 || loader_page_tables(l) < 0)
		return loader_too_small(l);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	s->cr3 = LOADER_TABLES;
	s->cr4 = CR4_PAE;
	s->msr.efer = EFER_LME | EFER_LMA;
	s->gpr[CPU_RSP] = LOADER_STACK;
	s->rip = entry;
	return 0;
}

int
loader_enter_32(struct boot_loader *l, u64 entry)
{
	struct cpu_state *s = l->bsp;

	if (entry > UINT32_MAX)
		return loader_fail(l, -ENOEXEC, "kernel %s is damaged: it starts above 4 GiB",
				   l->name);
	if (loader_segments(l, false) < 0)
		return loader_too_small(l);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->gpr[CPU_RSP] = LOADER_STACK;
	s->rip = entry;
	return 0;
}
