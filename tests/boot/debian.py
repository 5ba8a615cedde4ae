#!/usr/bin/env python3
"""The Debian 12 guest: systemd to a root shell, tools, network, a clean disk.

timeout: 900
long: 1500
"""
import base64
import os
import shlex
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import program
import servers
from guest import Guest, image

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
LONG = os.environ.get("LONG") == "1"
CPUS = int(os.environ.get("CPUS", "4" if LONG else "2"))
HOST = "10.0.2.2"
MEGABYTES = 200 if LONG else 64 if os.environ.get("MODE", "release") == "release" else 16
DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "blake2b512",
           "blake2s256")
CIPHERS = ("aes-128-cbc", "aes-256-cbc", "aes-192-ctr", "aes-256-ctr", "chacha20", "camellia-256-cbc",
           "aria-128-ctr")

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
static int cmp(const void *a, const void *b) { return *(int *)a - *(int *)b; }
int main(void)
{
	static int v[10000];
	double s = 0;
	for (int i = 0; i < 10000; i++) v[i] = (i * 7919) % 10007;
	qsort(v, 10000, sizeof(v[0]), cmp);
	for (int i = 0; i < 10000; i++) s += sqrt(v[i]);
	printf("%d %d %.3f\n", v[0], v[9999], s);
	return 0;
}
"""
UDP_CLIENT = r"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b'over-udp'); small = s.recv(100)
s.send(bytes(1400)); print(small.decode(), len(s.recv(2000)))
"""
ECHO_SERVER = r"""
import socket, threading
t = socket.create_server(('', 7000))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 7001))
def udp():
    while True:
        d, a = u.recvfrom(65536); u.sendto(d, a)
threading.Thread(target=udp, daemon=True).start()
while True:
    c, _ = t.accept()
    while d := c.recv(65536): c.sendall(d)
    c.close()
"""


def step(text):
    print(text, flush=True)


def put(guest, path, text):
    encoded = base64.encodebytes(text.encode()).decode()
    guest.run(f"base64 -d >{path} <<'END'\n{encoded}END")


def build(guest, port):
    """Debian's compiler and make on a program of some thousand lines."""
    guest.run(f"mkdir -p /root/program && cd /root/program && wget -q -O - "
              f"http://{HOST}:{port}/program.tar | tar -x")
    guest.run(f"make -s -j {CPUS} -C /root/program", 400)
    _, out = guest.run("/root/program/program")
    expected = program.make()[1]
    assert out == expected, f"{out} is not {expected}"


def write_program(folder):
    tree = os.path.join(folder, "program")
    os.mkdir(tree)
    for name, text in program.make()[0].items():
        with open(os.path.join(tree, name), "w", encoding="utf-8") as f:
            f.write(text)
    subprocess.run(["tar", "-C", tree, "-cf", os.path.join(folder, "program.tar"), "."], check=True)


def openssl_script(data, key):
    """Prints lines that are the same wherever it runs."""
    lines = [f"openssl dgst -r -{d} {data} | cut -d' ' -f1" for d in DIGESTS]
    lines += [f"openssl enc -{c} -K {'2b' * 32} -iv {'7e' * 16} -in {data} 2>/dev/null | "
              "openssl dgst -r -sha256 | cut -d' ' -f1" for c in CIPHERS]
    lines += [f"openssl dgst -sha256 -sign {key} {data} | openssl dgst -r -sha256 | cut -d' ' -f1"]
    return "; ".join(lines)


def digests(guest, port, folder):
    """openssl's results in the guest are those of the host's."""
    data, key = os.path.join(folder, "data"), os.path.join(folder, "key.pem")
    with open(data, "wb") as f:
        f.write(os.urandom(3_000_001))
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    here = subprocess.run(["sh", "-c", openssl_script(shlex.quote(data), shlex.quote(key))],
                          check=True, capture_output=True, text=True).stdout.split()
    assert len(set(here)) == len(DIGESTS) + len(CIPHERS) + 1, here
    for name in ("data", "key.pem"):
        guest.run(f"wget -q -O /tmp/{name} http://{HOST}:{port}/{name}")
    _, out = guest.run(openssl_script("/tmp/data", "/tmp/key.pem"), 300)
    assert out.split() == here, f"{out} is not {here}"


def tools(guest):
    put(guest, "/root/t.c", PROGRAM)
    expected = "0 10006"
    _, out = guest.run("gcc -O2 -Wall -o /root/t /root/t.c -lm && /root/t", 300)
    assert out.startswith(expected), out
    _, out = guest.run("python3 -c 'import hashlib, json; print(hashlib.sha256(json.dumps("
                       "list(range(1000))).encode()).hexdigest(), 2**200)'", 120)
    here = subprocess.run([sys.executable, "-c", "import hashlib, json; print(hashlib.sha256("
                           "json.dumps(list(range(1000))).encode()).hexdigest(), 2**200)"],
                          capture_output=True, text=True, check=True).stdout.strip()
    assert out == here, f"{out} is not {here}"
    _, out = guest.run("perl -e 'my %h; $h{$_ % 97} += $_ for 1..20000; print $h{13}'", 120)
    assert out == str(sum(i for i in range(1, 20001) if i % 97 == 13)), out
    guest.run("openssl speed -seconds 1 -evp sha256 2>&1 | tail -n 1", 120)
    guest.run("openssl speed -seconds 1 rsa2048 2>&1 | tail -n 1", 120)
    guest.run("systemctl is-system-running --wait | grep -x running", 240)


def echo(guest, tcp_forward, udp_forward):
    tcp, udp = servers.tcp_echo(), servers.udp_echo()
    _, out = guest.run(f"echo over-tcp | nc -q 1 -w 10 {HOST} {tcp}")
    assert out == "over-tcp", out
    put(guest, "/root/udp.py", UDP_CLIENT)
    _, out = guest.run(f"python3 /root/udp.py {HOST} {udp}")
    assert out == "over-udp 1400", out
    put(guest, "/root/echo.py", ECHO_SERVER)
    guest.run("(setsid python3 /root/echo.py >/dev/null 2>&1 &); "
              "for i in $(seq 50); do ss -ltn | grep -q :7000 && break; sleep 0.2; done")
    with socket.create_connection(("127.0.0.1", tcp_forward), 20) as s:
        s.sendall(b"into the guest")
        assert s.recv(100) == b"into the guest"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        s.sendto(b"datagram", ("127.0.0.1", udp_forward))
        assert s.recv(100) == b"datagram"


def bulk(guest):
    port, digest = servers.bulk_source(MEGABYTES << 20)
    _, out = guest.run(f"nc -d -w 60 {HOST} {port} | sha256sum | cut -d' ' -f1", 300)
    assert out == digest, f"{MEGABYTES} MB received: {out} is not {digest}"
    port = servers.bulk_sink()
    guest.run(f"head -c {MEGABYTES}M /dev/urandom >/var/tmp/bulk", 120)
    _, mine = guest.run("sha256sum </var/tmp/bulk | cut -d' ' -f1", 120)
    _, theirs = guest.run(f"nc -N -w 60 {HOST} {port} </var/tmp/bulk", 300)
    assert mine == theirs, f"{MEGABYTES} MB sent: {theirs} is not {mine}"
    guest.run("rm /var/tmp/bulk")


def packages(guest, tmp):
    port = servers.web_server(servers.package_archive(tmp))
    guest.run("mkdir -p /etc/apt/off; mv /etc/apt/sources.list* /etc/apt/off/ 2>/dev/null; "
              f"echo 'deb [trusted=yes] http://{HOST}:{port}/ ./' >/etc/apt/sources.list")
    guest.run("apt-get -q update && apt-get -q -y install biga-hello", 180)
    _, out = guest.run("biga-hello")
    assert out == "hello from a package", out


def names(guest):
    """DNS through NAT, if the host itself can resolve a name."""
    try:
        socket.getaddrinfo("deb.debian.org", 80)
    except OSError:
        step("the host resolves no names: DNS not tried")
        return
    guest.run("getent ahosts deb.debian.org", 60)


def disk(guest):
    guest.run("head -c 64M /dev/urandom >/root/data && sync")
    return guest.run("sha256sum </root/data | cut -d' ' -f1", 60)[1]


def verify(path, digest):
    """From the host: a clean file system that holds what was written."""
    r = subprocess.run(["/sbin/e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    data = subprocess.run(["/sbin/debugfs", "-R", "cat /root/data", path], capture_output=True,
                          check=True).stdout
    here = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout
    assert here.decode().split()[0] == digest, "the file on the disk is another"


def main():
    folder = image("debian")
    tcp_forward = servers.free_port()
    udp_forward = servers.free_port(socket.SOCK_DGRAM)
    net = (f"user,forward=tcp:127.0.0.1:{tcp_forward}-:7000,"
           f"forward=udp:127.0.0.1:{udp_forward}-:7001")
    if ENGINE == "biga":
        net += ",hostloop=on"
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMP")) as tmp:
        path = os.path.join(tmp, "disk.raw")
        subprocess.run(["cp", "--sparse=always", folder + "/disk.raw", path], check=True)
        with Guest(ENGINE, kernel=folder + "/vmlinuz", initrds=[folder + "/initrd.img"],
                   append="console=ttyS0 root=/dev/vda panic=-1", cpus=CPUS, memory="1G",
                   disks=[path], net=net) as guest:
            guest.login(300)
            step("a root shell")
            tools(guest)
            step("gcc, python3, perl, openssl, systemd")
            names(guest)
            echo(guest, tcp_forward, udp_forward)
            step("TCP and UDP, both ways")
            files = os.path.join(tmp, "files")
            os.mkdir(files)
            write_program(files)
            port = servers.web_server(files)
            build(guest, port)
            step("make and gcc, a program of many files")
            digests(guest, port, files)
            step("openssl as on the host")
            bulk(guest)
            step(f"{MEGABYTES} MB each way")
            packages(guest, tmp)
            step("apt-get")
            digest = disk(guest)
            guest.send("poweroff\n")
            status = guest.end(120)
            if status:
                guest.fail(f"exit status {status} after power-off")
        verify(path, digest)
        step("the disk, seen from the host")


main()
