"""What a bench declares: its sides, and the work that each of them does."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, float]
"""What was counted, by name; the name ends with the unit, as in ``build_s`` and ``disk_mb``."""


@dataclass(frozen=True, slots=True)
class Block:
    """What a side did while it was its turn."""

    calls: int
    """By which wall and processor time of the block are divided."""
    seconds: Mapping[str, list[float]] = field(default_factory=dict)
    """Durations by what was timed: one for each call, or fewer."""
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things that are compared."""

    name: str
    work: str
    """``module:Class`` of its `Work`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: they travel to another process."""
    build: bool = False
    """Whether `Work.build` is called, once, before the starts."""


class Work:
    """A side at work in its own process. Everything runs on one event loop (uvloop)."""

    def __init__(self, options: Mapping[str, Any], seed: int) -> None:
        """Args:
        options: those of the side.
        seed: of everything random; the same for every side and start.
        """
        self.options = options
        self.seed = seed

    async def build(self) -> Figures:
        """Make what every start uses; in a process of its own."""
        return {}

    async def prepare(self) -> Figures:
        """Load and warm up: nothing of this is in a block."""
        return {}

    async def measure(self, round_: int) -> Block:
        """The work of one round: the same for every side, another one in the next round."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """End every process that was started."""


@contextmanager
def stopwatch(seconds: list[float]) -> Iterator[None]:
    """Append the wall time of what it encloses, also when that fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds.append(time.perf_counter() - started)
