"""A cross-encoder of this process: callers share forward passes."""

import asyncio
import math
import threading
from contextlib import asynccontextmanager

import pytest

from services.retrieve.cross_encoding import METRICS, CrossEncoder
from services.retrieve.ports import Pair, RerankerFacts
from services.runtime.errors import RagmeshError
from tests.until import until


class LengthModel:
    """Scores a pair by its length in words; runs only when `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, str]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.broken: set[str] = set()
        self.threads: set[str] = set()

    def load(self):
        return RerankerFacts("length", "1", 100, (), "tests")

    def pairs(self, query, texts):
        return [Pair((query, text), len(query.split()) + len(text.split())) for text in texts]

    def forward(self, batch):
        self.threads.add(threading.current_thread().name)
        self.batches.append([pair.data for pair in batch])
        self.running.set()
        self.gate.wait()
        for pair in batch:
            if pair.data[1] in self.broken:
                raise RuntimeError("out of memory")
        return [math.nan if "nan" in pair.data[1] else pair.tokens / 100 for pair in batch]


@asynccontextmanager
async def running(model, *, batch_tokens=40, queue=100):
    reranker = CrossEncoder(model, batch_tokens=batch_tokens, queue=queue)
    await reranker.start()
    model.batches.clear()
    try:
        yield reranker
    finally:
        model.gate.set()
        await reranker.aclose()


@asynccontextmanager
async def held(model):
    """The model's thread is busy with somebody's batch until the block ends."""
    model.gate.clear()
    model.running.clear()
    yield
    model.gate.set()


async def started(model):
    await asyncio.to_thread(model.running.wait)


@asynccontextmanager
async def refused(reason):
    with pytest.raises(RagmeshError) as caught:
        yield
    assert caught.value.reason == reason


async def test_scores_come_in_the_order_of_the_texts():
    model = LengthModel()
    async with running(model) as reranker:
        texts = ["w " * length for length in (9, 1, 30, 4, 2, 17)]
        scores = await reranker.rerank("q", texts)
    assert scores.values == (0.10, 0.02, 0.31, 0.05, 0.03, 0.18)
    assert scores.tokens == 69
    assert len(model.threads) == 1


async def test_batches_keep_to_the_budget_and_hold_similar_lengths():
    model = LengthModel()
    async with running(model, batch_tokens=40) as reranker:
        await reranker.rerank("q", ["w " * (n % 20 + 1) for n in range(60)])
    lengths = [[1 + len(text.split()) for _, text in batch] for batch in model.batches]
    assert all(max(batch) * len(batch) <= 40 for batch in lengths)
    assert [one for batch in lengths for one in batch] == sorted(n % 20 + 2 for n in range(60))


async def test_concurrent_callers_share_passes():
    model = LengthModel()
    async with running(model, batch_tokens=1000) as reranker:
        async with held(model):
            first = asyncio.create_task(reranker.rerank("first", ["a"]))
            await started(model)
            others = [asyncio.create_task(reranker.rerank(f"q{n}", ["a", "b"])) for n in range(20)]
            await until(lambda: waiting_pairs() == 40)
        await asyncio.gather(first, *others)
    assert [len(batch) for batch in model.batches] == [1, 40]


async def test_calls_that_fill_passes_go_one_after_the_other():
    model = LengthModel()
    async with running(model, batch_tokens=8) as reranker:
        async with held(model):
            first = asyncio.create_task(reranker.rerank("q", ["first"]))
            await started(model)
            calls = [asyncio.create_task(reranker.rerank("q", [name] * 10)) for name in "abc"]
            await until(lambda: waiting_pairs() == 30)
        await asyncio.gather(first, *calls)
    read = [text for batch in model.batches for _, text in batch]
    assert read == ["first", *"a" * 10, *"b" * 10, *"c" * 10]


async def test_what_nobody_waits_for_any_more_is_not_computed():
    model = LengthModel()
    async with running(model, batch_tokens=4) as reranker:
        async with held(model):
            first = asyncio.create_task(reranker.rerank("q", ["first"]))
            await started(model)
            left = asyncio.create_task(reranker.rerank("q", ["left"] * 5))
            await until(lambda: waiting_pairs() == 5)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
        await first
        await reranker.rerank("q", ["second"])
    assert [text for batch in model.batches for _, text in batch] == ["first", "second"]
    assert waiting_pairs() == 0


async def test_a_full_queue_refuses():
    model = LengthModel()
    async with running(model, queue=10, batch_tokens=4) as reranker:
        async with held(model):
            first = asyncio.create_task(reranker.rerank("q", ["a"]))
            await started(model)
            waiting = asyncio.create_task(reranker.rerank("q", ["b"] * 9))
            await until(lambda: waiting_pairs() == 9)
            async with refused("RERANKER_BUSY"):
                await reranker.rerank("q", ["c"] * 9)
        await asyncio.gather(first, waiting)


@pytest.mark.parametrize("bad", ["broken", "nan"])
async def test_a_failure_is_its_callers_only_and_says_nothing_of_itself(bad):
    model = LengthModel()
    model.broken.add("broken")
    async with running(model) as reranker:
        with pytest.raises(RagmeshError) as caught:
            await reranker.rerank("q", [bad])
        assert (caught.value.code, caught.value.reason) == ("INTERNAL", "RERANKER_FAILED")
        assert "memory" not in caught.value.message
        assert (await reranker.rerank("q", ["a"])).values == (0.02,)


async def test_before_the_start_it_says_so():
    reranker = CrossEncoder(LengthModel(), batch_tokens=40, queue=10)
    async with refused("RERANKER_LOADING"):
        await reranker.rerank("q", ["a"])
    await reranker.aclose()


def waiting_pairs() -> float:
    return METRICS.waiting._value.get()
