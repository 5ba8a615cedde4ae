#!/usr/bin/env python3
"""Runs in the lab (bench/lab.py): Biga on kvm beside QEMU on kvm.

    bench/inside.py KERNEL-FOLDER REPEAT CPU-MODEL [--trace]

Measures seconds from exec to the guest's first process, exits of the guest
(/sys/kernel/debug/kvm) for each disk request and network packet, and the pause of a
switch. Prints what it does and then "LAB-RESULT" and all figures as JSON. With --trace it
prints which exits they are, by the kernel's trace buffer.
"""
import collections
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BIGA = os.environ["BUILD"] + "/biga"
LAB = "/lab/bench"
TRACING = "/sys/kernel/tracing"
APPEND = "console=ttyS0 quiet panic=-1 reboot=t"
Q35 = "q35,kernel-irqchip=split"
# Without ACPI, else its first interrupt never comes with the Debian kernel.
MICROVM = "microvm,acpi=off,x-option-roms=off,rtc=on,isa-serial=on,kernel-irqchip=split"
BOOTS = [  # name, machine (None: Biga), kernel file
    ("biga bzImage", None, "vmlinuz"),
    ("qemu q35 bzImage", Q35, "vmlinuz"),
    ("qemu microvm bzImage", MICROVM, "vmlinuz"),
    ("biga vmlinux", None, "vmlinux"),
    ("qemu q35 vmlinux", Q35, "vmlinux"),
    ("qemu microvm vmlinux", MICROVM, "vmlinux"),
]
# What the guest does (bench/programs/requests.c): name, what, how often, at once, what counts.
# A ping is two packets.
REQUESTS = [
    ("disk read, 1 at a time", "disk", 500, 1, 1),
    ("disk read, 16 at a time", "disk", 1600, 16, 1),
    ("network packet, 1 ping at a time", "net", 300, 1, 2),
    ("network packet, 16 pings at a time", "net", 800, 16, 2),
]


class LabError(Exception):
    pass


def biga_command(kernel, initrd, model, devices):
    command = [BIGA, "run", "--quiet", "--hypervisor", "kvm,force", "--cpu-model", model,
               "--promote", "never", "--kernel", kernel, "--initrd", initrd, "--memory", "256M",
               "--append", APPEND, "--net", "user" if devices else "none"]
    return command + (["--disk", LAB + "/disk,readonly"] if devices else [])


def qemu_command(kernel, initrd, machine, devices):
    command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", machine, "-m",
               "256M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
               "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", APPEND]
    if not machine.startswith("microvm"):
        command += ["-device", "virtio-rng-pci"]
    if devices:
        command += ["-drive", f"if=none,id=d0,format=raw,readonly=on,file={LAB}/disk",
                    "-device", "virtio-blk-pci,drive=d0", "-netdev", "user,id=n0",
                    "-device", "virtio-net-pci,netdev=n0,romfile="]
    return command


def command_of(machine, kernel, initrd, model, devices=False):
    if machine is None:
        return biga_command(kernel, initrd, model, devices)
    return qemu_command(kernel, initrd, machine, devices)


class Guest:
    """Its console is what one writes and reads."""

    def __init__(self, command):
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait(self, text):
        """For the line TEXT; seconds since the program was executed."""
        lines = []
        while True:
            line = self.process.stdout.readline()
            if line.strip() == text:
                return time.monotonic() - self.started
            lines.append(line.decode(errors="replace"))
            if not line or b"REQUESTS-FAILED" in line:
                raise LabError(f"no {text}: " + "".join(lines[-20:]))

    def ask(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        self.wait(b"DONE")


def boot_once(machine, kernel, model):
    with Guest(command_of(machine, kernel, LAB + "/first.cpio", model)) as guest:
        return guest.wait(b"BIGA-FIRST")


def boots(kernels, repeat, model):
    """They take turns, so that what else the host does meets all of them."""
    times = collections.defaultdict(list)
    for _ in range(repeat):
        for name, machine, file in BOOTS:
            try:
                times[name].append(boot_once(machine, f"{kernels}/{file}", model))
            except LabError as e:
                print(f"boot {name}: {e}", flush=True)
                continue
            print(f"boot {name}: {times[name][-1]:.3f} s", flush=True)
    return {n: {"best": min(t), "median": statistics.median(t)} for n, t in times.items() if t}


def counters():
    """The exits of the one VM that there is."""
    result = {}
    for path in glob.glob("/sys/kernel/debug/kvm/*-*/*"):
        if path.endswith("exits") and os.path.isfile(path):
            with open(path, encoding="ascii") as f:
                result[os.path.basename(path)] = int(f.read())
    if "exits" not in result:
        raise LabError("no counters in /sys/kernel/debug/kvm")
    return result


def exits_of(guest, what, count, depth):
    """What was counted meanwhile, and how long it took."""
    before, start = counters(), time.monotonic()
    guest.ask(f"{what} {count} {depth}")
    after = counters()
    result = {name: after[name] - before[name] for name in after}
    result["seconds"] = time.monotonic() - start
    return result


def clock_rate(guest, rounds):
    """Exits a second of a guest that only computes."""
    tries = [exits_of(guest, "spin", 1000, 1) for _ in range(rounds)]
    return statistics.median(t["exits"] / t["seconds"] for t in tries)


class Trace:
    """Which exits a phase makes, by the kernel's own events; slows it down."""

    def __init__(self, wanted):
        self.wanted = wanted
        if wanted:
            subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], check=False)
            self.set("buffer_size_kb", "32768")
            self.set("events/kvm/kvm_exit/enable", "1")

    @staticmethod
    def set(name, value):
        with open(f"{TRACING}/{name}", "w", encoding="ascii") as f:
            f.write(value)

    def begin(self):
        if self.wanted:
            self.set("trace", "")

    def show(self, title, count):
        if not self.wanted:
            return
        with open(f"{TRACING}/trace", encoding="ascii", errors="replace") as f:
            kinds = collections.Counter(
                " ".join(m.groups()) for m in map(
                    re.compile(r"reason (\S+).*?(info1 \S+ info2 \S+)").search, f) if m)
        for kind, times in kinds.most_common(12):
            print(f"trace {title}: {times / count:8.2f} {kind}", flush=True)


def exits(machine, kernels, model, rounds, trace):
    """For each kind of request: "all", the fewest exits of some rounds, and "own", the median
    of those that are left when the clock's, by the time that a round took, are taken off."""
    result = {}
    command = command_of(machine, kernels + "/vmlinuz", LAB + "/requests.cpio", model, True)
    with Guest(command) as guest:
        guest.wait(b"READY")
        rate = clock_rate(guest, rounds)
        for name, what, count, depth, packets in REQUESTS:
            tries = []
            for _ in range(rounds):
                trace.begin()
                tries.append(exits_of(guest, what, count, depth))
                trace.show(f"{machine or 'biga'} {name}", count * packets)
            own = statistics.median(t["exits"] - rate * t["seconds"] for t in tries)
            result[name] = {"all": min(t["exits"] for t in tries) / (count * packets),
                            "own": own / (count * packets)}
            print(f"exits {machine or 'biga'} {name}: {result[name]['all']:.2f}, without the "
                  f"clock's {rate:.0f}/s {result[name]['own']:.2f}", flush=True)
    return result


def switches(model):
    command = [sys.executable, HERE + "/switch.py", "--biga", BIGA, "--build",
               os.environ["BUILD"], "--count", "40", "--model", model, "--kvm", "--json"]
    r = subprocess.run(command, capture_output=True, text=True, check=False)
    if r.returncode:
        raise LabError(r.stderr)
    return json.loads(r.stdout)


def main():
    kernels, repeat, model = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    trace = Trace("--trace" in sys.argv)
    os.environ["XDG_RUNTIME_DIR"] = "/tmp"
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=False)
    with open(LAB + "/disk", "wb") as f:
        f.truncate(16 << 20)
    result = {"failed": []}
    parts = [("exits biga", lambda: exits(None, kernels, model, repeat, trace)),
             ("exits qemu", lambda: exits(Q35, kernels, model, repeat, trace))]
    if repeat and not trace.wanted:
        parts += [("boot", lambda: boots(kernels, repeat, model)),
                  ("switch", lambda: switches(model))]
    for name, part in parts:
        try:
            result[name] = part()
        except (LabError, OSError) as e:
            print(f"{name} failed: {e}", flush=True)
            result["failed"].append(name)
    print("LAB-RESULT " + json.dumps(result), flush=True)


main()
