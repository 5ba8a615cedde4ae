"""Boots a guest on biga or on QEMU and talks to it over its serial port.

    guest = Guest("biga", kernel=..., initrds=[...], append="...", cpus=4)
    guest.wait("BIGA-READY", 60)
    guest.close()

All functions raise GuestError, whose text holds the end of what the guest wrote.
"""
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import hang

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BIGA = os.environ.get("BIGA", os.path.join(ROOT, "build/release/biga"))


class GuestError(Exception):
    pass


def image(*what):
    """The folder of a guest image, built if it is not there (tools/image)."""
    r = subprocess.run([os.path.join(ROOT, "tools/image"), *what], stdout=subprocess.PIPE,
                       check=True, text=True)
    return r.stdout.strip()


def pack_initrd(files, folder):
    """An initramfs archive in FOLDER: FILES maps paths to bytes, or to a host path; executable."""
    tree = tempfile.mkdtemp(dir=folder)
    for name, content in files.items():
        path = os.path.join(tree, name.lstrip("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(content, bytes):
            with open(path, "wb") as f:
                f.write(content)
        else:
            shutil.copyfile(content, path)
        os.chmod(path, 0o755)
    out = tree + ".cpio"
    with open(out, "wb") as f:
        subprocess.run([os.path.join(ROOT, "tools/mkinitrd"), tree], stdout=f, check=True)
    shutil.rmtree(tree)
    return out


def biga_command(kernel, initrds, append, cpus, memory, disks, net, extra):
    command = [BIGA, "run", "--quiet", "--name", "guest", "--kernel", kernel, "--cpus", str(cpus),
               "--memory", memory, "--append", append, "--net", net or "none"]
    for initrd in initrds:
        command += ["--initrd", initrd]
    for disk in disks:
        command += ["--disk", disk]
    return command + extra


def qemu_net(net):
    """biga's --net user,forward=tcp:ADDR:PORT-:PORT as QEMU's -netdev."""
    words = net.split(",")
    text = "user,id=n0"
    for word in words[1:]:
        if word.startswith("forward="):
            text += ",hostfwd=" + word[len("forward="):]
    return text


def qemu_command(kernel, initrds, append, cpus, memory, disks, net, extra, machine, tmp):
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-machine", machine,
               "-m", memory, "-smp", str(cpus), "-nodefaults", "-display", "none", "-no-reboot",
               "-serial", "stdio", "-kernel", kernel, "-append", append]
    micro = machine.startswith("microvm")
    if initrds:
        joined = initrds[0]
        if len(initrds) > 1:
            joined = os.path.join(tmp, "joined.cpio")
            with open(joined, "wb") as out:
                for initrd in initrds:
                    with open(initrd, "rb") as f:
                        shutil.copyfileobj(f, out)
                    out.write(b"\0" * (-out.tell() % 4))
        command += ["-initrd", joined]
    for i, disk in enumerate(disks):
        path, *options = disk.split(",")
        readonly = ",readonly=on" if "readonly" in options else ""
        command += ["-drive", f"if=none,id=d{i},format=raw,file={path}{readonly}", "-device",
                    f"virtio-blk-{'device' if micro else 'pci'},drive=d{i}"]
    if net and net != "none":
        command += ["-netdev", qemu_net(net), "-device",
                    f"virtio-net-{'device' if micro else 'pci'},netdev=n0"]
    if not micro:
        command += ["-device", "virtio-rng-pci"]
    return command + extra


class Guest:
    def __init__(self, engine="biga", kernel=None, initrds=(), append="console=ttyS0 panic=-1",
                 cpus=1, memory="512M", disks=(), net=None, extra=(), machine="q35", echo=False,
                 terminal=False, state=None):
        """STATE: a file of `biga suspend`, and then only EXTRA counts beside it."""
        self.tmp = tempfile.mkdtemp(prefix="biga-guest-")
        if state:
            command = [BIGA, "run", "--quiet", "--state", state, *extra]
        elif engine == "biga":
            command = biga_command(kernel, initrds, append, cpus, memory, disks, net, list(extra))
        else:
            command = qemu_command(kernel, initrds, append, cpus, memory, disks, net,
                                   list(extra), machine, self.tmp)
        self.echo = echo
        self.cpus = cpus if engine == "biga" else 0
        self.text = ""    # all that the guest has written
        self.seen = 0     # how far wait() has read
        self.serial = 0
        self.started = time.monotonic()
        env = dict(os.environ, XDG_RUNTIME_DIR=self.tmp)  # each VM has its own names
        if terminal:
            ours, theirs = os.openpty()
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs,
                                            start_new_session=True, env=env)
            os.close(theirs)
            self.input = self.output = ours
        else:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, bufsize=0, env=env)
            self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fail(self, why):
        """Says what the guest wrote last and, if the VM still runs, what it is doing."""
        if self.cpus and self.process.poll() is None:
            print(self.describe(), flush=True)
        tail = "\n".join(self.text.splitlines()[-40:])
        raise GuestError(f"{why}; the guest's last lines:\n{tail}")

    def describe(self):
        return hang.describe(self.process.pid, self.cpus, self.tmp + "/biga/guest.sock")

    def read_some(self, seconds):
        """More output into self.text; False at its end."""
        ready, _, _ = select.select([self.output], [], [], max(seconds, 0))
        if not ready:
            return True
        try:
            data = os.read(self.output, 65536)
        except OSError:  # a terminal whose other end is closed
            return False
        text = data.decode(errors="replace").replace("\r", "")
        if self.echo:
            sys.stderr.write(text)
        self.text += text
        return bool(data)

    def wait(self, pattern, seconds=120):
        """Waits until the regular expression appears in what was not yet waited for."""
        deadline = time.monotonic() + seconds
        regex = re.compile(pattern, re.M)
        while True:
            m = regex.search(self.text, self.seen)
            if m:
                self.seen = m.end()
                return m
            if time.monotonic() > deadline:
                self.fail(f"no '{pattern}' within {seconds} s")
            if not self.read_some(deadline - time.monotonic()):
                m = regex.search(self.text, self.seen)
                if not m:
                    self.fail(f"ended (exit {self.process.wait()}) before '{pattern}'")

    def send(self, text):
        data = text.encode()
        while data:
            n = os.write(self.input, data[:256])
            data = data[n:]

    def login(self, seconds=240):
        """Waits for the Debian guest's root shell and makes its prompt plain."""
        self.wait(r"root@\S+:~#", seconds)
        # The guest's terminal echoes: the quotes keep the echo from matching.
        self.send("stty -echo; export PS1= PS2= TERM=dumb; exec bash --noediting --norc\n")
        self.send("echo SHELL-'IS-PLAIN'\n")
        self.wait("SHELL-IS-PLAIN", 60)
        self.run("dmesg -n 1")  # the kernel's lines would mix with a command's output

    def run(self, command, seconds=120, check=True):
        """Runs COMMAND in the guest's shell: (exit status, output)."""
        self.serial += 1
        mark = f"STATUS-{self.serial}"
        start = self.seen
        self.send(f"{{ {command}\n}}; echo {mark[:3]}''{mark[3:]}:$?:\n")
        m = self.wait(mark + r":(\d+):", seconds)
        output = self.text[start:m.start()].strip("\n")
        status = int(m.group(1))
        if check and status:
            self.fail(f"'{command}' gave {status}")
        return status, output

    def suspend(self, state, seconds=120):
        """Into the file STATE, and waits for the end; how long it took."""
        start = time.monotonic()
        done = subprocess.run([BIGA, "suspend", "guest", "--to", state], timeout=seconds,
                              env=dict(os.environ, XDG_RUNTIME_DIR=self.tmp), check=False,
                              stdout=subprocess.DEVNULL)
        if done.returncode:
            self.fail(f"suspend gave {done.returncode}")
        took = time.monotonic() - start
        status = self.end(30)
        if status:
            self.fail(f"exit status {status} after it was suspended")
        return took

    def end(self, seconds=60):
        """Waits for the VM to end by itself; its exit status."""
        deadline = time.monotonic() + seconds
        while self.read_some(deadline - time.monotonic()):
            if time.monotonic() > deadline:
                self.fail(f"did not end within {seconds} s")
        return self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
            self.process.stdout.close()
        else:
            os.close(self.input)
        shutil.rmtree(self.tmp, ignore_errors=True)
