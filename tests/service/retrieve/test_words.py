"""Phrases and fields over gRPC, and a start or a change of SPARSE_BACKEND."""

import asyncio
import time

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from services.retrieve.__main__ import _check_local
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition
from tests.service.retrieve.test_search_features import (
    DOCUMENTS,
    SPARSE,
    places,
    put,
    search,
    serving,
)

QUERIES = [
    ('"foxes hunt"', {"fox-0", "copy-0"}),
    ('"hunt foxes"', set()),
    ('"in the river" bears', {"bear-0", "fox-2"}),  # function words ask nothing
    ("title:bear river", {"bear-0", "bear-1"}),
    ('title:fox "frozen river"', {"fox-2"}),
    ("body:fox title:copy", {"copy-0"}),
    ('"東京都の人口"', {"tokyo-0"}),
    ("river", {"fox-2", "bear-0"}),
]


async def ask(stub, query):
    return set(places(await search(stub, query, mode=SPARSE, top_k=10)))


async def test_phrases_and_fields_bind_the_sparse_arm(tmp_path):
    async with serving("faiss+whoosh", tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        for name, chunks in DOCUMENTS:
            await put(stub, (name, chunks), title=name)
        for query, found in QUERIES:
            assert await ask(stub, query) == found, query
        answer = await search(stub, '"foxes hunt" mice', top_k=1, highlights=True, explain=True)
        (hit,) = answer.hits
        assert hit.sparse_rank == 1
        assert len(hit.highlights.terms) == 3
        assert {"foxes", "hunt", "mice"} <= set(hit.explanation.matched_terms)


_PIECES = st.sampled_from(
    ['"', "title:", "body:", "(", ")", "*", "~", "[a TO b]", " ", "AND", "fox", "東京", "の", "^2"]
)


async def test_every_query_is_answered_or_refused_by_name(tmp_path):
    async with serving("memory+whoosh", tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await put(stub, *DOCUMENTS)
        loop = asyncio.get_running_loop()
        refusals: set[grpc.StatusCode] = set()

        async def check(query):
            try:
                await search(stub, query, mode=SPARSE)
            except grpc.aio.AioRpcError as error:
                refusals.add(error.code())

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=15).map("".join)))
        def all_of_them(query):
            query = query.encode(errors="ignore").decode()
            asyncio.run_coroutine_threadsafe(check(query), loop).result(20)

        await asyncio.to_thread(all_of_them)
        assert refusals <= {grpc.StatusCode.INVALID_ARGUMENT}


async def test_a_collection_gets_its_words_in_the_background(tmp_path):
    async with serving("faiss", tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await put(stub, *DOCUMENTS)
        assert await ask(stub, '"hunt foxes"') == {"fox-0", "copy-0", "fox-1", "fox-2"}
    async with serving("faiss+whoosh", tmp_path) as stub:
        end = time.monotonic() + 20
        while await ask(stub, '"hunt foxes"'):
            assert time.monotonic() < end, "the words never came"
            await asyncio.sleep(0.02)
        assert await ask(stub, '"foxes hunt"') == {"fox-0", "copy-0"}


@pytest.mark.parametrize("url", ["grpc://q:6334", "https://q", "qdrant+local://", "redis://r"])
def test_a_store_that_is_shared_refuses_an_index_of_one_process(url):
    with pytest.raises(FailedPrecondition) as caught:
        _check_local(RetrieveSettings(vector_url=url, sparse_backend="whoosh"))
    assert caught.value.reason == "SPARSE_BACKEND_NOT_LOCAL"
    assert "SPARSE_BACKEND=engine" in caught.value.message


@pytest.mark.parametrize("url", ["edge://", "faiss://local", "memory://"])
def test_a_store_of_one_process_takes_one(url):
    _check_local(RetrieveSettings(vector_url=url, sparse_backend="whoosh"))
