# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/results/measurements.md, from what scripts/measure found."""

from measure_tables import (
    changes,
    coding,
    cost,
    indexed,
    indexed_shortest,
    records,
    records_of_the_kernel,
    sent,
    stopped,
    tables_at_rest,
)


def document(results):
    return tcg(results["tcg"]) + kvm(results["kvm"]) + NOT_MEASURED


def load_average(result):
    return " to ".join(str(number) for number in result["load_average"])


def number_of_rounds(result):
    return len(next(iter(result["workloads"].values())))


def tcg(result):
    return f"""# What guests' tables do, measured

Questions that were open when the kernel's interface was designed, and what real guests answer. All of it is
counted in saved migrations by `htab-inspect` ([inspect.md](../inspect.md)); each file's table was held against the one
that the source had at the end, slot by slot, and its CRC-32 against the library's.

    scripts/measure                  runs all of it, writes docs/results/measurements.json, prints the tables below
    scripts/measure --tcg            the first part alone; --kvm: the second one, under KVM-HV
    scripts/measure --docs           docs/results/measurements.json to this page

{result["when"]}: Linux {result["guest_kernel"]} (64 KiB pages) with a hash MMU, `-M pseries
-cpu POWER8 -smp 1 -m 1G`, QEMU {result["qemu"]} with our series, TCG, {result["cores"]} cores, load average
{load_average(result)}. Each workload was
migrated {number_of_rounds(result)} times, to a file at 8 MiB/s until RAM was nearly through, then as fast as it would
go. Figures are medians, with the least and the most in brackets.

**What emulation changes.** A guest under TCG does a small part of what a POWER8 does in a second, and this machine
was shared with other tests, so that the guest had a part of a processor only. Rates are therefore given for a
second of the host's processor that the guest had, too; neither figure says what hardware would do, a ratio between
workloads says more. A guest that is faster changes more between two sweeps, so later passes should be larger on
hardware. What a table holds, how its entries lie and how a first pass is cut do not depend on speed.
Nothing pages the guest out here.

Workloads ([load.c](../../tests/system/tcg/inside/load.c)): *idle*, one process that writes to the same 4 MiB again and again,
which changes nothing in the table (a guest that does nothing has its RAM all sent after the first pass, and on a quiet
machine the migration is over before there is another); *fork and exec*, a
loop that starts a program that ends at once; *compile-like*, two processes at a time, each of which maps 40 of 96
source files of 192 KiB, reads them, fills 2 to 24 MiB of memory, and writes a file of 320 KiB; *memory hog*, 600
MiB mapped, written in no order and let go of, again and again.

## What is in a table

{tables_at_rest(result)}
Order 23, 524,288 slots in 65,536 groups of 8. Nearly all entries are the kernel's own bolted linear mapping, an
entry for each 64 KiB of RAM: a row of groups, one entry each. What processes do adds little to that at any one
time, the hog aside.

## How much changes

Slots that later passes sent, entries and invalidations, while RAM went out. A slot that changes twice between two
sweeps is sent once, so that fewer sweeps send fewer changes. QEMU sweeps when RAM, which comes first, leaves room.
Beside a guest that writes more than is sent, as the hog does, there is room after a whole round of RAM only.
Take the rates for their order: in five runs on one day, at loads of 1 to 16, the medians for a second of the guest's
processor were 750 to 940 slots for the one that forks, 4,800 to 12,700 for the one that compiles, and 1,600 to 32,000
for the hog, where all hangs on when a sweep comes.

{changes(result)}
## How records are cut

Asked: are first passes records of about 8 entries, and later ones single entries? Of a hundred records, those that
begin with so many valid entries:

{records(result)}
A record is one slot: an entry in the first pass, in later ones an entry or, with processes that come and go, mostly
a slot that became invalid. Runs of 8 do not occur, since a group is hardly ever full and neighbours in memory are
rarely neighbours in the table. The hog's memory, large and touched as a whole, makes pairs, in some boots more than in
others: in the five runs 0.5 to 51 % of its first passes' records. Under KVM-HV each record of a first pass also names
the invalid slots behind its entry. Computed from the same tables, {of_a_group(result)} of them would speak
of 8 slots, one entry and seven invalid ones: that much of what was expected holds, and is
[what the kernel does](#how-the-kernel-cuts-records).

## What is sent while the guest is stopped

{stopped(result)}
QEMU sweeps once more just before it stops the guest, which does little in between. What a sweep finds on average, in
the table further up, is the size to expect where it does more. It is what changed since the sweep before, and does not
grow with the table.

## Is it the right format?

The other one that was thought of has an index with every entry. Here: 4 bytes of index and 16 of entry, 20 for each
slot sent; a slot that became invalid as an entry of zeros, or, shorter, as an index with a mark, 4 bytes. Bytes:

{coding(result)}
"As KVM-HV reports it" is computed from the tables at the end: there every slot is reported, and the run of invalid slots
behind an entry costs nothing, which no format with indices has.

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

"""


def kvm(result):
    return f"""## Under KVM-HV

The same, where the table is the kernel's and what is sent is what it reports. {result["when"]}: the same guest with
`-cpu host`, QEMU {result["qemu"]} with our series, a host of Linux {result["host_kernel"]} with two processors and
4 GiB, itself emulated ([guests.md](../guests.md#under-kvm-hv)); load average {load_average(result)};
{number_of_rounds(result)} migrations of each workload. htab-inspect ran in that host, too, and each file's table was
held against the kernel's own account of it (debugfs).

**What emulation changes here.** Everything above, and the host is as slow as its guest: kernel, QEMU and guest share
two emulated processors, and a second of the guest's processor is one by that host's clock. Rates say nothing but
their order. RAM may not be sent as fast as the hog writes, so QEMU was allowed 10 s with the guest stopped
(0.5 s above), and took {downtimes(result)}.

{tables_at_rest(result)}
The bolted entries are twice those under TCG: for each page of the guest's RAM KVM has put one of its own into the
table, for accesses in real mode (the VRMA, segment 1FFFFFF).

{changes(result)}
### How the kernel cuts records

Of a hundred records, those with so many valid entries, and with so many invalid slots behind them:

{records_of_the_kernel(result)}
So {seven_invalid(result)} of all first passes' records have the seven invalid slots that make up a group with their
entry: records of about 8 slots, as expected, but of one entry. Where whole groups are empty the run goes on over them.
Later passes send single slots, as expected: entries, and, with processes that come and go or memory that is let go
of, more invalid slots than entries.

### What it sends

While the guest was stopped:

{stopped(result)}
The bytes of all passes, as sent, computed for a table at rest, and with an index in every entry:

{coding(result)}
The kernel's first pass of the idle guest's table is what was computed, to the byte; those of guests at work change
meanwhile. With indices first passes would be {change(result, "first_pass", indexed)}, later ones
{change(result, "later_passes", indexed)} with invalid slots as entries of zeros and
{change(result, "later_passes", indexed_shortest)} with a mark. What was said of the format above holds for the
kernel's own records.

"""


NOT_MEASURED = """## Not measured

POWER hardware; a real compiler (the guest has none; what it does to the table was modelled); guests with 4 KiB pages,
which have 16 times as many entries for the same memory.
"""


def change(result, kind, otherwise):
    """Of what was sent, over all rounds, in words."""
    rounds = [one for all_rounds in result["workloads"].values() for one in all_rounds]
    as_sent, other = (sum(size(one) for one in rounds) for size in (sent(kind), otherwise(kind)))
    return f"{100 * abs(as_sent - other) / as_sent:.0f} % {'smaller' if other < as_sent else 'larger'}"


def downtimes(result):
    found = [one["downtime_ms"] / 1000 for rounds in result["workloads"].values() for one in rounds]
    return f"{min(found):.1f} to {max(found):.1f} s"


def seven_invalid(result):
    """Of the kernel's records in first passes, over all rounds."""
    runs = [one["table"]["first_pass"]["invalid_runs"] for rounds in result["workloads"].values() for one in rounds]
    return f"{100 * sum(each.get('7', 0) for each in runs) / sum(sum(each.values()) for each in runs):.1f} %"


def of_a_group(result):
    """Records of 8 slots in first passes as KVM-HV reports them, over all rounds."""
    rounds = [one["as_the_kernel_reports"] for all_rounds in result["workloads"].values() for one in all_rounds]
    return f"{100 * sum(one['of_a_group'] for one in rounds) / sum(one['records'] for one in rounds):.0f} %"
