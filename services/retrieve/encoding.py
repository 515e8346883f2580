"""One encoder for every call of the process: requests share passes, questions go first.

The model does its work in threads or behind a server; the event loop only sorts what waits.
Questions and passages wait in lanes of their own. Where the model can run two passes at a time, a
question waits for none; else for one at most.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from services.retrieve.batching import Lane, Waiting
from services.retrieve.ports import (
    EncoderFacts,
    EncoderInput,
    EncoderModel,
    EncoderText,
    Matrix,
    VectorCache,
)
from services.retrieve.querycache import EncodedQuery, QueryVectors
from services.runtime.errors import ResourceExhausted, Unavailable

log = logging.getLogger(__name__)

QUEUE_DEPTH = Gauge("ragmesh_retrieve_encoder_queue_depth", "Inputs that wait for the encoder.")
BATCH_SIZE = Histogram(
    "ragmesh_retrieve_encoder_batch_size",
    "Inputs of a forward pass.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_SECONDS = Histogram("ragmesh_retrieve_encoder_batch_seconds", "Time of a forward pass.")
BUSY_SECONDS = Counter(
    "ragmesh_retrieve_encoder_busy_seconds",
    "Time in which at least one forward pass was under way.",
    ["input"],
)
TOKENS = Counter("ragmesh_retrieve_encoder_tokens", "Tokens that were encoded.", ["input"])

_BUSY_RETRY = 2.0
_MAX_PADDING = 0.2
"""Share of a pass of passages that may be padding."""
_MAX_QUERY_PADDING = 0.7
"""Of questions: they are short, and a pass more costs more than the padding."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors in the order of the inputs, and how many tokens they took."""

    vectors: Matrix
    tokens: int


class Encoder:
    """The encoder's face towards everything else. Belongs to the loop that calls `start`."""

    def __init__(
        self,
        model: EncoderModel,
        *,
        batch_tokens: int,
        queue: int,
        query_cache: int,
        shared_cache: VectorCache | None = None,
    ) -> None:
        """Args:
        model: what makes the vectors.
        batch_tokens: tokens of a forward pass, padding included.
        queue: inputs that may wait, of questions and of passages.
        query_cache: query vectors that are kept in memory.
        shared_cache: keeps them for all replicas.
        """
        self._model = model
        self._limit = queue
        self._queries = _Passes(
            "query", model, Lane(batch_tokens=batch_tokens, max_padding=_MAX_QUERY_PADDING)
        )
        self._passages = _Passes(
            "passage", model, Lane(batch_tokens=batch_tokens, max_padding=_MAX_PADDING)
        )
        self._vectors = QueryVectors(query_cache, shared_cache)
        self._facts: EncoderFacts | None = None

    @property
    def facts(self) -> EncoderFacts:
        """Raises: Unavailable ENCODER_LOADING, before `start` has returned."""
        if self._facts is None:
            raise Unavailable("ENCODER_LOADING", "The encoder is being loaded.", retry_after=2.0)
        return self._facts

    @property
    def backend(self) -> str:
        """What runs the model, as settings name it; empty while it is loading."""
        return self._facts.backend if self._facts else ""

    async def start(self) -> None:
        """Load the model and warm it up."""
        facts = await self._model.start()
        self._queries.start(facts.parallel)
        self._passages.start(facts.parallel)
        self._facts = facts
        self._vectors.start(facts)
        for query in (True, False):
            prepared = await self.prepare(["warm up"], query=query)
            await self.encode(prepared, query=query)
        log.info(
            "encoder started",
            extra={
                "encoder": facts.id,
                "dimensions": facts.dimensions,
                "max_tokens": facts.max_tokens,
                "languages": ",".join(facts.languages),
                "backend": facts.backend,
                "precision": facts.precision,
            },
        )

    async def aclose(self) -> None:
        await self._vectors.aclose()
        await self._queries.aclose()
        await self._passages.aclose()
        await self._model.aclose()

    async def prepare(
        self, inputs: Sequence[EncoderText], *, query: bool = False, truncate: bool = True
    ) -> Sequence[EncoderInput]:
        """Texts with the prompt for questions or passages, as tokens where the model has them."""
        return await self._model.prepare(inputs, query=query, truncate=truncate)

    async def encode(
        self, inputs: Sequence[EncoderInput], *, query: bool = False, stream: Hashable = None
    ) -> Encoded:
        """Vectors of prepared inputs.

        Args:
            inputs: at least one; each at most the model's limit long.
            query: whether somebody waits for the answer: they go before those that are not.
            stream: whose they are; streams share the encoder evenly.

        Raises:
            ResourceExhausted: ENCODER_BUSY, when too many wait already.
        """
        self.facts  # noqa: B018  raises while the model is loading
        passes = self._queries if query else self._passages
        if passes.lane and len(passes.lane) + len(inputs) > self._limit:
            raise ResourceExhausted(
                "ENCODER_BUSY", "The encoder's queue is full.", retry_after=_BUSY_RETRY
            )
        loop = asyncio.get_running_loop()
        items = [Waiting(one, loop.create_future()) for one in inputs]
        passes.add(items, stream)
        try:
            rows = await asyncio.gather(*(item.future for item in items))
        finally:
            passes.remove(items)
        return Encoded(np.stack([row for row, _ in rows]), sum(tokens for _, tokens in rows))

    async def query(self, text: str, *, stream: Hashable = None) -> EncodedQuery:
        """A question's vector, from the cache when it was asked before."""

        async def encode() -> EncodedQuery:
            prepared = await self.prepare([text], query=True)
            encoded = await self.encode(prepared, query=True, stream=stream)
            dense = encoded.vectors[0].astype("<f4").tobytes()
            return EncodedQuery(dense, prepared[0].unknown)

        self.facts  # noqa: B018  raises while the model is loading
        return await self._vectors.get(text, encode)


class _Passes:
    """A lane and the workers that empty it."""

    def __init__(self, kind: str, model: EncoderModel, lane: Lane) -> None:
        self.lane = lane
        self._kind = kind
        self._model = model
        self._busy = _Busy(BUSY_SECONDS.labels(kind).inc)
        self._tokens = TOKENS.labels(kind)
        self._wake = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []

    def start(self, workers: int) -> None:
        self._workers = [
            asyncio.create_task(self._work(), name=f"encoder-{self._kind}") for _ in range(workers)
        ]

    async def aclose(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def add(self, items: Sequence[Waiting], stream: Hashable) -> None:
        self.lane.add(items, stream)
        QUEUE_DEPTH.inc(len(items))
        self._wake.set()

    def remove(self, items: Sequence[Waiting]) -> None:
        """Let go of a caller's inputs, whatever has become of them."""
        before = len(self.lane)
        self.lane.remove(items)
        QUEUE_DEPTH.dec(before - len(self.lane))
        for item in items:
            item.future.cancel()

    async def _work(self) -> None:
        while True:
            batch = self.lane.take()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            QUEUE_DEPTH.dec(len(batch))
            BATCH_SIZE.observe(len(batch))
            inputs = [item.input for item in batch]
            try:
                with BATCH_SECONDS.time(), self._busy:
                    made = await self._model.encode(inputs, query=self._kind == "query")
            except Exception as error:  # the callers get it; the worker has others to serve
                for item in batch:
                    if not item.future.done():
                        item.future.set_exception(error)
                continue
            counts = [one.tokens for one in inputs]
            if made.tokens is not None:
                counts = _shares(made.tokens, counts)
            self._tokens.inc(sum(counts))
            for item, row, tokens in zip(batch, made.vectors, counts, strict=True):
                if not item.future.done():
                    item.future.set_result((row, tokens))


class _Busy:
    """Counts the time in which at least one of its blocks is entered."""

    def __init__(self, count: Callable[[float], None]) -> None:
        self._count = count
        self._entered = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if not self._entered:
            self._since = asyncio.get_running_loop().time()
        self._entered += 1

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._count(asyncio.get_running_loop().time() - self._since)


def _shares(total: int, estimates: Sequence[int]) -> list[int]:
    """A server's count of a whole pass, given to its inputs as they were estimated."""
    sums = np.cumsum(estimates) * (total / max(1, sum(estimates)))
    ends = np.rint(sums).astype(int).tolist()
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
