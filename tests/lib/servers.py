"""Servers and clients on the host that a guest talks to: echo, bulk data, packages."""
import functools
import hashlib
import http.server
import os
import socket
import subprocess
import threading


def start(target):
    threading.Thread(target=target, daemon=True).start()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tcp_server(handle):
    """Calls HANDLE(connection) in a thread for each; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            handle(connection)

    def loop():
        while True:
            connection, _ = listener.accept()
            start(functools.partial(serve, connection))

    start(loop)
    return listener.getsockname()[1]


def tcp_echo():
    def handle(c):
        while data := c.recv(65536):
            c.sendall(data)
    return tcp_server(handle)


def udp_echo():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))

    def loop():
        while True:
            data, address = s.recvfrom(65536)
            s.sendto(data, address)

    start(loop)
    return s.getsockname()[1]


def bulk_source(size):
    """Serves SIZE bytes to each who connects; (port, their SHA-256)."""
    block = os.urandom(1 << 20)
    digest = hashlib.sha256(block * (size >> 20)).hexdigest()

    def handle(c):
        for _ in range(size >> 20):
            c.sendall(block)
        c.shutdown(socket.SHUT_WR)
        c.recv(1)

    return tcp_server(handle), digest


def bulk_sink():
    """Reads to the end and answers with the SHA-256 of it; the port."""
    def handle(c):
        digest = hashlib.sha256()
        while data := c.recv(1 << 18):
            digest.update(data)
        c.sendall(digest.hexdigest().encode() + b"\n")
    return tcp_server(handle)


def web_server(folder):
    handler = functools.partial(QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    start(server.serve_forever)
    return server.server_address[1]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def package_archive(folder):
    """A flat Debian archive in FOLDER with one small package, biga-hello."""
    tree = os.path.join(folder, "tree")
    os.makedirs(tree + "/DEBIAN")
    os.makedirs(tree + "/usr/bin")
    with open(tree + "/DEBIAN/control", "w", encoding="utf-8") as f:
        f.write("Package: biga-hello\nVersion: 1.0\nArchitecture: all\n"
                "Maintainer: nobody <nobody@example.org>\nDescription: says hello\n")
    with open(tree + "/usr/bin/biga-hello", "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\necho hello from a package\n")
    os.chmod(tree + "/usr/bin/biga-hello", 0o755)
    archive = os.path.join(folder, "archive")
    os.makedirs(archive)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, archive + "/biga-hello.deb"],
                   check=True, stdout=subprocess.DEVNULL)
    packages = subprocess.run(["dpkg-scanpackages", "-m", "."], cwd=archive, check=True,
                              capture_output=True).stdout
    with open(archive + "/Packages", "wb") as f:
        f.write(packages)
    return archive
