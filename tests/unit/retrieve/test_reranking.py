"""Reranking: a new order within a budget of time, or the old one with the reason."""

import asyncio

import pytest

from services.retrieve.reranking import Reading, Reranking
from services.retrieve.searches import RerankStatus
from services.runtime.deadlines import Budget
from services.runtime.errors import Unavailable
from tests.unit.retrieve.fakes import WordReranker

FOX = [("fox dens", "en")]


class Timer:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.over.wait()
        self.now += seconds

    def clock(self) -> float:
        return self.now


def readings(*texts, language="en", query=0):
    return [Reading(query, text, language) for text in texts]


async def reranking(reranker=None, *, timer=None, budget=2.0, depth=50):
    reranker = reranker or WordReranker()
    await reranker.start()
    timer = timer or Timer()
    return Reranking(reranker, budget=budget, depth=depth, sleep=timer.sleep, clock=timer.clock)


async def test_the_best_comes_first_and_equals_keep_their_order():
    rerank = await reranking()
    order = await rerank.order(
        FOX, readings("the sea", "a fox", "fox dens", "blue fox", "sky"), None
    )
    assert list(order.places) == [2, 1, 3, 0, 4]
    assert list(order.scores) == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert order.outcome.status is RerankStatus.APPLIED
    assert (order.outcome.model, order.outcome.reason) == ("word-overlap", "")
    assert order.outcome.candidates == 5


async def test_nothing_to_read_asks_nobody():
    reranker = WordReranker()
    order = await (await reranking(reranker)).order(FOX, [], None)
    assert (order.outcome.status, order.outcome.candidates) == (RerankStatus.APPLIED, 0)
    assert reranker.calls == []


async def test_out_of_time_the_order_stays_and_the_work_ends():
    reranker, timer = WordReranker(), Timer()
    reranker.gate = asyncio.Event()
    rerank = await reranking(reranker, timer=timer)
    waiting = asyncio.create_task(rerank.order(FOX, readings("sea", "fox dens"), None))
    await reranker.reading.wait()
    assert not waiting.done()
    timer.over.set()
    order = await waiting
    assert list(order.places) == [0, 1]
    assert list(order.scores) == [None, None]
    assert (order.outcome.status, order.outcome.reason) == (
        RerankStatus.TIMED_OUT, "RERANK_TIMED_OUT",
    )  # fmt: skip
    assert (order.outcome.candidates, order.outcome.seconds) == (0, 2.0)
    assert reranker.cancelled == 1
    assert timer.asked == [2.0]


@pytest.mark.parametrize(("left", "budget"), [(30.0, 2.0), (1.1, 1.0)])
async def test_it_waits_no_longer_than_its_caller(left, budget):
    timer = Timer()
    rerank = await reranking(timer=timer)
    await rerank.order(FOX, readings("fox"), Budget(left, clock=timer.clock))
    assert timer.asked == [pytest.approx(budget)]


async def test_without_time_it_is_not_asked():
    reranker, timer = WordReranker(), Timer()
    rerank = await reranking(reranker, timer=timer)
    order = await rerank.order(FOX, readings("sea", "fox"), Budget(0.05, clock=timer.clock))
    assert order.outcome.status is RerankStatus.TIMED_OUT
    assert reranker.calls == []


async def test_a_failure_is_named_and_the_order_stays():
    reranker = WordReranker()
    reranker.failure = Unavailable("RERANKER_UNAVAILABLE", "It is away.")
    order = await (await reranking(reranker)).order(FOX, readings("sea", "fox"), None)
    assert list(order.places) == [0, 1]
    assert (order.outcome.status, order.outcome.reason) == (
        RerankStatus.FAILED, "RERANKER_UNAVAILABLE",
    )  # fmt: skip
    assert order.outcome.model == "word-overlap"


async def test_one_that_is_loading_fails_no_search():
    reranker = WordReranker()
    rerank = await reranking(reranker)
    await reranker.aclose()
    order = await rerank.order(FOX, readings("sea"), None)
    assert (order.outcome.status, order.outcome.reason) == (
        RerankStatus.FAILED, "RERANKER_LOADING",
    )  # fmt: skip


async def test_a_fault_of_ours_is_not_hidden():
    reranker = WordReranker()
    reranker.failure = TypeError("ours")
    with pytest.raises(TypeError):
        await (await reranking(reranker)).order(FOX, readings("fox"), None)


async def test_a_query_in_another_language_goes_without():
    reranker = WordReranker()
    rerank = await reranking(reranker)
    for queries in ([("狐の巣", "ja")], [*FOX, ("狐の巣", "ja")]):
        order = await rerank.order(queries, readings("sea", "fox dens"), None)
        assert list(order.places) == [0, 1]
        assert (order.outcome.status, order.outcome.reason) == (
            RerankStatus.SKIPPED, "LANGUAGE_NOT_COVERED",
        )  # fmt: skip
    assert reranker.calls == []


async def test_passages_in_another_language_keep_their_places():
    reranker = WordReranker()
    passages = [
        *readings("the sea"),
        *readings("狐は巣穴に住む。", language="ja"),
        *readings("fox dens"),
        *readings("a fox", language="und"),
    ]
    order = await (await reranking(reranker)).order(FOX, passages, None)
    assert list(order.places) == [2, 1, 3, 0]
    assert list(order.scores) == [0.0, None, 1.0, 0.5]
    assert order.outcome.candidates == 3


async def test_each_passage_is_read_with_its_own_query():
    reranker = WordReranker()
    queries = [("fox dens", "en"), ("blue sea", "en")]
    passages = [*readings("a fox"), *readings("the blue sea", "fox dens", query=1)]
    order = await (await reranking(reranker)).order(queries, passages, None)
    assert sorted(reranker.calls) == [
        ("blue sea", ["the blue sea", "fox dens"]), ("fox dens", ["a fox"]),
    ]  # fmt: skip
    assert list(order.places) == [1, 0, 2]


async def test_one_failing_query_ends_the_others():
    class HalfBroken(WordReranker):
        async def rerank(self, query, texts):
            if query == "blue sea":
                raise Unavailable("RERANKER_UNAVAILABLE", "It is away.")
            return await super().rerank(query, texts)

    reranker = HalfBroken()
    reranker.gate = asyncio.Event()
    queries = [("fox dens", "en"), ("blue sea", "en")]
    passages = [*readings("a fox"), *readings("the blue sea", query=1)]
    order = await (await reranking(reranker)).order(queries, passages, None)
    assert order.outcome.status is RerankStatus.FAILED
    assert reranker.cancelled == 1


async def test_a_caller_who_leaves_ends_the_work():
    reranker = WordReranker()
    reranker.gate = asyncio.Event()
    waiting = asyncio.create_task((await reranking(reranker)).order(FOX, readings("fox"), None))
    await reranker.reading.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert reranker.cancelled == 1


async def test_depth():
    rerank = await reranking(depth=50)
    assert rerank.depth(0, 10) == 50
    assert rerank.depth(0, 100) == 100
    assert rerank.depth(0, 1000) == 200
    assert rerank.depth(20, 100) == 20
