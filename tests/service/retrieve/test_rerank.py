"""Reranking over gRPC: searches that keep their promise whatever the reranker does, and Rerank."""

import asyncio

import grpc
import pytest

from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from services.retrieve.reranking import Reranking
from services.runtime.errors import Unavailable
from tests.service.retrieve.test_servicer import index, refused, serving
from tests.unit.retrieve.fakes import WordReranker

QUERY = "where do foxes sleep"
DOCUMENTS = [
    ("a", ["foxes foxes foxes", "foxes sleep where do they"]),
    ("b", ["where foxes go", "do sleep foxes tonight"]),
    ("c", ["foxes run"]),
    ("d", ["where do foxes sleep where do foxes sleep in winter"]),
    ("ja", ["狐は foxes 巣穴に住んでいる動物です。"]),
]
BEST = ["foxes sleep where do they", "where do foxes sleep where do foxes sleep in winter"]


@pytest.fixture
def reranker():
    return WordReranker()


@pytest.fixture
async def stub(tmp_path, reranker):
    never = asyncio.Event()
    reranking = Reranking(reranker, budget=60, depth=20, sleep=lambda seconds: never.wait())
    async with serving(tmp_path, reranking=reranking) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, *DOCUMENTS)
        yield stub


def search(**more):
    return pb.SearchRequest(**{"collection": "notes", "query": QUERY, **more})


def texts(answer):
    return [hit.passage.text for hit in answer.hits]


async def test_hits_follow_the_reranker_and_carry_its_score(stub, reranker):
    plain = await stub.Search(search())
    answer = await stub.Search(search(rerank=True))
    assert sorted(texts(answer)) == sorted(texts(plain))
    assert sorted(texts(answer)[:2]) == sorted(BEST)
    scores = [hit.rerank_score for hit in answer.hits if hit.HasField("rerank_score")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1.0
    fused = {hit.passage.text: hit.passage.score for hit in plain.hits}
    assert {hit.passage.text: hit.passage.score for hit in answer.hits} == fused
    assert answer.rerank.status == pb.RERANK_STATUS_APPLIED
    assert (answer.rerank.model, answer.rerank.reason) == ("word-overlap", "")
    assert answer.rerank.candidates == len(scores) == 6
    assert answer.rerank.seconds >= 0
    ((query, read),) = reranker.calls
    assert query == QUERY
    assert "About a\nfoxes foxes foxes" in read


async def test_without_the_wish_nothing_is_said_and_nobody_asked(stub, reranker):
    answer = await stub.Search(search())
    assert not answer.HasField("rerank")
    assert not any(hit.HasField("rerank_score") for hit in answer.hits)
    assert reranker.calls == []


async def test_more_candidates_are_read_than_hits_are_wanted(stub, reranker):
    answer = await stub.Search(search(rerank=True, top_k=1))
    assert texts(answer)[0] in BEST
    assert len(reranker.calls[0][1]) == 6


async def test_the_depth_bounds_what_is_read(stub, reranker):
    plain = await stub.Search(search())
    answer = await stub.Search(search(rerank=True, rerank_depth=2))
    assert len(reranker.calls[0][1]) == 2
    assert answer.rerank.candidates == 2
    assert sorted(texts(answer)[:2]) == sorted(texts(plain)[:2])
    assert texts(answer)[2:] == texts(plain)[2:]
    assert [hit.HasField("rerank_score") for hit in answer.hits][:3] == [True, True, False]


async def test_passages_in_another_language_keep_their_places(stub, reranker):
    plain = texts(await stub.Search(search()))
    answer = texts(await stub.Search(search(rerank=True)))
    assert answer.index(DOCUMENTS[-1][1][0]) == plain.index(DOCUMENTS[-1][1][0])
    assert not any("狐" in text for text in reranker.calls[0][1])


async def test_a_query_in_another_language_is_answered_without(stub, reranker):
    query = "狐はどこに住んでいますか。"
    plain = await stub.Search(search(query=query))
    answer = await stub.Search(search(query=query, rerank=True))
    assert texts(answer) == texts(plain)
    assert answer.rerank.status == pb.RERANK_STATUS_SKIPPED
    assert answer.rerank.reason == "LANGUAGE_NOT_COVERED"
    assert reranker.calls == []


async def test_a_failing_reranker_fails_no_search(stub, reranker):
    plain = await stub.Search(search())
    reranker.failure = Unavailable("RERANKER_UNAVAILABLE", "It is away.")
    answer = await stub.Search(search(rerank=True, top_k=10))
    assert texts(answer) == texts(plain)
    assert answer.rerank.status == pb.RERANK_STATUS_FAILED
    assert (answer.rerank.reason, answer.rerank.candidates) == ("RERANKER_UNAVAILABLE", 0)


async def test_out_of_time_the_fused_order_comes(tmp_path):
    reranker, over = WordReranker(), asyncio.Event()
    reranker.gate = asyncio.Event()
    reranking = Reranking(reranker, budget=5, depth=20, sleep=lambda seconds: over.wait())
    async with serving(tmp_path, reranking=reranking) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, *DOCUMENTS)
        plain = await stub.Search(search())
        waiting = asyncio.ensure_future(stub.Search(search(rerank=True)))
        await reranker.reading.wait()
        over.set()
        answer = await waiting
        assert texts(answer) == texts(plain)
        assert answer.rerank.status == pb.RERANK_STATUS_TIMED_OUT
        assert answer.rerank.reason == "RERANK_TIMED_OUT"
        assert reranker.cancelled == 1


async def test_a_caller_who_leaves_ends_the_reading(stub, reranker):
    reranker.gate = asyncio.Event()
    call = stub.Search(search(rerank=True))
    task = asyncio.ensure_future(call)
    await reranker.reading.wait()
    call.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        while not reranker.cancelled:  # noqa: ASYNC110 - the server has no event to wait for
            await asyncio.sleep(0.01)


async def test_by_document(stub, reranker):
    answer = await stub.Search(
        search(rerank=True, group_by=pb.GROUP_BY_DOCUMENT, top_k=2, group_size=2)
    )
    documents = [hit.passage.document_id for hit in answer.hits]
    assert sorted(documents) == ["a", "a", "d"]
    assert texts(answer)[0] in BEST
    assert answer.rerank.status == pb.RERANK_STATUS_APPLIED


async def test_a_lowest_score_is_the_arms_own(stub, reranker):
    plain = await stub.Search(search())
    lowest = plain.hits[2].passage.score
    kept = [hit.passage.text for hit in plain.hits if hit.passage.score >= lowest]
    answer = await stub.Search(search(rerank=True, min_score=lowest))
    assert sorted(texts(answer)) == sorted(kept)
    assert len(reranker.calls[0][1]) == sum("狐" not in text for text in kept)
    nothing = await stub.Search(search(rerank=True, min_score=1e9))
    assert not nothing.hits
    assert (nothing.rerank.status, nothing.rerank.candidates) == (pb.RERANK_STATUS_APPLIED, 0)


async def test_relevant_hits_only(stub):
    plain = await stub.Search(search(relevant_only=True))
    answer = await stub.Search(search(relevant_only=True, rerank=True))
    assert sorted(texts(answer)) == sorted(texts(plain))
    assert sorted(texts(answer)[:2]) == sorted(BEST)


async def test_several_queries_each_candidate_with_its_own(stub, reranker):
    request = search(query="", queries=["where do foxes sleep", "foxes run"], rerank=True)
    answer = await stub.Search(request)
    assert {query for query, _ in reranker.calls} == {"where do foxes sleep", "foxes run"}
    assert sum(len(read) for _, read in reranker.calls) == answer.rerank.candidates == 6
    assert [hit.rerank_score for hit in answer.hits][:3] == [1.0, 1.0, 1.0]


async def test_diversity_comes_after(stub, reranker):
    relevance = texts(await stub.Search(search(rerank=True)))
    answer = await stub.Search(search(rerank=True, diversity=1.0))
    assert texts(answer)[0] == relevance[0]
    assert texts(answer) != relevance
    assert sorted(texts(answer)) == sorted(relevance)


async def test_highlights_neighbours_and_reasons_stay_with_their_hits(stub):
    answer = await stub.Search(search(rerank=True, highlights=True, neighbors=1, explain=True))
    for hit in answer.hits:
        assert hit.highlights.terms or "foxes" not in hit.passage.text
        assert "foxes" in hit.explanation.matched_terms or "foxes" not in hit.passage.text
    first = next(hit for hit in answer.hits if hit.passage.text == BEST[0])
    assert [one.text for one in first.before] == ["foxes foxes foxes"]


@pytest.mark.parametrize(
    "more", [{"rerank_depth": 201, "rerank": True}, {"rerank_depth": -1}, {"rerank_depth": 5}]
)
async def test_depths_that_are_refused(stub, more):
    async with refused("INVALID_ARGUMENT", "RERANK_DEPTH_OUT_OF_RANGE", "rerank_depth"):
        await stub.Search(search(**more))


async def test_documents_by_relevance(stub, reranker):
    request = pb.RerankRequest(query=QUERY, documents=["sea", "foxes", "Where do foxes sleep?"])
    answer = await stub.Rerank(request)
    assert [(one.index, one.relevance_score) for one in answer.results] == [
        (2, 1.0), (1, 0.25), (0, 0.0),
    ]  # fmt: skip
    assert (answer.model, answer.tokens) == ("word-overlap", 6)
    request.top_n = 1
    for request.model in ("word-overlap", "word-overlap@1", "default-reranker"):
        assert [one.index for one in (await stub.Rerank(request)).results] == [2]


@pytest.mark.parametrize(
    ("more", "code", "reason", "field"),
    [
        ({"query": " "}, "INVALID_ARGUMENT", "QUERY_EMPTY", "query"),
        ({"query": "x" * 9000}, "INVALID_ARGUMENT", "QUERY_TOO_LONG", "query"),
        ({"documents": []}, "INVALID_ARGUMENT", "INPUT_EMPTY", "documents"),
        ({"documents": ["a", " "]}, "INVALID_ARGUMENT", "INPUT_EMPTY", "documents[1]"),
        ({"documents": ["a"] * 1001}, "INVALID_ARGUMENT", "TOO_MANY_INPUTS", "documents"),
        ({"documents": ["a", "b" * 100_001]}, "INVALID_ARGUMENT", "INPUT_TOO_LONG",
         "documents[1]"),
        ({"top_n": -1}, "INVALID_ARGUMENT", "TOP_N_OUT_OF_RANGE", "top_n"),
        ({"model": "gpt"}, "NOT_FOUND", "MODEL_NOT_FOUND", "model"),
    ],
)  # fmt: skip
async def test_documents_that_are_refused(stub, more, code, reason, field):
    async with refused(code, reason, field):
        await stub.Rerank(pb.RerankRequest(**{"query": "x", "documents": ["y"], **more}))


async def test_a_failure_is_told(stub, reranker):
    reranker.failure = Unavailable("RERANKER_UNAVAILABLE", "It is away.", retry_after=3)
    async with refused("UNAVAILABLE", "RERANKER_UNAVAILABLE"):
        await stub.Rerank(pb.RerankRequest(query="x", documents=["y"]))


async def test_a_deadline_ends_it(stub, reranker):
    reranker.gate = asyncio.Event()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Rerank(pb.RerankRequest(query="x", documents=["y"]), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_it_is_listed(stub):
    _, model = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (model.id, model.kind) == ("word-overlap", pb.MODEL_KIND_RERANKER)
    assert list(model.aliases) == ["default-reranker", "word-overlap@1"]
    assert (model.max_tokens, list(model.languages), model.dimensions) == (512, ["en"], 0)
