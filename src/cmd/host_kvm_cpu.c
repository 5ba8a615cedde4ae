/*
 * The processor, and whether its virtualization is switched off. CPUID keeps
 * saying VMX or SVM when the firmware has locked it; what tells is the kernel:
 * the flag that it cleared (Intel since Linux 5.6, AMD since 6.7), its log, or the
 * register itself where /dev/cpu/0/msr can be read.
 */
#include <cpuid.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cmd/host_kvm_facts.h"

enum {
	CPUID1_ECX_VMX = BIT(5),
	CPUID1_ECX_HYPERVISOR = BIT(31),
	CPUID80000001_ECX_SVM = BIT(2),
	MSR_FEATURE_CONTROL = 0x3a, /* Intel SDM 4, table 2-2: bit 0 lock, bit 2 VMX outside SMX */
	FEATURE_CONTROL_LOCK = BIT(0),
	FEATURE_CONTROL_VMX = BIT(2),
	VM_CR_SVMDIS = BIT(4), /* AMD APM 2, 15.30.1 */
};
#define MSR_VM_CR 0xc0010114u

static const struct cpu_maker {
	const char *vendor, *virt, *module;
} cpu_makers[] = {
	{"GenuineIntel", "vmx", "kvm_intel"}, {"AuthenticAMD", "svm", "kvm_amd"},
	{"HygonGenuine", "svm", "kvm_amd"},   {"CentaurHauls", "vmx", "kvm_intel"},
	{"  Shanghai  ", "vmx", "kvm_intel"},
};

static void
cpu_vendor(char vendor[13])
{
	u32 r[4];

	__cpuid(0, r[0], r[1], r[2], r[3]);
	memcpy(vendor, &r[1], 4);
	memcpy(vendor + 4, &r[3], 4);
	memcpy(vendor + 8, &r[2], 4);
	vendor[12] = '\0';
	host_text_clean(vendor);
}

static void
cpu_model_name(char model[49])
{
	u32 r[12];
	const char *text = (const char *)r;

	memset(r, 0, sizeof(r));
	__cpuid(0x80000000, r[0], r[1], r[2], r[3]);
	if (r[0] < 0x80000004)
		return;
	for (u32 i = 0; i < 3; i++)
		__cpuid(0x80000002 + i, r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
	while (*text == ' ' && text < (const char *)r + sizeof(r) - 1)
		text++;
	host_text_copy(model, (size_t)((const char *)r + sizeof(r) - text) + 1, text);
	host_text_clean(model);
}

static void
cpu_above(struct host_cpu *cpu)
{
	u32 r[4];

	__cpuid(1, r[0], r[1], r[2], r[3]);
	cpu->in_vm = r[2] & CPUID1_ECX_HYPERVISOR;
	if (!cpu->in_vm)
		return;
	__cpuid(0x40000000, r[0], r[1], r[2], r[3]);
	memcpy(cpu->hypervisor, &r[1], 12);
	cpu->hypervisor[12] = '\0';
	host_text_clean(cpu->hypervisor);
}

static bool
cpu_has_virt(const char *virt)
{
	u32 r[4];

	if (strcmp(virt, "vmx") == 0) {
		__cpuid(1, r[0], r[1], r[2], r[3]);
		return r[2] & CPUID1_ECX_VMX;
	}
	__cpuid(0x80000000, r[0], r[1], r[2], r[3]);
	if (r[0] < 0x80000001)
		return false;
	__cpuid(0x80000001, r[0], r[1], r[2], r[3]);
	return r[2] & CPUID80000001_ECX_SVM;
}

void
host_cpu_identify(struct host_cpu *cpu)
{
	const struct cpu_maker *maker = &cpu_makers[0];

	cpu_vendor(cpu->vendor);
	cpu_model_name(cpu->model);
	cpu_above(cpu);
	for (size_t i = 0; i < ARRAY_LEN(cpu_makers); i++) {
		if (strcmp(cpu->vendor, cpu_makers[i].vendor) == 0)
			maker = &cpu_makers[i];
	}
	cpu->virt = maker->virt;
	cpu->module = maker->module;
	cpu->has_virt = cpu_has_virt(cpu->virt);
	cpu->cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The first processor's flags are all that is read: the file is long on large hosts. */
static void
cpu_read_flag(struct host_cpu *cpu, const char *root)
{
	char text[8192], *flags;

	host_file_read(root, "/proc/cpuinfo", text, sizeof(text));
	flags = strstr(text, "\nflags");
	if (flags == NULL)
		return;
	flags[1 + strcspn(flags + 1, "\n")] = '\0';
	cpu->flag = host_text_has_word(flags, cpu->virt) ? HOST_YES : HOST_NO;
}

static bool
cpu_read_msr(const char *root, u32 msr, u64 *value)
{
	char path[HOST_PATH];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%.400s/dev/cpu/0/msr", root);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	ok = pread(fd, value, sizeof(*value), msr) == sizeof(*value);
	close(fd);
	return ok;
}

static void
cpu_check_msr(struct host_cpu *cpu, const char *root)
{
	u64 value;

	if (strcmp(cpu->virt, "svm") == 0) {
		if (!cpu_read_msr(root, MSR_VM_CR, &value))
			return;
		cpu->off = value & VM_CR_SVMDIS ? HOST_YES : HOST_NO;
		snprintf(cpu->off_how, sizeof(cpu->off_how), "MSR VM_CR is %#llx: SVMDIS is %s",
			 (unsigned long long)value, cpu->off == HOST_YES ? "set" : "clear");
		return;
	}
	if (!cpu_read_msr(root, MSR_FEATURE_CONTROL, &value))
		return;
	cpu->off = (value & (FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX)) == FEATURE_CONTROL_LOCK
			   ? HOST_YES
			   : HOST_NO;
	snprintf(cpu->off_how, sizeof(cpu->off_how), "MSR FEATURE_CONTROL is %#llx: %s",
		 (unsigned long long)value,
		 cpu->off == HOST_YES ? "locked without VMX" : "VMX may be used");
}

/* "clearcpuid=" takes numbers (feature word * 32 + bit) or names. */
static bool
cpu_cleared(const char *root, const char *virt)
{
	const char *number = strcmp(virt, "vmx") == 0 ? "133" : "194";
	char text[4096], *at;

	host_file_line(root, "/proc/cmdline", text, sizeof(text));
	at = strstr(text, "clearcpuid=");
	if (at == NULL || (at != text && at[-1] != ' '))
		return false;
	at += strlen("clearcpuid=");
	at[strcspn(at, " ")] = '\0';
	return host_text_has_word(at, virt) || host_text_has_word(at, number);
}

void
host_cpu_inspect(struct host_cpu *cpu, const char *root)
{
	cpu_read_flag(cpu, root);
	cpu->cleared = cpu->flag == HOST_NO && cpu_cleared(root, cpu->virt);
	if (!cpu->has_virt)
		return;
	cpu_check_msr(cpu, root);
	if (cpu->off == HOST_UNKNOWN && cpu->flag == HOST_NO && !cpu->cleared) {
		cpu->off = HOST_YES;
		snprintf(cpu->off_how, sizeof(cpu->off_how),
			 "CPUID has it, and the kernel took %s out of /proc/cpuinfo", cpu->virt);
	}
}

void
host_cpu_log(struct host_cpu *cpu, const char *log)
{
	/* Of several kernel versions; all that is looked for names the thing and the firmware. */
	static const char *const lines[] = {
		"VMX (outside TXT) disabled by BIOS",
		"VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL",
		"SVM disabled (by BIOS) in MSR_VM_CR",
		"kvm: disabled by bios",
		"kvm: support for 'kvm_intel' disabled by bios",
		"kvm: support for 'kvm_amd' disabled by bios",
	};

	if (cpu->off == HOST_YES)
		return;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		if (strstr(log, lines[i]) == NULL)
			continue;
		cpu->off = HOST_YES;
		snprintf(cpu->off_how, sizeof(cpu->off_how), "the kernel's log says \"%s\"",
			 lines[i]);
		return;
	}
}
