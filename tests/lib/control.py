"""A running VM's control socket, for tests: asks and waits for answers."""
import array
import json
import os
import socket
import time


class Refused(Exception):
    """What the VM said."""


def path(name, folder=None):
    """As src/cmd/endpoint.h says, where XDG_RUNTIME_DIR is FOLDER."""
    return os.path.join(folder or os.environ["XDG_RUNTIME_DIR"], "biga", name + ".sock")


class Control:
    """One connection. Events that come between answers are kept in `events`."""

    def __init__(self, name, folder=None, seconds=60):
        end = time.monotonic() + seconds
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.connect(path(name, folder))
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.socket.settimeout(seconds)
        self.file = self.socket.makefile("rb")
        self.events = []
        self.last = 0
        hello = self.read()
        assert hello["hello"] == "biga", hello
        self.write({"hello": "biga", "version": 1})

    def write(self, message, fd=None):
        data = json.dumps(message).encode() + b"\n"
        if fd is None:
            self.socket.sendall(data)
        else:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            assert self.socket.sendmsg([data], rights) == len(data)

    def read(self):
        line = self.file.readline()
        if not line:
            raise EOFError("the VM closed its control socket")
        return json.loads(line)

    def call(self, do, fd=None, **members):
        self.last += 1
        self.write({"do": do, "id": self.last, **members}, fd)
        while True:
            message = self.read()
            if message.get("id") == self.last:
                break
            self.events.append(message)
        if not message["ok"]:
            raise Refused(message["error"])
        return message

    def close(self):
        self.file.close()
        self.socket.close()
