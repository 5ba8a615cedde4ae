#!/usr/bin/env python3
"""Every stress-ng load of these classes for a second, one after the other, on four CPUs.

only long
timeout: 2400
modes: release
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
# Not "os": one of its loads hangs up the terminal that the test talks through.
CLASSES = sys.argv[2:] or ["cpu", "interrupt", "scheduler", "memory", "vm", "filesystem", "io",
                           "network", "pipe"]
TROUBLE = ("BUG:", "Oops", "soft lockup", "rcu:", "general protection", "blocked for more than")

folder = image("debian")
with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
    path = os.path.join(tmp, "disk.raw")
    subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
    with Guest(ENGINE, kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"], cpus=4,
               append="console=ttyS0 root=/dev/vda panic=-1", memory="2G", disks=[path]) as guest:
        guest.login(300)
        guest.run("dmesg --clear; cd /var/tmp")
        for name in CLASSES:
            _, out = guest.run(f"stress-ng --sequential 1 -t 1 --verify --class {name} 2>&1 | "
                               "grep -E 'stress-ng: (fail|error)' || true", 900)
            if out:
                guest.fail(f"class {name}: {out}")
            _, out = guest.run("dmesg")
            if any(word in out for word in TROUBLE):
                guest.fail(f"class {name}: the kernel complains: {out[-2000:]}")
            print(name, flush=True)
        guest.send("poweroff\n")
        if guest.end(120):
            guest.fail("did not power off")
    subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL)
