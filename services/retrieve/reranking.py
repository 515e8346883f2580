"""Reranking: the best candidates are read again, together with the query, within a budget of time.

It never fails a search. When the reranker fails, is not done in time or does not read the query's
language, the candidates keep their order and the outcome says why.

A candidate in a language that the reranker does not read keeps its place, and so do those past the
depth: the others are ordered among their own places.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Histogram

from services.retrieve.ports import Reranker, Scores
from services.retrieve.searches import MAX_RERANK_DEPTH, RerankOutcome, RerankStatus
from services.runtime.deadlines import Budget
from services.runtime.errors import FailedPrecondition, RagmeshError

log = logging.getLogger(__name__)

SECONDS = Histogram(
    "ragmesh_retrieve_rerank_seconds",
    "Time that searches waited for the reranker, by what came of it.",
    ["status"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
DEFAULT_RERANKER_ALIAS = "default-reranker"
_RESERVE = 0.1
"""Seconds of a call's deadline that are left for what comes after."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A candidate to read."""

    query: int
    """Which of the queries it is read with."""
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Order:
    """What became of candidates."""

    places: Sequence[int]
    """Their positions, in the new order."""
    scores: Sequence[float | None]
    """By position before; None for one that was not read."""
    outcome: RerankOutcome


class Reranking:
    """The reranker as searches use it."""

    def __init__(
        self,
        reranker: Reranker,
        *,
        budget: float,
        depth: int,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        reranker: what reads.
        budget: seconds that a search waits for it.
        depth: candidates that are read where a search does not say.
        sleep: passes the budget.
        clock: seconds.
        """
        self.reranker = reranker
        self._budget = budget
        self._depth = depth
        self._sleep = sleep
        self._clock = clock

    def depth(self, asked: int, top_k: int) -> int:
        """How many candidates are read.

        Args:
            asked: by the search; 0 for the default.
            top_k: hits that are wanted.
        """
        return asked or min(max(self._depth, top_k), MAX_RERANK_DEPTH)

    async def order(
        self,
        queries: Sequence[tuple[str, str]],
        readings: Sequence[Reading],
        deadline: Budget | None,
    ) -> Order:
        """A new order of candidates.

        Args:
            queries: text and language of each.
            readings: of the candidates, the best first; those past the depth left out.
            deadline: what is left of the call's time.
        """
        started = self._clock()
        status, reason, read = RerankStatus.APPLIED, "", 0
        scores: list[float | None] = [None] * len(readings)
        facts = None
        try:
            facts = self.reranker.facts
            if not all(facts.covers(language) for _, language in queries):
                status, reason = RerankStatus.SKIPPED, "LANGUAGE_NOT_COVERED"
            else:
                wanted = [place for place, one in enumerate(readings) if facts.covers(one.language)]
                found = await self._within(
                    self._budget_of(deadline), lambda: self._scores(queries, readings, wanted)
                )
                if found is None:
                    status, reason = RerankStatus.TIMED_OUT, "RERANK_TIMED_OUT"
                else:
                    read = len(wanted)
                    for place, score in zip(wanted, found, strict=True):
                        scores[place] = score
        except RagmeshError as error:
            log.warning("search without its reranker", extra={"reason": error.reason})
            status, reason = RerankStatus.FAILED, error.reason
        seconds = self._clock() - started
        SECONDS.labels(status.value).observe(seconds)
        outcome = RerankOutcome(status, facts.name if facts else "", reason, read, seconds)
        return Order(_order(scores), scores, outcome)

    def _budget_of(self, deadline: Budget | None) -> float:
        if deadline is None:
            return self._budget
        return min(self._budget, max(0.0, deadline.remaining() - _RESERVE))

    async def _scores(
        self, queries: Sequence[tuple[str, str]], readings: Sequence[Reading], wanted: Sequence[int]
    ) -> list[float]:
        """Scores of the wanted readings; each is read with one query only."""
        by_query: dict[int, list[int]] = defaultdict(list)
        for place in wanted:
            by_query[readings[place].query].append(place)
        found: dict[int, float] = {}

        async def read(query: int, places: Sequence[int]) -> None:
            texts = [readings[place].text for place in places]
            made: Scores = await self.reranker.rerank(queries[query][0], texts)
            found.update(zip(places, made.values, strict=True))

        tasks = [asyncio.create_task(read(query, places)) for query, places in by_query.items()]
        await _all(tasks)
        return [found[place] for place in wanted]

    async def _within(
        self, seconds: float, work: Callable[[], Coroutine[Any, Any, list[float]]]
    ) -> list[float] | None:
        """What the work makes, or None when time runs out first; it is cancelled then."""
        if seconds <= 0:
            return None
        task = asyncio.create_task(work())
        timer = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            timer.cancel()
            await asyncio.gather(task, timer, return_exceptions=True)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for tasks; the first that fails, or a cancellation, ends the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _order(scores: Sequence[float | None]) -> list[int]:
    """Positions in which those with a score are in its order among their own places."""
    ranked = sorted((-score, place) for place, score in enumerate(scores) if score is not None)
    best = iter(place for _, place in ranked)
    return [place if score is None else next(best) for place, score in enumerate(scores)]


def reranker_not_configured(field: str) -> RagmeshError:
    """The answer while no reranker is there."""
    return FailedPrecondition(
        "RERANKER_NOT_CONFIGURED",
        "No reranker is configured; ask without it, or set RAGMESH_RERANKER_BACKEND.",
        field=field,
    )
