"""RetrieveService over gRPC: real interceptors, the real engine, a small encoder."""

import asyncio
import hashlib
import math
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import struct_pb2

from ragmesh.retrieve.v1 import filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.retrieve.adapters.edge.client import EdgeStore
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.analysis import Analysis
from services.retrieve.core import CollectionOptions, Retrieval
from services.retrieve.encoding import Encoder
from services.retrieve.servicer import RetrieveServicer
from services.runtime.status import error_from_rpc
from services.runtime.testing import serve_for_test
from tests.unit.retrieve.fakes import DIMENSIONS, WordModel

OTHER_TENANT = [("x-ragmesh-tenant", "other")]


@asynccontextmanager
async def serving(folder, *, model=None, reranking=None, store=None, **options):
    encoder = Encoder(model or WordModel(), batch_tokens=512, queue=1000, query_cache=10)
    limits = CollectionOptions(chunk_tokens=40, chunk_overlap=5, max_collections=3)
    store = store or EdgeStore("", folder)
    retrieval = Retrieval(store, encoder, Analysis(TermsAnalyzer()), limits, reranking)
    await retrieval.start()
    servicer = RetrieveServicer(retrieval, {"vector_backend": "qdrant-edge"})
    try:
        registration = (pb_grpc.add_RetrieveServiceServicer_to_server, servicer)
        async with serve_for_test([registration], **options) as channel:
            yield pb_grpc.RetrieveServiceStub(channel)
    finally:
        await retrieval.aclose()


@pytest.fixture
async def stub(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        yield stub


@asynccontextmanager
async def refused(code, reason, field=None):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason) == (code, reason)
    if field is not None:
        assert error.field == field


def frames(*documents, collection="notes", **facts):
    """Frames of documents given as (id, texts)."""
    yield pb.IndexDocumentsRequest(header=pb.IndexHeader(collection=collection))
    for document_id, texts in documents:
        metadata = struct_pb2.Struct()
        metadata.update({"id": document_id})
        given = {
            "id": document_id,
            "title": f"About {document_id}",
            "source": f"{document_id}.md",
            "content_hash": hashlib.sha256(repr(texts).encode()).hexdigest(),
            "chunk_count": len(texts),
            "metadata": metadata,
            **facts,
        }
        yield pb.IndexDocumentsRequest(document=pb.IndexDocument(**given))
        for index, text in enumerate(texts):
            chunk = pb.IndexChunk(index=index, text=text, normalized_text=text, page=index + 1)
            yield pb.IndexDocumentsRequest(chunks=pb.IndexChunks(chunks=[chunk]))


async def index(stub, *documents, **options):
    return [
        (one.id, one.chunks, one.status)
        async for one in stub.IndexDocuments(frames(*documents, **options))
    ]


FOX = ("fox", ["The quick brown fox jumps over the lazy dog.", "Foxes live in dens."])
TOKYO = ("tokyo", ["東京都の人口は約一千四百万人です。", "東京タワーは港区にあります。"])


async def test_index_replace_and_repeat(stub):
    assert await index(stub, FOX, TOKYO) == [
        ("fox", 2, pb.INDEX_STATUS_INDEXED),
        ("tokyo", 2, pb.INDEX_STATUS_INDEXED),
    ]
    changed = ("fox", ["A red fox sleeps."])
    assert sorted(await index(stub, changed, TOKYO)) == [
        ("fox", 1, pb.INDEX_STATUS_REPLACED),
        ("tokyo", 2, pb.INDEX_STATUS_UNCHANGED),
    ]
    answer = await stub.Search(pb.SearchRequest(collection="notes", query="fox"))
    assert [hit.passage.text for hit in answer.hits if "fox" in hit.passage.text.lower()] == [
        "A red fox sleeps."
    ]
    collection = (await stub.GetCollection(pb.GetCollectionRequest(name="notes"))).collection
    assert (collection.documents, collection.chunks) == (2, 3)
    assert (collection.encoder, collection.analyzer) == ("words@1", "terms@1")


async def test_hits_carry_what_a_citation_needs(stub):
    await index(stub, FOX, TOKYO)
    answer = await stub.Search(pb.SearchRequest(collection="notes", query="quick fox", top_k=1))
    (hit,) = answer.hits
    passage = hit.passage
    assert (passage.document_id, passage.source, passage.title, passage.page) == (
        "fox", "fox.md", "About fox", 1,
    )  # fmt: skip
    assert passage.metadata["id"] == "fox"
    assert passage.language == "en"
    assert (hit.dense_rank, hit.sparse_rank) == (1, 1)
    assert (answer.weights.dense, answer.weights.sparse) == (0.5, 0.5)
    chunks = await stub.ListChunks(pb.ListChunksRequest(collection="notes", document_id="fox"))
    assert chunks.chunks[0].chunk_id == passage.chunk_id


async def test_japanese_is_found_by_words_when_the_encoder_knows_english_only(stub):
    await index(stub, FOX, TOKYO)
    for query in ("東京タワーはどこ？", "東京ﾀﾜｰ", "東京タワー"):
        answer = await stub.Search(pb.SearchRequest(collection="notes", query=query))
        assert answer.hits[0].passage.text == TOKYO[1][1]
        assert (answer.weights.dense, answer.weights.sparse) == (0.0, 1.0)
        assert not answer.hits[0].HasField("dense_rank")


@pytest.mark.parametrize("mode", [pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_SPARSE])
async def test_one_arm_alone(stub, mode):
    await index(stub, FOX, TOKYO)
    answer = await stub.Search(pb.SearchRequest(collection="notes", query="quick fox", mode=mode))
    hit = answer.hits[0]
    assert hit.passage.text == FOX[1][0]
    assert hit.HasField("dense_rank") == (mode == pb.SEARCH_MODE_DENSE)
    assert hit.HasField("sparse_rank") == (mode == pb.SEARCH_MODE_SPARSE)


async def test_a_filter_over_the_wire(stub):
    await index(stub, FOX, ("dog", ["The lazy dog sleeps."]))
    value = struct_pb2.Value(string_value="dog")
    condition = filter_pb2.Condition(field="metadata.id", equals=value)
    request = pb.SearchRequest(
        collection="notes", query="lazy dog", filter=filter_pb2.Filter(must_not=[condition])
    )
    assert {hit.passage.document_id for hit in (await stub.Search(request)).hits} == {"fox"}
    request.filter.must.add(field="colour", equals=value)
    async with refused("INVALID_ARGUMENT", "FILTER_INVALID", "filter.must[0].field"):
        await stub.Search(request)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        ({"query": " \n"}, "INVALID_ARGUMENT", "QUERY_EMPTY", "query"),
        ({"query": "x" * 9000}, "INVALID_ARGUMENT", "QUERY_TOO_LONG", "query"),
        ({"query": "x", "top_k": -1}, "INVALID_ARGUMENT", "TOP_K_OUT_OF_RANGE", "top_k"),
        ({"query": "x", "top_k": 1001}, "INVALID_ARGUMENT", "TOP_K_OUT_OF_RANGE", "top_k"),
        ({"query": "x", "rerank": True}, "FAILED_PRECONDITION", "RERANKER_NOT_CONFIGURED",
         "rerank"),
        ({"query": "x", "collection": "none"}, "NOT_FOUND", "COLLECTION_NOT_FOUND", "collection"),
    ],
)  # fmt: skip
async def test_searches_that_are_refused(stub, request_, code, reason, field):
    async with refused(code, reason, field):
        await stub.Search(pb.SearchRequest(**{"collection": "notes", **request_}))


async def test_another_tenant_sees_nothing(stub):
    await index(stub, FOX)
    async with refused("NOT_FOUND", "COLLECTION_NOT_FOUND"):
        request = pb.SearchRequest(collection="notes", query="fox")
        await stub.Search(request, metadata=OTHER_TENANT)
    listed = await stub.ListCollections(pb.ListCollectionsRequest(), metadata=OTHER_TENANT)
    assert not listed.collections


@pytest.mark.parametrize(
    ("documents", "facts", "reason"),
    [
        ([("", ["x"])], {}, "DOCUMENT_INVALID"),
        ([("a\n", ["x"])], {}, "DOCUMENT_INVALID"),
        ([("a", [])], {}, "DOCUMENT_INVALID"),
        ([("a", ["x"])], {"content_hash": ""}, "DOCUMENT_INVALID"),
        ([("a", ["x"])], {"chunk_count": 2}, "DOCUMENT_INVALID"),
        ([("a", ["x", "y"])], {"chunk_count": 1}, "CHUNK_INVALID"),
        ([("a", [" "])], {}, "CHUNK_INVALID"),
    ],
)
async def test_documents_that_are_refused_leave_nothing(stub, documents, facts, reason):
    async with refused("INVALID_ARGUMENT", reason):
        await index(stub, *documents, **facts)
    assert not (await stub.ListDocuments(pb.ListDocumentsRequest(collection="notes"))).documents


async def test_a_fault_late_in_the_stream_keeps_what_was_acknowledged(stub):
    call = stub.IndexDocuments()
    opening = [*frames(FOX)]
    for frame in opening:
        await call.write(frame)
    assert (await call.read()).id == "fox"
    for frame in [*frames(("bad", [" "]))][1:]:
        await call.write(frame)
    async with refused("INVALID_ARGUMENT", "CHUNK_INVALID"):
        while await call.read() is not grpc.aio.EOF:
            pass
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection="notes"))
    assert [one.id for one in listed.documents] == ["fox"]


async def test_a_client_that_leaves_mid_document_leaves_nothing(stub):
    call = stub.IndexDocuments()
    for frame in [*frames(("big", [f"chunk {n}" for n in range(20)]))][:-1]:
        await call.write(frame)
    await asyncio.sleep(0.1)
    call.cancel()
    await index(stub, FOX)
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection="notes"))
    assert [one.id for one in listed.documents] == ["fox"]
    answer = await stub.Search(
        pb.SearchRequest(collection="notes", query="chunk", mode="SEARCH_MODE_SPARSE")
    )
    assert not answer.hits


def held(*documents, end=True):
    header = pb.IndexHeader(collection="notes", hold=True, progress=True)
    yield pb.IndexDocumentsRequest(header=header)
    yield from [*frames(*documents)][1:]
    if end:
        yield pb.IndexDocumentsRequest(end=pb.IndexEnd())


async def test_a_held_stream_publishes_at_its_end_and_tells_how_far_it_is(stub):
    big = ("big", [f"chunk {n}" for n in range(250)])
    answers = [one async for one in stub.IndexDocuments(held(FOX, big))]
    told = [one.progress.chunks for one in answers if one.HasField("progress")]
    assert told == sorted(told)
    assert told[-1] == 252
    assert [one.id for one in answers if one.id] == ["fox", "big"]
    assert all(one.HasField("progress") for one in answers[: len(told)])  # documents come last


@pytest.mark.parametrize("way", ["ends", "leaves"])
async def test_a_held_stream_that_is_broken_off_changes_nothing(stub, way):
    await index(stub, FOX)
    changed = ("fox", ["A red fox sleeps."])
    if way == "ends":
        async with refused("INVALID_ARGUMENT", "STREAM_UNFINISHED"):
            _ = [one async for one in stub.IndexDocuments(held(changed, TOKYO, end=False))]
    else:
        call = stub.IndexDocuments()
        for frame in held(changed, TOKYO, end=False):
            await call.write(frame)
        while not (await call.read()).progress.chunks:
            pass
        call.cancel()
    listed = await stub.ListDocuments(pb.ListDocumentsRequest(collection="notes"))
    assert [(one.id, one.chunks) for one in listed.documents] == [("fox", 2)]


async def test_pages(stub):
    await index(stub, *((f"d{n:02}", [f"text {n}"]) for n in range(25)))
    seen, token = [], ""
    while True:
        page = await stub.ListDocuments(
            pb.ListDocumentsRequest(collection="notes", page_size=10, page_token=token)
        )
        seen += [one.id for one in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"d{n:02}" for n in range(25)]
    async with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "page_token"):
        await stub.ListCollections(pb.ListCollectionsRequest(page_token="AAAA"))
    async with refused("INVALID_ARGUMENT", "PAGE_SIZE_OUT_OF_RANGE", "page_size"):
        await stub.ListDocuments(pb.ListDocumentsRequest(collection="notes", page_size=1001))


async def test_documents_are_looked_up_checked_and_deleted(stub):
    await index(stub, FOX)
    document = (
        await stub.GetDocument(pb.GetDocumentRequest(collection="notes", id="fox"))
    ).document
    assert (document.title, document.chunks) == ("About fox", 2)
    versions = [
        pb.DocumentVersion(id="fox", content_hash=document.content_hash),
        pb.DocumentVersion(id="fox", content_hash="other"),
    ]
    request = pb.CheckDocumentsRequest(collection="notes", documents=versions)
    (unchanged,) = (await stub.CheckDocuments(request)).unchanged
    assert (unchanged.id, unchanged.chunks) == ("fox", 2)
    deletion = pb.DeleteDocumentRequest(collection="notes", id="fox")
    assert (await stub.DeleteDocument(deletion)).chunks == 2
    async with refused("NOT_FOUND", "DOCUMENT_NOT_FOUND"):
        await stub.DeleteDocument(deletion)


@pytest.mark.parametrize("name", ["", "_x", "a/b", "a" * 65, "a b", "..", "か\u3099く"])
async def test_names_that_are_refused(stub, name):
    async with refused("INVALID_ARGUMENT", "COLLECTION_NAME_INVALID", "name"):
        await stub.CreateCollection(pb.CreateCollectionRequest(name=name))


async def test_collections(stub):
    made = await stub.CreateCollection(
        pb.CreateCollectionRequest(name="資料-1.x", description="d", chunk_tokens=30)
    )
    assert (made.collection.chunk_tokens, made.collection.chunk_overlap) == (30, 5)
    async with refused("ALREADY_EXISTS", "COLLECTION_EXISTS"):
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
    async with refused("INVALID_ARGUMENT", "CHUNK_TOKENS_OUT_OF_RANGE", "chunk_tokens"):
        await stub.CreateCollection(pb.CreateCollectionRequest(name="x", chunk_tokens=63))
    await stub.CreateCollection(pb.CreateCollectionRequest(name="third"))
    async with refused("RESOURCE_EXHAUSTED", "TOO_MANY_COLLECTIONS"):
        await stub.CreateCollection(pb.CreateCollectionRequest(name="fourth"))
    await index(stub, FOX)
    deleted = await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"))
    assert deleted.documents == 1
    async with refused("NOT_FOUND", "COLLECTION_NOT_FOUND"):
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"))


async def test_embeddings(stub):
    inputs = [pb.EmbedInput(text="hello fox"), pb.EmbedInput(tokens=pb.TokenIds(ids=[5, 6]))]
    answer = await stub.Embed(pb.EmbedRequest(model="default-embedding", inputs=inputs))
    assert (answer.model, answer.tokens, len(answer.embeddings)) == ("words", 8, 2)
    assert math.hypot(*answer.embeddings[0].values) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        ({}, "INVALID_ARGUMENT", "INPUT_EMPTY", "inputs"),
        ({"inputs": [pb.EmbedInput(text=" ")]}, "INVALID_ARGUMENT", "INPUT_EMPTY", "inputs[0]"),
        ({"inputs": [pb.EmbedInput(text="a"), pb.EmbedInput(text="b " * 63)]},
         "INVALID_ARGUMENT", "INPUT_TOO_LONG", "inputs[1]"),
        ({"inputs": [pb.EmbedInput(text="a")] * 2049}, "INVALID_ARGUMENT", "TOO_MANY_INPUTS",
         "inputs"),
        ({"inputs": [pb.EmbedInput(tokens=pb.TokenIds(ids=[9999]))]}, "INVALID_ARGUMENT",
         "INPUT_INVALID", "inputs[0]"),
        ({"inputs": [pb.EmbedInput(text="a")], "dimensions": DIMENSIONS // 2},
         "INVALID_ARGUMENT", "DIMENSIONS_UNSUPPORTED", "dimensions"),
        ({"inputs": [pb.EmbedInput(text="a")], "model": "gpt"}, "NOT_FOUND", "MODEL_NOT_FOUND",
         "model"),
    ],
)  # fmt: skip
async def test_embeddings_that_are_refused(stub, request_, code, reason, field):
    async with refused(code, reason, field):
        await stub.Embed(pb.EmbedRequest(**request_))


async def test_scores_are_cosines_and_nan_where_the_encoder_is_blind(stub):
    request = pb.ScoreRequest(
        sentences=["red fox", "赤い狐"], passages=["red fox", "blue sea", "海"]
    )
    rows = [list(row.scores) for row in (await stub.Score(request)).rows]
    assert rows[0][0] == pytest.approx(1.0, abs=1e-4)
    assert rows[0][1] < 0.9
    assert all(math.isnan(value) for value in (rows[0][2], *rows[1]))


async def test_tokenizer_models_and_server_info(stub):
    (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (model.id, list(model.aliases)) == ("words", ["default-embedding", "words@1"])
    collection = (await stub.GetCollection(pb.GetCollectionRequest(name="notes"))).collection
    request = pb.GetTokenizerRequest(tokenizer_id=collection.tokenizer_id)
    parts = [frame.data async for frame in stub.GetTokenizer(request)]
    assert [len(part) for part in parts] == [65_536, 34_464]
    assert hashlib.sha256(b"".join(parts)).hexdigest() == collection.tokenizer_id
    async with refused("NOT_FOUND", "TOKENIZER_NOT_FOUND"):
        await stub.GetTokenizer(pb.GetTokenizerRequest(tokenizer_id="x")).read()
    info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert dict(info.backends) == {"vector_backend": "qdrant-edge"}
    async with refused("FAILED_PRECONDITION", "RERANKER_NOT_CONFIGURED"):
        await stub.Rerank(pb.RerankRequest(query="x", documents=["y"]))


async def test_another_encoder_is_refused_with_the_way_out(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, FOX)
    async with serving(tmp_path, model=WordModel(version="2")) as stub:
        async with refused("FAILED_PRECONDITION", "ENCODER_MISMATCH"):
            await stub.Search(pb.SearchRequest(collection="notes", query="fox"))
        async with refused("FAILED_PRECONDITION", "ENCODER_MISMATCH"):
            await index(stub, TOKYO)
        sparse = pb.SearchRequest(collection="notes", query="fox", mode=pb.SEARCH_MODE_SPARSE)
        assert (await stub.Search(sparse)).hits


async def test_a_call_without_a_tenant_is_refused(tmp_path):
    async with (
        serving(tmp_path, caller=None) as stub,
        refused("UNAUTHENTICATED", "TENANT_REQUIRED"),
    ):
        await stub.Search(pb.SearchRequest(collection="notes", query="fox"))


async def test_the_event_loop_does_not_wait_for_the_engine_or_the_encoder(tmp_path):
    async with serving(tmp_path, model=WordModel(pause=0.05)) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        lags = []

        async def tick():
            loop = asyncio.get_running_loop()
            while True:
                before = loop.time()
                await asyncio.sleep(0.005)
                lags.append(loop.time() - before - 0.005)

        ticking = asyncio.create_task(tick())
        await index(stub, *((f"d{n}", [f"text {n} of many words"] * 5) for n in range(60)))
        ticking.cancel()
    assert sorted(lags)[len(lags) * 95 // 100] < 0.1
