#!/usr/bin/env python3
"""How long a guest stands still when its hypervisor is replaced.

    bench/switch.py [--biga PROGRAM] [--build FOLDER] [--count N] [--cpus N] [--memory SIZE]
                    [--guest NAME] [--kvm]

A bare-metal guest that is busy with everything (tests/guest/switch.c) is moved N times to a
fresh instance of our own hypervisor, or with --kvm to kvm (not tested first) and back. Printed:
the pause, from the request to the processors until they may go on, and what was prepared before
it while the guest ran. At the end the guest says whether all was well. Any other guest
(--guest forever) must still be there. `make bench` and bench/inside.py import this.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))
from control import Control, Refused  # noqa: E402


class SwitchError(Exception):
    pass


def move(control, count, kvm):
    """COUNT switches to a fresh instance of our own, or to kvm and back: the answers."""
    replies = []
    for i in range(count):
        time.sleep(0.05)
        to = "kvm,force" if kvm and i % 2 == 0 else "biga"
        try:
            replies.append(control.call("switch", to=to, fresh=not kvm))
        except Refused as e:
            if "runs on biga already" not in str(e):
                raise
            raise SwitchError("kvm gave up on this guest, which our own rescued") from e
    return replies


def start(options, name):
    command = [options.biga, "run", "--quiet", "--net", "none", "--debug-exit", "--kernel",
               f"{options.build}/guest/{options.guest}.elf", "--name", name, "--cpus",
               str(options.cpus), "--memory", options.memory, "--hypervisor", "biga",
               "--promote", "never"]
    if options.model:
        command += ["--cpu-model", options.model]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def finish(vm, checks_itself):
    """The guest is asked whether all was well; one that cannot tell must still run."""
    if not checks_itself:
        if vm.poll() is not None:
            raise SwitchError("the guest is gone")
        return
    out, err = vm.communicate(b"q", timeout=60)
    if vm.returncode != 1 or b"switch: ok" not in out:
        raise SwitchError((out + err).decode(errors="replace"))


def measure(options):
    """Switch's answers. The VM has a name of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory() as tmp:
        os.environ["XDG_RUNTIME_DIR"] = tmp
        vm = start(options, "bench")
        try:
            control = Control("bench")
            ready = b"working" if options.guest == "switch" else b"\n"
            while ready not in (line := vm.stdout.readline()):
                if not line:
                    raise SwitchError("the guest did not start")
            if options.kvm:
                control.call("give", fd=os.open("/dev/kvm", os.O_RDWR), what="kvm")
            replies = move(control, options.count, options.kvm)
            finish(vm, options.guest == "switch")
        except (Refused, OSError, subprocess.TimeoutExpired) as e:
            raise SwitchError(str(e)) from e
        finally:
            vm.kill()
            vm.wait()
    return replies


def figures(replies):
    """For each hypervisor moved to: how often, and median and worst in milliseconds."""
    result = {}
    for to in sorted({r["to"] for r in replies}):
        result[to] = {"count": sum(r["to"] == to for r in replies)}
        for what in "pause", "prepare":
            times = [r[what + "-ns"] / 1e6 for r in replies if r["to"] == to]
            result[to][what] = {"median": statistics.median(times), "worst": max(times)}
    return result


def options_of(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--biga")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--guest", default="switch")
    parser.add_argument("--model", help="of the processor, as --cpu-model")
    parser.add_argument("--kvm", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    options.biga = options.biga or options.build + "/biga"
    return options


def run(*words):
    """As on the command line: the figures, or SwitchError."""
    return figures(measure(options_of(words)))


def main():
    options = options_of(None)
    try:
        result = figures(measure(options))
    except SwitchError as e:
        sys.exit(f"switch: {e}")
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.guest}, {options.cpus} CPUs, {options.memory}, {options.count} switches")
    for to, what in result.items():
        for name in "pause", "prepare":
            print(f"to {to}, {name}: median {what[name]['median']:.3f} ms, "
                  f"worst {what[name]['worst']:.3f} ms")


if __name__ == "__main__":
    main()
