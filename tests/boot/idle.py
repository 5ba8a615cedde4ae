#!/usr/bin/env python3
"""An idle guest uses less than 2 % of a host CPU.

exclusive
modes: release
"""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image, pack_initrd

SECONDS = 20


def cpu_seconds(pid):
    """User and system time of a process, its children and theirs."""
    total = 0.0
    tick = os.sysconf("SC_CLK_TCK")
    todo = [pid]
    while todo:
        p = todo.pop()
        try:
            with open(f"/proc/{p}/stat", encoding="utf-8") as f:
                fields = f.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / tick
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children", encoding="utf-8") as f:
                    todo += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return total


with tempfile.TemporaryDirectory() as tmp:
    extra = pack_initrd({"rc": b"echo IDLE-NOW; sleep 600\n"}, tmp)
    for cpus in (1, 4):
        with Guest("biga", kernel=image("kernel", "cloud") + "/vmlinuz", cpus=cpus, net="user",
                   initrds=[image("busybox", "amd64") + "/initrd.cpio", extra]) as guest:
            guest.wait("IDLE-NOW", 60)
            time.sleep(3)
            before = cpu_seconds(guest.process.pid)
            time.sleep(SECONDS)
            share = (cpu_seconds(guest.process.pid) - before) / SECONDS * 100
            print(f"{cpus} CPUs: {share:.2f} %")
            if share > 2:
                guest.fail(f"idle with {cpus} CPUs takes {share:.2f} % of a CPU")
