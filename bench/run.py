#!/usr/bin/env python3
"""Measures Biga against the bare machine and QEMU TCG: the same programs, one run. And a live
switch's pause, and Biga on kvm against QEMU on kvm, in the lab of tools/kvm-lab.

    bench/run.py [--biga FILE] [--engines native,biga,qemu] [--groups tools,boot,...]
                 [--repeat N] [--only GLOB] [--publish]
    bench/run.py --groups switch,kvm

The programs run in a chroot of the Debian 12 image: on the bare machine, and in
guests whose disk that image is, on one CPU each. A guest's times are by its own
CLOCK_MONOTONIC; the whole run is checked against the host's. Results go to
build/bench/results.{md,json,svg}; --publish copies them to docs/bench/.
"""
import argparse
import datetime
import fnmatch
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(ROOT, "tests/lib")]
import guest as guest_lib
import jobs as job_lib
import lab
import report
import switch
from guest import Guest, GuestError, image, pack_initrd

BUILD = os.path.join(ROOT, "build/bench")
MODULES = ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
           "virtio_pci", "virtio_mmio", "virtio_blk"]
# Clocks of host and guest may differ by this much over a run.
CLOCK_TOLERANCE = 0.02

RC = """#!/bin/sh
mkdir -p /mnt
mount -t ext4 -o ro /dev/vda /mnt || exit 1
mount -t tmpfs tmpfs /mnt/tmp && mount --bind /dev /mnt/dev && mount -t proc proc /mnt/proc
mv /bench /mnt/tmp/bench
exec chroot /mnt /bin/sh -c 'cd /tmp/bench && exec ./driver jobs %d'
"""
# The same on the bare machine, in a mount namespace of its own.
NATIVE = """set -e
mount -t tmpfs -o size=1g tmpfs "$1/tmp"
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
cp -a "$2" "$1/tmp/bench"
exec chroot "$1" /bin/sh -c "cd /tmp/bench && exec ./driver jobs $3"
"""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def prepare(options):
    """Builds programs, data and the list of jobs; returns the folder a run needs."""
    subprocess.run(["make", "-s", "bench-programs"], cwd=ROOT, check=True)
    payload = f"{BUILD}/payload"
    if not os.path.exists(f"{payload}/complete"):
        shutil.rmtree(payload, ignore_errors=True)
        job_lib.make_data(payload, f"{HERE}/programs")
        with open(f"{payload}/complete", "w", encoding="utf-8"):
            pass
    for name in ("integer", "floating", "system", "driver"):
        shutil.copy(f"{BUILD}/{name}", payload)
    chosen = [j for j in job_lib.all_jobs(BUILD) if j[0] in options.groups
              and fnmatch.fnmatch(j[1], options.only)]
    with open(f"{payload}/jobs", "w", encoding="utf-8") as f:
        f.writelines("\t".join(job) + "\n" for job in chosen)
    return payload, len(chosen)


def bare_root():
    """The Debian image as a folder, for the bare machine."""
    folder = image("debian")
    root = f"{BUILD}/root-{os.path.basename(folder)}"
    if not os.path.exists(f"{root}/complete"):
        say("unpacking the Debian image for the bare machine")
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root)
        # Without root, debugfs cannot give files to their owners; it says so and goes on.
        subprocess.run(["/sbin/debugfs", "-R", f"rdump / {root}", f"{folder}/disk.raw"],
                       stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        os.chmod(f"{root}/tmp", 0o1777)
        with open(f"{root}/complete", "w", encoding="utf-8"):
            pass
    return root


class Results:
    """What one engine's run printed, and the host's time between its first and last line."""

    def __init__(self, engine):
        self.engine, self.jobs, self.failed = engine, {}, []
        self.begin = self.end = self.inside = 0.0

    def line(self, text):
        words = text.split()
        if not words:
            return
        if words[0] == "BENCH-BEGIN":
            self.begin = time.monotonic()
        elif words[0] == "BENCH-END":
            self.end, self.inside = time.monotonic(), float(words[1])
        elif words[0] == "RESULT" and len(words) == 5:
            self.jobs[f"{words[1]}/{words[2]}"] = (float(words[3]), words[4])
            say(f"{self.engine:7} {words[1]}/{words[2]:20} {float(words[3]):8.3f} s")
        elif words[0] == "FAILED":
            self.failed.append("/".join(words[1:3]))
            say(f"{self.engine} FAILED {self.failed[-1]}")

    def clock_error(self):
        outside = self.end - self.begin
        return (self.inside - outside) / outside if outside > 1 else 0.0


def run_native(payload, repeat):
    results = Results("native")
    namespace = ["unshare", "--mount"] + ([] if os.getuid() == 0 else ["--map-root-user"])
    # One CPU, as the guests have.
    cpu = max(os.sched_getaffinity(0))
    process = subprocess.Popen(["taskset", "-c", str(cpu), *namespace, "sh", "-c", NATIVE, "sh",
                                bare_root(), payload, str(repeat)],
                               stdout=subprocess.PIPE, text=True)
    for text in process.stdout:
        results.line(text)
    if process.wait():
        say("the bare machine's run failed")
    return results


def tree_of(folder, under):
    files = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            files[f"{under}/{os.path.relpath(path, folder)}"] = path
    return files


def run_guest(engine, payload, repeat, limit):
    results = Results(engine)
    kernel = image("kernel", "cloud")
    files = tree_of(payload, "bench")
    files["rc"] = (RC % repeat).encode()
    files["modules/order"] = "\n".join(f"{m}.ko" for m in MODULES).encode()
    for module in MODULES:
        files[f"modules/{module}.ko"] = f"{kernel}/modules/{module}.ko"
    extra = pack_initrd(files, BUILD)
    disk = image("debian") + "/disk.raw,readonly"
    try:
        with Guest(engine, kernel=f"{kernel}/vmlinuz", memory="2G", disks=[disk],
                   initrds=[image("busybox", "amd64") + "/initrd.cpio", extra],
                   append="console=ttyS0 panic=-1 quiet") as g:
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline:
                text = g.wait(r"^(.*)\n", deadline - time.monotonic()).group(1)
                results.line(text)
                if text.startswith(("BENCH-END", "BIGA-DONE")):
                    break
    except GuestError as e:
        say(f"{engine}: {e}")
        results.failed.append("run")
    os.unlink(extra)
    error = results.clock_error()
    if abs(error) > CLOCK_TOLERANCE:
        say(f"{engine}: the guest's clock is off by {error * 100:.1f} %: its times are worthless")
        results.failed.append("clock")
    return results


# Without ACPI, else its first interrupt never comes with the Debian kernel.
MICROVM = "microvm,acpi=off,x-option-roms=off,rtc=on,isa-serial=on"
BOOTS = [  # name, engine, machine, kernel file
    ("biga bzImage", "biga", None, "vmlinuz"),
    ("biga vmlinux", "biga", None, "vmlinux"),
    ("qemu q35 bzImage", "qemu", "q35", "vmlinuz"),
    ("qemu q35 vmlinux", "qemu", "q35", "vmlinux"),
    ("qemu microvm bzImage", "qemu", MICROVM, "vmlinuz"),
    ("qemu microvm vmlinux", "qemu", MICROVM, "vmlinux"),
]


def boot_times(engines, repeat):
    """Seconds from exec of the hypervisor to the guest's first process."""
    initrd = pack_initrd({"init": f"{BUILD}/first"}, BUILD)
    kernel = image("kernel", "cloud")
    results = {}
    for name, engine, machine, file in BOOTS:
        if engine not in engines:
            continue
        times = []
        try:
            for _ in range(repeat):
                with Guest(engine, kernel=f"{kernel}/{file}", initrds=[initrd], memory="512M",
                           machine=machine or "q35",
                           append="console=ttyS0 quiet panic=-1 reboot=t") as g:
                    g.wait("BIGA-FIRST", 30)
                    times.append(time.monotonic() - g.started)
        except GuestError as e:
            say(f"boot {name}: {e}")
            continue
        results[name] = {"best": min(times), "median": statistics.median(times)}
        say(f"boot    {name:30} {min(times):8.3f} s")
    os.unlink(initrd)
    return results


def switch_pauses(options):
    """By name of the move: {hypervisor moved to: its figures}, or why it could not be."""
    build = os.path.dirname(os.path.abspath(options.biga))
    subprocess.run(["make", "-s", f"MODE={os.path.basename(build)}", "guests"], cwd=ROOT, check=True)
    moves = [("biga to biga", ["--guest", "switch"])]
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        moves += [("biga and kvm", ["--guest", "switch", "--kvm"]),
                  ("biga and kvm, plain guest", ["--guest", "forever", "--kvm"])]
    results = {}
    for name, words in moves:
        try:
            results[name] = switch.run("--biga", options.biga, "--build", build, "--count",
                                       str(options.switches), *words)
        except switch.SwitchError as e:
            results[name] = {"failed": str(e)}
        say(f"switch  {name}: {results[name]}")
        if name == "biga and kvm" and "failed" not in results[name]:
            break  # a guest that checks everything says more than a plain one
    return results


def host_facts(biga):
    def first_line(*command):
        try:
            r = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return "not there"
        return (r.stdout.splitlines() or ["?"])[0]
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read()).group(1)
    return {"cpu": cpu, "kernel": platform.release(), "biga": first_line(biga, "--version"),
            "qemu": first_line("qemu-system-x86_64", "--version"),
            "commit": first_line("git", "-C", ROOT, "describe", "--always", "--dirty"),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}


def collect(options):
    payload, count = prepare(options)
    runs = {}
    for engine in options.engines if count else []:
        say(f"{count} jobs on {engine}")
        if engine == "native":
            runs[engine] = run_native(payload, options.repeat)
        else:
            runs[engine] = run_guest(engine, payload, options.repeat, options.limit)
    boots = boot_times(options.engines, options.boots) if "boot" in options.groups else {}
    return runs, boots


def further(options):
    """What is measured without the jobs: figures by group."""
    results = {}
    if "switch" in options.groups:
        results["switch"] = switch_pauses(options)
    if "kvm" in options.groups:
        results["kvm"] = lab.measure(options.lab_repeat, say)
    return results


def wrong_outputs(runs):
    """Jobs whose output was not what the bare machine's was."""
    wrong = []
    native = runs.get("native")
    for engine, run in runs.items() if native else []:
        for job, (_, digest) in run.jobs.items():
            if job in native.jobs and native.jobs[job][1] != digest:
                wrong.append(f"{engine} {job}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--biga", default=os.path.join(ROOT, "build/release/biga"))
    parser.add_argument("--engines", default="native,biga,qemu", type=lambda s: s.split(","))
    parser.add_argument("--groups", default="tools,crypto,integer,floating,system,memory,boot,"
                        "switch,kvm",
                        type=lambda s: s.split(","))
    parser.add_argument("--only", default="*", help="names of jobs, a glob")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--lab-repeat", type=int, default=5)
    parser.add_argument("--limit", type=int, default=3600, help="seconds for one guest's run")
    parser.add_argument("--publish", action="store_true", help="copy the results to docs/bench/")
    options = parser.parse_args()
    guest_lib.BIGA = os.path.abspath(options.biga)
    if "biga" in options.engines and not os.access(options.biga, os.X_OK):
        sys.exit(f"bench: {options.biga} is not built: run make first")
    os.makedirs(BUILD, exist_ok=True)

    others = further(options)
    runs, boots = collect(options)
    wrong = wrong_outputs(runs)
    data = {
        "host": host_facts(options.biga),
        "repeat": options.repeat,
        "seconds": {e: {j: t for j, (t, _) in r.jobs.items()} for e, r in runs.items()},
        "clock_error": {e: r.clock_error() for e, r in runs.items()},
        "failed": {e: r.failed for e, r in runs.items() if r.failed},
        "wrong": wrong,
        "boot": boots,
        **others,
    }
    if others.get("kvm", {}).get("failed"):
        data["failed"]["the lab"] = others["kvm"]["failed"]
    if "failed" in others.get("switch", {}).get("biga to biga", {}):
        data["failed"]["biga"] = data["failed"].get("biga", []) + ["switch"]
    with open(f"{BUILD}/results.json", "w", encoding="utf-8") as f:
        json.dump(data, f, indent=1, sort_keys=True)
        f.write("\n")
    text = report.markdown(data)
    with open(f"{BUILD}/results.md", "w", encoding="utf-8") as f:
        f.write(text)
    with open(f"{BUILD}/results.svg", "w", encoding="utf-8") as f:
        f.write(report.svg(data))
    print(text)
    if options.publish:
        target = os.path.join(ROOT, "docs/bench")
        os.makedirs(target, exist_ok=True)
        for kind in ("md", "json", "svg"):
            shutil.copy(f"{BUILD}/results.{kind}", target)
    return 1 if wrong or data["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
