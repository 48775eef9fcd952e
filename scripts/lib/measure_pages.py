# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/measurements.md, from what scripts/measure found."""

import statistics

INDEX, INDEXED = 4, 20  # bytes of an index, and of one with its entry
TABLE = 16 << 20
DOWNTIME = 0.030
LINKS = (("1 Gb/s", 1e9 / 8), ("10 Gb/s", 1e10 / 8))


def spread(values, digits=0):
    """The median, and in brackets the least and the most where they differ."""
    least, median, most = (f"{number:,.{digits}f}" for number in (min(values), statistics.median(values), max(values)))
    return median if least == most else f"{median} ({least}–{most})"


def line(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(head, rows):
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)]) + "\n"


def by_workload(result, columns):
    """A row for each workload: what each column makes of its rounds."""
    return table(
        ["workload", *columns],
        [[name, *(column(rounds) for column in columns.values())] for name, rounds in result["workloads"].items()],
    )


def each(figure, digits=0):
    """The spread of a figure over the rounds."""
    return lambda rounds: spread([figure(one) for one in rounds], digits)


def joined(rounds, kind, runs):
    """The rounds' records by the length of their runs."""
    all_runs = {}
    for one in rounds:
        for length, records in one["table"][kind][runs].items():
            all_runs[int(length)] = all_runs.get(int(length), 0) + records
    return all_runs


def share(kind, wanted):
    """Of a hundred records of all rounds, those whose number of entries is as wanted."""

    def column(rounds):
        runs = joined(rounds, kind, "valid_runs")
        found = sum(count for length, count in runs.items() if wanted(length))
        return f"{100 * found / sum(runs.values()):.1f} %" if runs else "–"

    return column


def longest(kind):
    return lambda rounds: max(joined(rounds, kind, "valid_runs"), default="–")


def contents(one):
    return one["table"]["contents"]


def by_sweep(one, figure):
    """Of the later passes, on average. Their number is the library's: a stream does not show those that found nothing."""
    return one["table"]["later_passes"][figure] / max(one["passes"] - 1, 1)


def tables_at_rest(result):
    return by_workload(
        result,
        {
            "entries": each(lambda one: contents(one)["valid"]),
            "bolted": each(lambda one: contents(one)["bolted"]),
            "% of the slots": each(lambda one: 100 * contents(one)["valid"] / one["table"]["slots"], 1),
            "groups with one entry": each(lambda one: contents(one)["groups_with"][1]),
            "with two or more": each(lambda one: sum(contents(one)["groups_with"][2:])),
            "full": each(lambda one: contents(one)["groups_with"][8]),
            "secondary hash": each(lambda one: contents(one)["secondary_hash"]),
        },
    )


def changes(result):
    def rate(by):
        return lambda one: one["watched"]["told"] / one["watched"][by] if one["watched"][by] else 0

    return by_workload(
        result,
        {
            "slots told a second": each(rate("time")),
            "a second of the guest's processor": each(rate("cpu")),
            "its share of a processor": each(lambda one: one["watched"]["cpu"] / one["watched"]["time"], 2),
            "sweeps a second": each(lambda one: one["watched"]["passes"] / one["watched"]["time"], 1),
            "slots told in a sweep": each(lambda one: by_sweep(one, "valid") + by_sweep(one, "invalid")),
        },
    )


def records(result):
    return by_workload(
        result,
        {
            "first pass: one entry": share("first_pass", lambda length: length == 1),
            "two to eight": share("first_pass", lambda length: 2 <= length <= 8),
            "more": share("first_pass", lambda length: length > 8),
            "most": longest("first_pass"),
            "later: none": share("later_passes", lambda length: length == 0),
            "one ": share("later_passes", lambda length: length == 1),
            "more ": share("later_passes", lambda length: length > 1),
            "most ": longest("later_passes"),
        },
    )


def stopped(result):
    return by_workload(
        result,
        {
            "entries": each(lambda one: one["table"]["stopped"]["valid"]),
            "invalid": each(lambda one: one["table"]["stopped"]["invalid"]),
            "bytes": each(lambda one: one["table"]["stopped"]["bytes"]),
            "of all that was sent": each(
                lambda one: 100 * one["table"]["stopped"]["bytes"] / one["table"]["total"]["bytes"], 2
            ),
        },
    ).replace("of all that was sent", "% of all bytes")


def sent(kind):
    return lambda one: one["table"][kind]["bytes"]


def indexed(kind):
    return lambda one: one["table"][kind]["indexed_bytes"]


def indexed_shortest(kind):
    return lambda one: INDEXED * one["table"][kind]["valid"] + INDEX * one["table"][kind]["invalid"]


def coding(result):
    return by_workload(
        result,
        {
            "first pass: as sent": each(sent("first_pass")),
            "as KVM-HV tells it": each(lambda one: one["as_the_kernel_tells"]["bytes"]),
            "indexed": each(indexed("first_pass")),
            "later passes: as sent": each(sent("later_passes")),
            "indexed ": each(indexed("later_passes")),
            "indexed, invalid as 4 bytes": each(indexed_shortest("later_passes")),
        },
    )


def cost(result):
    """16 MiB against 30 ms: arithmetic."""
    found = round(max(by_sweep(one, "bytes") for one in result["workloads"]["compile-like"]))
    sizes = (
        ("every slot an entry, nothing sent before the stop", TABLE + 8 * (TABLE // 16 // 4096)),
        ("one entry in each group, nothing sent before the stop", (TABLE // 128) * 24),
        ("live passes: what a sweep of the compile-like guest found on average", found),
    )
    rows = []
    for name, size in sizes:
        row = [name, f"{size:,}"]
        for _, rate in LINKS:
            took = size / rate
            digits = 1 if took > 1e-3 else 3
            row.append(f"{1000 * took:.{digits}f} ms ({100 * took / DOWNTIME:.{digits}f} %)")
        rows.append(row)
    return table(["if this is sent while stopped", "bytes", *(name for name, _ in LINKS)], rows)


def tables(result):
    parts = (tables_at_rest, changes, records, stopped, coding, cost)
    return "\n".join(part(result) for part in parts)


def document(result):
    average = " to ".join(str(number) for number in result["load_average"])
    rounds = len(result["workloads"]["idle"])
    return f"""# What guests' tables do, measured

Questions that were open when the kernel's interface was designed, and what real guests answer. All of it is
counted in saved migrations by `htab-inspect` ([inspect.md](inspect.md)); each file's table was held against the one
in the process that sent it, slot by slot, and its CRC-32 against the library's.

    scripts/measure                  runs all of it, writes docs/measurements.json, prints the tables below
    scripts/measure --docs           docs/measurements.json to this page

{result["when"]}: Linux {result["guest_kernel"]} (64 KiB pages) with a hash MMU, `-M pseries
-cpu POWER8 -smp 1 -m 1G`, QEMU {result["qemu"]} with our series, TCG, {result["cores"]} cores, load average
{average}. Each workload was
migrated {rounds} times, to a file at 8 MiB/s until RAM was nearly through, then as fast as it would go. Figures are
medians, with the least and the most in brackets.

**What emulation changes.** A guest under TCG does a small part of what a POWER8 does in a second, and this machine
was shared with other tests, so that the guest had a part of a processor only. Rates are therefore given for a
second of the host's processor that the guest had, too; neither figure says what hardware would do, a ratio between
workloads says more. A guest that is faster changes more between two sweeps, so later passes should be larger on
hardware. What a table holds, how its entries lie and how a first pass is cut do not depend on speed.
Nothing pages the guest out here.

Workloads ([load.c](../tests/guest/inside/load.c)): *idle*, nothing but the kernel's own work; *fork and exec*, a
loop that starts a program that ends at once; *compile-like*, two processes at a time, each of which maps 40 of 96
source files of 192 KiB, reads them, fills 2 to 24 MiB of memory, and writes a file of 320 KiB; *memory hog*, 600
MiB mapped, written in no order and let go of, again and again.

## What is in a table

{tables_at_rest(result)}
Order 23, 524,288 slots in 65,536 groups of 8. Nearly all entries are the kernel's own bolted linear mapping, an
entry for each 64 KiB of RAM: a row of groups, one entry each. What processes do adds little to that at any one
time, the hog aside.

## How much changes

Slots that later passes told, entries and invalidations, while RAM went out. A slot that changes twice between two
sweeps is told once, so that fewer sweeps tell of fewer changes; QEMU sweeps when RAM, which comes first, leaves room.
Take the rates for their order only: two runs on one day differed by a factor of two for the compile-like guest and of
ten for the hog.

{changes(result)}
## How records are cut

Asked: are first passes records of about 8 entries, and later ones single entries? Of a hundred records, those that
begin with so many valid entries:

{records(result)}
A record is one slot: an entry in the first pass, in later ones an entry or, with processes that come and go, mostly
a slot that became invalid. Runs of 8 do not occur, since a group is hardly ever full and neighbours in memory are
rarely neighbours in the table; the hog's memory, large and touched as a whole, makes some pairs. Under KVM-HV each
record of a first pass also tells of the invalid slots behind its entry. Computed from the same tables,
{of_a_group(result)} of them would speak of 8 slots, one entry and seven invalid ones: that much of what was
expected holds.

## What is sent while the guest is stopped

{stopped(result)}
QEMU sweeps once more just before it stops the guest, and on this machine a guest that gets a small part of a processor
often does little between that and the stop. What a sweep finds on average, in the table further up, is the size to
expect where it does. It is what changed since the sweep before, and does not grow with the table.

## Is it the right format?

The other one that was thought of has an index with every entry. Here: 4 bytes of index and 16 of entry, 20 for each
slot told; a slot that became invalid as an entry of zeros, or, shorter, as an index with a mark, 4 bytes. Bytes:

{coding(result)}
"As KVM-HV tells it" is computed from the tables: there every slot is told, and the run of invalid slots behind an
entry costs nothing, which no format with indices has.

Runs of entries would have to be longer than two to pay for a record's 8 bytes, and they are not: a first pass would
be {change(result, "first_pass", indexed)} with indices, later ones {change(result, "later_passes", indexed)} with
invalid slots as entries of zeros and {change(result, "later_passes", indexed_shortest)} with a mark. So run lengths
are not what suits guests' tables best. What they cost is 4 bytes an entry: 64 MB for a guest of 1 TiB in 64 KiB
pages, 0.05 s of a 10 Gb/s link, once, while the guest runs; and in later passes at most some tens of kilobytes a
sweep. That is no reason for another version of the format.

## A 16 MiB table against 30 ms of downtime

Arithmetic, not measured: the bytes over the link with nothing else on it, in brackets what that is of 30 ms.

{cost(result)}
A table of which nothing went before the stop takes most of the downtime at 1 Gb/s if its groups have an entry each,
and several times all of it if it is full; with live passes what is left does not show.

## Not measured

POWER hardware; KVM-HV other than in [guests-kvm.md](guests-kvm.md), where `scripts/test kvm-all` counts entries and
records, but not with these workloads; a real compiler (the guest has none; what it does to the table was modelled);
guests with 4 KiB pages, which have 16 times as many entries for the same memory.
"""


def change(result, kind, otherwise):
    """Of what was sent, over all rounds, in words."""
    rounds = [one for all_rounds in result["workloads"].values() for one in all_rounds]
    as_sent, other = (sum(size(one) for one in rounds) for size in (sent(kind), otherwise(kind)))
    return f"{100 * abs(as_sent - other) / as_sent:.0f} % {'smaller' if other < as_sent else 'larger'}"


def of_a_group(result):
    """Records of 8 slots in first passes as KVM-HV tells them, over all rounds."""
    rounds = [one["as_the_kernel_tells"] for all_rounds in result["workloads"].values() for one in all_rounds]
    return f"{100 * sum(one['of_a_group'] for one in rounds) / sum(one['records'] for one in rounds):.0f} %"
