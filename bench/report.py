"""The benchmark's results as a Markdown table and as a plot (SVG)."""
import html
import math

GROUP_NAMES = {
    "tools": "Standard tools",
    "crypto": "OpenSSL",
    "integer": "Integer loops",
    "floating": "Floating point and SIMD",
    "system": "System-call-heavy loops",
    "memory": "Bulk memory",
}
# What must be reached: how many times as fast as QEMU TCG, geometric mean of a group.
FLOORS = {"tools": 3.0, "floating": 8.0, "system": 2.0}


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratio(seconds, job, above, below):
    """Time on ABOVE over time on BELOW, or None if one is missing."""
    a, b = seconds.get(above, {}).get(job), seconds.get(below, {}).get(job)
    return a / b if a and b else None


def groups(seconds):
    """Group: its jobs in the order they ran, over all engines."""
    found = {}
    for run in seconds.values():
        for job in run:
            names = found.setdefault(job.partition("/")[0], [])
            if job not in names:
                names.append(job)
    return {g: found[g] for g in GROUP_NAMES if g in found}


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def means(seconds, names):
    def mean(above, below):
        return geometric_mean(r for r in (ratio(seconds, j, above, below) for j in names) if r)
    return mean("biga", "native"), mean("qemu", "native"), mean("qemu", "biga")


def summary(seconds):
    lines = ["| group | jobs | biga / native | QEMU / native | biga is faster than QEMU by | floor |",
             "|---|--:|--:|--:|--:|--:|"]
    for group, names in groups(seconds).items():
        ours, theirs, gain = means(seconds, names)
        floor = FLOORS.get(group)
        lines.append(f"| {GROUP_NAMES[group]} | {len(names)} | {number(ours)} | {number(theirs)} "
                     f"| {number(gain)} | {number(floor, 1)} |")
    return lines


def details(seconds):
    lines = ["| job | native s | biga s | QEMU s | biga / native | QEMU / native | QEMU / biga |",
             "|---|--:|--:|--:|--:|--:|--:|"]
    for names in groups(seconds).values():
        for job in names:
            cells = [number(seconds.get(e, {}).get(job), 3) for e in ("native", "biga", "qemu")]
            cells += [number(ratio(seconds, job, a, b)) for a, b in
                      (("biga", "native"), ("qemu", "native"), ("qemu", "biga"))]
            lines.append(f"| {job} | " + " | ".join(cells) + " |")
    return lines


def switches(moves, title):
    lines = [f"| {title} | to | switches | pause median ms | worst | prepare median ms | worst |",
             "|---|---|--:|--:|--:|--:|--:|"]
    for name, hypervisors in moves.items():
        if "failed" in hypervisors:
            why = hypervisors["failed"].strip().splitlines()[-1]
            lines.append(f"| {name} | not possible: {why} | | | | | |")
            continue
        for to, f in hypervisors.items():
            lines.append(f"| {name} | {to} | {f['count']} | " + " | ".join(
                number(f[what][which], 3) for what in ("pause", "prepare")
                for which in ("median", "worst")) + " |")
    return lines + [""]


def lab_boots(boots):
    lines = ["| on kvm, in the lab: from exec to the first process | best s | median s |",
             "|---|--:|--:|"]
    lines += [f"| {n} | {t['best']:.2f} | {t['median']:.2f} |" for n, t in boots.items()]
    return lines + [""]


def lab_exits(ours, theirs):
    lines = ["| on kvm, in the lab: exits for each | biga | QEMU | without the clock's: biga "
             "| QEMU |", "|---|--:|--:|--:|--:|"]
    for name in ours or theirs:
        cells = [number(side.get(name, {}).get(kind)) for kind in ("all", "own")
                 for side in (ours, theirs)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines + [""]


def kvm(lab):
    lines = []
    if lab.get("boot"):
        lines += lab_boots(lab["boot"])
    if "exits biga" in lab or "exits qemu" in lab:
        lines += lab_exits(lab.get("exits biga", {}), lab.get("exits qemu", {}))
    if lab.get("switch"):
        lines += switches({"biga and kvm": lab["switch"]}, "live switch, 1 GiB, in the lab")
    return lines


def markdown(data):
    host, seconds = data["host"], data["seconds"]
    lines = ["# Benchmark", "",
             f"{host['date']}, {host['cpu']}, Linux {host['kernel']}; {host['biga']} "
             f"({host['commit']}); {host['qemu']}, TCG, `-cpu max`. One CPU; the best of "
             f"{data['repeat']} runs; made by `make bench`.", ""]
    if seconds:
        lines += summary(seconds) + [""]
    if data["boot"]:
        lines += ["| from exec to the guest's first process | best s | median s |", "|---|--:|--:|"]
        lines += [f"| {n} | {t['best']:.3f} | {t['median']:.3f} |" for n, t in data["boot"].items()]
        lines.append("")
    if data.get("switch"):
        lines += switches(data["switch"], "live switch, 1 GiB, one CPU")
    lines += kvm(data.get("kvm", {}))
    if data["wrong"]:
        lines += ["**Wrong output:** " + ", ".join(data["wrong"]), ""]
    for engine, failed in data["failed"].items():
        lines += [f"**Failed on {engine}:** " + ", ".join(failed), ""]
    if seconds:
        lines += details(seconds) + [""]
        drift = ", ".join(f"{e} {error * 100:+.2f} %" for e, error in data["clock_error"].items())
        lines += [f"Clock inside against the host's, over the run: {drift}.", ""]
    return "\n".join(lines)


ROW, LEFT, WIDTH, TOP = 16, 190, 620, 60
COLOURS = {"biga": "#1b7f5c", "qemu": "#c26a2d"}


def svg(data):
    """Time over the bare machine's, logarithmic, a row a job: a dot for each engine."""
    seconds = data["seconds"]
    rows = []
    for group, names in groups(seconds).items():
        rows.append((GROUP_NAMES[group], None))
        rows += [(job.partition("/")[2], {e: ratio(seconds, job, e, "native") for e in COLOURS})
                 for job in names]
    top = max([r for _, values in rows if values for r in values.values() if r] + [10])
    decades = max(1, math.ceil(math.log10(top)))
    low = -0.3  # a little below 1

    def x(value):
        return LEFT + (math.log10(value) - low) / (decades - low) * WIDTH

    height = TOP + ROW * len(rows) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" height="{height}" '
           'font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="20" font-size="14">Time over the bare machine\'s (1 = native; less is '
           'better)</text>']
    for i, (engine, colour) in enumerate(COLOURS.items()):
        label = {"biga": "biga", "qemu": "QEMU TCG"}[engine]
        out.append(f'<circle cx="{LEFT + i * 100}" cy="34" r="4" fill="{colour}"/>'
                   f'<text x="{LEFT + 8 + i * 100}" y="38">{label}</text>')
    for decade in range(decades + 1):
        for step in (1, 2, 5):
            value = step * 10 ** decade
            if value > 10 ** decades:
                break
            out.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP - 4}" '
                       f'y2="{height - 16}" stroke="{"#888" if step == 1 else "#ddd"}"/>'
                       f'<text x="{x(value):.1f}" y="{TOP - 8}" text-anchor="middle">{value}</text>')
    for i, (label, values) in enumerate(rows):
        y = TOP + ROW * i + 10
        weight = "" if values else ' font-weight="bold"'
        out.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end"{weight}>'
                   f'{html.escape(label)}</text>')
        for engine, value in (values or {}).items():
            if value:
                out.append(f'<circle cx="{max(x(value), LEFT):.1f}" cy="{y}" r="4" '
                           f'fill="{COLOURS[engine]}"><title>{value:.2f}</title></circle>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
