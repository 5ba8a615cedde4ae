#!/usr/bin/env python3
"""Guests under load, suspended and gone on with in fresh processes, several times.

timeout: 700
long: 1500
modes: release
"""
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import BIGA, Guest, image, pack_initrd

LONG = os.environ.get("LONG") == "1"
ROUNDS = 8 if LONG else 3
LOADS = ("--cpu 1 --cpu-method all --vm 1 --vm-bytes 32M --fork 1 --switch 1 --pipe 1 --timer 1 "
         "--hdd 1 --hdd-bytes 16M --futex 1 --zlib 1 --nanosleep 1 --matrix 1")

# Counts ticks of 100 ms and seconds by two clocks; a checksum goes on all the time.
RC = b"""
{
	x=$(dd if=/dev/zero bs=1M count=8 2>/dev/null | md5sum)
	while :; do
		[ "$(dd if=/dev/zero bs=1M count=8 2>/dev/null | md5sum)" = "$x" ] || echo WRONG SUM
	done
} &
n=0
while :; do
	sleep 0.1
	n=$((n + 1))
	echo tick $n $(cut -d. -f1 /proc/uptime) $(dmesg | grep -c 'virtual machine fork')
done
"""


def small(cpus, tmp):
    """Busybox and a clock; nothing else but the state goes from process to process."""
    state = os.path.join(tmp, "small.state")
    extra = pack_initrd({"rc": RC}, tmp)
    guest = Guest("biga", kernel=image("kernel", "amd64") + "/vmlinuz", cpus=cpus,
                  initrds=[image("busybox", "amd64") + "/initrd.cpio", extra], memory="256M",
                  append="console=ttyS0 panic=-1 quiet")
    guest.wait("^tick 5 ", 120)
    tick, uptime = 5, 0
    for turn in range(ROUNDS):
        guest.suspend(state)
        if "WRONG" in guest.text:
            guest.fail("a checksum is wrong")
        before = guest
        guest = Guest(state=state)
        first = guest.wait(r"^tick (\d+) (\d+) (\d+)$", 30)
        last = [line.split() for line in before.text.splitlines() if line.startswith("tick ")
                and line.count(" ") == 3][-1]
        # The line that was being written may be in two processes' halves.
        if not 1 <= int(first[1]) - int(last[1]) <= 2 or not 0 <= int(first[2]) - int(last[2]) <= 15:
            guest.fail(f"after tick {last} came {first[0]}")
        tick, uptime = int(first[1]), int(first[2])
        # Time goes on, and the kernel has drawn new random numbers.
        later = guest.wait(rf"^tick {tick + 10} (\d+) {turn + 1}$", 30)
        if not 1 <= int(later[1]) - uptime <= 25:
            guest.fail(f"ten ticks from {uptime} to {later[1]} s")
        before.close()
    if "WRONG" in guest.text or "rcu" in guest.text or "BUG" in guest.text:
        guest.fail("the guest complains")
    guest.close()
    print(f"busybox with {cpus} CPUs: {ROUNDS} times, {os.path.getsize(state) >> 10} KiB",
          flush=True)


def debian(cpus, tmp):
    state = os.path.join(tmp, "debian.state")
    folder, path = image("debian"), os.path.join(tmp, "disk.raw")
    subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
    guest = Guest("biga", kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"], cpus=cpus,
                  append="console=ttyS0 root=/dev/vda panic=-1", memory="1G", disks=[path],
                  net="user")
    guest.login(300)
    guest.run(f"cd /var/tmp; stress-ng --verify {LOADS} --timeout 3600s >/root/stress 2>&1 & "
              "echo $! >/root/stress.pid")
    guest.run("(n=0; while :; do n=$((n+1)); dd if=/dev/urandom of=/root/f$n bs=64k count=8 "
              "status=none; sha256sum /root/f$n >>/root/sums; [ $((n % 50)) -ne 0 ] || "
              "{ sha256sum --quiet -c /root/sums || echo BAD >>/root/bad; rm /root/f*; "
              ">/root/sums; }; done) >/dev/null 2>&1 & echo $! >/root/writer.pid")
    took = []
    for turn in range(ROUNDS):
        time.sleep(3)
        took.append(guest.suspend(state))
        guest.close()
        guest = Guest(state=state)
        guest.serial = 100 * (turn + 1)
        guest.send("\n")
        _, out = guest.run("uptime -s >/dev/null; nproc", 60)
        if out.strip().splitlines()[-1] != str(cpus):
            guest.fail(f"{out} processors")
    guest.run("kill -0 $(cat /root/writer.pid) && kill -0 $(cat /root/stress.pid)")
    guest.run("kill $(cat /root/writer.pid); kill $(cat /root/stress.pid); sleep 2", check=False)
    guest.run("cat /root/stress; ! grep -i fail /root/stress && ! test -e /root/bad")
    # The last line may be of a file that was being written.
    guest.run("sync; cd /root; test -s sums && head -n -1 sums | sha256sum --quiet -c")
    _, out = guest.run("dmesg --level=emerg,alert,crit,err | grep -v segfault || true")
    if any(word in out for word in ("BUG", "Oops", "soft lockup", "rcu:", "I/O error")):
        guest.fail("the kernel complains")
    guest.send("poweroff\n")
    if guest.end(120):
        guest.fail("did not power off")
    guest.close()
    subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL)
    # The disk has been written since: no way back.
    old = subprocess.run([BIGA, "run", "--state", state, "--quiet"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=60, check=False)
    if old.returncode != 2 or "has moved on" not in old.stderr:
        raise SystemExit(f"a state of old: {old.returncode} {old.stderr}")
    print(f"Debian with {cpus} CPUs: {ROUNDS} times, {os.path.getsize(state) >> 20} MiB, "
          f"{max(took):.1f} s at most", flush=True)


with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as folder_here:
    small(1, folder_here)
    small(4, folder_here)
    debian(1, folder_here)
    debian(4, folder_here)
