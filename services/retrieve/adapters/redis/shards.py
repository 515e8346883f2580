"""One collection's keys, and the collections of one prefix.

All keys of a collection have its folder between braces, so that they lie in one slot: two hashes by
point with what filters look at and with texts, one with the sparse vectors, a vector set, a sorted
set of weights for each term, and a set of these terms, by which they are found again.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.points import Allowed, payload, point_id
from services.retrieve.adapters.predicates import Payload, Predicate, Predicates
from services.retrieve.adapters.redis.connection import Connection, unreachable
from services.retrieve.ports import Document, EncodedChunk, NewCollection, SparseVector
from services.runtime.errors import DataLoss

M, EF_CONSTRUCTION, EF = 16, 200, 200
"""Of the graph: links, and candidates while building and searching."""
SCANNED = 2000
"""Points that are scanned instead of asking the graph."""
_AT_ONCE = 200
_TEXTS = ("text", "normalized_text")
# The best of the summed postings, ascending. Read-only, so that no search is written to the log.
_BEST = """
local found = redis.call('ZUNION', #KEYS, unpack(KEYS), 'WEIGHTS', unpack(ARGV, 2), 'WITHSCORES')
local first = math.max(1, #found - 2 * tonumber(ARGV[1]) + 1)
local best = {}
for place = first, #found do best[#best + 1] = found[place] end
return best
"""

Ranked = Callable[[int], list[tuple[int, float]]]


class RedisShard:
    """One collection's points."""

    def __init__(self, connection: Connection, folder: str) -> None:
        self._redis = connection
        self._key = f"{connection.prefix}:{{{folder}}}:"
        self._run = connection.run
        self._written: set[int] = set()
        self._deleted: set[int] = set()

    # Writing

    def upsert(self, points: Iterable[tuple[int, Document, EncodedChunk]]) -> None:
        rest = iter(points)
        while batch := list(itertools.islice(rest, _AT_ONCE)):
            self._put(batch)

    def _put(self, batch: Sequence[tuple[int, Document, EncodedChunk]]) -> None:
        points = [point_id(version, one.chunk.index) for version, _, one in batch]
        self._written.update(points)
        self._deleted.difference_update(points)
        old = self.terms(points)
        with self._redis.together(atomic=True) as pipeline:
            for point, (version, document, one) in zip(points, batch, strict=True):
                facts = payload(document, version, one.chunk)
                texts = {name: facts.pop(name) for name in _TEXTS if name in facts}
                sparse = one.sparse
                for term in set(old.get(point, ())).difference(sparse.indices):
                    pipeline.zrem(self._term(term), point)
                for term, weight in zip(sparse.indices, sparse.values, strict=True):
                    pipeline.zadd(self._term(term), {point: weight})
                if sparse.indices:
                    pipeline.sadd(self._key + "terms", *sparse.indices)
                pipeline.hset(self._key + "facts", str(point), msgpack.packb(facts))
                pipeline.hset(self._key + "texts", str(point), msgpack.packb(texts))
                packed = np.asarray(sparse.indices, "<u4").tobytes()
                pipeline.hset(self._key + "sparse", str(point), packed)
                pipeline.execute_command(
                    "VADD", self._key + "dense", "FP32", one.dense, point, "NOQUANT",
                    "EF", EF_CONSTRUCTION, "M", M,
                )  # fmt: skip
            pipeline.execute()

    def delete(self, points: Sequence[int]) -> None:
        for start in range(0, len(points), _AT_ONCE):
            self._remove(points[start : start + _AT_ONCE])

    def _remove(self, points: Sequence[int]) -> None:
        self._deleted.update(points)
        self._written.difference_update(points)
        old = self.terms(points)
        with self._redis.together(atomic=True) as pipeline:
            for point, terms in old.items():
                for term in terms:
                    pipeline.zrem(self._term(term), point)
            for point in points:
                pipeline.execute_command("VREM", self._key + "dense", point)
            for name in ("facts", "texts", "sparse"):
                pipeline.hdel(self._key + name, *map(str, points))
            pipeline.execute()

    def flush(self) -> None:
        run = self._redis.persist()
        if run != self._run:
            # The server died since: what was not on its disk is written again by who wrote it.
            self.delete(list(self._deleted))
            if len(self.terms(list(self._written))) < len(self._written):
                raise unreachable()
            self._run = self._redis.persist()
        self._written.clear()
        self._deleted.clear()

    def remove(self) -> None:
        """Delete all keys; the list of terms last, or a death would leave some unknown."""
        terms = [int(one) for one in self._redis.call("SMEMBERS", self._key + "terms")]
        for start in range(0, len(terms), _AT_ONCE):
            part = terms[start : start + _AT_ONCE]
            self._redis.call("UNLINK", *(self._term(one) for one in part))
        names = ("facts", "texts", "sparse", "dense", "terms")
        self._redis.call("UNLINK", *(self._key + one for one in names))

    # Reading

    def nearest(
        self, vector: bytes | SparseVector, limit: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        total = self.count()
        if not total or limit < 1:
            return []
        if isinstance(vector, SparseVector):
            return self._pick(self._sparse(vector), limit, total, allowed)
        return self._pick(lambda count: self._dense(vector, count, total), limit, total, allowed)

    def _dense(self, vector: bytes, count: int, total: int) -> list[tuple[int, float]]:
        # A graph is no use where much of it is wanted, and may not reach everything.
        scanned = total <= SCANNED or 4 * count >= total
        how: tuple[Any, ...] = ("TRUTH",) if scanned else ("EF", max(EF, count))
        found = self._redis.call(
            "VSIM", self._key + "dense", "FP32", vector, "WITHSCORES", "COUNT", count, *how
        )
        # The server's scores go from 0 to 1.
        return [(point, 2 * score - 1) for point, score in _pairs(found)]

    def _sparse(self, vector: SparseVector) -> Ranked:
        weights = [
            (self._term(term), value * idf)
            for term, value, idf in zip(
                vector.indices, vector.values, self.idf(vector.indices), strict=True
            )
            if idf
        ]
        keys = [key for key, _ in weights]
        factors = [repr(float(factor)) for _, factor in weights]

        def ranked(count: int) -> list[tuple[int, float]]:
            if not keys:
                return []
            return _pairs(self._redis.call("EVAL_RO", _BEST, len(keys), *keys, count, *factors))

        return ranked

    def _pick(
        self, ranked: Ranked, limit: int, total: int, allowed: Allowed
    ) -> list[tuple[int, float]]:
        """The first candidates that may be found, of ever more of them."""
        test: Predicate | None = translate(
            Predicates(),
            allowed.filter,
            languages=allowed.languages,
            hidden=allowed.hidden,
            readable=allowed.readable,
        )
        bare = allowed.filter is None and allowed.languages is None and allowed.readable is None
        verdicts: dict[int, bool] = {}
        count = min(limit + (len(allowed.hidden) if bare else limit), total)
        while True:
            pairs = sorted(ranked(count), key=lambda pair: (-pair[1], pair[0]))
            if test is None:
                return pairs[:limit]
            unknown = [point for point, _ in pairs if point not in verdicts]
            facts: Mapping[int, Payload] = {} if bare else self._facts(unknown)
            for point in unknown:
                verdicts[point] = test(point, facts.get(point, {}))
            found = [pair for pair in pairs if verdicts[pair[0]]]
            if len(found) >= limit or count >= total:
                return found[:limit]
            count = min(8 * count, total)

    def _facts(self, points: Sequence[int]) -> dict[int, Payload]:
        return {point: msgpack.unpackb(one) for point, one in self._of("facts", points)}

    def payloads(self, points: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        texts = {point: msgpack.unpackb(one) for point, one in self._of("texts", points)}
        facts = self._facts(points)
        return {point: {**facts[point], **texts[point]} for point in facts if point in texts}

    def vectors(self, points: Sequence[int]) -> Mapping[int, bytes]:
        found = self._redis.many([("VEMB", self._key + "dense", point, "RAW") for point in points])
        # The form, the vector at length 1, its length before.
        return {point: bytes(one[1]) for point, one in zip(points, found, strict=True) if one}

    def terms(self, points: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        return {
            point: tuple(np.frombuffer(one, "<u4").tolist())
            for point, one in self._of("sparse", points)
        }

    def count(self) -> int:
        return int(self._redis.call("HLEN", self._key + "facts"))

    def idf(self, terms: Sequence[int]) -> list[float]:
        commands: list[tuple[Any, ...]] = [("HLEN", self._key + "facts")]
        total, *counts = self._redis.many(
            commands + [("ZCARD", self._term(term)) for term in terms]
        )
        return [
            math.log((total - count + 0.5) / (count + 0.5) + 1) if count else 0.0
            for count in counts
        ]

    def _of(self, name: str, points: Sequence[int]) -> list[tuple[int, bytes]]:
        """The values of a hash that exist."""
        found: list[tuple[int, bytes]] = []
        for start in range(0, len(points), 1000):
            part = points[start : start + 1000]
            values = self._redis.call("HMGET", self._key + name, *map(str, part))
            pairs = zip(part, values, strict=True)
            found += [(point, value) for point, value in pairs if value is not None]
        return found

    def _term(self, term: int) -> str:
        return f"{self._key}term:{term}"


def _pairs(flat: Sequence[bytes]) -> list[tuple[int, float]]:
    return [(int(point), float(score)) for point, score in zip(flat[::2], flat[1::2], strict=True)]


class RedisShards:
    """The collections of one prefix. An open one costs nothing but its name."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._open: dict[str, RedisShard] = {}

    def open(self, folder: str, facts: NewCollection, *, expect_data: bool) -> RedisShard:
        shard = self._open.get(folder)
        if shard is None:
            shard = RedisShard(self._redis, folder)
            if expect_data and not shard.count():
                raise DataLoss(
                    "COLLECTION_UNREADABLE",
                    "The collection's points are gone; restore them or delete the collection and "
                    "ingest again.",
                )
            self._redis.call("SADD", self._tenant(folder.partition("/")[0]), folder)
            self._open[folder] = shard
        return shard

    def remove(self, folder: str) -> None:
        shard = self._open.pop(folder, None) or RedisShard(self._redis, folder)
        shard.remove()
        self._redis.call("SREM", self._tenant(folder.partition("/")[0]), folder)

    def folders(self, parent: str) -> int:
        found = int(self._redis.call("SCARD", self._tenant(parent)))
        return 1 + found if found else 0

    def remove_parent(self, parent: str) -> None:
        for folder in self._redis.call("SMEMBERS", self._tenant(parent)):
            self.remove(folder.decode())

    def close_idle(self, seconds: float) -> None:
        """Nothing to close."""

    def close_all(self) -> None:
        self._open.clear()
        self._redis.close()

    def __len__(self) -> int:
        return len(self._open)

    def _tenant(self, parent: str) -> str:
        return f"{self._redis.prefix}:tenant:{parent}"
