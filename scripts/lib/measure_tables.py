# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of docs/results/measurements.md, from what scripts/measure found."""

import statistics

GROUP = 8
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


def share(kind, wanted, which="valid_runs"):
    """Of a hundred records of all rounds, those whose number of entries, or of invalid slots, is as wanted."""

    def column(rounds):
        runs = joined(rounds, kind, which)
        found = sum(count for length, count in runs.items() if wanted(length))
        return f"{100 * found / sum(runs.values()):.1f} %" if runs else "–"

    return column


def longest(kind, which="valid_runs"):
    return lambda rounds: max(joined(rounds, kind, which), default="–")


def contents(one):
    return one["table"]["contents"]


def by_sweep(one, figure):
    """Of the later passes, on average. The library says how many: a stream does not show those that found nothing."""
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
        return lambda one: one["watched"]["sent"] / one["watched"][by] if one["watched"][by] else 0

    return by_workload(
        result,
        {
            "slots sent a second": each(rate("time")),
            "a second of the guest's processor": each(rate("cpu")),
            "its share of a processor": each(lambda one: one["watched"]["cpu"] / one["watched"]["time"], 2),
            "sweeps a second": each(lambda one: one["watched"]["passes"] / one["watched"]["time"], 1),
            "slots sent in a sweep": each(lambda one: by_sweep(one, "valid") + by_sweep(one, "invalid")),
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


def records_of_the_kernel(result):
    """With the invalid slots, which the kernel reports in a first pass, too."""
    return by_workload(
        result,
        {
            "first pass: one entry": share("first_pass", lambda length: length == 1),
            "two or three": share("first_pass", lambda length: 2 <= length <= 3),
            "more": share("first_pass", lambda length: length > 3),
            "7 invalid slots": share("first_pass", lambda length: length == GROUP - 1, "invalid_runs"),
            "fewer": share("first_pass", lambda length: length < GROUP - 1, "invalid_runs"),
            "more ": share("first_pass", lambda length: length > GROUP - 1, "invalid_runs"),
            "later: no entry": share("later_passes", lambda length: length == 0),
            "one": share("later_passes", lambda length: length == 1),
            "more  ": share("later_passes", lambda length: length > 1),
            "most invalid slots": longest("later_passes", "invalid_runs"),
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
    """With slots that became invalid as entries of zeros. A first pass need not send those that are."""
    figure = "indexed_valid_bytes" if kind == "first_pass" else "indexed_bytes"
    return lambda one: one["table"][kind][figure]


def indexed_shortest(kind):
    return lambda one: INDEXED * one["table"][kind]["valid"] + INDEX * one["table"][kind]["invalid"]


def coding(result):
    return by_workload(
        result,
        {
            "first pass: as sent": each(sent("first_pass")),
            "as KVM-HV reports it": each(lambda one: one["as_the_kernel_reports"]["bytes"]),
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
