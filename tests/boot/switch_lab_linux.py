#!/usr/bin/env python3
"""A Linux system moves between a sound KVM (that of a lab, tools/kvm-lab) and our own
hypervisor, 20 times each way (in the long form 60), while it copies and compares files and
starts processes. Its kernel has nothing to say about it, and its clock keeps the lab's time.

timeout: 550   long: 1500
modes: release
"""
import os
import random
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))
from control import Control  # noqa: E402
from guest import Guest, image, pack_initrd  # noqa: E402

LONG = bool(os.environ.get("LONG"))
SWITCHES = int(os.environ.get("SWITCHES", 120 if LONG else 40))
WORK = r"""
copy()
{
	while :; do
		dd if=/dev/urandom of=/tmp/one bs=4096 count=100 2>/dev/null
		cp /tmp/one /tmp/two
		cmp /tmp/one /tmp/two || echo "DIFFERS"
		n=$((n + 1)); echo $n >/tmp/copied
	done
}
start()
{
	while :; do
		a=$(echo 'one two three' | sed 's/two/2/' | sha256sum)
		[ ! -e /tmp/sum ] || [ "$a" = "$(cat /tmp/sum)" ] || echo "DIFFERS"
		echo "$a" >/tmp/sum
		m=$((m + 1)); echo $m >/tmp/started
	done
}
# A slow interrupt is one of a slow host: two emulations lie upon each other here.
complaints()
{
	dmesg -r | grep '^<[0-4]>' | grep -v 'hrtimer: interrupt took'
}
copy & start &
while [ ! -s /tmp/copied ] || [ ! -s /tmp/started ]; do sleep 1; done
complaints >/tmp/before
echo "AT-WORK $(cut -d' ' -f1 /proc/uptime)"
while read -r word; do
	case $word in
	now) echo "COUNTS $(cat /tmp/copied) $(cat /tmp/started) $(cut -d' ' -f1 /proc/uptime)" ;;
	stop) break ;;
	esac
done
complaints >/tmp/after
cmp /tmp/before /tmp/after || { diff /tmp/before /tmp/after; echo KERNEL-COMPLAINS; }
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
"""


def counts(guest):
    guest.send("now\n")
    m = guest.wait(r"COUNTS (\d+) (\d+) (\S+)\n", 120)
    return int(m.group(1)), int(m.group(2)), float(m.group(3)), time.monotonic()


def move(control):
    pauses = {"kvm": [], "biga": []}
    for i in range(SWITCHES):
        reply = control.call("switch", to="kvm,force" if i % 2 else "biga")
        pauses[reply["to"]].append(reply["pause-ns"] / 1e6)
        time.sleep(random.uniform(0.05, 0.8))
    for to, times in pauses.items():
        times.sort()
        print(f"{len(times)} times to {to}: median pause {times[len(times) // 2]:.2f} ms, "
              f"worst {times[-1]:.2f} ms", flush=True)


def inside(kernel, busybox, work):
    """In the lab."""
    with Guest("biga", kernel=kernel, initrds=[busybox, work], memory="256M",
               append="console=ttyS0 panic=-1 noxsave quiet",
               extra=["--hypervisor", "kvm,force", "--cpu-model", "x86-64-v2"]) as guest:
        guest.wait("AT-WORK", 200)
        control = Control("guest", guest.tmp)
        first = counts(guest)
        try:
            move(control)
        except OSError as error:
            guest.end(10)
            guest.fail(str(error))
        middle = counts(guest)
        time.sleep(3)
        last = counts(guest)
        info = control.call("info")
        assert info["switches"] == SWITCHES and info["rescues"] == 0, info
        drift = (last[2] - first[2]) - (last[3] - first[3])
        print(f"worked {[b - a for a, b in zip(first[:2], last[:2])]}, uptime against the lab's "
              f"clock {drift:+.3f} s", flush=True)
        assert last[0] > middle[0] and last[1] > middle[1], "it stands still"
        assert abs(drift) < 2, drift  # what the console takes
        guest.send("stop\n")
        if guest.end(100):
            guest.fail("did not power off")
        assert "DIFFERS" not in guest.text and "KERNEL-COMPLAINS" not in guest.text, guest.text
        assert "tsc" in guest.text or "kvm-clock" in guest.text, guest.text[-500:]


def outside():
    kernel = image("kernel", "cloud") + "/vmlinuz"
    busybox = image("busybox", "amd64") + "/initrd.cpio"
    python = "/usr/bin/python3"  # the system's: another may have anything beside its library
    library = subprocess.run([python, "-c", "import sysconfig; "
                              "print(sysconfig.get_path('stdlib'))"],
                             stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
        work = pack_initrd({"rc": WORK.encode()}, tmp)
        # With XSAVE, which our own hypervisor needs; the guest does without, as this KVM gets
        # it wrong.
        command = [os.path.join(ROOT, "tools/kvm-lab"), "--cpu", "max", "--timeout",
                   "1400" if LONG else "500", "--env", f"SWITCHES={SWITCHES}"]
        for path in (python, library, kernel, busybox, work, os.path.abspath(__file__),
                     ROOT + "/tests/lib"):
            command += ["--file", path]
        command += ["python3", os.path.abspath(__file__), kernel, busybox, work]
        return subprocess.run(command, check=False).returncode


if len(sys.argv) > 1:
    inside(*sys.argv[1:])
else:
    sys.exit(outside())
