# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/results/mutants.md: how many mutants there are and what became of them, and why some survive."""

import collections
import textwrap

KINDS = ["caught", "survive", "do not compile", "not tried to the end"]


def page(mutants, results, kept):
    """`kept` has the page's head, and groups of the names of mutants with the reason why no test can catch them."""
    files = collections.defaultdict(collections.Counter)
    by, ends = collections.Counter(), collections.Counter()
    survivors = []
    for mutant in mutants.all:
        how = results.of(mutant)
        if results.survived(mutant):
            kind = "survive"
            survivors.append(mutant["name"])
        elif isinstance(how, list):
            kind = "not tried to the end"
        else:
            kind = "do not compile" if "compile" in how else "caught"
            if kind == "caught":
                program, end = how.split(" ", 1)
                by[program] += 1
                ends[end] += 1
        files[mutant["file"]][kind] += 1
        files["all"][kind] += 1
    lines = [*kept["head"], "", "| file | mutants | " + " | ".join(KINDS) + " |", "|---|" + "---:|" * 5]
    for file, counts in sorted(files.items()):
        figures = [counts.total(), *(counts[kind] for kind in KINDS)]
        lines.append(f"| {file} | " + " | ".join(map(str, figures)) + " |")
    figures = [", ".join(f"{name} {count}" for name, count in of.most_common()) for of in (by, ends)]
    said = f"The first program that caught each: {figures[0]}. How that ended: {figures[1]}."
    lines += ["", *textwrap.wrap(said, 120)]
    explained = {name for group in kept["groups"] for name in group["mutants"]}
    rest = {"title": "Without a reason yet", "why": "", "mutants": sorted(set(survivors) - explained)}
    for group in [*kept["groups"], rest]:
        names = [name for name in group["mutants"] if name in survivors]
        if names:
            lines += ["", f"## {group['title']}", "", *textwrap.wrap(group["why"], 120), ""]
            lines += [f"- `{name}`" for name in names]
    return "\n".join(lines)
