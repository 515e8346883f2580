"""What a search can be asked beside its query, over gRPC and over every store."""

from contextlib import asynccontextmanager

import pytest

from ragmesh.retrieve.v1 import filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.analysis import Analysis
from services.retrieve.core import CollectionOptions, Retrieval
from services.retrieve.encoding import Encoder
from services.retrieve.servicer import RetrieveServicer
from services.runtime.context import ATTRIBUTES_KEY, pack_attributes
from services.runtime.testing import serve_for_test
from tests.contract.retrieve.stores import AT_SERVERS, PLACES, make_store
from tests.service.retrieve.test_servicer import frames, refused
from tests.unit.retrieve.fakes import WordModel

SPARSE, DENSE, HYBRID = pb.SEARCH_MODE_SPARSE, pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_HYBRID

DOCUMENTS = [
    ("fox", ["Red foxes hunt mice at night.", "Foxes live in dens with cubs.",
             "The fox crosses the frozen river."]),
    ("copy", ["Red foxes hunt mice at night."]),
    ("bear", ["Brown bears catch salmon in the river.", "Bears sleep all winter long."]),
    ("tokyo", ["東京都の人口は約一千四百万人です。面積は広くありません。",
               "ﾄｳｷｮｳ タワーは港区にあります。"]),
]  # fmt: skip


@asynccontextmanager
async def serving(store, folder):
    encoder = Encoder(WordModel(), batch_tokens=512, queue=1000, query_cache=10)
    limits = CollectionOptions(chunk_tokens=40, chunk_overlap=5, max_collections=3)
    engine = make_store(store, folder)
    reads_words = store.endswith("+whoosh")
    retrieval = Retrieval(
        engine, encoder, Analysis(TermsAnalyzer()), limits, reads_words=reads_words
    )
    await retrieval.start()
    try:
        servicer = RetrieveServicer(retrieval, {"vector_backend": engine.backend})
        registration = (pb_grpc.add_RetrieveServiceServicer_to_server, servicer)
        async with serve_for_test([registration]) as channel:
            yield pb_grpc.RetrieveServiceStub(channel)
    finally:
        await retrieval.aclose()


@pytest.fixture(params=[one for one in PLACES if one not in AT_SERVERS])
async def stub(request, tmp_path):
    async with serving(request.param, tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await put(stub, *DOCUMENTS)
        yield stub


async def put(stub, *documents, by=("*",), **facts):
    metadata = [(ATTRIBUTES_KEY, pack_attributes(by))]
    async for _ in stub.IndexDocuments(frames(*documents, **facts), metadata=metadata):
        pass


async def search(stub, query="", by=(), **wishes):
    metadata = [(ATTRIBUTES_KEY, pack_attributes(by))] if by else []
    return await stub.Search(
        pb.SearchRequest(collection="notes", query=query, **wishes), metadata=metadata
    )


def texts(answer):
    return [hit.passage.text for hit in answer.hits]


def places(answer):
    """Hits as document and chunk: ``fox-0``."""
    return [
        f"{hit.passage.document_id}-{hit.passage.chunk_id.rpartition('-')[2]}"
        for hit in answer.hits
    ]


async def test_each_arm_tells_rank_and_score(stub):
    answer = await search(stub, "frozen river", top_k=1)
    (hit,) = answer.hits
    assert hit.passage.text == "The fox crosses the frozen river."
    assert (hit.dense_rank, hit.sparse_rank) == (1, 1)
    assert 0 < hit.dense_score <= 1 < hit.sparse_score


async def test_filters_by_source_page_and_number(stub):
    for condition, found in [
        (filter_pb2.Condition(field="source"), {"bear-0"}),
        (filter_pb2.Condition(field="page"), {"fox-2"}),
    ]:
        condition.equals.string_value = "bear.md"
        if condition.field == "page":
            condition.range.CopyFrom(filter_pb2.NumberRange(gte=3))
        chosen = filter_pb2.Filter(must=[condition])
        assert set(places(await search(stub, "river", mode=SPARSE, filter=chosen))) == found


async def test_diversity_puts_copies_last(stub):
    """fox-0 and copy-0 say the same: with diversity something else comes between them."""
    for mode in (SPARSE, DENSE, HYBRID):
        plain = places(await search(stub, "red foxes hunt mice", mode=mode, top_k=4))
        assert set(plain[:2]) == {"fox-0", "copy-0"}
        diverse = await search(stub, "red foxes hunt mice", mode=mode, top_k=4, diversity=0.8)
        found = places(diverse)
        assert found[0] == plain[0]
        assert found[1] not in {"fox-0", "copy-0"}
        scores = [hit.passage.score for hit in diverse.hits]
        assert max(scores) == scores[0]
        gentle = await search(stub, "red foxes hunt mice", mode=mode, top_k=4, diversity=0.0)
        assert places(gentle) == plain


async def test_groups_of_documents(stub):
    plain = await search(stub, "foxes river", group_by=pb.GROUP_BY_DOCUMENT, top_k=2)
    assert len({hit.passage.document_id for hit in plain.hits}) == len(plain.hits) == 2
    pairs = await search(
        stub, "foxes river", mode=SPARSE, group_by=pb.GROUP_BY_DOCUMENT, group_size=2, top_k=3
    )
    ids = [hit.passage.document_id for hit in pairs.hits]
    assert ids.count("fox") == 2
    assert ids == sorted(ids, key=ids.index), "the hits of a document stand together"


async def test_groups_are_found_behind_a_long_document(stub):
    """One document with hundreds of matching chunks leaves the others their places."""
    await put(stub, ("long", [f"foxes of chapter {number}" for number in range(130)]))
    answer = await search(stub, "foxes", mode=SPARSE, group_by=pb.GROUP_BY_DOCUMENT, top_k=3)
    assert {hit.passage.document_id for hit in answer.hits} == {"long", "fox", "copy"}


async def test_a_score_below_the_minimum_is_left_out(stub):
    everything = await search(stub, "frozen river", mode=SPARSE)
    best = everything.hits[0].passage.score
    answer = await search(stub, "frozen river", mode=SPARSE, min_score=best)
    assert places(answer) == ["fox-2"]
    assert not (await search(stub, "frozen river", min_score=1.5)).hits


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Where do foxes live?", {"fox-1"}),
        ("東京都の人口", {"tokyo-0"}),
        ("How do I configure a Kubernetes ingress for gRPC?", set()),
        ("量子コンピュータの誤り訂正", set()),
        ("foxes in quantum chromodynamics lattice simulations", set()),
    ],
)
async def test_nothing_relevant_finds_nothing(stub, query, found):
    answer = await search(stub, query, mode=SPARSE, relevant_only=True)
    assert found <= set(places(answer))
    assert bool(found) == bool(answer.hits)


async def test_highlights_point_into_the_original_text(stub):
    answer = await search(stub, "Foxes hunting mice", mode=SPARSE, top_k=1, highlights=True)
    (hit,) = answer.hits
    text = hit.passage.text
    assert [text[one.start : one.end] for one in hit.highlights.terms] == [
        "foxes", "hunt", "mice",
    ]  # fmt: skip
    assert [text[one.start : one.end] for one in hit.highlights.sentences] == [text]


async def test_highlights_in_japanese(stub):
    answer = await search(stub, "東京都の人口は", mode=SPARSE, top_k=1, highlights=True)
    (hit,) = answer.hits
    text = hit.passage.text
    assert [text[one.start : one.end] for one in hit.highlights.terms] == ["東京都", "人口"]
    sentences = [text[one.start : one.end] for one in hit.highlights.sentences]
    assert sentences == ["東京都の人口は約一千四百万人です。"]
    plain = await search(stub, "東京都の人口は", mode=SPARSE, top_k=1)
    assert not plain.hits[0].HasField("highlights")


async def test_neighbors_are_of_the_same_document(stub):
    answer = await search(stub, "dens cubs", mode=SPARSE, top_k=1, neighbors=5)
    (hit,) = answer.hits
    fox = dict(DOCUMENTS)["fox"]
    assert [one.text for one in hit.before] == fox[:1]
    assert [one.text for one in hit.after] == fox[2:]
    assert {one.document_id for one in (*hit.before, *hit.after)} == {"fox"}
    narrow = await search(stub, "frozen", mode=SPARSE, top_k=1, neighbors=1)
    assert [one.text for one in narrow.hits[0].before] == fox[1:2]
    assert not narrow.hits[0].after


async def test_nothing_reaches_past_an_access_list(stub):
    await put(stub, ("secret", ["Vulpes is the code name.", "The budget of Vulpes is secret."]),
              access=["group:eng"], by=("group:eng",))  # fmt: skip
    wishes = {"neighbors": 3, "explain": True, "diversity": 0.5, "mode": SPARSE}
    assert not (await search(stub, "vulpes", **wishes)).hits
    answer = await search(stub, "vulpes budget", by=("group:eng",), **wishes)
    assert {hit.passage.document_id for hit in answer.hits} == {"secret"}
    assert sum(len(hit.before) + len(hit.after) for hit in answer.hits) == 2


async def test_an_explanation_says_how_it_came_about(stub):
    answer = await search(stub, "東京都 frozen", explain=True, top_k=3)
    (query,) = answer.explanation.queries
    assert query.language == "ja"
    assert (query.weights.dense, query.weights.sparse) == (0.0, 1.0)
    assert "ja" in query.dense_left_out
    assert not query.sparse_left_out
    assert answer.explanation.candidates >= 2
    by_place = dict(zip(places(answer), answer.hits, strict=True))
    assert list(by_place["fox-2"].explanation.matched_terms) == ["frozen"]
    assert 0 < by_place["tokyo-0"].explanation.coverage < 1
    english = await search(stub, "frozen river", explain=True, mode=SPARSE, top_k=1)
    assert english.explanation.queries[0].dense_left_out == "mode is sparse"
    assert english.hits[0].explanation.coverage == pytest.approx(1.0)
    assert not (await search(stub, "frozen")).HasField("explanation")


async def test_several_queries_are_fused(stub):
    answer = await search(
        stub, queries=["frozen river", "salmon river"], mode=SPARSE, explain=True, top_k=3
    )
    assert set(places(answer)[:2]) == {"fox-2", "bear-0"}
    by_place = dict(zip(places(answer), answer.hits, strict=True))
    assert [one.rank for one in by_place["fox-2"].explanation.query_ranks] == [1, 2]
    assert [one.rank for one in by_place["bear-0"].explanation.query_ranks] == [2, 1]
    assert [one.query for one in answer.explanation.queries] == ["frozen river", "salmon river"]
    both = await search(stub, queries=["frozen river"] * 2, mode=SPARSE, top_k=1)
    assert both.hits[0].passage.score == pytest.approx(1.0)


async def test_everything_at_once(stub):
    answer = await search(
        stub, queries=["foxes hunt", "東京都の人口"], group_by=pb.GROUP_BY_DOCUMENT, group_size=2,
        diversity=0.3, relevant_only=True, highlights=True, neighbors=1, explain=True, top_k=3,
    )  # fmt: skip
    assert {"fox", "tokyo"} <= {hit.passage.document_id for hit in answer.hits}
    for hit in answer.hits:
        assert hit.HasField("highlights")
        assert hit.explanation.matched_terms


@pytest.mark.parametrize(
    ("wishes", "reason", "field"),
    [
        ({"diversity": 1.5}, "DIVERSITY_OUT_OF_RANGE", "diversity"),
        ({"diversity": float("nan")}, "DIVERSITY_OUT_OF_RANGE", "diversity"),
        ({"group_size": 2}, "GROUP_SIZE_OUT_OF_RANGE", "group_size"),
        (
            {"group_by": pb.GROUP_BY_DOCUMENT, "group_size": 101},
            "GROUP_SIZE_OUT_OF_RANGE",
            "group_size",
        ),
        ({"min_score": float("nan")}, "MIN_SCORE_INVALID", "min_score"),
        ({"neighbors": 11}, "NEIGHBORS_OUT_OF_RANGE", "neighbors"),
        ({"neighbors": -1}, "NEIGHBORS_OUT_OF_RANGE", "neighbors"),
        ({"queries": ["a"]}, "QUERIES_INVALID", "queries"),
        ({"query": "", "queries": ["a"] * 9}, "QUERIES_INVALID", "queries"),
        ({"query": "", "queries": ["a", " "]}, "QUERY_EMPTY", "queries[1]"),
        ({"query": ""}, "QUERY_EMPTY", "query"),
    ],
)
async def test_wrong_wishes_are_refused(tmp_path, wishes, reason, field):
    async with serving("memory", tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        async with refused("INVALID_ARGUMENT", reason, field):
            await search(stub, **({"query": "fox"} | wishes))
