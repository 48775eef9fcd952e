# SPDX-License-Identifier: GPL-2.0-or-later
"""What was wanted of the library's speed, what was measured, and why where it falls short."""


def ratio(row, one, other):
    return row[one]["ns"] / row[other]["ns"]


def calls(cost):
    return cost["reads"] + cost["writes"]


def wish(what, measured, met, reason=""):
    """A row of the table: what was wanted, what was measured, and whether that will do."""
    return [what, measured, "yes" if met else f"no: {reason}"]


def kernel(rows):
    saves = [row for row in rows if row["name"] == "save"]
    loads = [row for row in rows if row["name"] == "load"]
    for who, words in (("ours", ""), ("ahead", " with read-ahead")):
        worst = max(ratio(row, who, "floor") for row in saves)
        yield wish(
            f"save within 1.05 of the bare reads{words}",
            f"{worst:.3f} at worst",
            worst <= 1.05,
            "with one processor, the copy into the queue and the turns of the two threads come on top",
        )
    for row in loads:
        shape, beside = row["detail"]["shape"], ratio(row, "ours", "floor")
        without = (row["ours"]["ns"] - row["detail"]["gets_ns"]) / row["floor"]["ns"]
        yield wish(
            f"load within 1.10 of the bare `writev`, {shape}",
            f"{beside:.3f}",
            beside <= 1.10,
            f"{without:.3f} without the calls of the host's `get`, of which the format needs one for each record: only"
            " its header says how far one may read",
        )
    for row in loads:
        shape, faster = row["detail"]["shape"], ratio(row, "rival", "ours")
        most = ratio(row, "rival", "floor")
        yield wish(
            f"load 1.4 times as fast as the rival, {shape}",
            f"{faster:.2f}",
            faster >= 1.4,
            f"the bare `writev` alone is {most:.2f} times as fast; the rest is the kernel's work on the entries",
        )
    for what, chosen in (("save", [row for row in saves if row["bytes"] > 1000]), ("load", loads)):
        fewer = min(calls(row["rival"]) / calls(row["ours"]) for row in chosen)
        yield wish(
            f"50 times fewer system calls a MiB, {what}",
            f"{fewer:.0f} times at least",
            fewer >= 50,
            "64 times is what a buffer of 128 KiB gives beside one of 2 KiB; no record that is sent may be longer",
        )


def between(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def memory(rows):
    """A row for each order, over the shapes."""
    for order in sorted({row["order"] for row in rows}):
        sweeps = [row for row in rows if (row["name"], row["order"]) == ("clean sweep", order)]
        passes = [row for row in rows if (row["name"], row["order"]) == ("first pass", order)]
        beside = [row["ours_ns"] / row["floor_ns"] for row in sweeps]
        yield wish(
            f"clean sweep within 1.3 of the plain read, order {order}",
            between(beside),
            max(beside) <= 1.3,
            "atomic loads are not vectorized, and this table is read from a cache",
        )
        for name, chosen in (("clean sweep", sweeps), ("first pass of few entries", passes[:2])):
            faster = [row["rival_ns"] / row["ours_ns"] for row in chosen]
            most = [row["rival_ns"] / row["floor_ns"] for row in chosen]
            yield wish(
                f"{name} twice as fast as the rival, order {order}",
                between(faster),
                min(faster) >= 2,
                f"the plain read of the table is {between(most)} times as fast as the rival",
            )
        faster = [row["rival_ns"] / row["ours_ns"] for row in passes[2:]]
        yield wish(
            f"first pass of many entries twice as fast as the rival, order {order}",
            between(faster),
            min(faster) >= 2,
            "each mark is cleared by an atomic AND; the rival's plain store is faster and can lose a vCPU's change",
        )


def simulated(rows):
    ahead = [row for row in rows if "ahead" in row]
    if ahead:
        worst = max(row["ahead"]["worst_ns"] / row["max_ns"] for row in ahead)
        yield wish(
            "iterate with read-ahead within 1.1 of its bound, every order", f"{worst:.3f} at worst", worst <= 1.1
        )


def wanted(result):
    """Rows of a table, for the parts that were measured."""
    rows = []
    if "kernel" in result:
        rows += kernel(result["kernel"]["rows"])
    if "simulated" in result:
        rows += simulated(result["simulated"]["iterates"])
    if "memory" in result:
        rows += memory(result["memory"]["rows"])
    return rows
