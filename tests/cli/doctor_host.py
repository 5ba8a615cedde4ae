#!/usr/bin/env python3
"""Causes made real: nodes, users, capabilities, namespaces, control groups, Landlock.

All happens in a mount namespace of its own with a /dev of its own; the host stays as it
is. The kernel need not have KVM: where it does not, /proc/misc is made to say so. Device
nodes and namespaces need root.

timeout: 180
as root
"""
import ctypes
import grp
import json
import os
import pwd
import shutil
import struct
import subprocess
import sys

BIGA = os.environ.get("BIGA", "build/release/biga")
TMP = os.environ.get("TMP", "/tmp")
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
KVM = os.makedev(10, 232)
failed = 0
libc = ctypes.CDLL(None, use_errno=True)


def run(*command):
    subprocess.run(command, check=True)


def enter():
    """Again in a mount namespace of our own."""
    if os.geteuid() != 0:
        sys.exit("needs root: it makes device nodes")
    os.chmod(TMP, 0o755)
    shutil.copy(BIGA, TMP + "/biga")
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable,
                          __file__, "inside"])


def new_dev(options=""):
    """A /dev with nothing but what programs need."""
    subprocess.run(["umount", "/dev"], stderr=subprocess.DEVNULL)
    run("mount", "-t", "tmpfs", "-o", "mode=755" + options, "dev", "/dev")
    os.mknod("/dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    os.chmod("/dev/null", 0o666)


def node(mode, uid=0, gid=0, device=KVM):
    if os.path.lexists("/dev/kvm"):
        os.unlink("/dev/kvm")
    os.mknod("/dev/kvm", 0o020000 | mode, device)
    os.chmod("/dev/kvm", mode)
    os.chown("/dev/kvm", uid, gid)


def over(path, text):
    """A file of ours instead of the host's, here."""
    name = TMP + "/" + path.replace("/", "_")
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
    run("mount", "--bind", name, path)


def doctor(*command, setup=None):
    r = subprocess.run([*command, TMP + "/biga", "doctor", "--json"], capture_output=True,
                       stdin=subprocess.PIPE, text=True, timeout=60, preexec_fn=setup)
    if r.returncode != 1 or r.stderr:
        return {"cause": f"status {r.returncode}: {r.stderr}", "evidence": "", "fix": ""}, {}
    found = json.loads(r.stdout)
    return found["hypervisors"][0], found["facts"]


def expect(cause, evidence, fix, *command, setup=None):
    """The doctor, run by COMMAND, finds that. Returns its facts."""
    global failed
    kvm, facts = doctor(*command, setup=setup)
    good = kvm["cause"] == cause and evidence in kvm["evidence"] and fix in kvm["fix"]
    print("ok  " if good else "FAIL", cause, "" if good else f"wanted {evidence!r}, {fix!r}: {kvm}")
    failed += not good
    return facts


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def prepare():
    if " kvm\n" not in read("/proc/misc"):
        over("/proc/misc", read("/proc/misc") + "232 kvm\n")
    if "\nkvm:" not in read("/etc/group"):
        over("/etc/group", read("/etc/group") + "kvm:x:4321:\n")
    return grp.getgrnam("kvm").gr_gid


def missing_or_else():
    new_dev()
    expect("not-passed", "a mount namespace of its own", "pass /dev/kvm in")
    with open("/dev/kvm", "w", encoding="utf-8") as f:
        f.write("hello")
    expect("not-kvm", "a regular file", "mknod")
    node(0o666, device=os.makedev(1, 3))
    expect("not-kvm", "a character device of number 1:3", "mknod")
    os.unlink("/dev/kvm")
    os.mkfifo("/dev/kvm")
    expect("not-kvm", "a pipe or socket", "mknod")
    os.unlink("/dev/kvm")
    os.symlink("nowhere", "/dev/kvm")
    expect("not-passed", "no /dev/kvm", "")
    os.unlink("/dev/kvm")


def permission(kvm):
    """Owner, group, a session older than the membership, the folder."""
    node(0o600)
    expect("no-permission", "root:root mode 600", "usermod -aG kvm", *NOBODY)
    node(0o660, 0, kvm)
    expect("not-in-group", "root:kvm mode 660", "usermod -aG kvm", *NOBODY)
    node(0o640, 0, kvm)
    expect("no-permission", "root:kvm mode 640", "", *NOBODY)
    node(0o660, 0, kvm)
    lines = [l.rstrip(",") + ("" if l.endswith(":") else ",") + pwd.getpwuid(65534).pw_name
             if l.startswith("kvm:") else l for l in read("/etc/group").splitlines()]
    over("/etc/group", "\n".join(lines) + "\n")
    expect("new-login", "is a member of kvm", "newgrp kvm", *NOBODY)
    run("umount", "/etc/group")
    os.chmod("/dev", 0o700)
    expect("no-search", "/dev cannot be searched", "chmod 755 /dev", *NOBODY)
    os.chmod("/dev", 0o755)


def capabilities():
    """Root without the capability is like anybody."""
    node(0o600, 12, 12)
    expect("no-permission", "mode 600, and this runs as root", "", "setpriv", "--bounding-set",
           "-dac_override", "--inh-caps", "-dac_override")


def namespaces():
    node(0o600)
    expect("user-namespace", "mode 600", "outside", *NOBODY, "unshare", "--user",
           "--map-root-user")
    os.unlink("/dev/kvm")
    # A container: a mark and a PID namespace.
    if not os.path.exists("/.dockerenv"):
        run("mount", "-t", "tmpfs", "run", "/run")
        with open("/run/.containerenv", "w", encoding="utf-8"):
            pass
    facts = expect("not-passed", "this container", "run --device /dev/kvm", "unshare", "--pid",
                   "--fork", "--mount-proc", "sh", "-c",
                   # The new /proc has the kernel's own misc: say again that it has kvm.
                   f'grep -q " kvm$" /proc/misc || mount --bind {TMP}/_proc_misc /proc/misc; "$@"',
                   "sh")
    if not facts or not facts["place"]["container"]:
        global failed
        failed += 1
        print("FAIL no container in", facts)


def landlock_without_writing():
    """May read all and write nothing: the mode still says it may."""
    handled, read_file, write_file = struct.Struct("Q"), 1 << 2, 1 << 1
    ruleset = libc.syscall(444, handled.pack(read_file | write_file), 8, 0)
    root = os.open("/", os.O_PATH)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", read_file, root))
    if ruleset < 0 or libc.syscall(445, ruleset, 1, rule, 0):
        raise OSError(ctypes.get_errno(), "no Landlock")
    libc.prctl(38, 1, 0, 0, 0)
    if libc.syscall(446, ruleset, 0):
        raise OSError(ctypes.get_errno(), "no Landlock")


def landlock():
    node(0o666)
    expect("refused-by-lsm", "security modules:", "audit log", setup=landlock_without_writing)


class DeviceGroup:
    """A control group of our own that forbids 10:232: by version 1's list, or by version 2's
    program."""

    def __init__(self):
        self.name = f"biga-test-{os.getpid()}"
        self.folder = "/sys/fs/cgroup/devices"
        if not os.path.isdir(self.folder):
            self.folder = "/sys/fs/cgroup"
        self.folder += "/" + self.name

    def __enter__(self):
        os.mkdir(self.folder)
        try:
            with open(self.folder + "/devices.deny", "w", encoding="utf-8") as f:
                f.write("c 10:232 rwm")
        except FileNotFoundError:
            self.attach()
        return self

    def __exit__(self, *_):
        os.rmdir(self.folder)

    def attach(self):
        """BPF: r0 = !(major == 10 && minor == 232) of struct bpf_cgroup_dev_ctx in r1."""
        program = b"".join(struct.pack("<BBhi", *i) for i in (
            (0xb7, 0x00, 0, 1), (0x61, 0x12, 4, 0), (0x55, 0x02, 3, 10),
            (0x61, 0x12, 8, 0), (0x55, 0x02, 1, 232), (0xb7, 0x00, 0, 0), (0x95, 0x00, 0, 0)))
        code = ctypes.create_string_buffer(program)
        name = ctypes.create_string_buffer(b"GPL")
        load = struct.pack("IIQQ", 15, len(program) // 8, ctypes.addressof(code),
                           ctypes.addressof(name)).ljust(72, b"\0")
        fd = libc.syscall(321, 5, load, len(load))
        group = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0 or libc.syscall(321, 8, struct.pack("IIII", group, fd, 6, 0), 16):
            raise OSError(ctypes.get_errno(), "no device program")

    def join(self):
        with open(self.folder + "/cgroup.procs", "w", encoding="utf-8") as f:
            f.write(str(os.getpid()))


def device_group():
    node(0o666)
    with DeviceGroup() as group:
        facts = expect("device-denied", group.name + " forbids", "10:232", setup=group.join)
        if facts:
            assert facts["place"]["device-group"].endswith(group.name), facts["place"]


def no_devices():
    subprocess.run(["umount", "/dev"], check=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755,nodev", "dev", "/dev")
    node(0o666)
    expect("nodev", "mounted nodev", "remount,dev")


def main():
    if len(sys.argv) < 2:
        enter()
    kvm = prepare()
    missing_or_else()
    permission(kvm)
    capabilities()
    landlock()
    device_group()
    namespaces()
    no_devices()
    print(f"{failed} failed")
    return 1 if failed else 0


sys.exit(main())
