# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of docs/results/performance.md, made of the figures of scripts/bench."""

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
                times(row["ahead"], floor) if "ahead" in row else "–",
                times(rival, floor),
                f"{rival['ns'] / ours['ns']:.2f}",
                f"{calls(ours)} / {calls(rival)}",
            ]
        )
    head = [
        "",
        "bytes",
        "floor, million instructions",
        "library",
        "read-ahead",
        "rival",
        "rival / library",
        "calls: library / rival",
    ]
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
    head = [
        "load",
        "records",
        "floor, a record",
        "library beside it",
        "of that, the host's `get`",
        "library without `get`",
    ]
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
            cells.append(
                " / ".join(span_us(figures[key]) for key in ("median_ns", "p999_ns", "worst_ns")) if figures else "–"
            )
        cells.append(span_us(row["ours"]["worst_first_pass_ns"]))
        rows.append(cells)
    return table(
        ["median / 99.9 % / worst", "rival", "library", "with read-ahead", "library, worst in the first pass"], rows
    )


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
        (
            f"{guest_name(row)} (order {row['order']})",
            {who: row[who]["median_ns"] for who in ("rival", "ours", "ahead")},
        )
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
        cells.append(f"{statistics.median(row['ram_rounds'] for row in chosen):g}")
        rows.append(cells)
    head = [
        "ms",
        "downtime, median",
        "least to most",
        "total, median",
        "least to most",
        "of the downtime, in complete",
        "RAM's rounds",
    ]
    return table(head, rows)


def size(part):
    rows = []
    for row in part["peaks"]["rows"]:
        for key, what in (("save", "a save"), ("ahead", "a save with read-ahead"), ("load", "a load")):
            rows.append([f"held at most in {what}, order {row['order']}", f"{row[f'{key}_bytes']:,}"])
    rows.append(["stripped archive", f"{part['archive_bytes']:,}"])
    rows.append(
        [
            "stripped qemu-system-ppc64 with the series, more than without",
            f"{part['qemu_bytes'] - part['qemu_without_bytes']:,}",
        ]
    )
    return table(["bytes", ""], rows)


KERNEL = """
Debian's Linux {kernel} with KVM-HV on an emulated POWER9, under `-icount`: guest time counts instructions, so that the
figures do not depend on the machine and repeat to a thousandth. They say nothing of caches and of what one instruction
costs more than another. Floor: the same system calls on the same data with buffers made beforehand, nothing parsed or sent:
reads of 128 KiB, and a `writev` of 1024 records, one to a segment. The other columns are times the floor; with read-ahead
the thread's work is in it, since there is one processor. Order 24; *typical* has a quarter of the slots used in
groups, *scattered* one slot in each group, *dense* all. *Later pass* ends at the end of the table, which the rival cannot
see and is given here; *completion* is what is done after the stop, where the rival reads until nothing comes. Saves throw
away what they send; each load gets what its own side's save sends of the table. The host's stream is a copy from memory, as
`qemu_get_buffer` makes, but in one call.
"""
GETS = """
What a load does beside the bare `writev`, in instructions for a record. The format has no length: only a record's header
says how far one may read, so each record takes a call of `get`.
"""
MEMORY = """
On this machine, in turns: plain read, library, rival, and again; medians. First pass: with every used entry marked as
changed, as hypercalls leave them; clean sweep: with no mark. Both copy what they send into a buffer of 32 KiB, as QEMU's
stream does. The plain read sums up the table's words. The library clears each mark by an atomic AND; the rival by a load
and a store, which is faster and wrong beside running vCPUs (`marked_changes_are_never_lost`). Two threads read the
largest table in {two:.2f} of one thread's time, when there is nothing else to do. The sweep at the stop uses one all the same:
it is QEMU's table, of a guest under TCG or KVM-PR, and order 30 is one of 128 GiB.
"""
ITERATES = """
Simulated: the library's and the rival's code run, the kernel is made up ([benches/src/vast.rs](../../benches/src/vast.rs), held
against the model) and time is virtual. A clean slot takes {clean} ps, an invalid one {invalid}, an entry {entry}, a call
{call}: the instructions counted above at three in a nanosecond, a guess at a POWER9; the network takes 1.25 GB/s. A 64th of
the table has an entry in each group, a 256th is full, the rest empty. From the first iterate of the first pass to 300 later
ones, between two of which the guest changes 100 slots. With read-ahead the thread's time passes beside, and its queue of
4 MiB fills between two iterates; the times are those of the stream, without those of locks.
"""
DOWNTIME = """
Simulated in the same way; the time that the guest stands still for its table and nothing else, median and in parentheses the
worst of nine moments of the stop. After the first pass RAM (50 ms) and the table (5 ms at most) take turns; the guest changes
20,000 slots a second at random; the network takes 1.25 GB/s; RAM's last pages go out when they take 300 ms or less. With
read-ahead the sweep begins at the stop, beside RAM's last pages: that part is arithmetic, the sweep's time less theirs. Without,
complete begins where a small read of the last iterate ended, and its last read goes on to the table's end: up to two sweeps. QEMU
makes the table a 128th of the guest's memory; one of 16 TiB would have order 37, which cannot be migrated, so 36 is taken.

![Time stopped for the table](performance.svg)
"""
GUESTS = """
One Linux guest (POWER8, 1 GiB, at work) between QEMU 10.0 processes under TCG, to and fro; every other
migration is made by QEMU's own code (`x-rust-htab=off`) in the same program. The tables were compared each time. The
downtime is QEMU's own figure: RAM and devices are in it, too. Before that the rival was held against QEMU's own code: of a
guest that stood still both sent the same {rival_records_checked:,} records. The rival for the kernel's table was not held against
QEMU under KVM.
"""
SIZE = """
Held at most: bytes of the allocator, from setup to cleanup, and for one body with the longest record there can be; x86-64. The
kernel's table, and one in QEMU's memory, count for nothing.
"""
SECTIONS = (
    ("kernel", "The kernel's table", ((KERNEL, kernel), (GETS, gets))),
    ("memory", "The table in memory", ((MEMORY, memory),)),
    ("simulated", "How long an iterate takes", ((ITERATES, iterates),)),
    ("simulated", "How long a guest stands still for its table", ((DOWNTIME, downtime),)),
    ("guests", "Real guests", ((GUESTS, guests),)),
    ("size", "Memory and size", ((SIZE, size),)),
)
INTRODUCTION = """<!-- SPDX-License-Identifier: GPL-2.0-or-later -->
<!-- Written by scripts/bench-docs after docs/results/performance.json; not by hand. -->
# Performance

What the library costs, beside the *floor*, the least that could do the same, and the *rival*, QEMU's own algorithm (7.2 to
10.2), written anew for these benchmarks, both in the same run. Only ratios and counts of instructions are meant to be compared
with other machines. To repeat:

    scripts/bench --json docs/results/performance.json           everything
    scripts/bench --json docs/results/performance.json kernel    one part; the others' figures stay
    scripts/bench-docs                                   this page

No run on POWER hardware has been made.
"""


def tables(result):
    """All tables, one after the other, of the parts that there are."""
    pieces = []
    for part, title, made in SECTIONS:
        if part in result:
            pieces += [title] + [maker(result[part]) for _, maker in made]
    return "\n\n".join(pieces + ["Wanted", wishes(result)])


def wishes(result):
    return table(["wanted", "measured", "met"], wanted(result))


def two_threads(result):
    """What two threads' plain read takes of one's, in the largest table."""
    rows = result.get("memory", {}).get("rows", [])
    largest = [row for row in rows if row["order"] == max(row["order"] for row in rows)]
    return statistics.median(row["read_by_two_ns"] / row["floor_ns"] for row in largest) if largest else 0


def source(part, figures):
    machine = figures["machine"]
    return (
        f"`scripts/bench {part}` on {figures['when']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['rustc']}, commit {figures['commit']}; load average {' to '.join(map(str, figures['load_average']))}."
    )


def document(result):
    """docs/results/performance.md."""
    pieces = [INTRODUCTION.strip(), "## Against what was wanted", wishes(result)]
    for part, title, made in SECTIONS:
        figures = result.get(part)
        if figures is None:
            continue
        pieces.append(f"## {title}")
        for prose, maker in made:
            pieces += [
                prose.strip().format(**figures, **figures.get("costs_ps", {}), two=two_threads(result)),
                maker(figures),
            ]
        pieces.append(source(part, figures))
    return "\n\n".join(pieces) + "\n"
