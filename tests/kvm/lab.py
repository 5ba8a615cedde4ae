#!/usr/bin/env python3
"""All that is tested on a sound KVM, in one lab (tools/kvm-lab).

    tests/kvm/lab.py PART...

PART: guest-kvm/NAME, a line of tests/guest/list, or a function of inside.sh as kvm/NAME.
Says "PART NAME ok|FAIL SECONDS" after what each has printed. tests/run makes tests of these.
"""
import os
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))
from guest import image

LIMIT = 900


def main():
    inside = os.path.join(ROOT, "tests/kvm/inside.sh")
    command = [os.path.join(ROOT, "tools/kvm-lab"), "--timeout", str(LIMIT), "--file", inside,
               "--file", os.path.join(ROOT, "build", "release", "tests/unit/test_engines")]
    if any(part.startswith("kvm/linux") for part in sys.argv[1:]):
        command += ["--file", image("kernel", "cloud") + "/vmlinuz=/lab/linux/vmlinuz",
                    "--file", image("busybox", "amd64") + "/initrd.cpio=/lab/linux/initrd"]
    return subprocess.run(command + ["sh", inside] + sys.argv[1:], cwd=ROOT, check=False).returncode


sys.exit(main())
