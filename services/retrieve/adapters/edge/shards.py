"""Open shards: at most so many at once, the longest unused is closed first."""

import logging
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from services.retrieve.adapters.edge.conditions import ACCESS, payload
from services.retrieve.ports import Document, EncodedChunk, SparseVector
from services.runtime.errors import DataLoss

log = logging.getLogger(__name__)

DENSE, SPARSE = "dense", "sparse"
_INDEX_BITS = 20


def point_id(version: int, index: int) -> int:
    """A chunk's point: its document's version and its position."""
    return version << _INDEX_BITS | index


def version_of(point: int) -> int:
    return point >> _INDEX_BITS


def index_of(point: int) -> int:
    return point & ((1 << _INDEX_BITS) - 1)


def points_of(version: int, chunks: int) -> range:
    return range(point_id(version, 0), point_id(version, chunks))


class Shard:
    """One collection's points."""

    def __init__(self, path: Path, dimensions: int) -> None:
        """Open the shard, or create it where nothing is."""
        if (path / "edge_config.json").exists() or (path / "segments").exists():
            self._edge = edge.EdgeShard.load(str(path))
        else:
            path.mkdir(parents=True, exist_ok=True)
            self._edge = edge.EdgeShard.create(str(path), _config(dimensions))
            # Without an index a condition reads every payload: milliseconds a thousand chunks.
            self._edge.update(
                edge.UpdateOperation.create_field_index(ACCESS, edge.PayloadSchemaType.Keyword)
            )
        self.used = time.monotonic()

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        """Write chunks, given with their documents' versions and facts."""
        self._edge.update(
            edge.UpdateOperation.upsert_points(
                [
                    edge.Point(
                        point_id(version, one.chunk.index),
                        {
                            DENSE: np.frombuffer(one.dense, "<f4").tolist(),
                            SPARSE: _sparse(one.sparse),
                        },
                        payload(document, version, one.chunk),
                    )
                    for version, document, one in points
                ]
            )
        )

    def delete(self, points: Sequence[int]) -> None:
        self._edge.update(edge.UpdateOperation.delete_points(list(points)))

    def flush(self) -> None:
        self._edge.flush()

    def nearest(
        self, vector: bytes | SparseVector, limit: int, filter_: Any
    ) -> list[tuple[int, float]]:
        """The points nearest to a dense (bytes) or a sparse vector, best first."""
        if isinstance(vector, SparseVector):
            query = edge.Query.Nearest(_sparse(vector), using=SPARSE)
        else:
            query = edge.Query.Nearest(np.frombuffer(vector, "<f4").tolist(), using=DENSE)
        request = edge.QueryRequest(limit=limit, query=query, filter=filter_, with_payload=False)
        return [(int(hit.id), float(hit.score)) for hit in self._edge.query(request)]

    def payloads(self, points: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Payloads of the points that exist."""
        records = self._edge.retrieve(list(points), with_payload=True, with_vector=False)
        return {int(record.id): record.payload or {} for record in records}

    def count(self) -> int:
        """Points, current or not."""
        return int(self._edge.count(edge.CountRequest(exact=True)))

    def close(self) -> None:
        self._edge.flush()
        self._edge.close()


class Shards:
    """The open shards of one data folder."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._open: OrderedDict[str, Shard] = OrderedDict()

    def open(self, folder: str, dimensions: int, *, expect_data: bool) -> Shard:
        """The shard of a folder.

        Args:
            folder: relative to the root.
            dimensions: for a shard that is created.
            expect_data: whether documents were acknowledged in it; if not, what a crash left of
                its creation is removed and it is created again.

        Raises:
            DataLoss: COLLECTION_UNREADABLE.
        """
        shard = self._open.get(folder)
        if shard is None:
            while len(self._open) >= self._limit:
                self.close(next(iter(self._open)))
            shard = self._open[folder] = self._load(self._root / folder, dimensions, expect_data)
        self._open.move_to_end(folder)
        shard.used = time.monotonic()
        return shard

    def _load(self, path: Path, dimensions: int, expect_data: bool) -> Shard:
        try:
            if expect_data and not path.exists():
                raise FileNotFoundError(path)
            return Shard(path, dimensions)
        except Exception as error:
            # Edge raises plain Exception for everything that it finds wrong on disk.
            log.warning("a shard cannot be opened", extra={"folder": path.name}, exc_info=True)
            if expect_data:
                raise DataLoss(
                    "COLLECTION_UNREADABLE",
                    "The collection's index cannot be read; restore it or delete the collection "
                    "and ingest again.",
                ) from error
        shutil.rmtree(path, ignore_errors=True)
        return Shard(path, dimensions)

    def close(self, folder: str) -> None:
        shard = self._open.pop(folder, None)
        if shard is not None:
            shard.close()

    def close_idle(self, seconds: float) -> None:
        """Close shards that nobody used for so long."""
        limit = time.monotonic() - seconds
        for folder in [name for name, shard in self._open.items() if shard.used < limit]:
            self.close(folder)

    def remove(self, folder: str) -> None:
        """Close a shard and delete its files."""
        self.close(folder)
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def folders(self, parent: str) -> int:
        """How many folders a tenant has on disk, its own included."""
        path = self._root / parent
        return 1 + sum(1 for one in path.iterdir()) if path.exists() else 0

    def remove_parent(self, parent: str) -> None:
        """Delete a tenant's folder with whatever lies in it."""
        for folder in [name for name in self._open if name.startswith(f"{parent}/")]:
            self.close(folder)
        shutil.rmtree(self._root / parent, ignore_errors=True)

    def close_all(self) -> None:
        for folder in list(self._open):
            self.close(folder)

    def __len__(self) -> int:
        return len(self._open)


def _config(dimensions: int) -> Any:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,  # a pool for each open shard
    )


def _sparse(vector: SparseVector) -> Any:
    return edge.SparseVector(list(vector.indices), list(vector.values))
