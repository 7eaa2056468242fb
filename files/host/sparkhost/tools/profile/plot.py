"""The picture: peaks, the line through them, and the limit. SVG by hand: hosts have no plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from sparkhost.base.units import GIB
from sparkhost.tools.profile.fit import Line, Point

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 40, 48
TICKS = 5
COLOURS = ("#b06000", "#137333")
"""Of the further rows of points."""


def step_of(most: float) -> float:
    """A round distance of ticks: 1, 2 or 5 times a power of ten."""
    size = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if most / (size * factor) <= TICKS:
                return size * factor
        size *= 10


def svg(
    points: Sequence[Point],
    line: Line | None,
    room: int,
    name: str,
    title: str,
    others: Mapping[str, Sequence[Point]] = MappingProxyType({}),
) -> str:
    """The whole file. `room`: what a run may use at most; `name`: of what is varied; `others`: further rows of
    points, each lower than `points`."""
    most_x = max((point.value for point in points), default=1) * 1.1
    drawn = [*points, *(point for row in others.values() for point in row)]
    most_y = max([point.peak / GIB for point in drawn] + [room / GIB]) * 1.1 or 1.0

    def x(value: float) -> float:
        return round(LEFT + value / most_x * (WIDTH - LEFT - RIGHT), 1)

    def y(gib: float) -> float:
        return round(HEIGHT - BOTTOM - gib / most_y * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for most, is_x in ((most_x, True), (most_y, False)):
        distance = step_of(most)
        number = 0
        while number * distance <= most:
            at = number * distance
            if is_x:
                parts.append(f'<text x="{x(at)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{at:g}</text>')
            else:
                parts.append(f'<path d="M{LEFT} {y(at)}H{WIDTH - RIGHT}" stroke="#ddd"/>')
                parts.append(f'<text x="{LEFT - 8}" y="{y(at) + 4}" text-anchor="end">{at:g}</text>')
            number += 1
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(name)}</text>')
    parts.append(f'<text x="8" y="{TOP - 4}">GiB</text>')
    parts.append(f'<path d="M{LEFT} {y(room / GIB)}H{WIDTH - RIGHT}" stroke="#b00020" stroke-dasharray="6 4"/>')
    parts.append(f'<text x="{LEFT + 6}" y="{y(room / GIB) - 6}" fill="#b00020">limit {room / GIB:.1f} GiB</text>')
    if line:
        end = min(most_x, (most_y - line.base / GIB) / (line.slope / GIB)) if line.slope > 0 else most_x
        start = max(-line.base / line.slope, 0) if line.slope > 0 else 0
        ends = [(x(value), y(min(max(line.at(value) / GIB, 0), most_y))) for value in (start, max(end, start))]
        parts.append(f'<path d="M{ends[0][0]} {ends[0][1]}L{ends[1][0]} {ends[1][1]}" stroke="#0b57d0" fill="none"/>')
    for point in points:
        parts.append(
            f'<circle cx="{x(point.value)}" cy="{y(point.peak / GIB)}" r="4" fill="#0b57d0"><title>{point.value}: '
            f"{point.peak / GIB:.2f} GiB</title></circle>"
        )
    for number, (label, row) in enumerate(others.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "L".join(f"{x(point.value)} {y(point.peak / GIB)}" for point in row)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-dasharray="2 3" fill="none"/>')
        parts += [
            f'<rect x="{x(point.value) - 3}" y="{y(point.peak / GIB) - 3}" width="6" height="6" fill="{colour}"><title>'
            f"{escape(label)}, {point.value}: {point.peak / GIB:.2f} GiB</title></rect>"
            for point in row
        ]
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{TOP + 14 * (number + 1)}" text-anchor="end" fill="{colour}">'
            f"{escape(label)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])
