#!/usr/bin/env python3
"""Names through NAT: the guest's resolver asks 10.0.2.3, the host's answers.

Needs no network: the host side is a network namespace whose resolver is ours.
"""
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import Guest, image, pack_initrd

ENGINE = sys.argv[1] if len(sys.argv) > 1 else "biga"
MODULES = ["failover", "net_failover", "virtio", "virtio_ring", "virtio_pci_legacy_dev",
           "virtio_pci_modern_dev", "virtio_pci", "virtio_net"]
COUNT = 20
RC = """set -e
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
echo nameserver 10.0.2.3 >/etc/resolv.conf
for i in $(seq %d); do
	echo "ANSWER $i $(nslookup -type=a host$i.example.org | sed -n 's/^Address: //p' | tail -n 1)"
done
nslookup -type=a missing.example.org && exit 1
exit 0
""" % COUNT


def address_of(name):
    """hostN.example.org is 192.0.2.N; others there are not."""
    m = re.fullmatch(r"host(\d+)\.example\.org", name)
    return bytes((192, 0, 2, int(m.group(1)))) if m else None


def answer(query):
    """RFC 1035, 4.1: one question in, at most one A record out."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    question = query[12:at + 5]
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    address = address_of(".".join(labels))
    records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + address] if address and kind == 1 else []
    code = 0 if address else 3  # no such name
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(records), 0, 0)
    return head + question + b"".join(records)


def serve(s):
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(answer(query), peer)


def enter_namespace():
    """Runs this test again in namespaces of its own, as their root."""
    user = [] if os.geteuid() == 0 else ["-r"]
    environment = dict(os.environ, BIGA_TEST_NAMESPACE="1")
    os.execvpe("unshare", ["unshare", *user, "-m", "-n", sys.executable, *sys.argv], environment)


def main():
    with tempfile.TemporaryDirectory() as tmp:
        resolver = os.path.join(tmp, "resolv.conf")
        with open(resolver, "w", encoding="utf-8") as f:
            f.write("nameserver 127.0.0.1\n")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf")], check=True)
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 53))
        threading.Thread(target=serve, args=(s,), daemon=True).start()

        kernel = image("kernel", "cloud")
        files = {f"modules/{m}.ko": f"{kernel}/modules/{m}.ko" for m in MODULES}
        files["modules/order"] = "\n".join(m + ".ko" for m in MODULES).encode()
        files["rc"] = RC.encode()
        extra = pack_initrd(files, tmp)
        with Guest(ENGINE, kernel=kernel + "/vmlinuz", net="user", memory="256M", cpus=2,
                   initrds=[image("busybox", "amd64") + "/initrd.cpio", extra]) as guest:
            guest.wait("BIGA-READY", 60)
            for i in range(1, COUNT + 1):
                guest.wait(f"ANSWER {i} 192.0.2.{i}\n", 30)
            guest.wait("BIGA-DONE 0", 30)
            if guest.end(30):
                guest.fail("did not end well")
    print(f"{COUNT} names and one that is not")


if os.environ.get("BIGA_TEST_NAMESPACE") != "1":
    image("kernel", "cloud")  # if they are not there, they come from the network
    image("busybox", "amd64")
    sys.stdout.flush()
    enter_namespace()
main()
