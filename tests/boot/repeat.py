#!/usr/bin/env python3
"""Boots in a row with four CPUs: what goes wrong once in a while does so here. The long form
boots the initramfs 60 times and Debian 15 times. A boot that hangs says what its threads and
vCPUs are doing (tests/lib/hang.py).

    tests/boot/repeat.py [biga|qemu [BOOTS-OF-INITRAMFS BOOTS-OF-DEBIAN]]

timeout: 300
long: 1500
modes: release
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
LONG = os.environ.get("LONG") == "1"
SMALL, DEBIAN = (int(n) for n in sys.argv[2:4]) if len(sys.argv) > 3 else (60, 15) if LONG else (6, 0)


def small(number):
    with Guest(ENGINE, kernel=image("kernel", "cloud") + "/vmlinuz", cpus=4,
               initrds=[image("busybox", "amd64") + "/initrd.cpio"],
               append="console=ttyS0 panic=-1 quiet") as guest:
        guest.wait("BIGA-READY x86_64 cpus=4 ", 60)
        guest.wait("BIGA-DONE 0", 30)
        if guest.end(30):
            guest.fail(f"boot {number} did not end well")


def debian(number, path):
    folder = image("debian")
    with Guest(ENGINE, kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"], cpus=4,
               append="console=ttyS0 root=/dev/vda panic=-1", memory="1G", disks=[path],
               net="user") as guest:
        guest.login(180)
        guest.run("systemctl is-system-running --wait | grep -x running", 120)
        guest.send("poweroff\n")
        if guest.end(120):
            guest.fail(f"Debian, boot {number}, did not end well")


for n in range(SMALL):
    small(n)
    print(f"initramfs {n + 1}", flush=True)
with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
    disk = os.path.join(tmp, "disk.raw")
    if DEBIAN:  # all boots on one disk
        subprocess.run(["cp", "--sparse=always", image("debian") + "/disk.raw", disk], check=True)
    for n in range(DEBIAN):
        debian(n, disk)
        print(f"Debian {n + 1}", flush=True)
    if DEBIAN:
        subprocess.run(["/sbin/e2fsck", "-fn", disk], check=True, stdout=subprocess.DEVNULL)
print(f"{SMALL} boots of the initramfs, {DEBIAN} of Debian")
