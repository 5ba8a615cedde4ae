"""What a VM that hangs is doing: stacks of its threads, registers of its vCPUs.

    print(hang.describe(pid_of_biga_run, cpus))

The stacks come from gdb, as the VM is; then the VM is paused by its control socket, whose
other end `biga run` holds: that process is stopped meanwhile and its descriptor borrowed.
"""
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time

SYS_PIDFD_GETFD = 438
LIMIT = 15  # seconds for each thing asked of a VM that may be dead


def vm_process(front):
    """The VM process that `biga run` of this pid has started, or None."""
    todo = [front]
    while todo:
        pid = todo.pop()
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if f.read().startswith(b"biga-vm\0"):
                    return pid
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as f:
                    todo += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return None


def threads(pid):
    """Name, state and processor time of each thread: who works, who waits."""
    lines = []
    for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="utf-8") as f:
            name, _, rest = f.read().partition("(")[2].rpartition(")")
        fields = rest.split()
        lines.append(f"thread {task} {name}: {fields[0]}, {fields[11]} + {fields[12]} ticks")
    return "\n".join(lines)


def stacks(pid):
    command = ["gdb", "-p", str(pid), "-batch", "-nx", "-ex", "set pagination off",
               "-ex", "thread apply all bt 24", "-ex", "thread apply all info registers rip rsp"]
    try:
        r = subprocess.run(command, capture_output=True, text=True, errors="replace",
                           stdin=subprocess.DEVNULL, timeout=4 * LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"no stacks: {e}"
    return r.stdout + ("" if r.returncode == 0 else r.stderr)


def borrow(pid, fd):
    """Descriptor FD of process PID, as one of ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    got = libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
    os.close(pidfd)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return socket.socket(fileno=got)


def sockets(pid):
    """PID's stream sockets: one leads to the control channel, others to consoles."""
    for fd in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        if re.match(r"socket:", os.readlink(f"/proc/{pid}/fd/{fd}")):
            s = borrow(pid, int(fd))
            if s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM:
                yield s
            else:
                s.close()


def ask(control, number, command, **more):
    """The reply to one request; events and others' replies on the way are left out."""
    control.settimeout(LIMIT)
    control.sendall(json.dumps({"do": command, "id": number, **more}).encode() + b"\n")
    data, deadline = b"", time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        part = control.recv(65536)
        if not part:
            break
        data += part
        for line in data.split(b"\n")[:-1]:
            reply = json.loads(line)
            if reply.get("id") == number and "ok" in reply:
                return reply
    raise OSError(f"no answer to {command}")


def registers(control, cpus):
    """All vCPUs' registers; the VM is paused after it."""
    lines = [f"pause: {ask(control, 9001, 'pause')['ok']}"]
    for vcpu in range(cpus):
        reply = ask(control, 9100 + vcpu, "registers", vcpu=vcpu)
        lines.append(f"vcpu {vcpu}: " + " ".join(
            f"{k}={v}" for k, v in reply.items() if k not in ("id", "ok")))
    return "\n".join(lines)


def ask_front(front, cpus):
    why = "the control socket does not answer"
    os.kill(front, signal.SIGSTOP)
    try:
        for control in sockets(front):
            with control:
                try:  # what is not the control socket answers with something else
                    why = str(ask(control, 9000, "info"))
                    return why + "\n" + registers(control, cpus)
                except (OSError, ValueError) as e:
                    why = f"the control socket: {e}; {why}"
    finally:
        os.kill(front, signal.SIGCONT)
    return why


def describe(front, cpus):
    pid = vm_process(front)
    if pid is None:
        return f"process {front} has no VM process"
    try:
        parts = [threads(pid)]
        time.sleep(1)
        parts += ["a second later:", threads(pid), stacks(pid), ask_front(front, cpus)]
    except OSError as e:
        parts = [f"the VM process {pid}: {e}"]
    return "\n".join(parts)
