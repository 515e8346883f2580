"""``python -m bench.stalls``: when the machine stood still, until the standard input ends.

On each processor a thread with real-time priority sleeps for milliseconds, over and over. Nothing
that runs here keeps it from waking in time; where it wakes late all the same, the processor was
taken away from the whole machine. What was measured then says nothing about who was measured.

Says "ready" when it has begun, and at the end the stalls, as JSON: start by the monotonic clock,
and seconds. Without the right to real-time priority it sees none.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

SLEEP_SECONDS = 0.002
LATE_SECONDS = 0.01
"""Of a stall, at least."""
PRIORITY = 50

Timed: TypeAlias = tuple[float, float]
"""When something began, by the monotonic clock, and how many seconds it took."""


def untroubled(timed: Iterable[Timed], stalls: Sequence[Timed]) -> list[float]:
    """The durations of what no stall delayed: neither during it, nor for as long again after it,
    while what had waited is worked off."""
    return [
        seconds
        for start, seconds in timed
        if not any(
            start < stall + 2 * length and stall < start + seconds for stall, length in stalls
        )
    ]


def watch(processor: int, over: threading.Event, stalls: list[Timed]) -> None:
    """Collect the stalls of one processor."""
    os.sched_setaffinity(0, {processor})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        return
    while not over.is_set():
        began = time.monotonic()
        time.sleep(SLEEP_SECONDS)
        late = time.monotonic() - began - SLEEP_SECONDS
        if late >= LATE_SECONDS:
            stalls.append((began, late))


if __name__ == "__main__":
    over = threading.Event()
    found: list[Timed] = []
    threads = [
        threading.Thread(target=watch, args=(processor, over, found))
        for processor in sorted(os.sched_getaffinity(0))
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps(sorted(found)))
