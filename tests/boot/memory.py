#!/usr/bin/env python3
"""Our own memory beside guest RAM and code cache: at most 24 MiB.

modes: release
exclusive
"""
import os
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image, pack_initrd

LIMIT = 24 << 20


def processes(pid):
    """PID and all that it started."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children", encoding="utf-8") as f:
                    todo += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return found


def own_bytes(pid):
    """Proportional share of all mappings but those of memfds (guest RAM, code cache)."""
    total = 0
    memfd = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                memfd = "/memfd:" in line
            elif line.startswith("Pss:") and not memfd:
                total += int(line.split()[1]) * 1024
    return total


with tempfile.TemporaryDirectory() as tmp:
    extra = pack_initrd({"rc": b"find / -xdev | wc -l; echo SETTLED; sleep 600\n"}, tmp)
    with Guest("biga", kernel=image("kernel", "cloud") + "/vmlinuz", net="user", memory="512M",
               initrds=[image("busybox", "amd64") + "/initrd.cpio", extra]) as guest:
        guest.wait("SETTLED", 90)
        time.sleep(1)
        total = 0
        for pid in processes(guest.process.pid):
            with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
                name = f.read().strip()
            size = own_bytes(pid)
            total += size
            print(f"{name} ({pid}): {size / 2**20:.1f} MiB")
        print(f"together {total / 2**20:.1f} MiB")
        if total > LIMIT:
            guest.fail(f"{total / 2**20:.1f} MiB beside guest RAM and code cache")
