"""What the benchmark runs: groups of jobs, the same everywhere.

A job is (group, name, kind, command): see bench/programs/driver.c. Commands run in
/tmp/bench of the system that is measured: a tmpfs, with the static programs and the
data in it. The output of each must be the same everywhere: it is compared.
"""
import os
import random
import shutil
import subprocess

# Twenty-two standard tools.
TOOLS = [
    ("gzip", "gzip -nc small"),
    ("gunzip", "for i in 1 2 3; do gunzip -c small.gz; done"),
    ("xz", "head -c 1000000 small | xz -6 -c"),
    ("unxz", "xz -dc small.xz"),
    ("bzip2", "head -c 2500000 small | bzip2 -c"),
    ("zstd", "zstd -q -6 -c small"),
    ("unzstd", "for i in 1 2 3 4; do zstd -dcq text.zst; done | wc -c"),
    ("sha256sum", "cat text text text text | sha256sum"),
    ("md5sum", "cat text text text | md5sum"),
    ("cksum", "for i in 1 2 3 4 5 6 7 8; do cat text; done | cksum"),
    ("base64", "cat text text | base64 -w 0 | wc -c"),
    ("sort", "LC_ALL=C sort -k 2 text"),
    ("sort-uniq", "tr ' ' '\\n' <small | LC_ALL=C sort | uniq -c | tail"),
    ("awk", "awk '{ for (i = 2; i <= NF; i++) n[$i]++ } END { for (w in n) s += n[w] * length(w); "
            "print s }' small"),
    ("sed", "sed -e 's/[aeiou][^aeiou]/<&>/g' small"),
    ("grep", "grep -cE '(ab|cd).*(xy|z[a-m])' text"),
    ("perl", "perl -ne '$h{$_}++ for split; END { print scalar(keys %h), qq(\\n) }' small"),
    ("python-loop", "printf 's = 0\\nfor i in range(3000000): s += i * i %% 7\\nprint(s)\\n' "
                    "| python3"),
    ("python-dict", "python3 -c 'd = {str(i): i for i in range(300000)}; "
                    "print(sum(d[k] for k in sorted(d)))'"),
    ("gcc", "gcc -O2 -c integer.c floating.c && wc -c integer.o floating.o"),
    ("tar", "for i in 1 2 3 4 5 6; do tar -cf - --sort=name --mtime=@0 --owner=0 --group=0 "
            "--numeric-owner tree | tar -xf - -O | cksum; done"),
    ("openssl", "openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff "
                "-iv 00112233445566778899aabbccddeeff -in text | cat - text text | openssl dgst -sha512 | tail -c 129"),
]

# Throughput as openssl measures it: time for a fixed amount of work is taken instead.
CRYPTO = [
    ("sha256", "for i in 1 2 3 4 5 6 7 8; do openssl dgst -sha256 text; done"),
    ("aes-256-ctr", "for i in 1 2 3 4 5 6; do openssl enc -aes-256-ctr -K 00 -iv 00 -in text 2>/dev/null"
                    " | wc -c; done"),
    ("rsa-2048", "for i in $(seq 60); do openssl dgst -sha256 -sign key.pem small.gz | cksum; "
                 "done"),
]

BULK = {"memset-16m", "memcpy-16m", "rep-movsb", "rep-stosb"}


def names_of(program):
    out = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout
    return out.split()


def all_jobs(build):
    jobs = [("tools", n, "shell", c) for n, c in TOOLS]
    jobs += [("crypto", n, "shell", c) for n, c in CRYPTO]
    for group, program in (("integer", "integer"), ("floating", "floating"),
                           ("system", "system")):
        for name in names_of(f"{build}/{program}"):
            where = "memory" if name in BULK else "other" if name == "yield" else group
            jobs.append((where, name, "self", f"./{program} {name}"))
    return jobs


def shell(command, folder):
    subprocess.run(command, shell=True, cwd=folder, check=True)


def make_data(folder, programs):
    """The files that jobs work on: "text" is 18 MB of words, "small" its first 8 MB."""
    numbers = random.Random(12345)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(numbers.choices(letters, k=numbers.randint(2, 10))) for _ in range(4000)]
    weights = [1 / (i + 5) for i in range(len(words))]
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/text", "w", encoding="ascii") as f:
        for line in range(200000):
            f.write(f"{line} {' '.join(numbers.choices(words, weights, k=12))}\n")
    shell("head -c 8000000 text >small && gzip -nc small >small.gz && xz -1 -c small >small.xz && "
          "zstd -qf text -o text.zst && openssl genrsa -out key.pem 2048 2>/dev/null", folder)
    os.makedirs(f"{folder}/tree", exist_ok=True)
    shell("cd tree && split -l 300 ../small", folder)
    for name in ("integer.c", "floating.c", "bench.h"):
        shutil.copy(f"{programs}/{name}", folder)
