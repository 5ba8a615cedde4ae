/*
 * ACPI tables: checksums, links and lengths by our own reading; that they say
 * something sane by ACPICA's disassembler and compiler, without a word of
 * complaint.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "machine/acpi.h"
#include "machine/aml.h"

enum { SIZE = 0x20000 };
#define GPA 0xe0000ull

static u8 blob[SIZE];

static struct acpi_board
board_with(unsigned vcpus)
{
	struct acpi_board board = {
		.vcpus = vcpus,
		.windows = {.mem32 = 0xc0000000,
			    .mem32_size = 0x3ec00000,
			    .mem64 = 0x140000000ull,
			    .mem64_size = 0x400000000ull,
			    .io = 0xc000,
			    .io_size = 0x4000},
		.ecam = 0xb0000000,
		.pic_irq = {10, 10, 11, 11, 10, 10, 11, 11},
	};

	return board;
}

static u8
sum(const u8 *p, size_t len)
{
	u8 total = 0;

	while (len--)
		total += *p++;
	return total;
}

static const u8 *
at(u64 gpa)
{
	assert_true(gpa >= GPA && gpa < GPA + SIZE);
	return blob + (gpa - GPA);
}

static const u8 *
find(const char *signature)
{
	const u8 *xsdt = at(get_le64(blob + 24));
	u32 len = get_le32(xsdt + 4);

	for (u32 i = 36; i < len; i += 8) {
		const u8 *table = at(get_le64(xsdt + i));

		if (!memcmp(table, signature, 4))
			return table;
		if (!memcmp(table, "FACP", 4) && !memcmp(at(get_le64(table + 140)), signature, 4))
			return at(get_le64(table + 140));
	}
	fail_msg("no %s", signature);
	return NULL;
}

static void
build(unsigned vcpus)
{
	struct acpi_board board = board_with(vcpus);

	assert_true(acpi_build(&board, GPA, blob, SIZE) > 0);
}

static void
test_checksums(void **state)
{
	static const char *const names[] = {"FACP", "DSDT", "APIC", "MCFG", "HPET"};

	(void)state;
	build(4);
	assert_memory_equal(blob, "RSD PTR ", 8);
	assert_int_equal(sum(blob, 20), 0);
	assert_int_equal(sum(blob, 36), 0);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const u8 *table = find(names[i]);

		assert_int_equal(sum(table, get_le32(table + 4)), 0);
	}
	assert_int_equal(get_le32(find("FACP") + 36) % 64, 0);
	assert_memory_equal(at(get_le32(find("FACP") + 36)), "FACS", 4);
}

static void
test_madt(void **state)
{
	const u8 *madt;
	unsigned cpus = 0, ioapics = 0, overrides = 0;

	(void)state;
	build(300);
	madt = find("APIC");
	for (u32 i = 44; i < get_le32(madt + 4); i += madt[i + 1]) {
		assert_true(madt[i + 1] >= 2);
		cpus += madt[i] == 0 || madt[i] == 9;
		ioapics += madt[i] == 1;
		overrides += madt[i] == 2;
	}
	assert_int_equal(cpus, 300);
	assert_int_equal(ioapics, 1);
	assert_int_equal(overrides, 2);
}

static void
test_no_room(void **state)
{
	struct acpi_board board = board_with(4);
	long used;

	(void)state;
	used = acpi_build(&board, GPA, blob, SIZE);
	for (long size = 0; size < used; size += 61) {
		u8 *exact = malloc((size_t)size + 1);

		assert_true(acpi_build(&board, GPA, exact, (size_t)size) < 0);
		free(exact);
	}
	assert_int_equal(acpi_build(&board, GPA, blob, (size_t)used), used);
}

static void
test_package_lengths(void **state)
{
	u8 buffer[8192];
	struct aml aml;

	(void)state;
	for (unsigned n = 0; n < 5000; n += 7) {
		size_t length, head;

		aml_init(&aml, buffer, sizeof(buffer));
		aml_scope(&aml, "\\");
		for (unsigned i = 0; i < n; i++)
			aml_integer(&aml, 0);
		aml_end(&aml);
		assert_false(aml.failed);
		head = 1u + (buffer[1] >> 6);
		length = head == 1 ? buffer[1] & 63u : buffer[1] & 15u;
		for (unsigned i = 1; i < head; i++)
			length |= (size_t)buffer[1 + i] << (8 * i - 4);
		assert_int_equal(length, aml.len - 1);
	}
}

static void
run(const char *fmt, ...)
{
	char command[512];
	va_list args;
	int status;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	status = system(command);
	if (status)
		fail_msg("%s: %d", command, status);
}

static void
save(const char *folder, const char *signature)
{
	const u8 *table = find(signature);
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.aml", folder, signature);
	file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(table, 1, get_le32(table + 4), file), get_le32(table + 4));
	fclose(file);
}

static void
test_iasl(void **state)
{
	static const char *const names[] = {"FACP", "DSDT", "APIC", "MCFG", "HPET"};
	char folder[] = "/tmp/test_acpi.XXXXXX";

	(void)state;
	build(8);
	assert_non_null(mkdtemp(folder));
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		save(folder, names[i]);
		run("cd %s && iasl -d %s.aml >out.txt 2>&1", folder, names[i]);
		run("cd %s && ! grep -iE 'invalid|incorrect|unknown' %s.dsl", folder, names[i]);
		run("cd %s && iasl -p again %s.dsl 2>&1 | grep -q '0 Errors, 0 Warnings'", folder,
		    names[i]);
	}
	run("rm -rf %s", folder);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksums), cmocka_unit_test(test_madt),
		cmocka_unit_test(test_no_room),	  cmocka_unit_test(test_package_lengths),
		cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
