#!/usr/bin/env python3
"""A mix of loads on the Debian guest, minutes in the long form: CPU, memory, disk, processes.

timeout: 500
long: 900
modes: release
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
SECONDS = int(os.environ.get("STRESS_SECONDS", "240" if os.environ.get("LONG") == "1" else "30"))
LOADS = ("--cpu 1 --cpu-method all --matrix 1 --vm 1 --vm-bytes 64M --fork 1 --switch 1 --pipe 1 "
         "--mmap 1 --mmap-bytes 32M --sigsegv 1 --timer 1 --hdd 1 --hdd-bytes 64M --futex 1 "
         "--qsort 1 --zlib 1 --clone 1 --mutex 1 --nanosleep 1 --poll 1 --get 1")

folder = image("debian")
with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
    path = os.path.join(tmp, "disk.raw")
    subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
    with Guest(ENGINE, kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"], cpus=4,
               append="console=ttyS0 root=/dev/vda panic=-1", memory="2G",
               disks=[path]) as guest:
        guest.login(300)
        # --verify: each load checks its own results.
        _, out = guest.run(f"cd /var/tmp && stress-ng --verify {LOADS} --timeout {SECONDS}s 2>&1",
                           SECONDS + 240)
        print(out)
        _, out = guest.run("dmesg --level=emerg,alert,crit,err | grep -vE 'sigsegv|segfault' || true")
        if any(word in out for word in ("BUG", "Oops", "soft lockup", "rcu:", "Call Trace")):
            guest.fail("the kernel complains")
        guest.send("poweroff\n")
        if guest.end(120):
            guest.fail("did not power off")
    subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL)
