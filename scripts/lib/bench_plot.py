# SPDX-License-Identifier: GPL-2.0-or-later
"""The plot of docs/performance.md: the time stopped for the table, by guest, on a logarithmic scale, as SVG."""

import math

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
LEAST = 1e6  # a millisecond; less is drawn as that
BARS = (("rival", "QEMU's own code", "#b5533c"), ("ours", "library", "#d8a23a"), ("ahead", "with read-ahead", "#4a7f9e"))


def span(ns):
    """A time as a person says it."""
    if ns >= 1e9:
        return f"{ns / 1e9:.2g} s" if ns < 1e10 else f"{ns / 1e9:.0f} s"
    return f"{ns / 1e6:.0f} ms" if ns >= 1e6 else "< 1 ms"


def text(x, y, words, size=12, anchor="middle"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def downtime(groups):
    """`groups`: (the guest in words, {rival, ours, ahead: nanoseconds})."""
    most = max(max(times.values()) for _, times in groups)
    decades = math.ceil(math.log10(most / LEAST))

    def height(ns):
        return max(math.log10(max(ns, LEAST) / LEAST) / decades * (HEIGHT - TOP - BOTTOM), 1)

    floor = HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for decade in range(decades + 1):
        y = floor - decade / decades * (floor - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(text(LEFT - 8, y + 4, span(LEAST * 10**decade), anchor="end"))
    slot = (WIDTH - LEFT - RIGHT) / len(groups)
    bar = slot * 0.8 / len(BARS)
    for at, (guest, times) in enumerate(groups):
        left = LEFT + at * slot + slot * 0.1
        for number, (key, _, colour) in enumerate(BARS):
            x, tall = left + number * bar, height(times[key])
            parts.append(
                f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{bar * 0.9:.1f}" height="{tall:.1f}" fill="{colour}"/>'
            )
            parts.append(text(x + bar * 0.45, floor - tall - 5, span(times[key]), 11))
        parts.append(text(left + slot * 0.4, floor + 18, guest))
    for number, (_, name, colour) in enumerate(BARS):
        x = LEFT + number * 170
        parts.append(f'<rect x="{x}" y="{HEIGHT - 24}" width="12" height="12" fill="{colour}"/>')
        parts.append(text(x + 18, HEIGHT - 14, name, anchor="start"))
    parts.append(text(LEFT, 20, "Time stopped for the table, simulated (median)", 14, "start"))
    return "\n".join(parts + ["</svg>"]) + "\n"
