#!/usr/bin/env python3
"""What boot tests print of a VM that hangs: stacks of its threads, registers of its vCPUs.

modes: release
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

CPUS = 2


def may_trace():
    """Whether the host lets gdb look at a process that it did not start."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="utf-8") as f:
            return os.geteuid() == 0 or f.read().strip() == "0"
    except FileNotFoundError:
        return True


with Guest("biga", kernel=image("kernel", "cloud") + "/vmlinuz", cpus=CPUS,
           initrds=[image("busybox", "amd64") + "/initrd.cpio"],
           append="console=ttyS0 panic=-1 quiet biga.shell") as guest:
    guest.wait("BIGA-READY", 60)
    text = guest.describe()
    print(text)
    for vcpu in range(CPUS):
        # The kernel's own addresses: it idles.
        assert re.search(rf"^vcpu {vcpu}: rax=.* rip=0xffffffff8", text, re.M), f"vcpu {vcpu}"
        assert not may_trace() or re.search(rf'"vcpu {vcpu}"\):\n#0 ', text), f"no stack of {vcpu}"
    assert not may_trace() or text.count(" vcpus_thread ") == CPUS, "stacks are cut short"
