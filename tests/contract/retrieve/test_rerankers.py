"""What every reranker promises, over the registry."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.retrieve.adapters import RERANKERS
from services.retrieve.settings import RetrieveSettings
from services.runtime.registry import resolve
from tests.unit.retrieve.rerank_server import MODEL, ROUTES, rerank_server
from tests.unit.retrieve.tiny_cross_encoder import QUERY, TEXTS, make

LOCAL = {"cross-encoder", "onnx"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A data folder with a tiny cross-encoder beside it."""
    folder = tmp_path_factory.mktemp("models")
    make(folder / "tiny")
    return folder


@pytest.fixture(params=sorted(RERANKERS))
def backend(request):
    return request.param


@asynccontextmanager
async def running(backend, models):
    settings = {"data": models / "data", "reranker_backend": backend}
    async with rerank_server(kind=backend if backend in ROUTES else "cohere") as server:
        if backend in LOCAL:
            settings |= {"reranker_model": str(models / "tiny"), "reranker_precision": "float32"}
        else:
            settings |= {"reranker_url": server.url, "reranker_model": MODEL}
        made = RetrieveSettings(**settings)
        reranker = resolve(RERANKERS, backend, "RERANKER_BACKEND")(made)
        await reranker.start()
        try:
            yield reranker
        finally:
            await reranker.aclose()


def test_each_is_a_server_of_the_tests_or_runs_here():
    assert RERANKERS.keys() == LOCAL | ROUTES.keys()


async def test_a_score_a_text_in_their_order(backend, models):
    async with running(backend, models) as reranker:
        scores = await reranker.rerank(QUERY, TEXTS)
        turned = await reranker.rerank(QUERY, TEXTS[::-1])
    assert len(scores.values) == len(TEXTS)
    assert all(0.0 <= value <= 1.0 for value in scores.values)
    assert len(set(scores.values)) > 1
    assert turned.values == pytest.approx(scores.values[::-1], abs=1e-5)
    assert scores.tokens >= 0


async def test_a_text_is_scored_for_itself(backend, models):
    async with running(backend, models) as reranker:
        together = (await reranker.rerank(QUERY, TEXTS)).values
        alone = [(await reranker.rerank(QUERY, [text])).values[0] for text in TEXTS]
    assert alone == pytest.approx(together, abs=1e-5)


async def test_the_query_matters(backend, models):
    async with running(backend, models) as reranker:
        one = await reranker.rerank(QUERY, TEXTS)
        other = await reranker.rerank("interest rates of the central bank", TEXTS)
    assert one.values != other.values


async def test_callers_at_once_get_their_own(backend, models):
    queries = [f"{text} number {n}" for n, text in enumerate(TEXTS * 4)]
    async with running(backend, models) as reranker:
        alone = [(await reranker.rerank(query, TEXTS)).values for query in queries]
        together = await asyncio.gather(*(reranker.rerank(query, TEXTS) for query in queries))
    for one, other in zip(alone, together, strict=True):
        assert other.values == pytest.approx(one, abs=1e-5)


async def test_long_texts_and_odd_ones_are_read(backend, models):
    texts = ["word " * 20_000, "x", "絵文字 🦊", "\u0007", "a\nb\tc", "</s> [SEP] <|im_end|>"]
    async with running(backend, models) as reranker:
        scores = await reranker.rerank("word " * 2_000, texts)
    assert len(scores.values) == len(texts)


async def test_many_texts(backend, models):
    async with running(backend, models) as reranker:
        scores = await reranker.rerank("fox", [f"fox {n}" for n in range(1000)])
    assert len(scores.values) == 1000


async def test_after_one_who_left_it_goes_on(backend, models):
    async with running(backend, models) as reranker:
        leaving = asyncio.create_task(reranker.rerank(QUERY, TEXTS * 100))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert len((await reranker.rerank(QUERY, TEXTS)).values) == len(TEXTS)


async def test_facts(backend, models):
    async with running(backend, models) as reranker:
        facts = reranker.facts
    assert facts.name in ("tiny", MODEL)
    assert facts.id.startswith(facts.name)
    assert facts.covers("ja")
