#!/usr/bin/env python3
"""How a guest's end becomes biga's exit status: power-off 0, panic 1."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image, pack_initrd

kernel = image("kernel", "cloud") + "/vmlinuz"
busybox = image("busybox", "amd64") + "/initrd.cpio"
CASES = [  # what /rc does, what biga's exit status is
    ("poweroff -f", 0),
    ("echo c >/proc/sysrq-trigger", 1),
]
with tempfile.TemporaryDirectory() as tmp:
    for script, expected in CASES:
        extra = pack_initrd({"rc": script.encode() + b"\nsleep 60\n"}, tmp)
        with Guest("biga", kernel=kernel, initrds=[busybox, extra]) as guest:
            guest.wait("BIGA-READY", 60)
            status = guest.end(60)
            if status != expected:
                guest.fail(f"'{script}': exit status {status}, not {expected}")
            print(f"{script}: {status}")
