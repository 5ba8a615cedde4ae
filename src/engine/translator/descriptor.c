/*
 * Descriptors and the TSS's stacks (AMD64 APM 2, chapters 4 and 12). Nothing
 * here changes the vCPU but segment_commit and segment_drop_privileged; memory
 * changes in accessed and busy bits only.
 */
#include "engine/translator/descriptor.h"

#include "base/bytes.h"

int
descriptor_fault(struct vcpu *v, u8 vector, u16 selector, bool ext)
{
	return vcpu_raise_code(v, vector, (selector & 0xfffcu) | (ext ? 1u : 0u));
}

void
descriptor_decode(struct descriptor *d)
{
	struct segment *seg = &d->seg;

	seg->base = (d->low >> 16) | ((d->high & 0xff) << 16) | (d->high & 0xff000000);
	seg->limit = (d->low & 0xffff) | (d->high & 0xf0000);
	seg->attr = (u16)(((d->high >> 8) & 0xff) | ((d->high >> 12) & 0xf00));
	if (seg->attr & SEGMENT_G)
		seg->limit = seg->limit << 12 | 0xfff;
}

static bool
descriptor_locate(const struct vcpu *v, u16 selector, unsigned len, u64 *address)
{
	u32 index = selector & 0xfff8u;
	u32 limit = v->gdt.limit;
	u64 base = v->gdt.base;

	if (selector & 4) {
		if (!(v->ldt.attr & SEGMENT_P))
			return false;
		limit = v->ldt.limit;
		base = v->ldt.base;
	}
	if (index + len - 1 > limit)
		return false;
	*address = descriptor_linear(v, base + index);
	return true;
}

int
descriptor_read(struct vcpu *v, u16 selector, struct descriptor *d)
{
	u64 raw;
	int r;

	if (!descriptor_locate(v, selector, 8, &d->address))
		return DESCRIPTOR_OUTSIDE;
	r = mmu_read64(v, d->address, &raw, MMU_SUPERVISOR);
	if (r)
		return r;
	d->low = (u32)raw;
	d->high = (u32)(raw >> 32);
	d->seg.selector = selector;
	descriptor_decode(d);
	return 0;
}

int
descriptor_fetch(struct vcpu *v, u16 selector, struct descriptor *d, u8 vector, bool ext)
{
	int r = descriptor_read(v, selector, d);

	return r == DESCRIPTOR_OUTSIDE ? descriptor_fault(v, vector, selector, ext) : r;
}

int
descriptor_read_upper(struct vcpu *v, const struct descriptor *d, u32 *upper)
{
	u64 address, raw;
	int r;

	if (!descriptor_locate(v, d->seg.selector, 16, &address))
		return DESCRIPTOR_OUTSIDE;
	r = mmu_read64(v, address + 8, &raw, MMU_SUPERVISOR);
	if (r)
		return r;
	*upper = (u32)raw;
	return (raw >> 32) & 0x1f00 ? DESCRIPTOR_OUTSIDE : 0;
}

static int
descriptor_write_type(struct vcpu *v, struct descriptor *d, u8 type)
{
	int r = mmu_write(v, descriptor_linear(v, d->address + 5), &type, 1, MMU_SUPERVISOR);

	if (r)
		return r;
	d->high = (d->high & ~0xff00u) | (u32)type << 8;
	d->seg.attr = (u16)((d->seg.attr & ~0xffu) | type);
	return 0;
}

int
descriptor_set_accessed(struct vcpu *v, struct descriptor *d)
{
	if (d->seg.attr & 1)
		return 0;
	return descriptor_write_type(v, d, (u8)(d->seg.attr | 1));
}

int
descriptor_set_busy(struct vcpu *v, struct descriptor *d, bool busy)
{
	u8 type = (u8)(d->seg.attr & ~DESCRIPTOR_TSS_BUSY);

	return descriptor_write_type(v, d, busy ? type | DESCRIPTOR_TSS_BUSY : type);
}

struct segment
segment_null(u16 selector, u8 dpl)
{
	return (struct segment){.selector = selector, .attr = (u16)(dpl << SEGMENT_DPL_SHIFT)};
}

struct segment
segment_real(const struct segment *old, u16 selector, bool code, bool v86)
{
	struct segment seg = {.base = (u64)selector << 4, .selector = selector};

	if (v86) {
		seg.limit = 0xffff;
		seg.attr = SEGMENT_P | 3 << SEGMENT_DPL_SHIFT | SEGMENT_S | 3;
		return seg;
	}
	/* Real mode leaves limit, G and D as protected mode set them. */
	seg.limit = old->limit;
	seg.attr = (u16)((old->attr & (SEGMENT_G | SEGMENT_DB)) | SEGMENT_P | SEGMENT_S |
			 (code ? 11 : 3));
	return seg;
}

bool
segment_covers(const struct segment *seg, u64 offset, unsigned len)
{
	u64 last = offset + len - 1;

	if (!(seg->attr & SEGMENT_P) || last < offset)
		return false;
	if ((seg->attr & (SEGMENT_S | 8 | 4)) == (SEGMENT_S | 4)) /* expand-down data */
		return offset > seg->limit &&
		       last <= (seg->attr & SEGMENT_DB ? 0xffffffffu : 0xffffu);
	return last <= seg->limit;
}

void
segment_drop_privileged(struct vcpu *v, u8 cpl)
{
	static const u8 data[] = {CPU_ES, CPU_DS, CPU_FS, CPU_GS};

	for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
		struct segment *seg = &v->seg[data[i]];

		if ((seg->attr & SEGMENT_P) && segment_dpl(seg) < cpl &&
		    !segment_is_conforming(seg))
			*seg = segment_null(0, 0);
	}
}

void
segment_commit(struct vcpu *v, enum cpu_segment seg, const struct segment *value)
{
	struct segment old = v->seg[seg];

	v->seg[seg] = *value;
	if (old.base != value->base || old.limit != value->limit || old.attr != value->attr)
		vcpu_mode_changed(v);
}

static int
tss_read(struct vcpu *v, u32 offset, void *buf, unsigned len, bool ext)
{
	if (!(v->tr.attr & SEGMENT_P) || offset + len - 1 > v->tr.limit)
		return descriptor_fault(v, VECTOR_TS, v->tr.selector, ext);
	return mmu_read(v, descriptor_linear(v, v->tr.base + offset), buf, len, MMU_SUPERVISOR);
}

static int
tss_read_stack(struct vcpu *v, u8 cpl, bool ext, u16 *selector, u64 *sp)
{
	u8 raw[6];
	int r;

	if ((v->tr.attr & SEGMENT_TYPE & ~DESCRIPTOR_TSS_BUSY) == DESCRIPTOR_TSS16) {
		r = tss_read(v, 2u + 4u * cpl, raw, 4, ext);
		if (r)
			return r;
		*sp = get_le16(raw);
		*selector = get_le16(raw + 2);
		return 0;
	}
	r = tss_read(v, 4u + 8u * cpl, raw, 6, ext);
	if (r)
		return r;
	*sp = get_le32(raw);
	*selector = get_le16(raw + 4);
	return 0;
}

int
tss_legacy_stack(struct vcpu *v, u8 cpl, bool ext, struct descriptor *ss, u64 *sp)
{
	u16 selector;
	int r = tss_read_stack(v, cpl, ext, &selector, sp);

	if (r)
		return r;
	if (selector_null(selector))
		return descriptor_fault(v, VECTOR_TS, 0, ext);
	r = descriptor_fetch(v, selector, ss, VECTOR_TS, ext);
	if (r)
		return r;
	if ((selector & 3) != cpl || segment_dpl(&ss->seg) != cpl || !segment_is_writable(&ss->seg))
		return descriptor_fault(v, VECTOR_TS, selector, ext);
	if (!(ss->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_SS, selector, ext);
	return descriptor_set_accessed(v, ss);
}

int
tss_long_stack(struct vcpu *v, u8 cpl, unsigned ist, bool ext, u64 *rsp)
{
	u32 offset = ist ? 0x24 + 8 * (ist - 1) : 4 + 8u * cpl;
	int r = tss_read(v, offset, rsp, 8, ext);

	if (r)
		return r;
	if (!vcpu_canonical(*rsp))
		return vcpu_raise_code(v, VECTOR_SS, ext);
	return 0;
}
