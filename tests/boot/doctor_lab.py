#!/usr/bin/env python3
"""What only another kernel can show, in the lab: a real kernel with KVM as modules, which are
missing, denied, refused, frozen or loaded; processors without virtualization.

timeout: 400
modes: release debug
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.environ.get("ROOT", os.path.realpath(os.path.join(os.path.dirname(__file__), "../..")))
TMP = os.environ.get("TMP", "/tmp")
MODE = os.environ.get("MODE", "release")
failed = 0

# Busybox's shell in the lab. `see NAME` is one finding.
HEAD = r"""
see() { echo "SEE $1"; build/$MODE/biga doctor --json --hypervisor kvm; }
mount -t securityfs security /sys/kernel/security
modules=/lib/modules/$(uname -r)
kvm=$modules/kernel/arch/x86/kvm
"""
INSTALL = r"""
mkdir -p $kvm
cp /modules/kvm-amd.ko $kvm/
echo "kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko" >$modules/modules.dep
"""
MODULES = HEAD + r"""
see no-folder
mkdir -p $modules && : >$modules/modules.dep
see no-file
""" + INSTALL + r"""
see installed
mkdir -p /etc/modprobe.d && printf '# x\nblacklist kvm-amd\n' >/etc/modprobe.d/deny.conf
see denied
rm /etc/modprobe.d/deny.conf
[ -f /modules/irqbypass.ko ] && insmod /modules/irqbypass.ko
insmod /modules/kvm.ko
see half
insmod /modules/kvm-amd.ko
see loaded
echo "RUN"; build/$MODE/biga run --net none --console none --cpu-model x86-64-v2 --debug-exit \
	--kernel build/$MODE/guest/hello.elf; echo "END $?"
rmmod kvm_amd
see gone
echo 1 >/proc/sys/kernel/modules_disabled
see frozen
"""
REFUSED = HEAD + INSTALL + r"""
see unsigned
[ -f /modules/irqbypass.ko ] && insmod /modules/irqbypass.ko
insmod /modules/kvm.ko
insmod /modules/kvm-amd.ko 2>/dev/null && echo "NOT REFUSED"
see refused
"""
ONE = HEAD + "see it\n"


def without_signature(path, out):
    """A module ends in its signature, twelve bytes (the last four: its length) and a mark."""
    mark = b"~Module signature appended~\n"
    with open(path, "rb") as f:
        data = f.read()
    if data.endswith(mark):
        length = int.from_bytes(data[-len(mark) - 4:-len(mark)], "big")
        data = data[:-len(mark) - 12 - length]
    with open(out, "wb") as f:
        f.write(data)


def lab(script, *options):
    """{name: (the hypervisor kvm, all)} of each `see`."""
    r = subprocess.run([ROOT + "/tools/kvm-lab", "--without-kvm", "--timeout", "120", *options,
                        "--env", "MODE=" + MODE, "sh", "-c", script], stdout=subprocess.PIPE,
                       text=True, check=False)
    seen = {}
    for name, text in re.findall(r"^SEE (\S+)\n(\{.*?^\})", r.stdout, re.M | re.S):
        seen[name] = (json.loads(text)["hypervisors"][0], json.loads(text))
    if not seen or "NOT REFUSED" in r.stdout:
        print(f"lab ended with {r.returncode} and said {r.stdout}")
    run = re.search(r"^RUN\n(.*?)END (\d+)", r.stdout, re.M | re.S)
    seen["run"] = run.groups() if run else ("", "")
    return seen


def expect(seen, name, cause, evidence="", fix=""):
    global failed
    kvm, found = seen.get(name, ({"cause": "nothing seen", "evidence": "", "fix": ""}, None))
    good = kvm["cause"] == cause and evidence in (kvm["evidence"] or "") and fix in kvm["fix"]
    print("ok  " if good else "FAIL", name, kvm if not good else cause)
    failed += not good
    return found


def modules(folder):
    seen = lab(MODULES, "--file", folder + "=/modules")
    expect(seen, "no-folder", "kernel-replaced", "/lib/modules/", "restart")
    expect(seen, "no-file", "module-missing", "has no kvm_amd", "install the package")
    expect(seen, "installed", "module-not-loaded", "", "modprobe kvm_amd")
    expect(seen, "denied", "module-denied", '/etc/modprobe.d/deny.conf, line 2, says "blacklist',
           "modprobe kvm_amd")
    expect(seen, "half", "module-not-loaded")
    loaded(seen)
    expect(seen, "gone", "module-not-loaded")
    expect(seen, "frozen", "modules-frozen", "modules_disabled is 1", "modules-load.d")


def loaded(seen):
    """A sound KVM; on a busy machine it may be slow. `auto` takes it, or says why not."""
    global failed
    kvm, found = seen.get("loaded", ({"usable": False, "cause": "nothing seen"}, None))
    text, status = seen["run"]
    good = (found and found["facts"]["kernel"]["kvm-registered"] and
            (kvm["usable"] or kvm["cause"] == "slow") and
            found["auto"] == ("kvm" if kvm["usable"] else "biga"))
    # What is on the edge of being slow may be on the other side of it now.
    good = good and status == "1" and ("hypervisor kvm: " in text or "but slow (" in text)
    print("ok  " if good else "FAIL", "loaded", kvm, seen["run"])
    failed += not good


def refused(folder):
    global failed
    seen = lab(REFUSED, "--file", folder + "=/modules", "--append",
               "module.sig_enforce=1 lockdown=integrity")
    found = expect(seen, "unsigned", "module-unsigned", "has no signature", "signed kernel")
    if found and (found["facts"]["security"]["sig-enforce"] is not True or
                  found["facts"]["security"]["lockdown"] != "integrity"):
        failed += 1
        print("FAIL", found["facts"]["security"])
    expect(seen, "refused", "module-refused", "rejected", "signed kernel")


def processors():
    expect(lab(ONE, "--cpu", "max,-svm"), "it", "no-nesting", "no svm", "nested")
    expect(lab(ONE, "--cpu", "max,-svm,-hypervisor"), "it", "no-virtualization", "no svm", "biga")
    expect(lab(ONE, "--append", "clearcpuid=svm"), "it", "cleared", "clearcpuid", "svm")


def main():
    r = subprocess.run([ROOT + "/tools/image", "kernel", "cloud"], stdout=subprocess.PIPE,
                       text=True, check=True)
    source = r.stdout.strip() + "/modules"
    names = [n for n in ("irqbypass", "kvm", "kvm-amd") if os.path.exists(f"{source}/{n}.ko")]
    for folder in ("plain", "stripped"):
        os.mkdir(f"{TMP}/{folder}")
    for name in names:
        for folder, change in (("plain", False), ("stripped", name == "kvm-amd")):
            out = f"{TMP}/{folder}/{name}.ko"
            if change:
                without_signature(f"{source}/{name}.ko", out)
            else:
                subprocess.run(["cp", f"{source}/{name}.ko", out], check=True)
    modules(TMP + "/plain")
    refused(TMP + "/stripped")
    processors()
    print(f"{failed} failed")
    return 1 if failed else 0


sys.exit(main())
