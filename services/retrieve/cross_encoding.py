"""One cross-encoder of this process for every call: requests share its forward passes."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import Gauge, Histogram

from services.retrieve.passes import Batcher, BatchMetrics
from services.retrieve.ports import Pair, PairModel, RerankerFacts, Scores
from services.runtime.errors import Internal, RagmeshError, ResourceExhausted, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

METRICS = BatchMetrics(
    Gauge("ragmesh_retrieve_reranker_queue_depth", "Pairs that wait for the reranker."),
    Histogram(
        "ragmesh_retrieve_reranker_batch_size",
        "Pairs of a forward pass.",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    ),
    Histogram("ragmesh_retrieve_reranker_batch_seconds", "Time of a forward pass."),
)
_BUSY_SECONDS = 2.0


class CrossEncoder:
    """A `Reranker` over a model of this process. Belongs to the loop that calls `start`."""

    def __init__(self, model: PairModel, *, batch_tokens: int, queue: int) -> None:
        """Args:
        model: what runs in the thread.
        batch_tokens: tokens of a forward pass, padding included.
        queue: pairs that may wait.
        """
        self._model = model
        self._forward_thread = ThreadPoolExecutor(1, thread_name_prefix="reranker")
        self._pair_thread = ThreadPoolExecutor(1, thread_name_prefix="pairs")
        self._batcher: Batcher[Pair, float] = Batcher(
            model.forward,
            lambda pair: pair.tokens,
            thread=self._forward_thread,
            batch_tokens=batch_tokens,
            queue=queue,
            busy=_busy,
            metrics=METRICS,
        )
        self._facts: RerankerFacts | None = None

    @property
    def facts(self) -> RerankerFacts:
        if self._facts is None:
            raise Unavailable("RERANKER_LOADING", "The reranker is being loaded.", retry_after=2.0)
        return self._facts

    async def start(self) -> None:
        """Load the model and warm it up."""
        facts = await self._run(self._forward_thread, self._model.load)
        self._batcher.start()
        self._facts = facts
        await self.rerank("warm up", ["A text."])

    async def aclose(self) -> None:
        await self._batcher.aclose()
        self._forward_thread.shutdown(wait=False, cancel_futures=True)
        self._pair_thread.shutdown(wait=False, cancel_futures=True)

    async def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        self.facts  # noqa: B018  raises while the model is loading
        try:
            pairs = await self._run(self._pair_thread, lambda: self._model.pairs(query, texts))
            values = await self._batcher.run(pairs)
        except RagmeshError:
            raise
        except Exception as error:  # a vendor's: out of memory on a GPU, for one
            log.exception("the reranker failed")
            raise Internal("RERANKER_FAILED", "The reranker failed.") from error
        if not all(map(math.isfinite, values)):
            log.error("the reranker's scores are no numbers")
            raise Internal("RERANKER_FAILED", "The reranker failed.")
        return Scores(tuple(values), sum(pair.tokens for pair in pairs))

    @staticmethod
    async def _run(thread: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, function)


def _busy() -> RagmeshError:
    return ResourceExhausted(
        "RERANKER_BUSY", "The reranker's queue is full.", retry_after=_BUSY_SECONDS
    )
