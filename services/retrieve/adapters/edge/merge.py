"""The process that merges runs: ``python -m services.retrieve.adapters.edge.merge JOB``.

It copies the runs, reads the copies, writes their points into one new shard, indexes the vectors
and makes all of it durable; then it says so in one line. It has the lowest priority, touches
nothing that the engine has open, and ends with it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from services.retrieve.adapters.edge.files import copy_file, copy_tree, remove_tree, sync_tree
from services.retrieve.adapters.edge.layout import HERE
from services.retrieve.adapters.edge.parts import INDEXED, OWN_FILES, WAL, create_index
from services.retrieve.adapters.lifeline import die_with
from services.retrieve.adapters.points import DENSE, SPARSE

_PAGE = 500
NICE = 19


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be merged."""

    folder: str
    """The collection's."""
    runs: tuple[str, ...]
    """Names, oldest first."""
    target: str
    """The name of the new part."""
    dimensions: int
    threads: int
    """That index."""
    parent: int
    """The engine's process id."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    points: int
    high: int
    """The greatest id."""
    seconds: float


def main(arguments: Sequence[str]) -> None:
    job = Job(**json.loads(arguments[0]))
    die_with(job.parent)
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the engine decides
    sys.stdout.write(json.dumps(asdict(merge(job))))
    sys.stdout.flush()


def merge(job: Job) -> Outcome:
    """Make the new part. Whatever ends this early leaves only folders that no layout names."""
    started = time.monotonic()
    folder = Path(job.folder)
    scratch = folder / f"{job.target}.copies"
    scratch.mkdir()
    making = folder / job.target
    copies = [_copied(folder, name, scratch) for name in job.runs]
    made = edge.EdgeShard.create(str(_empty(making)), _config(job))
    points = high = operations = 0
    for page in _pages(copies):
        made.update(edge.UpdateOperation.upsert_points(page))
        points += len(page)
        high = max(high, *(point.id for point in page))
        operations += 1
    remove_tree(scratch)
    for field in INDEXED:  # once, over everything, costs less than with each point
        create_index(made, field)
        operations += 1
    made.optimize()
    made.close()
    _renew_log(making, operations, absent=high + 1)
    sync_tree(making)
    return Outcome(points, high, round(time.monotonic() - started, 3))


def _copied(folder: Path, name: str, scratch: Path) -> Path:
    """A copy of a run, which the engine may be deleting from meanwhile.

    It then holds some of the deleted points and not others; the engine deletes all of them again.
    """
    if name != HERE:
        copy_tree(folder / name, scratch / name)
        return scratch / name
    target = scratch / "here"
    target.mkdir()
    for own in OWN_FILES:
        if (folder / own).is_dir():
            copy_tree(folder / own, target / own)
        else:
            copy_file(folder / own, target / own)
    return target


def _renew_log(folder: Path, operations: int, *, absent: int) -> None:
    """Begin a closed shard's write-ahead log anew: the shard itself holds all that is in it.

    The engine checks the log whenever it opens the shard, with the GIL held: 10 ms of 30, for some
    60 MB that it keeps. A new log counts operations from the beginning, and what counts less than
    a point's own last operation does nothing to it: so as many are written as the shard has seen,
    each of which deletes a point that is not there.
    """
    for path in (folder / WAL).iterdir():
        path.unlink()
    shard = edge.EdgeShard.load(str(folder))
    for _ in range(operations + 1):
        shard.update(edge.UpdateOperation.delete_points([absent]))
    shard.close()


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _pages(copies: Sequence[Path]) -> Iterator[list[Any]]:
    """All points, each as its newest run has it."""
    seen: set[int] = set()
    for path in reversed(copies):
        shard = edge.EdgeShard.load(str(path))
        offset: Any = None
        while True:
            request = edge.ScrollRequest(
                limit=_PAGE, offset=offset, with_payload=True, with_vector=True
            )
            records: Any
            records, offset = shard.scroll(request)
            page = [
                edge.Point(one.id, one.vector, one.payload) for one in records if one.id not in seen
            ]
            if len(copies) > 1:
                seen.update(one.id for one in records)
            if page:
                yield page
            if offset is None:
                break
        shard.close()


def _config(job: Job) -> Any:
    """Of a run. Its graph is walked over 8-bit copies of the vectors, a quarter of the memory and
    half the time; what it finds is scored with the originals, which stay on disk until then."""
    cached = edge.Memory.Cached
    return edge.EdgeConfig(
        vectors={
            DENSE: edge.EdgeVectorParams(
                size=job.dimensions, distance=edge.Distance.Cosine, memory=edge.Memory.Cold
            )
        },
        sparse_vectors={
            SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=cached)
        },
        id_tracker_memory=cached,
        quantization_config=edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=cached
        ),
        hnsw_config=edge.HnswIndexConfig(
            m=24, ef_construct=200, full_scan_threshold=5000, max_indexing_threads=job.threads
        ),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=1 << 30, indexing_threshold=5000
        ),
        max_search_threads=1,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
