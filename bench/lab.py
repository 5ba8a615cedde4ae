#!/usr/bin/env python3
"""Biga on a sound KVM beside QEMU on it: in the lab of tools/kvm-lab, by bench/inside.py.

    bench/lab.py [--repeat N] [--trace]
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))
from guest import image, pack_initrd  # noqa: E402

BUILD = os.path.join(ROOT, "build/bench")
# The system's: another one may have anything beside its library.
PYTHON = "/usr/bin/python3"
QEMU = "/usr/bin/qemu-system-x86_64"
FIRMWARE = ["/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/pvh.bin", "/usr/share/seabios/bios-256k.bin",
            "/usr/share/qemu/bios-microvm.bin", "/usr/share/qemu/qboot.rom"]
MODULES = ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
           "virtio_pci", "virtio_blk", "failover", "net_failover", "virtio_net"]
KERNELS = "/lab/bench"
LIMIT = 1200
# The lab's CPU has no AVX.
MODEL = "x86-64-v2"


def requests_initrd(kernel):
    there = [m for m in MODULES if os.path.exists(f"{kernel}/modules/{m}.ko")]
    files = {f"modules/{m}.ko": f"{kernel}/modules/{m}.ko" for m in there}
    files["modules/order"] = "\n".join(f"{m}.ko" for m in there).encode()
    files["init"] = f"{BUILD}/requests"
    return pack_initrd(files, BUILD)


def stdlib():
    return subprocess.run([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
                          stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def lab_command(kernel, initrds, repeat, trace):
    files = [PYTHON, stdlib(), QEMU, *filter(os.path.exists, FIRMWARE),
             f"{HERE}/inside.py", f"{HERE}/switch.py", f"{ROOT}/tests/lib/control.py",
             f"{kernel}/vmlinuz={KERNELS}/vmlinuz", f"{kernel}/vmlinux={KERNELS}/vmlinux"]
    files += [f"{path}={KERNELS}/{name}.cpio" for name, path in initrds.items()]
    command = [f"{ROOT}/tools/kvm-lab", "--timeout", str(LIMIT), "--memory", "3G"]
    for path in files:
        command += ["--file", path]
    return command + ["python3", f"{HERE}/inside.py", KERNELS, str(repeat), MODEL] + (
        ["--trace"] if trace else [])


def relay(command, say):
    """What the lab prints, a line at a time; its result, or None."""
    result = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            if line.startswith("LAB-RESULT "):
                result = json.loads(line.partition(" ")[2])
            else:
                say("lab     " + line.rstrip())
    return result


def measure(repeat, say, trace=False):
    """bench/inside.py's result; {"failed": ["lab"]} if the lab itself did not work."""
    subprocess.run(["make", "-s", "bench-programs"], cwd=ROOT, check=True)
    kernel = image("kernel", "cloud")
    initrds = {"requests": requests_initrd(kernel),
               "first": pack_initrd({"init": f"{BUILD}/first"}, BUILD)}
    try:
        return relay(lab_command(kernel, initrds, repeat, trace), say) or {"failed": ["lab"]}
    finally:
        for path in initrds.values():
            os.unlink(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    print(json.dumps(measure(options.repeat, print, options.trace), indent=1))


if __name__ == "__main__":
    main()
