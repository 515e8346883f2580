"""What a run holds: every block of every side, and what may be asked of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.harness.statistics import Ratio, Summary, ratio, spread, summarise
from bench.harness.usage import Spent


@dataclass(frozen=True, slots=True)
class Defaults:
    """How often, where the command line does not say."""

    starts: int = 3
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """A block with where it belongs and what it cost."""

    side: str
    start: int
    round: int
    calls: int
    seconds: Mapping[str, list[float]]
    figures: Mapping[str, float]
    spent: Spent
    rss_mb: Mapping[str, float]

    @property
    def cpu_per_call(self) -> float:
        return self.spent.total_cpu_s / max(1, self.calls)

    @property
    def wall_per_call(self) -> float:
        return self.spent.wall_s / max(1, self.calls)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A start of a side, or its build (`start` is then -1): figures and what it cost."""

    side: str
    start: int
    figures: Mapping[str, float]
    spent: Spent
    rss_mb: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure with what it must be."""

    what: str
    value: float
    unit: str = ""
    below: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """False also for a value that is not a number."""
        return (self.below is None or self.value < self.below) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def bound(self) -> str:
        parts = []
        if self.below is not None:
            parts.append(f"< {self.below:g}")
        if self.at_least is not None:
            parts.append(f">= {self.at_least:g}")
        return " and ".join(parts)


@dataclass(slots=True)
class Run:
    """Blocks in the order in which they were measured."""

    sides: Sequence[str]
    blocks: list[Measured] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)

    def series(self, side: str) -> list[str]:
        """Names of what a side timed, in order of appearance."""
        return list(dict.fromkeys(name for one in self.of(side) for name in one.seconds))

    def of(self, side: str) -> list[Measured]:
        return [one for one in self.blocks if one.side == side]

    def summary(self, side: str, series: str) -> Summary:
        """Of all blocks of a side."""
        starts: dict[int, list[float]] = defaultdict(list)
        for one in self.of(side):
            starts[one.start] += one.seconds.get(series, [])
        return summarise(list(starts.values()))

    def figures(self, side: str) -> dict[str, list[float]]:
        """What builds, starts and blocks of a side counted: all values of each name."""
        found: dict[str, list[float]] = defaultdict(list)
        counted = [one.figures for one in self.prepared if one.side == side]
        counted += [one.figures for one in self.of(side)]
        for figures in counted:
            for name, value in figures.items():
                found[name].append(value)
        return dict(found)

    def figure(self, side: str, name: str) -> float:
        """The median of a figure; NaN where nobody counted it."""
        return median(self.figures(side).get(name, [float("nan")]))

    def cpu_per_call(self, side: str) -> tuple[float, float]:
        """Median over the blocks in seconds, and the spread of the starts' medians."""
        return self._per_call(side, "cpu_per_call")

    def wall_per_call(self, side: str) -> tuple[float, float]:
        """Median over the blocks in seconds, and the spread of the starts' medians."""
        return self._per_call(side, "wall_per_call")

    def _per_call(self, side: str, what: str) -> tuple[float, float]:
        starts: dict[int, list[float]] = defaultdict(list)
        for one in self.of(side):
            starts[one.start].append(getattr(one, what))
        pooled = [value for values in starts.values() for value in values]
        middle = median(pooled) if pooled else float("nan")
        return middle, spread(median(values) for values in starts.values())

    def rss_mb(self, side: str) -> dict[str, float]:
        """The most that each process of a side had in memory at the end of a block."""
        most: dict[str, float] = {}
        for one in self.of(side):
            for name, value in one.rss_mb.items():
                most[name] = max(most.get(name, 0.0), value)
        return most

    def ratio(self, slow: str, fast: str, series: str = "") -> Ratio:
        """How many times as long one side takes as another, by blocks measured side by side.

        Args:
            slow: the side that takes longer.
            fast: the other one.
            series: whose medians are compared; empty for wall time per call.
        """
        by_place = {(one.side, one.start, one.round): one for one in self.blocks}
        pairs = []
        for one in self.of(fast):
            other = by_place.get((slow, one.start, one.round))
            if other is not None:
                pairs.append((_cost(other, series), _cost(one, series)))
        return ratio(pairs)

    def speedup(self, fast: str, slow: str, series: str = "") -> float:
        """How many times as fast: `ratio` as a number."""
        return self.ratio(slow, fast, series).value

    @property
    def others(self) -> float:
        """Share of the machine that others used while blocks were measured."""
        wall = sum(one.spent.wall_s for one in self.blocks)
        foreign = sum(one.spent.others * one.spent.wall_s for one in self.blocks)
        return foreign / wall if wall else 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything, and the summaries."""
        return {
            "summaries": {
                side: {
                    "series": {
                        name: _fields(self.summary(side, name)) for name in self.series(side)
                    },
                    "cpu_per_call_s": self.cpu_per_call(side)[0],
                    "wall_per_call_s": self.wall_per_call(side)[0],
                    "figures": {
                        name: median(values) for name, values in self.figures(side).items()
                    },
                    "rss_mb": self.rss_mb(side),
                }
                for side in self.sides
            },
            "prepared": [_fields(one) for one in self.prepared],
            "blocks": [_fields(one) for one in self.blocks],
        }


def _cost(one: Measured, series: str) -> float:
    if not series:
        return one.wall_per_call
    return median(one.seconds.get(series) or [float("nan")])


def _fields(value: Any) -> dict[str, Any]:
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    found = {name: getattr(value, name) for name in names}
    return {name: _fields(one) if isinstance(one, Spent) else one for name, one in found.items()}
