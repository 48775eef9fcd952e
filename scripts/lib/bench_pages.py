# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of docs/performance.md, made of the figures of scripts/bench."""

import statistics

from bench_plot import span
from bench_wanted import wanted

# scripts/lab boot --icount.
NS_PER_INSTRUCTION = 2
MIB = 1 << 20


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)] + rows
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def millions(cost):
    return f"{cost['ns'] / NS_PER_INSTRUCTION / 1e6:,.1f}"


def times(cost, floor):
    return f"{cost['ns'] / floor['ns']:.2f}"


def calls(cost):
    return cost["reads"] + cost["writes"]


def name_of(row):
    detail = row["detail"]
    if row["name"] == "save":
        return f"save, {detail}"
    if row["name"] in ("later pass", "completion"):
        return f"{row['name']}, {detail / 10:g} % changed"
    return f"{row['name']}, {detail['shape']}"


def kernel(part):
    rows = []
    for row in part["rows"]:
        floor, ours, rival = row["floor"], row["ours"], row["rival"]
        rows.append(
            [
                name_of(row),
                f"{row['bytes']:,}",
                millions(floor),
                times(ours, floor),
                times(rival, floor),
                f"{rival['ns'] / ours['ns']:.2f}",
                f"{calls(ours)} / {calls(rival)}",
            ]
        )
    head = ["", "bytes", "floor, million instructions", "library", "rival", "rival / library", "calls: library / rival"]
    return table(head, rows)


def gets(part):
    """What of a load is the stream's."""
    rows = []
    for row in part["rows"]:
        if row["name"] != "load":
            continue
        floor, records = row["floor"]["ns"], row["detail"]["records"]
        over, stream = row["ours"]["ns"] - floor, row["detail"]["gets_ns"]
        rows.append(
            [
                row["detail"]["shape"],
                f"{records:,}",
                f"{floor / NS_PER_INSTRUCTION / records:,.0f}",
                f"{over / NS_PER_INSTRUCTION / records:,.0f}",
                f"{stream / NS_PER_INSTRUCTION / records:,.0f}",
                f"{(row['ours']['ns'] - stream) / floor:.2f}",
            ]
        )
    head = ["load", "records", "floor, a record", "library beside it", "of that, the host's `get`", "library without `get`"]
    return table(head, rows)


def memory(part):
    rows = []
    for row in part["rows"]:
        floor, ours, rival, slots = row["floor_ns"], row["ours_ns"], row["rival_ns"], row["slots"]
        rows.append(
            [
                f"{row['name']}, {row['shape']}, order {row['order']}",
                f"{floor / slots:.2f} ({16 * slots / floor:.1f})",
                f"{ours / slots:.2f} ({16 * slots / ours:.1f})",
                f"{rival / slots:.2f} ({16 * slots / rival:.1f})",
                f"{ours / floor:.2f}",
                f"{rival / ours:.2f}",
            ]
        )
    return table(["ns a slot (GB/s)", "plain read", "library", "rival", "library / read", "rival / library"], rows)


def iterates(part):
    rows = []
    for row in part["iterates"]:
        cells = [f"order {row['order']}, {row['max_ns'] / 1e6:.0f} ms"]
        for who in ("rival", "ours", "ahead"):
            figures = row.get(who)
            cells.append(" / ".join(span_us(figures[key]) for key in ("median_ns", "p999_ns", "worst_ns")) if figures else "–")
        cells.append(span_us(row["ours"]["worst_first_pass_ns"]))
        rows.append(cells)
    return table(["median / 99.9 % / worst", "rival", "library", "with read-ahead", "library, worst in the first pass"], rows)


def span_us(ns):
    return span(ns) if ns >= 1e9 else f"{ns / 1e6:.1f} ms" if ns >= 1e5 else f"{ns / 1e3:.1f} µs"


def guest_name(row):
    gib = row["guest_bytes"] >> 30
    return f"{gib >> 10} TiB" if gib >= 1024 else f"{gib} GiB"


def downtime(part):
    rows = []
    for row in part["downtime"]:
        spans = [f"{span(row[who]['median_ns'])} ({span(row[who]['worst_ns'])})" for who in ("rival", "ours", "ahead")]
        rate = f"{row['ram_bytes_per_second'] / 1e6:.0f} MB/s"
        rows.append([f"{guest_name(row)}, order {row['order']}, {rate}", span(row["ram_at_the_end_ns"])] + spans)
    head = ["guest, its table, changes to its RAM", "RAM's last pages", "rival", "library", "with read-ahead"]
    return table(head, rows)


def downtime_groups(result):
    """For the plot: the middle one of the rates for each guest."""
    rows = result["simulated"]["downtime"]
    rates = sorted({row["ram_bytes_per_second"] for row in rows})
    chosen = [row for row in rows if row["ram_bytes_per_second"] == rates[len(rates) // 2]]
    return [
        (f"{guest_name(row)} (order {row['order']})", {who: row[who]["median_ns"] for who in ("rival", "ours", "ahead")})
        for row in chosen
    ]


def guests(part):
    rows = []
    for kind, name in (("10.0", "library"), ("10.0,off", "QEMU's own code")):
        chosen = [row for row in part["rows"] if row["from"] == kind]
        cells = [f"{name}, {len(chosen)} migrations"]
        for key in ("downtime_ms", "total_ms"):
            values = sorted(row[key] for row in chosen)
            cells += [f"{statistics.median(values):g}", f"{values[0]} to {values[-1]}"]
        stopped = [row["stopped_us"] for row in chosen if "stopped_us" in row]
        cells.append(f"{statistics.median(stopped) / 1000:.2f}" if stopped else "–")
        rows.append(cells)
    head = ["ms", "downtime, median", "least to most", "total, median", "least to most", "of the downtime, in complete"]
    return table(head, rows)


def size(part):
    rows = [[f"held at most in a {what}, order {row['order']}", f"{row[f'{what}_bytes']:,}"]
            for row in part["peaks"]["rows"] for what in ("save", "load")]  # fmt: skip
    rows.append(["stripped archive", f"{part['archive_bytes']:,}"])
    rows.append(["stripped qemu-system-ppc64 with the series, more than without", f"{part['qemu_bytes'] - part['qemu_without_bytes']:,}"])
    return table(["bytes", ""], rows)


SECTIONS = (
    ("kernel", "The kernel's table", (kernel, gets)),
    ("memory", "The table in memory", (memory,)),
    ("simulated", "How long an iterate takes", (iterates,)),
    ("simulated", "How long a guest stands still for its table", (downtime,)),
    ("guests", "Real guests", (guests,)),
    ("size", "Memory and size", (size,)),
)


def tables(result):
    """All tables, one after the other, of the parts that there are."""
    pieces = []
    for part, title, makers in SECTIONS:
        if part in result:
            pieces += [title] + [maker(result[part]) for maker in makers]
    return "\n\n".join(pieces)
