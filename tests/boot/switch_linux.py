#!/usr/bin/env python3
"""The live switch under a whole system: Debian, busy with a connection to the host, a disk,
processors and memory, is moved to other hypervisors; everything goes on and the kernel has
nothing to say about it.

    tests/boot/switch_linux.py [biga|kvm]    to fresh instances of our own, or to kvm and back

SWITCHES says how often (50, in the long form 200). CPUS: 2.
timeout: 500   long: 1200
modes: release
"""
import os
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import servers
from control import Control
from guest import Guest, image

SWITCHES = int(os.environ.get("SWITCHES", 200 if os.environ.get("LONG") else 50))
CPUS = int(os.environ.get("CPUS", 2))
KVM = sys.argv[1:] == ["kvm"]
HOST = "10.0.2.2"
# Each checks its own results.
LOADS = ("--cpu 1 --vm 1 --vm-bytes 32M --memcpy 1 --hash 1 --matrix 1 --str 1 --pipe 1 --fork 1 "
         "--timer 1")
# Said if its reader gets no time for a second after the end; the same on a bare machine.
AT_END = "pipe: termination write failed, errno=4"

# One connection, for as long as the guest lives: what was sent comes back, in order.
TALK = f"""
import os, socket, sys, time
s = socket.create_connection(("{HOST}", int(sys.argv[1])))
n = 0
while True:
    line = b"%d " % n * 50
    s.sendall(line)
    got = b""
    while len(got) < len(line):
        part = s.recv(65536)
        assert part
        got += part
    assert got == line
    n += 1
    open("/run/talked.new", "w").write(str(n))
    os.replace("/run/talked.new", "/run/talked")
    time.sleep(0.02)
"""
# Written, dropped from memory, read again.
DISK = r"""
n=0
while :; do
	head -c 3000000 /dev/urandom >/var/tmp/one && cp /var/tmp/one /run/two || exit 1
	sync; echo 1 >/proc/sys/vm/drop_caches
	cmp /var/tmp/one /run/two || { touch /run/differs; exit 1; }
	n=$((n + 1)); echo $n >/run/written.new; mv /run/written.new /run/written
done
"""
# Time as one process sees it, on whatever CPU it runs: never back, never far ahead.
CLOCK = r"""
import os, time
last = time.clock_gettime(time.CLOCK_MONOTONIC), time.time()
worst = 0
while True:
    now = time.clock_gettime(time.CLOCK_MONOTONIC), time.time()
    for a, b in zip(last, now):
        assert b >= a, (a, b)
        worst = max(worst, b - a)
    last = now
    open("/run/worst.new", "w").write("%.3f" % worst)
    os.replace("/run/worst.new", "/run/worst")
"""


def put(guest, path, text):
    guest.run(f"cat >{path} <<'END'\n{text.strip()}\nEND")


def number(guest, path):
    return int(guest.run(f"cat {path}")[1])


def behind(guest):
    """Seconds that the guest's clock is behind the host's, which is read first: the slower the
    answer, the less."""
    return max(time.time() - float(guest.run("date +%s.%N")[1]) for _ in range(8))


def load(guest):
    put(guest, "/root/talk.py", TALK)
    put(guest, "/root/disk.sh", DISK)
    put(guest, "/root/clock.py", CLOCK)
    guest.run(f"(setsid python3 /root/talk.py {servers.tcp_echo()} >/run/talk.log 2>&1 &); "
              "(setsid sh /root/disk.sh >/run/disk.log 2>&1 &); "
              "(setsid python3 /root/clock.py >/run/clock.log 2>&1 &); "
              f"(cd /tmp; setsid sh -c 'stress-ng --verify {LOADS} & echo $! >/run/stress.pid; "
              "wait $!; echo $? >/run/stress.new; mv /run/stress.new /run/stress.status' "
              ">/run/stress.log 2>&1 &)")
    guest.run("for i in $(seq 100); do [ -s /run/talked ] && [ -s /run/written ] && break; "
              "sleep 0.2; done; cat /run/talked /run/written")


def move(control):
    pauses = []
    for i in range(SWITCHES):
        to = "biga" if not KVM or i % 2 else "kvm"
        reply = control.call("switch", to=to, fresh=not KVM)
        pauses.append(reply["pause-ns"] / 1e6)
        time.sleep(random.uniform(0.02, 0.4))
    pauses.sort()
    print(f"{SWITCHES} switches: median pause {pauses[len(pauses) // 2]:.2f} ms, "
          f"worst {pauses[-1]:.2f} ms", flush=True)


def stress_judge(guest):
    """Told to end, the first of them ends the others and says what they found. All told at once,
    as by pkill, it says on a bare machine as well that their counts are corrupted."""
    guest.run("! [ -e /run/stress.status ]")
    guest.run("kill $(cat /run/stress.pid); for i in $(seq 240); do "
              "[ -e /run/stress.status ] && break; sleep 0.5; done; true", 180)
    _, out = guest.run("cat /run/stress.log")
    found = [line for line in out.splitlines()
             if ("fail" in line or "error" in line) and AT_END not in line]
    assert not found, out
    assert number(guest, "/run/stress.status") == 0, out


def judge(guest, before, offset):
    talked, written = number(guest, "/run/talked"), number(guest, "/run/written")
    guest.run("sleep 3")
    assert number(guest, "/run/talked") > talked, "the connection died: " + str(
        guest.run("cat /run/talk.log")[1])
    guest.run("for i in $(seq 100); do [ $(cat /run/written) -gt " + str(written) +
              " ] && break; sleep 0.3; done")
    assert number(guest, "/run/written") > written, guest.run("cat /run/disk.log")[1]
    guest.run("! [ -e /run/differs ]")
    guest.run("pgrep -f clock.py")
    stress_judge(guest)
    # A pause, or a busy host, in the middle of a timer interrupt is noted once, and is no fault.
    _, after = guest.run("dmesg --level=emerg,alert,crit,err,warn | grep -vE 'interrupt took|Long readout'")
    assert after == before, f"the kernel complains: {after[len(before):]}"
    _, source = guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    drift = behind(guest) - offset
    print(f"clock {source}, {drift:+.3f} s against the host's; "
          f"longest step {guest.run('cat /run/worst')[1]} s", flush=True)
    assert abs(drift) < 1, drift


def main():
    folder = image("debian")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
        path = os.path.join(tmp, "disk.raw")
        subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
        with Guest("biga", kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"],
                   append="console=ttyS0 root=/dev/vda panic=-1", cpus=CPUS, memory="1G",
                   disks=[path], net="user,hostloop=on",
                   extra=["--hypervisor", "biga"]) as guest:
            guest.login(300)
            load(guest)
            _, before = guest.run("dmesg --level=emerg,alert,crit,err,warn | grep -vE 'interrupt took|Long readout'; true")
            offset = behind(guest)
            control = Control("guest", guest.tmp)
            if KVM:
                control.call("give", fd=os.open("/dev/kvm", os.O_RDWR), what="kvm")
            move(control)
            judge(guest, before, offset)
            assert control.call("info")["switches"] == SWITCHES
            guest.send("poweroff\n")
            if guest.end(120):
                guest.fail("did not power off")
        subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL)


main()
