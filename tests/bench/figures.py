"""Figures of runs that were made in turn: medians of ratios, what a host more costs, and rows of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of pairs: both of a pair were measured in the same round, under the same load.

    Raises:
        ValueError: there are no pairs, or not as many of one as of the other.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"{len(over)} and {len(under)} figures make no pairs")
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


@dataclass(frozen=True)
class Growth:
    """How a cost grows with the number of hosts: `fixed + per_host * hosts`, by least squares of relative errors."""

    fixed: float
    per_host: float
    worst: float
    """The largest distance of a point from that line, as a share of the point: 0.1 is 10 %."""
    exponent: float
    """The slope between the two largest fleets on a double logarithmic scale: 1 is linear."""


def growth(points: Mapping[int, float]) -> Growth:
    """The law behind `points`, hosts → cost. Relative errors, so that one host counts as much as 100.

    Raises:
        ValueError: fewer than two points, or costs that are not above 0.
    """
    if len(points) < 2 or min(points.values()) <= 0:
        raise ValueError("a growth law needs two points above 0")
    # Weighted by 1 / cost²: minimises the sum of ((fixed + per_host * n) / cost - 1)².
    weights = {n: 1 / cost**2 for n, cost in points.items()}
    total = sum(weights.values())
    n_mean = sum(w * n for n, w in weights.items()) / total
    cost_mean = sum(w * points[n] for n, w in weights.items()) / total
    spread = sum(w * (n - n_mean) ** 2 for n, w in weights.items())
    per_host = sum(w * (n - n_mean) * (points[n] - cost_mean) for n, w in weights.items()) / spread
    fixed = cost_mean - per_host * n_mean
    worst = max(abs(fixed + per_host * n - cost) / cost for n, cost in points.items())
    few, many = sorted(points)[-2:]
    exponent = math.log(points[many] / points[few]) / math.log(many / few)
    return Growth(fixed, per_host, worst, exponent)
