#!/usr/bin/env python3
"""The live switch between our own hypervisor and a sound KVM, which is that of a lab
(tools/kvm-lab): tests/boot/switch.py in it, on 1 and 2 processors, 60 switches each (in the
long form 300).

timeout: 500   long: 1200
modes: release
"""
import os
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
LONG = bool(os.environ.get("LONG"))
# The system's: another one may have anything beside its library.
PYTHON = "/usr/bin/python3"
STDLIB = subprocess.run([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
                        stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
command = [os.path.join(ROOT, "tools/kvm-lab"), "--timeout", "1100" if LONG else "450",
           "--file", PYTHON, "--file", STDLIB,
           "--file", os.path.join(ROOT, "tests/boot/switch.py"),
           "--file", os.path.join(ROOT, "tests/lib/control.py"),
           "--env", "BIGA_ARGS=--cpu-model x86-64-v2", "--env", "CPUS=1 2",
           "--env", f"SWITCHES={300 if LONG else 60}",
           "python3", os.path.join(ROOT, "tests/boot/switch.py"), "kvm"]
sys.exit(subprocess.run(command, check=False).returncode)
