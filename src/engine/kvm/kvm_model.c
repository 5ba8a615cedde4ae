/*
 * A CPU model on this KVM: a named one loses what KVM cannot give and its floor does not ask
 * for, CPU_MODEL_HOST gets what KVM gives beyond. Mitigation bits stay the host CPU's.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* CUT: what a model may lose. ADD: what CPU_MODEL_HOST may gain; nothing whose registers are
 * not in the XSAVE area's x87, SSE and AVX parts (AVX-512, PKU, AMX), that needs MSRs of its own
 * (TSX, performance counters, WAITPKG), or another engine's (VMX, SVM). */
static const struct kvm_model_row {
	u32 leaf, subleaf;
	u8 reg;
	u32 cut, add;
} kvm_model_rows[] = {
	{1, 0, ECX, 0x42020002, 0},	     /* PCLMULQDQ, PCID, AES, RDRAND */
	{1, 0, EDX, 0, 0x00020002},	     /* VME, PSE-36 */
	{7, 0, EBX, 0x219c24c1, 0},	     /* FSGSBASE, SMEP, INVPCID, RDSEED to SHA */
	{7, 0, ECX, 0x00000004, 0x1a400700}, /* UMIP; GFNI, VAES, VPCLMULQDQ, RDPID, MOVDIR */
	{7, 0, EDX, 0, 0x00004000},	     /* SERIALIZE */
	{7, 1, EAX, 0, 0x00000010},	     /* AVX-VNNI */
	{0xd, 1, EAX, 0x00000003, 0},	     /* XSAVEOPT, XSAVEC */
	{0x80000001, 0, ECX, 0x00000100,
	 0x002108c0}, /* PREFETCHW; SSE4A, MISALIGNSSE, XOP, FMA4, TBM */
	{0x80000001, 0, EDX, 0x0c000000, 0x02000000}, /* 1 GiB pages, RDTSCP; FFXSR */
	{0x80000008, 0, EBX, 0, 0x00000201},	      /* CLZERO, WBNOINVD */
};

static int
kvm_model_fit_row(const struct kvm_cpuid2 *table, struct cpu_model *model,
		  const struct kvm_model_row *row)
{
	const struct kvm_cpuid_entry2 *entry = kvm_cpuid_find(table, row->leaf, row->subleaf);
	u32 has = entry ? kvm_cpuid_reg(entry, row->reg) : 0;
	u32 had = cpu_model_get(model, row->leaf, row->subleaf, row->reg);
	u32 want = had & ~(row->cut & ~has);

	if (strcmp(model->name, CPU_MODEL_HOST) == 0)
		want |= has & row->add;
	return want == had ? 0 : cpu_model_set(model, row->leaf, row->subleaf, row->reg, want);
}

int
kvm_model_fit_table(const struct kvm_cpuid2 *table, struct cpu_model *model)
{
	int err = 0;

	for (unsigned i = 0; i < ARRAY_LEN(kvm_model_rows) && !err; i++)
		err = kvm_model_fit_row(table, model, &kvm_model_rows[i]);
	return err;
}

int
kvm_model_fit(int device, struct cpu_model *model)
{
	struct kvm_cpuid2 *table = kvm_cpuid_alloc();
	int err;

	if (!table)
		return -ENOMEM;
	err = kvm_ioctl(device, KVM_GET_SUPPORTED_CPUID, table);
	if (err >= 0)
		err = kvm_model_fit_table(table, model);
	free(table);
	return err < 0 ? err : 0;
}
