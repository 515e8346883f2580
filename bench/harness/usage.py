"""What this process and its descendants use of the machine."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ENDED = "ended children"
OWN = "bench"
_QUIET_SHARE = 0.05
_QUIET_SECONDS = 1.0
_QUIET_LOOKS = 8
"""One after the other: work that is put off begins after a pause."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """A snapshot; processor times are in seconds since the processes began."""

    at: float
    cpu: Mapping[str, float]
    """By process: its module or program."""
    busy: float
    """Of the whole machine, whoever caused it."""
    rss_mb: Mapping[str, float] = field(default_factory=dict)
    descriptors: int = 0
    """Open file descriptors of all processes together."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used between two snapshots."""

    wall_s: float
    cpu_s: Mapping[str, float]
    others: float
    """Share of the machine's processors that somebody else used."""

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())


def snapshot() -> Usage:
    """Now. Children that ended are counted with what their parent collected of them; the times of
    other processes come in ticks, 10 ms on Linux."""
    own = psutil.Process()
    times = own.cpu_times()
    cpu: dict[str, float] = defaultdict(float, {OWN: time.process_time()})  # finer than ticks
    cpu[ENDED] = times.children_user + times.children_system
    rss: dict[str, float] = defaultdict(float, {OWN: own.memory_info().rss / _MIB})
    descriptors = own.num_fds()
    for child in own.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            with child.oneshot():
                name = label(child.cmdline(), child.name())
                times = child.cpu_times()
                memory = child.memory_info().rss
            cpu[name] += times.user + times.system
            cpu[ENDED] += times.children_user + times.children_system
            rss[name] += memory / _MIB
            descriptors += child.num_fds()
    return Usage(time.perf_counter(), dict(cpu), busy_seconds(), dict(rss), descriptors)


def peak_rss_mb() -> dict[str, float]:
    """The most that this process and each descendant that lives has ever had in memory; Linux."""
    own = psutil.Process()
    peaks: dict[str, float] = {}
    for one in (own, *own.children(recursive=True)):
        with suppress(psutil.Error, OSError):  # it has just ended
            status = Path(f"/proc/{one.pid}/status").read_text()
            name = OWN if one == own else label(one.cmdline(), one.name())
            peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
            peaks[name] = peaks.get(name, 0.0) + peak
    return peaks


def spent(before: Usage, after: Usage) -> Spent:
    """The difference, per process."""
    cpu = {
        name: max(0.0, seconds - before.cpu.get(name, 0.0)) for name, seconds in after.cpu.items()
    }
    gone = sum(seconds for name, seconds in before.cpu.items() if name not in after.cpu)
    cpu[ENDED] = max(0.0, cpu.get(ENDED, 0.0) - gone)
    wall = after.at - before.at
    machine = wall * (os.cpu_count() or 1)
    foreign = after.busy - before.busy - sum(cpu.values())
    used = {name: seconds for name, seconds in cpu.items() if seconds > 0}
    return Spent(wall, used, min(1.0, max(0.0, foreign / machine)) if machine else 0.0)


def busy_seconds() -> float:
    """Seconds that the machine's processors have worked since it started."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in user and nice
    return float(sum(times) - idle - guests)


def label(command: list[str], name: str) -> str:
    """What a process is called in a table: its module, shortened, or its program."""
    if "-m" in command[:-1]:
        module = command[command.index("-m") + 1]
        return ".".join(module.split(".")[-2:])
    return name


async def settle(limit: float = 600.0, looks: int = _QUIET_LOOKS) -> float:
    """Wait until this process and its descendants have come to rest; returns the seconds.

    Args:
        limit: seconds after which that is given up.
        looks: seconds of rest.
    """
    started = time.perf_counter()
    before = snapshot()
    quiet = 0
    while quiet < looks and time.perf_counter() - started < limit:
        await asyncio.sleep(_QUIET_SECONDS)
        after = snapshot()
        used = spent(before, after)
        quiet = quiet + 1 if used.total_cpu_s < _QUIET_SHARE * used.wall_s else 0
        before = after
    return time.perf_counter() - started
