#!/usr/bin/env python3
"""Reboots: the machine starts over in the same process. Then the power button, by Ctrl-A p.

timeout: 600
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image, pack_initrd

# Each way of Linux to reset the machine; triple needs one CPU to be told from a panic.
WAYS = ["acpi", "pci", "kbd"]
RC = b"read word; case $word in again) reboot -f;; esac; sleep 60"


def small(cpus, tmp, way):
    extra = pack_initrd({"rc": RC}, tmp)
    with Guest("biga", kernel=image("kernel", "cloud") + "/vmlinuz", cpus=cpus,
               initrds=[image("busybox", "amd64") + "/initrd.cpio", extra],
               append=f"console=ttyS0 panic=-1 quiet reboot={way}") as guest:
        for _ in range(2):
            guest.wait(f"BIGA-READY x86_64 cpus={cpus}", 90)
            guest.send("again\n")
        guest.wait(f"BIGA-READY x86_64 cpus={cpus}", 90)
    print(f"reboot={way} with {cpus} CPUs", flush=True)


def debian(tmp):
    folder = image("debian")
    path = os.path.join(tmp, "disk.raw")
    subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
    with Guest("biga", kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"], cpus=2,
               append="console=ttyS0 root=/dev/vda panic=-1", memory="1G", disks=[path],
               terminal=True) as guest:
        guest.login(300)
        guest.run("echo kept >/root/kept")
        guest.send("reboot\n")
        guest.login(300)
        guest.run("grep -x kept /root/kept")
        guest.send("\x01p")
        status = guest.end(120)
        if status:
            guest.fail(f"exit status {status} after the power button")
    subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL)
    print("Debian: a reboot, the power button, a clean disk")


with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as folder_here:
    small(1, folder_here, "acpi")
    for each in WAYS:
        small(4, folder_here, each)
    debian(folder_here)
