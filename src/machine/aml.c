/*
 * AML writer. Package lengths are inserted when a body ends, since their own
 * size depends on their value (20.2.4).
 */
#include "machine/aml.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

enum {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE = 0x0a,
	AML_WORD = 0x0b,
	AML_DWORD = 0x0c,
	AML_STRING = 0x0d,
	AML_QWORD = 0x0e,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_METHOD = 0x14,
	AML_DUAL = 0x2e,
	AML_MULTI = 0x2f,
	AML_EXTENDED = 0x5b,
	AML_ARG0 = 0x68,
	AML_STORE = 0x70,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86,
	AML_DWORD_FIELD = 0x8a,
	AML_EQUAL = 0x93,
	AML_IF = 0xa0,
	AML_ELSE = 0xa1,
	AML_RETURN = 0xa4,
	AML_EXTENDED_DEVICE = 0x82,
};

void
aml_init(struct aml *aml, void *data, size_t size)
{
	memset(aml, 0, sizeof(*aml));
	aml->data = data;
	aml->size = size;
}

static void
aml_raw(struct aml *aml, const void *data, size_t len)
{
	if (aml->failed || len > aml->size - aml->len) {
		aml->failed = true;
		return;
	}
	memcpy(aml->data + aml->len, data, len);
	aml->len += len;
}

static void
aml_byte(struct aml *aml, unsigned value)
{
	u8 byte = (u8)value;

	aml_raw(aml, &byte, 1);
}

static void
aml_begin(struct aml *aml)
{
	if (aml->depth == AML_DEPTH) {
		aml->failed = true;
		return;
	}
	aml->open[aml->depth++] = (struct aml_open){.length_at = aml->len};
}

/* One name segment of up to four characters, filled up with underscores. */
static const char *
aml_segment(struct aml *aml, const char *text)
{
	char segment[4] = {'_', '_', '_', '_'};
	unsigned n = 0;

	while (*text && *text != '.' && n < 4)
		segment[n++] = *text++;
	if (!n || (*text && *text != '.'))
		aml->failed = true;
	aml_raw(aml, segment, 4);
	return *text ? text + 1 : text;
}

void
aml_path(struct aml *aml, const char *path)
{
	unsigned segments = 1;

	if (*path == '\\') {
		aml_byte(aml, '\\');
		path++;
	}
	if (!*path) {
		aml_byte(aml, AML_ZERO); /* the root itself: a null name */
		return;
	}
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		aml_byte(aml, AML_DUAL);
	} else if (segments > 2) {
		aml_byte(aml, AML_MULTI);
		aml_byte(aml, segments);
	}
	while (segments--)
		path = aml_segment(aml, path);
}

void
aml_scope(struct aml *aml, const char *path)
{
	aml_byte(aml, AML_SCOPE);
	aml_begin(aml);
	aml_path(aml, path);
}

void
aml_device(struct aml *aml, const char *name)
{
	aml_byte(aml, AML_EXTENDED);
	aml_byte(aml, AML_EXTENDED_DEVICE);
	aml_begin(aml);
	aml_path(aml, name);
}

void
aml_method(struct aml *aml, const char *name, unsigned args)
{
	aml_byte(aml, AML_METHOD);
	aml_begin(aml);
	aml_path(aml, name);
	aml_byte(aml, args & 7);
}

void
aml_if(struct aml *aml)
{
	aml_byte(aml, AML_IF);
	aml_begin(aml);
}

void
aml_else(struct aml *aml)
{
	aml_byte(aml, AML_ELSE);
	aml_begin(aml);
}

void
aml_package(struct aml *aml, unsigned elements)
{
	if (elements > 255)
		aml->failed = true;
	aml_byte(aml, AML_PACKAGE);
	aml_begin(aml);
	aml_byte(aml, elements);
}

void
aml_resources(struct aml *aml)
{
	aml_byte(aml, AML_BUFFER);
	aml_begin(aml);
	if (aml->failed)
		return;
	aml->open[aml->depth - 1].resources = true;
	/* Its size as a word, known at the end. */
	aml_byte(aml, AML_WORD);
	aml_raw(aml, "\0\0", 2);
}

/* The end tag (6.4.2.9; checksum 0: none) and the buffer's size. */
static void
aml_end_resources(struct aml *aml, size_t start)
{
	aml_raw(aml, "\x79\0", 2);
	if (!aml->failed)
		put_le16(aml->data + start + 1, (u16)(aml->len - start - 3));
}

void
aml_end(struct aml *aml)
{
	struct aml_open open;
	u8 code[4];
	size_t body, total;
	unsigned n = 1;

	if (aml->failed || !aml->depth) {
		aml->failed = true;
		return;
	}
	open = aml->open[--aml->depth];
	if (open.resources)
		aml_end_resources(aml, open.length_at);
	body = aml->len - open.length_at;
	while (body + n >= (n == 1 ? 64u : 1u << (8 * n - 4)) && n < 4)
		n++;
	total = body + n;
	if (n == 1) {
		code[0] = (u8)total;
	} else {
		code[0] = (u8)((n - 1) << 6 | (total & 15));
		for (unsigned i = 1; i < n; i++)
			code[i] = (u8)(total >> (8 * i - 4));
	}
	aml_raw(aml, code, n); /* makes the room */
	if (aml->failed)
		return;
	memmove(aml->data + open.length_at + n, aml->data + open.length_at, body);
	memcpy(aml->data + open.length_at, code, n);
}

void
aml_name(struct aml *aml, const char *name)
{
	aml_byte(aml, AML_NAME);
	aml_path(aml, name);
}

void
aml_integer(struct aml *aml, u64 value)
{
	u8 code[9];
	unsigned n;

	put_le64(code + 1, value);
	if (value <= 1) {
		aml_byte(aml, value ? AML_ONE : AML_ZERO);
		return;
	}
	if (value <= 0xff) {
		code[0] = AML_BYTE;
		n = 1;
	} else if (value <= 0xffff) {
		code[0] = AML_WORD;
		n = 2;
	} else if (value <= 0xffffffffu) {
		code[0] = AML_DWORD;
		n = 4;
	} else {
		code[0] = AML_QWORD;
		n = 8;
	}
	aml_raw(aml, code, n + 1);
}

void
aml_string(struct aml *aml, const char *text)
{
	aml_byte(aml, AML_STRING);
	aml_raw(aml, text, strlen(text) + 1);
}

static unsigned
aml_hex(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	return ((unsigned)(c - 'A') + 10) & 15;
}

/* Three letters in five bits each, four hexadecimal digits, big-endian (19.6.37). */
void
aml_eisaid(struct aml *aml, const char *id)
{
	u32 value = 0;
	u8 code[5] = {AML_DWORD};

	if (strlen(id) != 7) {
		aml->failed = true;
		return;
	}
	for (unsigned i = 0; i < 3; i++)
		value |= ((u32)(id[i] - 'A' + 1) & 31) << (26 - 5 * i);
	for (unsigned i = 0; i < 4; i++)
		value |= aml_hex(id[3 + i]) << (12 - 4 * i);
	put_le32(code + 1, __builtin_bswap32(value));
	aml_raw(aml, code, 5);
}

void
aml_bytes(struct aml *aml, const void *data, u8 len)
{
	aml_byte(aml, AML_BUFFER);
	aml_begin(aml);
	aml_integer(aml, len);
	aml_raw(aml, data, len);
	aml_end(aml);
}

/* As ToUUID (19.6.142): the first three groups little-endian. */
void
aml_uuid(struct aml *aml, const char *uuid)
{
	static const u8 place[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	u8 bytes[16] = {0};
	unsigned n = 0;

	for (; uuid[0] && uuid[1] && n < 16; uuid++) {
		if (*uuid == '-')
			continue;
		bytes[place[n++]] = (u8)(aml_hex(uuid[0]) << 4 | aml_hex(uuid[1]));
		uuid++;
	}
	aml_bytes(aml, bytes, 16);
}

void
aml_arg(struct aml *aml, unsigned n)
{
	aml_byte(aml, AML_ARG0 + n);
}

void
aml_return(struct aml *aml)
{
	aml_byte(aml, AML_RETURN);
}

void
aml_equal(struct aml *aml)
{
	aml_byte(aml, AML_EQUAL);
}

void
aml_store(struct aml *aml)
{
	aml_byte(aml, AML_STORE);
}

void
aml_notify(struct aml *aml)
{
	aml_byte(aml, AML_NOTIFY);
}

void
aml_or(struct aml *aml)
{
	aml_byte(aml, AML_OR);
}

void
aml_dword_field(struct aml *aml)
{
	aml_byte(aml, AML_DWORD_FIELD);
}

/* 6.4.2.5: decodes 16 bits, fixed place. */
void
aml_io(struct aml *aml, u16 port, u8 count)
{
	u8 code[8] = {0x47, 1, 0, 0, 0, 0, 1, count};

	put_le16(code + 2, port);
	put_le16(code + 4, port);
	aml_raw(aml, code, sizeof(code));
}

/* 6.4.2.1: edge-triggered, active high, exclusive. */
void
aml_irq(struct aml *aml, unsigned irq)
{
	u8 code[3] = {0x22};

	put_le16(code + 1, (u16)BIT(irq));
	aml_raw(aml, code, sizeof(code));
}

/* 6.4.3.4: writable. */
void
aml_memory32(struct aml *aml, u32 base, u32 size)
{
	u8 code[12] = {0x86, 9, 0, 1};

	put_le32(code + 4, base);
	put_le32(code + 8, size);
	aml_raw(aml, code, sizeof(code));
}

enum { RANGE_MEMORY = 0, RANGE_IO = 1, RANGE_BUS = 2 };
/* Producer, positive decode, both ends fixed. */
enum { RANGE_FLAGS = 0x0c };

/* 6.4.3.5: granularity, first, last, translation, length, each of WIDTH bytes. */
static void
aml_range(struct aml *aml, unsigned kind, unsigned width, unsigned type_flags, u64 first, u64 count)
{
	u64 values[5] = {0, first, first + count - 1, 0, count};
	u8 head[6] = {width == 2   ? 0x88
		      : width == 4 ? 0x87
				   : 0x8a,
		      (u8)(3 + 5 * width),
		      0,
		      (u8)kind,
		      RANGE_FLAGS,
		      (u8)type_flags};
	u8 bytes[8];

	aml_raw(aml, head, sizeof(head));
	for (unsigned i = 0; i < 5; i++) {
		put_le64(bytes, values[i]);
		aml_raw(aml, bytes, width);
	}
}

void
aml_bus_range(struct aml *aml, u16 first, u16 count)
{
	aml_range(aml, RANGE_BUS, 2, 0, first, count);
}

/* Type-specific 3: the entire range, ISA addresses too. A whole space of 64 Ki ports would not
 * fit its length field. */
void
aml_io_range(struct aml *aml, u16 first, u32 count)
{
	if (count > 0xffff)
		aml->failed = true;
	aml_range(aml, RANGE_IO, 2, 3, first, count);
}

/* Type-specific 1: read and write, not cacheable. */
void
aml_memory_range32(struct aml *aml, u32 base, u32 size)
{
	aml_range(aml, RANGE_MEMORY, 4, 1, base, size);
}

void
aml_memory_range64(struct aml *aml, u64 base, u64 size)
{
	aml_range(aml, RANGE_MEMORY, 8, 1, base, size);
}
