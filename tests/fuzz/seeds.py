#!/usr/bin/env python3
"""Seeds of the fuzzers: inputs that get far, from which they go on.

    tests/fuzz/seeds.py NAME FOLDER

writes those of fuzz_NAME into FOLDER; none for a name that has no row at the end. Inputs that
once failed, and seeds that are easier kept than made, are files in tests/fuzz/corpus/NAME.
"""
import gzip
import lzma
import os
import struct
import subprocess
import sys


def elf64(entry=0x1000000):
    """A PVH kernel: one segment and the note that says where it starts."""
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)
    ident = b"\177ELF\2\1\1".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    code = b"\xf4" * 64
    load = struct.pack("<IIQQQQQQ", 1, 7, 0x100, entry, entry, len(code), 0x2000, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, 0xc0, 0, 0, len(note), len(note), 4)
    return (header + load + notes).ljust(0xc0, b"\0") + note.ljust(0x40, b"\0") + code


def elf32(entry=0x100000):
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    ident = b"\177ELF\1\1\1".ljust(16, b"\0")
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    code = b"\xf4" * 64
    load = struct.pack("<IIIIIIII", 1, 0x100, entry, entry, len(code), 0x2000, 7, 0x1000)
    notes = struct.pack("<IIIIIIII", 4, 0xc0, 0, 0, len(note), len(note), 4, 4)
    return (header + load + notes).ljust(0xc0, b"\0") + note.ljust(0x40, b"\0") + code


def elf():
    # Bit 0 of the class byte picks the class: "\1" and "\2" already say it.
    return [elf64(), elf32()]


def packed(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True).stdout + struct.pack("<I", len(data))


def bzimage():
    kernel = elf64().ljust(3000, b"\x90")
    size = struct.pack("<I", len(kernel))
    alone = lzma.compress(kernel, format=lzma.FORMAT_ALONE) + size
    payloads = [gzip.compress(kernel, mtime=0), alone,
                packed(["xz", "--check=crc32", "-c"], kernel),
                packed(["lz4", "-l", "-c"], kernel), packed(["zstd", "-q", "-c"], kernel)]
    setup = bytearray(2 * 512 + 16)
    setup[0] = 1  # the fuzzer makes the header sound
    struct.pack_into("<I", setup, 0x238, 255)  # bytes of command line
    struct.pack_into("<I", setup, 0x22c, 0x7fffffff)  # the initrd's last address
    return [bytes(setup) + payload for payload in payloads]


def multiboot():
    at, base = 64, 0x100000
    # Flag 16: addresses in the header. Bits 0 and 1: aligned modules, memory information.
    header = struct.pack("<IIIIIIII", 0x1badb002, 0x10003, 0, base + at, base, base + 256, base + 4096,
                         base + 128)
    raw = struct.pack("<H", at).ljust(at, b"\0") + header
    image = bytearray(elf32().ljust(1024, b"\0"))
    # Bytes 0 to 2 say where the header is and that it is an ELF file; the fuzzer restores the magic.
    image[0:3] = struct.pack("<HB", 512, 1)
    image[512:516] = struct.pack("<I", 0x1badb002)
    return [raw.ljust(512, b"\xf4"), bytes(image)]


CODE = """
b805000000 83c003 29c3 75f9 89d8 f4
53 6801000000 59 e800000000 58 50 c3
b910000000 f3a4 f3ab fcf2ae fd f3a6 e3fe
0fa2 0f31 e620 ec 66ef e464 6c 6e
0f20c0 0f22c0 0f20d8 0f22d8 0f06 0f01d0 0f32 0f30
0f010f 0f0117 0f011f 0f0138 0f00d8 0f00d0
cc cd80 cf f1 0f0b 62f1
d9e8 d9eb dec1 d80b dd1b d9f2 9bdbe3 dfe0
0f2803 0f5ec1 660fefc0 f30f6f03 0fae03 0fae0b f20f10c1
c5fc2803 c5fd6fc1 c4e2713b03 c5f877 c4e3790c0301
f00fb103 f0830001 0fc10b 8703 f00fc70b
9a000000000800 ea000000000800 cb ff2b 8ed8 8e00 0fb203
486bc005 48c1e003 480fa3c1 0fbcc1 f30fb8c1 f30fbdc1 c4e2f8f7c1
60 61 27 2f 37 3f d40a d50a c80000 c9 6203 c503 c403
9c 58 0d00010000 50 9d fb fa f4
c605000001000f ebf9 88000403 a4
0f05 0f07 0f34 0f35 0fae38 0f18 0f1f00 f390
"""


def translator():
    """Mode and privilege, eight bytes that seed the registers, code."""
    code = [bytes.fromhex(line) for line in CODE.strip().splitlines()]
    return [bytes([mode | user]) + struct.pack("<Q", 0x1234567 * (i + 1)) + text
            for i, text in enumerate(code) for mode in range(6) for user in (0, 0x80)]


RINGS, HEADER, DATA = 0x100000, 0x180000, 0x181000
NEXT, WRITE = 1, 2


def store(device, queue, place, data):
    padded = data.ljust(-(-len(data) // 8) * 8, b"\0")
    return bytes([device << 3 | queue << 5, 0, place, 0, len(padded) - 1]) + padded


def chain(device, queue, parts, header=b""):
    """Descriptors of (address, size, flags), offered and handled."""
    ring = b"".join(struct.pack("<QIHH", at, size, flags | (NEXT if i < len(parts) - 1 else 0), i + 1)
                    for i, (at, size, flags) in enumerate(parts))
    text = store(device, queue, 3, header) if header else b""
    where = device << 3 | queue << 5
    return text + store(device, queue, 0, ring) + bytes([4 | where, 0, 0]) + bytes([7, 0]) + b"\0" * 8


def virtq():
    disk = [chain(0, 0, [(HEADER, 16, 0), (DATA, 512, WRITE if kind in (0, 8) else 0),
                         (DATA + 512, 1, WRITE)], struct.pack("<IIQ", kind, 0, 1))
            for kind in (0, 1, 4, 8, 11, 13)]
    out = [chain(1, 1, [(DATA, 64, 0)]), chain(2, 1, [(HEADER, 12, 0), (DATA, 60, 0)], b"\0" * 16),
           chain(3, 0, [(DATA, 64, WRITE)]), chain(1, 0, [(DATA, 64, WRITE)]),
           chain(2, 0, [(DATA, 2000, WRITE)])]
    return disk + out + [b"".join(disk), b"".join(out)]


def state():
    """A good file, with and without the checksums made right again after a change."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/state-1")
    with open(path, "rb") as f:
        golden = f.read()
    return [b"\1" + golden, b"\0" + golden]


SEEDS = {"elf": elf, "bzimage": bzimage, "multiboot": multiboot, "translator": translator,
         "virtq": virtq, "state": state}


def main():
    name, folder = sys.argv[1:3]
    for i, seed in enumerate(SEEDS[name]() if name in SEEDS else []):
        with open(os.path.join(folder, f"seed{i:03}"), "wb") as f:
            f.write(seed)


main()
