#!/usr/bin/env python3
"""Debian kernels with the busybox initramfs to its marker and a clean power-off.

timeout: 600
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
CASES = [  # kernel, busybox, file, CPUs
    ("cloud", "amd64", "vmlinuz", 1),
    ("cloud", "amd64", "vmlinux", 1),
    ("cloud", "amd64", "vmlinuz", 4),
    ("amd64", "amd64", "vmlinuz", 1),
    ("amd64", "amd64", "vmlinuz", 4),
    ("686-pae", "i386", "vmlinuz", 1),
    ("686-pae", "i386", "vmlinuz", 4),
    # A CPU without TZCNT and AVX, on which kernels take other ways.
    ("cloud", "amd64", "vmlinuz", 2, "x86-64-v2"),
]


def boot(kernel, busybox, file, cpus, model=None):
    initrd = image("busybox", busybox) + "/initrd.cpio"
    with Guest(ENGINE, kernel=f"{image('kernel', kernel)}/{file}", initrds=[initrd], cpus=cpus,
               append="console=ttyS0 panic=-1 quiet",
               extra=["--cpu-model", model] if model and ENGINE == "biga" else []) as guest:
        ready = guest.wait(r"BIGA-READY (\w+) cpus=(\d+) up=(.*)\n", 90)
        if int(ready.group(2)) != cpus:
            guest.fail(f"{ready.group(2)} CPUs instead of {cpus}")
        guest.wait("BIGA-DONE 0", 30)
        status = guest.end(30)
        if status:
            guest.fail(f"exit status {status} after power-off")
        print(f"{kernel} {file} cpus={cpus}: first process at {ready.group(3)} s", flush=True)


for case in CASES:
    boot(*case)
