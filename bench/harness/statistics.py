"""Percentiles, spread and ratios."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Summary:
    """A series of durations, in seconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    least: float
    most: float
    spread: float
    """Of the medians of the starts: (highest - lowest) / middle one. 0 with a single start."""


def percentile(values: Sequence[float], percent: float) -> float:
    """With linear interpolation between the two nearest ranks (type 7 of Hyndman & Fan, 1996)."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarise(starts: Sequence[Sequence[float]]) -> Summary:
    """All starts of a series together, and how far they differ."""
    pooled = [value for one in starts for value in one]
    return Summary(
        count=len(pooled),
        mean=fmean(pooled) if pooled else math.nan,
        p50=percentile(pooled, 50),
        p90=percentile(pooled, 90),
        p99=percentile(pooled, 99),
        least=min(pooled, default=math.nan),
        most=max(pooled, default=math.nan),
        spread=spread(median(one) for one in starts if one),
    )


def spread(values: Iterable[float]) -> float:
    """(highest - lowest) / median; 0 for fewer than two values or a median of 0."""
    known = list(values)
    if len(known) < 2 or not (middle := median(known)):
        return 0.0
    return (max(known) - min(known)) / middle


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one is the other: of all blocks together, and the extremes of the pairs."""

    value: float
    least: float
    most: float


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Of pairs measured side by side, the median of first / second with its extremes."""
    ratios = [first / second if second else math.nan for first, second in pairs]
    if not ratios:
        return Ratio(math.nan, math.nan, math.nan)
    return Ratio(median(ratios), min(ratios), max(ratios))
