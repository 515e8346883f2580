"""The progress bars of long commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cli.console import Screen

LONG_CHUNKS = 200
"""From where on a file has a bar of its own: some batches of the encoder."""


def progress_bar(screen: Screen) -> Progress:
    """On stderr and only where a person looks."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen.err,
        disable=screen.as_json or not screen.err.is_terminal,
    )


class ChunkBars:
    """Below the bar of all files one for each long file that is on its way."""

    def __init__(self, bar: Progress, screen: Screen) -> None:
        self._bar = bar
        self._screen = screen

    @contextmanager
    def of(self, name: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Takes the `progress` events of one file; its bar goes with the block."""
        task: TaskID | None = None

        def tell(said: dict[str, Any]) -> None:
            nonlocal task
            chunks, total = said["chunks"], said["total_chunks"]
            if task is None:
                if total < LONG_CHUNKS:
                    return
                task = self._bar.add_task(self._screen.text("ingest.chunks", name=name))
            self._bar.update(task, completed=chunks, total=total)

        try:
            yield tell
        finally:
            if task is not None:
                self._bar.remove_task(task)
