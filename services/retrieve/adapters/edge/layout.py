"""Which shards of the engine make up a collection: one small file, replaced in one step.

A collection begins as one shard in its own folder, with no such file. When it has grown, what was
written becomes a *run*, which is only deleted from, and writing goes on in a new shard, the
*delta*. Runs are merged in the background; the file says which of them count.
"""

import json
import os
import uuid
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from services.retrieve.adapters.edge.files import remove_tree, sync_file, unlink_large
from services.retrieve.adapters.edge.parts import OWN_FILES

FILE = "layout.json"
FORMAT = 1
HERE = "."
"""The name of the shard that lies in the collection's folder itself."""


@dataclass(frozen=True, slots=True)
class Run:
    """A part that takes no more chunks."""

    name: str
    points: int
    """When it was made."""
    high: int
    """No point in it has a greater id."""
    merged: bool
    """Whether a merge made it, which indexes its vectors."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a collection, by the names of their folders."""

    delta: str = HERE
    runs: tuple[Run, ...] = ()
    """Oldest first; a point in a newer part stands for the same one in an older."""


def read(folder: Path) -> Layout:
    """Raises: ValueError, for a file that no version before this one wrote."""
    try:
        stored = json.loads((folder / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return Layout()
    if stored["format"] != FORMAT:
        raise ValueError(f"a layout of format {stored['format']}")
    return Layout(stored["delta"], tuple(Run(**one) for one in stored["runs"]))


def write(folder: Path, layout: Layout) -> None:
    """Replace the file, durably and in one step. Lets go of the GIL while it waits.

    Raises:
        OSError: nothing has changed.
    """
    new = folder / f"{FILE}.new"
    stored = {
        "format": FORMAT, "delta": layout.delta, "runs": [asdict(one) for one in layout.runs],
    }  # fmt: skip
    new.write_text(json.dumps(stored), "utf-8")
    sync_file(new)
    os.replace(new, folder / FILE)
    try:
        sync_file(folder)
    except OSError as error:
        # Whether the change holds is not known; a new process reads what is so.
        raise SystemExit("a layout cannot be made durable") from error


def sweep(folder: Path, layout: Layout) -> None:
    """Delete what the layout does not name: of a merge that was cut off, or had just ended."""
    names = {layout.delta, *(run.name for run in layout.runs)}
    keep = {FILE, *names, *(OWN_FILES if HERE in names else ())}
    for entry in folder.iterdir():
        if entry.name not in keep:
            remove_tree(entry)


def remove(folder: Path, name: str) -> None:
    """Delete the files of a part."""
    for path in _places(folder, name):
        remove_tree(path)


def unlink(folder: Path, name: str, keep: ExitStack) -> None:
    """Delete the large files of a part that is open still; see `files.unlink_large`."""
    for path in _places(folder, name):
        unlink_large(path, keep)


def _places(folder: Path, name: str) -> list[Path]:
    """The folders and files that are a part's own."""
    return [folder / own for own in OWN_FILES] if name == HERE else [folder / name]


def new_name() -> str:
    """Of a part's folder; never used before."""
    return f"part-{uuid.uuid4().hex[:16]}"
