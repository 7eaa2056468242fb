"""The line through the peaks. Memory grows linearly with the batch (docs/estimate.md), so two points tell the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["ok", "failed", "stopped", "timeout", "unfinished"]


class Point(NamedTuple):
    """A value that was tried, and the peak of what was used. Bytes."""

    value: int
    peak: int


class Line(NamedTuple):
    """peak = base + slope x value."""

    base: float
    slope: float
    worst: float
    """Largest distance of a point from the line, bytes."""
    r2: float
    """Share of the points' variance that the line explains; 1 for two points."""

    def at(self, value: float) -> float:
        return self.base + self.slope * value


def line(points: Sequence[Point]) -> Line | None:
    """Least squares; None for fewer than two values."""
    if len({point.value for point in points}) < 2:
        return None
    mean_x = sum(point.value for point in points) / len(points)
    mean_y = sum(point.peak for point in points) / len(points)
    spread = sum((point.value - mean_x) ** 2 for point in points)
    slope = sum((point.value - mean_x) * (point.peak - mean_y) for point in points) / spread
    base = mean_y - slope * mean_x
    rest = [point.peak - base - slope * point.value for point in points]
    variance = sum((point.peak - mean_y) ** 2 for point in points)
    r2 = 1 - sum(part**2 for part in rest) / variance if variance else 1.0
    return Line(base, slope, max(map(abs, rest)), r2)


def expect(points: Sequence[Point], value: int) -> int | None:
    """The peak that a value may have, at worst; None before anything was measured.

    From one point: as if all of it grew with the value. From more: the steeper one of the line through all and the line
    through the last two, from the last point on. A real run bends upwards where it is about to hurt.
    """
    if not points:
        return None
    ordered = sorted(points)
    last = ordered[-1]
    if len(ordered) == 1:
        return int(last.peak * max(value / last.value, 1))
    before = ordered[-2]
    steep = (last.peak - before.peak) / (last.value - before.value)
    whole = line(ordered)
    slope = max(steep, whole.slope if whole else 0.0, 0.0)
    return int(last.peak + slope * (value - last.value))


def largest(points: Sequence[Point], room: int) -> int | None:
    """The largest value that was measured and leaves the headroom."""
    fitting = [point.value for point in points if point.peak <= room]
    return max(fitting, default=None)


def reach(points: Sequence[Point], room: int) -> int | None:
    """The largest value that would fit by the line, at most twice the largest that was tried; None without a line."""
    found = line(points)
    if found is None or found.slope <= 0:
        return None
    limit = 2 * max(point.value for point in points)
    value = int(min((room - found.worst - found.base) / found.slope, limit))
    return value if value >= 1 else None


def accumulation(batch: int, total: int) -> tuple[int, int]:
    """Batch and accumulation that make a total batch: the largest divisor of it that is no larger than `batch`."""
    size = next(size for size in range(min(batch, total), 0, -1) if total % size == 0)
    return size, total // size
