#!/usr/bin/env python3
"""Boots in a row with four CPUs, 30 in the long form: what goes wrong once in a while does so here.

timeout: 300
long: 900
modes: release
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 30 if os.environ.get("LONG") == "1" else 6

kernel = image("kernel", "cloud") + "/vmlinuz"
initrd = image("busybox", "amd64") + "/initrd.cpio"
for number in range(COUNT):
    with Guest(ENGINE, kernel=kernel, initrds=[initrd], cpus=4,
               append="console=ttyS0 panic=-1 quiet") as guest:
        guest.wait("BIGA-READY x86_64 cpus=4 ", 60)
        guest.wait("BIGA-DONE 0", 30)
        if guest.end(30):
            guest.fail(f"boot {number} did not end well")
print(f"{COUNT} boots")
