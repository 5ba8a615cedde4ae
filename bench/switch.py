#!/usr/bin/env python3
"""How long a guest stands still when its hypervisor is replaced.

    bench/switch.py [--biga PROGRAM] [--build FOLDER] [--count N] [--cpus N] [--memory SIZE] [--kvm]

A bare-metal guest that is busy with everything (tests/guest/switch.c) is moved N times to a
fresh instance of our own hypervisor, or with --kvm to kvm and back. Printed: the pause, from
the request to the processors until they may go on, and what was prepared before it while the
guest ran. At the end the guest says whether all was well.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))
from control import Control  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--biga")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--kvm", action="store_true")
    options = parser.parse_args()
    options.biga = options.biga or options.build + "/biga"
    return options


def measure(options):
    vm = subprocess.Popen([options.biga, "run", "--quiet", "--net", "none", "--debug-exit",
                           "--kernel", options.build + "/guest/switch.elf", "--name", "bench",
                           "--cpus", str(options.cpus), "--memory", options.memory,
                           "--hypervisor", "biga"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        control = Control("bench")
        while b"working" not in vm.stdout.readline():
            assert vm.poll() is None, "the guest did not start"
        if options.kvm:
            control.call("give", fd=os.open("/dev/kvm", os.O_RDWR), what="kvm")
        replies = []
        for i in range(options.count):
            time.sleep(0.05)
            to = "kvm" if options.kvm and i % 2 == 0 else "biga"
            replies.append(control.call("switch", to=to, fresh=not options.kvm))
        out, _ = vm.communicate(b"q", timeout=60)
    finally:
        vm.kill()
    assert vm.returncode == 1 and b"switch: ok" in out, out.decode(errors="replace")
    return replies


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as tmp:
        os.environ["XDG_RUNTIME_DIR"] = tmp
        replies = measure(options)
    print(f"{options.cpus} CPUs, {options.memory}, {options.count} switches")
    for to in sorted({r["to"] for r in replies}):
        for what in "pause", "prepare":
            times = [r[what + "-ns"] / 1e6 for r in replies if r["to"] == to]
            print(f"to {to}, {what}: median {statistics.median(times):.3f} ms, "
                  f"worst {max(times):.3f} ms")


main()
