"""The progress bar of long commands."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.console import Screen


def progress_bar(screen: Screen) -> Progress:
    """On stderr and only where a person looks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen.err,
        disable=screen.as_json or not screen.err.is_terminal,
    )
