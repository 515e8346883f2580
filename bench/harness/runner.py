"""Runs the sides of a bench: a process for each start of each side, one of them at work at a time.

Within a start all sides are up together and take turns, round by round, so that whatever else the
machine does meets them alike: A B A B ... The next start begins with the next side: B A B A ...
"""

import asyncio
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pkgutil import resolve_name
from typing import Any

import uvloop

from bench.harness.runs import Measured, Prepared, Run
from bench.harness.sides import Side, Work
from bench.harness.usage import Spent, snapshot, spent

BUILD = -1
"""Instead of a start's number."""
_ANSWER_SECONDS = 4 * 3600.0
_END_SECONDS = 60.0

Progress = Callable[[str], None]


class SideFailed(Exception):
    """A side raised; the message is its traceback."""


def schedule(sides: int, starts: int, rounds: int) -> Iterator[tuple[int, int, int]]:
    """(start, round, side) in the order of measuring."""
    for start in range(starts):
        for round_ in range(rounds):
            for place in range(sides):
                yield start, round_, (place + start) % sides


def run(
    sides: Sequence[Side], *, starts: int, rounds: int, seed: int, progress: Progress = print
) -> Run:
    """Measure the sides.

    Raises:
        SideFailed: a side raised an error.
    """
    found = Run([one.name for one in sides])
    for side in sides:
        if side.build:
            progress(f"building {side.name}")
            with _Child(side, seed) as child:
                found.prepared.append(Prepared(side.name, BUILD, *child.ask("build")))
    for start in range(starts):
        with ExitStack() as stack:
            children = {}
            for place in range(len(sides)):
                number = (place + start) % len(sides)
                side = sides[number]
                progress(f"start {start + 1} of {starts}: {side.name}")
                children[number] = stack.enter_context(_Child(side, seed))
                answer = children[number].ask("prepare")
                found.prepared.append(Prepared(side.name, start, *answer))
            for _, round_, number in (
                one for one in schedule(len(sides), starts, rounds) if one[0] == start
            ):
                block, used, rss = children[number].ask("measure", round_)
                found.blocks.append(
                    Measured(
                        sides[number].name, start, round_,
                        block.calls, dict(block.seconds), dict(block.figures), used, rss,
                    )
                )  # fmt: skip
    return found


class _Child:
    """A side's process, as the runner sees it."""

    def __init__(self, side: Side, seed: int) -> None:
        self._side = side
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side, seed))
        self._process.start()
        theirs.close()

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # which asks it to close and leave
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ask(self, method: str, *arguments: Any) -> tuple[Any, Spent, dict[str, float]]:
        """Result, what it cost, and resident memory by process."""
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(_ANSWER_SECONDS):
                raise SideFailed(f"{self._side.name}: no answer from {method}")
            fine, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(_END_SECONDS)
            raise SideFailed(
                f"{self._side.name}: its process ended in {method} "
                f"with status {self._process.exitcode}"
            ) from None
        if not fine:
            raise SideFailed(f"{self._side.name}: {method} failed\n{answer}")
        result, used, rss = answer
        return result, used, rss


def _serve(connection: Connection, side: Side, seed: int) -> None:
    """The main of a side's process."""
    work: Work = resolve_name(side.work)(side.options, seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_answer(connection, work))
        except KeyboardInterrupt:
            sys.exit(130)


async def _answer(connection: Connection, work: Work) -> None:
    try:
        while True:
            try:
                method, arguments = await asyncio.to_thread(connection.recv)
            except EOFError:
                return
            before = snapshot()
            try:
                result = await getattr(work, method)(*arguments)
            except Exception:  # told to the runner, which ends the run
                connection.send((False, traceback.format_exc()))
                continue
            after = snapshot()
            connection.send((True, (result, spent(before, after), dict(after.rss_mb))))
    finally:
        await work.aclose()
