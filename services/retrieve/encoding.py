"""One encoder for every call of the process: requests share batches, questions go first.

The model blocks and lets go of the GIL in its kernels, so one thread runs it and another
tokenises; the event loop only sorts.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import Gauge, Histogram

from services.retrieve.ports import EncoderFacts, EncoderModel, Matrix, Tokens
from services.runtime.errors import ResourceExhausted, Unavailable

log = logging.getLogger(__name__)

QUEUE_DEPTH = Gauge("ragmesh_retrieve_encoder_queue_depth", "Inputs that wait for the encoder.")
BATCH_SIZE = Histogram(
    "ragmesh_retrieve_encoder_batch_size",
    "Inputs of a forward pass.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_SECONDS = Histogram("ragmesh_retrieve_encoder_batch_seconds", "Time of a forward pass.")

_WINDOW = 256
"""Waiting passages that are sorted by length together."""
_BUSY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A question's vector, and how much of it the encoder knew."""

    dense: bytes
    unknown: float


@dataclass(slots=True)
class _Item:
    ids: Sequence[int]
    future: asyncio.Future[Matrix]


class Encoder:
    """The encoder's asynchronous face. Belongs to the loop that calls `start`."""

    def __init__(
        self, model: EncoderModel, *, batch_tokens: int, queue: int, query_cache: int
    ) -> None:
        """Args:
        model: what runs in the thread.
        batch_tokens: tokens of a forward pass, padding included.
        queue: inputs that may wait.
        query_cache: query vectors that are kept.
        """
        self._model = model
        self._batch_tokens = batch_tokens
        self._limit = queue
        self._cache_size = query_cache
        self._cache: OrderedDict[str, EncodedQuery] = OrderedDict()
        self._forward_thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._token_thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._queries: deque[_Item] = deque()
        self._passages: deque[_Item] = deque()
        self._sorted: deque[list[_Item]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._facts: EncoderFacts | None = None

    @property
    def facts(self) -> EncoderFacts:
        """Raises: Unavailable ENCODER_LOADING, before `start` has returned."""
        if self._facts is None:
            raise Unavailable("ENCODER_LOADING", "The encoder is being loaded.", retry_after=2.0)
        return self._facts

    async def start(self) -> None:
        """Load the model and warm it up."""
        self._facts = await self._run(self._forward_thread, self._model.load)
        self._worker = asyncio.create_task(self._work(), name="encoder")
        await self.query("warm up")
        self._cache.clear()

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._forward_thread.shutdown(wait=False, cancel_futures=True)
        self._token_thread.shutdown(wait=False, cancel_futures=True)

    async def tokenize(
        self, texts: Sequence[str], *, query: bool = False, truncate: bool = True
    ) -> list[Tokens]:
        """Tokens of each text."""
        tokens: list[Tokens] = await self._run(
            self._token_thread, self._model.tokenize, texts, query=query, truncate=truncate
        )
        return tokens

    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Put the special tokens around a caller's own token ids."""
        return self._model.wrap(ids)

    async def encode(self, inputs: Sequence[Sequence[int]], *, first: bool = False) -> Matrix:
        """Vectors of token ids, in order.

        Args:
            inputs: at least one; each at most the model's limit long.
            first: go before everything that is not.

        Raises:
            ResourceExhausted: ENCODER_BUSY, when too many wait already.
        """
        self.facts  # noqa: B018  raises while the model is loading
        if self._waiting and self._waiting + len(inputs) > self._limit:
            raise ResourceExhausted(
                "ENCODER_BUSY", "The encoder's queue is full.", retry_after=_BUSY_SECONDS
            )
        loop = asyncio.get_running_loop()
        items = [_Item(ids, loop.create_future()) for ids in inputs]
        (self._queries if first else self._passages).extend(items)
        self._count(len(items))
        self._wake.set()
        try:
            rows = await asyncio.gather(*(item.future for item in items))
        finally:
            for item in items:
                item.future.cancel()
        return np.stack(rows)

    async def query(self, text: str) -> EncodedQuery:
        """A question's vector, from the cache when it was asked before."""
        cached = self._cache.get(text)
        if cached is not None:
            self._cache.move_to_end(text)
            return cached
        (tokens,) = await self.tokenize([text], query=True)
        vectors = await self.encode([tokens.ids], first=True)
        encoded = EncodedQuery(vectors[0].astype("<f4").tobytes(), tokens.unknown)
        if self._cache_size:
            while len(self._cache) >= self._cache_size:
                self._cache.popitem(last=False)
            self._cache[text] = encoded
        return encoded

    async def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            BATCH_SIZE.observe(len(batch))
            try:
                with BATCH_SECONDS.time():
                    rows = await self._run(
                        self._forward_thread, self._model.forward, [item.ids for item in batch]
                    )
            except Exception as error:  # the callers get it; the worker has others to serve
                for item in batch:
                    if not item.future.done():
                        item.future.set_exception(error)
                continue
            for item, row in zip(batch, rows, strict=True):
                if not item.future.done():
                    item.future.set_result(row)

    def _next_batch(self) -> list[_Item]:
        """What goes next: questions as they came, else passages of similar length."""
        batch: list[_Item] = []
        longest = 0
        while self._queries:
            longest = max(longest, len(self._queries[0].ids))
            if batch and longest * (len(batch) + 1) > self._batch_tokens:
                break
            batch.append(self._queries.popleft())
        if not batch:
            if not self._sorted:
                self._sort_window()
            batch = self._sorted.popleft() if self._sorted else []
        self._count(-len(batch))
        waiting = [item for item in batch if not item.future.done()]
        return waiting if waiting or not batch else self._next_batch()

    def _sort_window(self) -> None:
        """Cut the oldest waiting passages into batches of similar length."""
        size = min(_WINDOW, len(self._passages))
        window = sorted(
            (self._passages.popleft() for _ in range(size)), key=lambda item: len(item.ids)
        )
        batch: list[_Item] = []
        for item in window:  # ascending, so each item is the longest of its batch
            if batch and len(item.ids) * (len(batch) + 1) > self._batch_tokens:
                self._sorted.append(batch)
                batch = []
            batch.append(item)
        if batch:
            self._sorted.append(batch)

    def _count(self, change: int) -> None:
        self._waiting += change
        QUEUE_DEPTH.set(self._waiting)

    @staticmethod
    async def _run(thread: ThreadPoolExecutor, function: Any, *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, lambda: function(*args, **kwargs))
