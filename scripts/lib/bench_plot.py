# SPDX-License-Identifier: GPL-2.0-or-later
"""The plot of docs/results/performance.md: the time stopped for the table, by guest, on a logarithmic scale, as SVG."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, FLOOR = 70, 20, 40, HEIGHT - 60
LEAST = 1e6  # a millisecond; less is drawn as that
BARS = (
    ("rival", "QEMU's own code", "#b5533c"),
    ("ours", "library", "#d8a23a"),
    ("ahead", "with read-ahead", "#4a7f9e"),
)


def span(ns):
    """A time as a person says it."""
    if ns >= 1e9:
        return f"{ns / 1e9:.2g} s" if ns < 1e10 else f"{ns / 1e9:.0f} s"
    return f"{ns / 1e6:.0f} ms" if ns >= 1e6 else "< 1 ms"


def text(x, y, words, size=12, anchor="middle"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'


def rectangle(x, y, width, height, colour):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def scale(decades):
    """Lines across, a decade apart."""
    for decade in range(decades + 1):
        y = FLOOR - decade / decades * (FLOOR - TOP)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield text(LEFT - 8, y + 4, span(LEAST * 10**decade), anchor="end")


def group(left, width, times, decades):
    """The bars of one guest."""
    for number, (key, _, colour) in enumerate(BARS):
        x = left + number * width
        height = max(math.log10(max(times[key], LEAST) / LEAST) / decades * (FLOOR - TOP), 1)
        yield rectangle(x, FLOOR - height, width * 0.9, height, colour)
        yield text(x + width * 0.45, FLOOR - height - 5, span(times[key]), 11)


def downtime(groups):
    """`groups`: (the guest in words, {rival, ours, ahead: nanoseconds})."""
    decades = math.ceil(math.log10(max(max(times.values()) for _, times in groups) / LEAST))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
        rectangle(0, 0, WIDTH, HEIGHT, "#ffffff"),
        *scale(decades),
    ]
    slot = (WIDTH - LEFT - RIGHT) / len(groups)
    for at, (guest, times) in enumerate(groups):
        left = LEFT + (at + 0.1) * slot
        parts += [*group(left, slot * 0.8 / len(BARS), times, decades), text(left + slot * 0.4, FLOOR + 18, guest)]
    for number, (_, name, colour) in enumerate(BARS):
        x = LEFT + number * 170
        parts += [rectangle(x, HEIGHT - 24, 12, 12, colour), text(x + 18, HEIGHT - 14, name, anchor="start")]
    parts.append(text(LEFT, 20, "Time stopped for the table, simulated (median)", 14, "start"))
    return "\n".join(parts + ["</svg>"]) + "\n"
