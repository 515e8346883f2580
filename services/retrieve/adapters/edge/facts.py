"""What the servicer's process keeps of the engine's: facts of collections, and gauges."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from services.retrieve.ports import Attributes, Collection, CollectionKey

OPEN = Gauge("ragmesh_retrieve_open_shards", "Collections that are open.")
DELTA_POINTS = Gauge(
    "ragmesh_retrieve_delta_points", "Chunks of open collections that no index covers yet."
)
MERGING = Gauge("ragmesh_retrieve_merging", "Whether a merge is running: 1 or 0.")
MERGES = Counter("ragmesh_retrieve_merges", "Merges of collections by outcome.", ["outcome"])
MERGED_POINTS = Counter("ragmesh_retrieve_merged_points", "Chunks that merges wrote.")
MERGE_SECONDS = Counter("ragmesh_retrieve_merge_seconds", "Time that merges took.")

MAX_FACTS = 4096
"""Views of collections that are kept."""


class FactsCache:
    """Facts of collections as callers see them, until something is written."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[CollectionKey, Attributes], Collection] = OrderedDict()
        self._keys: dict[CollectionKey, set[Attributes]] = {}
        self.changes = 0
        """Writes that have ended."""

    def get(self, key: CollectionKey, attributes: Attributes) -> Collection | None:
        return self._known.get((key, attributes))

    def put(
        self, key: CollectionKey, attributes: Attributes, collection: Collection, changes: int
    ) -> None:
        """Keep what was asked for when there had been so many changes."""
        if changes != self.changes:
            return
        while len(self._known) >= MAX_FACTS:
            (oldest, whose), _ = self._known.popitem(last=False)
            self._keys[oldest].discard(whose)
            if not self._keys[oldest]:
                del self._keys[oldest]
        self._known[key, attributes] = collection
        self._keys.setdefault(key, set()).add(attributes)

    def forget(self, arguments: Sequence[Any]) -> None:
        """Forget what a write with these arguments can have changed."""
        self.changes += 1
        keys = [one for one in arguments if isinstance(one, CollectionKey)]
        if not keys:  # a whole tenant
            self._known.clear()
            self._keys.clear()
        for key in keys:
            for attributes in self._keys.pop(key, ()):
                del self._known[key, attributes]


class EngineGauges:
    """Metrics of what the engine counts. It counts from 0 when it is started again."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}

    def show(self, stats: Mapping[str, float]) -> None:
        OPEN.set(stats["open_shards"])
        DELTA_POINTS.set(stats["delta_points"])
        MERGING.set(stats["merging"])
        for name, counter in (
            ("merges", MERGES.labels("merged")),
            ("failed", MERGES.labels("failed")),
            ("no_space", MERGES.labels("no_space")),
            ("points", MERGED_POINTS),
            ("seconds", MERGE_SECONDS),
        ):
            now, before = stats[name], self._before.get(name, 0.0)
            counter.inc(now - before if now >= before else now)
            self._before[name] = now
