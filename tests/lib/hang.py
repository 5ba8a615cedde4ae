"""What a VM that hangs is doing: stacks of its threads, registers of its vCPUs.

    print(hang.describe(pid_of_biga_run, cpus, path_of_control_socket))

The stacks come from gdb, as the VM is; then the VM is paused by its control socket.
"""
import json
import os
import socket
import subprocess
import time

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


def ask(control, number, command, **more):
    """The reply to one request; greetings and events on the way are left out."""
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


def registers(path, cpus):
    """All vCPUs' registers; the VM is paused after it."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(LIMIT)
        try:
            control.connect(path)
            control.sendall(b'{"hello": "biga", "version": 1}\n')
            lines = [str(ask(control, 1, "info")), f"pause: {ask(control, 2, 'pause')['ok']}"]
            for vcpu in range(cpus):
                reply = ask(control, 10 + vcpu, "registers", vcpu=vcpu)
                lines.append(f"vcpu {vcpu}: " + " ".join(
                    f"{k}={v}" for k, v in reply.items() if k not in ("id", "ok")))
        except (OSError, ValueError) as e:
            return f"the control socket: {e}"
    return "\n".join(lines)


def describe(front, cpus, path):
    pid = vm_process(front)
    if pid is None:
        return f"process {front} has no VM process"
    try:
        parts = [threads(pid)]
        time.sleep(1)
        parts += ["a second later:", threads(pid), stacks(pid), registers(path, cpus)]
    except OSError as e:
        parts = [f"the VM process {pid}: {e}"]
    return "\n".join(parts)
