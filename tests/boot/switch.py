#!/usr/bin/env python3
"""The live switch: a guest that would notice anything (tests/guest/switch.c) is moved to
another hypervisor again and again, at random moments, on 1, 2 and 4 processors.

    tests/boot/switch.py [biga|kvm|kvm,force]
                     to fresh instances of our own, or to kvm (tested first or not) and back

SWITCHES says how often (200, in the long form 1000), SEED which moments, CPUS how many, BIGA_ARGS more options.
timeout: 300   long: 1800
"""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from control import Control  # noqa: E402

BUILD = os.environ.get("BUILD", "build/release")
BIGA = os.environ.get("BIGA", BUILD + "/biga")
MODE = {"release": ""}.get(os.environ.get("MODE", ""), os.environ.get("MODE", ""))
SLOW = {"tsan": 10, "asan": 2, "ubsan": 2}.get(MODE, 1)
WARM = 20  # switches until all that is made once is there
SWITCHES = int(os.environ.get("SWITCHES", 1000 if os.environ.get("LONG") else 200 // SLOW))
SEED = int(os.environ.get("SEED", time.time_ns() % 1000000))


def report(replies):
    for what in "prepare-ns", "pause-ns":
        times = sorted(r[what] / 1e6 for r in replies)
        print(f"  {what[:-3]}: median {times[len(times) // 2]:.3f} ms, worst {times[-1]:.3f} ms")


def wait_leaver(tasks):
    """The hypervisor that was left goes on a thread of its own."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        names = []
        for task in os.listdir(tasks):
            try:
                with open(f"{tasks}/{task}/comm") as comm:
                    names.append(comm.read().strip())
            except OSError:
                pass
        if "leaver" not in names:
            return
        time.sleep(0.01)
    raise AssertionError("the hypervisor that was left does not go")


def held(front):
    """Descriptors, threads, mappings and KiB of memory of the VM process, which FRONT started."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/status") as status:
                parent, said = int(stat.read().rpartition(")")[2].split()[1]), status.read()
            if parent != front or "\nThreads:\t1\n" in said:
                continue
            wait_leaver(f"/proc/{name}/task")
            with open(f"/proc/{name}/status") as status:
                said = status.read()
            with open(f"/proc/{name}/maps") as maps:
                return (len(os.listdir(f"/proc/{name}/fd")), int(said.split("\nThreads:")[1].split()[0]),
                        len(maps.readlines()), int(said.split("\nRssAnon:")[1].split()[0]))
        except FileNotFoundError:
            continue
    raise AssertionError("no VM process")


def move(vm, kvm, rng, front):
    """SWITCHES times: the answers. Nothing is left over of the hypervisors that were before."""
    replies = []
    for i in range(SWITCHES):
        if i == WARM:
            before = held(front)
        if kvm is None:
            replies.append(vm.call("switch", to="biga", fresh=True))
        else:
            replies.append(vm.call("switch", to="biga" if i % 2 else sys.argv[1]))
        time.sleep(rng.choice([0, rng.uniform(0, 0.002), rng.uniform(0, 0.02)]))
    if SWITCHES > WARM:
        after = held(front)
        print("  descriptors, threads, mappings, KiB: %s after %u switches, %s at the end" %
              (before, WARM, after))
        assert after[0] == before[0] and after[1] == before[1] and after[2] <= before[2] + 8
        assert MODE or after[3] <= before[3] + 4096, "memory"
    return replies


def run(cpus, kvm):
    name = f"switch-{os.getpid()}-{cpus}"
    rng = random.Random(SEED + cpus)
    vm = subprocess.Popen([BIGA, "run", "--net", "none", "--kernel", BUILD + "/guest/switch.elf",
                           "--debug-exit", "--cpus", str(cpus), "--hypervisor", "biga", "--quiet",
                           "--name", name] + os.environ.get("BIGA_ARGS", "").split(),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        control = Control(name)
        while b"working" not in (line := vm.stdout.readline()):
            assert line, "the guest ended before it worked"
        if kvm is not None:
            control.call("give", fd=kvm, what="kvm")
        start = time.monotonic()
        replies = move(control, kvm, rng, vm.pid)
        seconds = time.monotonic() - start
        info = control.call("info")
        assert info["switches"] == SWITCHES and info["rescues"] == 0, info
        assert info["hypervisor"] == replies[-1]["to"], info
        events = [e for e in control.events if e["event"] == "switched"]
        assert len(events) == SWITCHES, len(events)
        out, _ = vm.communicate(b"q", timeout=60 * SLOW)
    finally:
        vm.kill()
    print(f"{cpus} CPUs: {SWITCHES} switches in {seconds:.1f} s, exit {vm.returncode}, seed {SEED}")
    report(replies)
    if vm.returncode != 1 or b"switch: ok" not in out:
        print(out.decode(errors="replace")[-4000:])
        return False
    return True


def main():
    os.environ.setdefault("XDG_RUNTIME_DIR", os.environ.get("TMP", "/tmp"))
    kvm = os.open("/dev/kvm", os.O_RDWR) if len(sys.argv) > 1 and sys.argv[1] != "biga" else None
    counts = [int(n) for n in os.environ.get("CPUS", "1 2 4").split()]
    return 0 if all([run(cpus, kvm) for cpus in counts]) else 1


sys.exit(main())
