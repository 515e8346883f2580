"""What a Qdrant server is asked, and what its answers become."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as q

from services.retrieve.adapters.qdrant import errors
from services.retrieve.adapters.qdrant.connection import Remote
from services.retrieve.adapters.qdrant.options import QdrantOptions, parse
from services.retrieve.adapters.qdrant.store import LocalQdrantStore, RemoteQdrantStore
from services.retrieve.ports import ArmWeights, Bounds, Condition, Filter, SparseVector, StoreQuery
from services.runtime.deadlines import set_call_deadline
from services.runtime.errors import DeadlineExceeded, FailedPrecondition, Internal, Unavailable
from tests.contract.retrieve.qdrant_rest import serving_rest
from tests.contract.retrieve.qdrant_server import Api, Refusal
from tests.contract.retrieve.stores import (
    DIMENSIONS,
    KEY,
    TERM,
    chunks_of,
    collection,
    document,
    expected,
    put,
    texts,
)
from tests.service.runtime.certificates import Authority

CLUSTER = QdrantOptions(
    prefix="mesh", shards=6, replicas=3, on_disk=True, quantization="scalar", hnsw_m=24,
    hnsw_ef_construct=200, hnsw_ef=77, indexed_metadata=("year",),
)  # fmt: skip


@pytest.fixture
async def api():
    one = Api()
    await one.server.start()
    yield one
    await one.server.stop(None)


async def opened(api, options=QdrantOptions()):  # noqa: B008  frozen
    store = RemoteQdrantStore(api.url, options)
    await store.start()
    return store


async def test_collections_are_made_as_the_settings_say(api):
    store = await opened(api, CLUSTER)
    await store.create_collection(collection(), 10)
    await store.aclose()
    catalog, chunks = api.sent("Create")
    assert catalog.collection_name == "mesh-catalog"
    assert chunks.collection_name.startswith("mesh-")
    for request, shards in ((catalog, 1), (chunks, 6)):
        assert (request.shard_number, request.replication_factor) == (shards, 3)
        assert request.write_consistency_factor == 2
    assert (chunks.hnsw_config.m, chunks.hnsw_config.payload_m) == (0, 24)
    assert chunks.hnsw_config.ef_construct == 200
    assert chunks.quantization_config.scalar.type == q.QuantizationType.Int8
    assert chunks.vectors_config.params_map.map["dense"].on_disk
    assert chunks.sparse_vectors_config.map["sparse"].modifier == q.Modifier.Idf
    indexes = {
        one.field_name: one.field_index_params
        for one in api.sent("CreateFieldIndex")
        if one.collection_name == chunks.collection_name
    }
    assert indexes["tenant"].keyword_index_params.is_tenant
    assert {"collection", "version", "document_id", "language", "access"} <= set(indexes)
    assert sum(name.startswith("metadata.") for name in indexes) == 4


async def test_writes_wait_and_go_through_leaders(api):
    store = await opened(api, CLUSTER)
    await store.create_collection(collection(), 10)
    await put(store, document("a"))
    await put(store, document("a", "2"))
    await store.delete_document(KEY, "a")
    await store.aclose()
    for method in ("Upsert", "Delete", "SetPayload"):
        sent = api.sent(method)
        assert sent
        for one in sent:
            catalog = one.collection_name == "mesh-catalog"
            wanted = q.WriteOrderingType.Strong if catalog else q.WriteOrderingType.Medium
            assert one.wait
            assert one.ordering.type == wanted
    replaced = [one for one in api.sent("Upsert") if one.HasField("update_filter")]
    assert len(replaced) == 3  # a new document, a replaced one, a deleted one
    reads = [one for one in api.sent("Get") if one.collection_name == "mesh-catalog"]
    assert {one.read_consistency.type for one in reads} == {q.ReadConsistencyType.Majority}


async def test_a_search_is_two_round_trips(api):
    store = await opened(api, CLUSTER)
    await store.create_collection(collection(), 10)
    await put(store, document("a"), document("b"))
    before = len(api.requests)
    dense = np.eye(DIMENSIONS, dtype="<f4")[0].tobytes()
    query = StoreQuery(
        top_k=3, depth=50, weights=ArmWeights(0.5, 0.5), dense=dense,
        sparse=SparseVector((TERM,), (1.0,)), attributes=("group:eng",),
        filter=Filter(must=(Condition("metadata.year", range=Bounds(gt=1.0)),)),
    )  # fmt: skip
    await store.search(KEY, query)
    methods = [method for method, _ in api.requests[before:]]
    assert sorted(methods[:2]) == [
        "Get",
        "QueryBatch",
    ]  # whether the collection is there, meanwhile
    assert set(methods[2:]) <= {"Scroll", "Get"}
    asked = api.sent("QueryBatch")[-1]
    first, second = asked.query_points
    assert asked.timeout == 10
    assert (first.using, second.using) == ("dense", "sparse")
    assert first.params.hnsw_ef == 77
    assert first.params.quantization.rescore
    assert first.limit == second.limit == 50
    corpus = {one.field.key for one in second.params.idf.corpus.must}
    assert corpus == {"tenant", "collection"}
    for one in (first, second):
        assert {"tenant", "collection"} <= {each.field.key for each in one.filter.must}
    await store.aclose()


async def test_the_time_that_a_caller_leaves_is_the_limit(api):
    connection = Remote(parse(api.url), QdrantOptions())
    await connection.open()

    async def count():
        set_call_deadline(3.2)
        await connection.call("get_collections")
        await connection.call("count", "missing")

    async def too_late():
        set_call_deadline(0.0)
        await connection.call("get_collections")

    with pytest.raises(Internal):
        await asyncio.create_task(count())
    assert api.sent("Count")[-1].timeout == 4
    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(too_late())
    await connection.close()


async def test_a_server_that_does_not_answer_in_time_is_unavailable(api):
    connection = Remote(parse(api.url), QdrantOptions(timeout=0.2))
    await connection.open()
    stuck = asyncio.Event()

    async def hang(method: str, request: Any) -> None:
        await stuck.wait()

    api.before = hang
    with pytest.raises(Unavailable) as caught:
        await connection.call("get_collections")
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_UNAVAILABLE", 1.0)
    stuck.set()
    await connection.close()


async def test_a_key_is_asked_for_and_sent():
    api = Api(api_key="secret")
    await api.server.start()
    for key in ("", "wrong"):
        store = RemoteQdrantStore(api.url, QdrantOptions(api_key=key))
        with pytest.raises(FailedPrecondition) as caught:
            await store.start()
        assert caught.value.reason == "ENGINE_ACCESS_DENIED"
        assert "secret" not in caught.value.message
        await store.aclose()
    store = await opened(api, QdrantOptions(api_key="secret"))
    await store.aclose()
    await api.server.stop(None)


async def test_a_key_is_sent_by_rest_too(api):
    async with serving_rest(api.client, api_key="secret") as url:
        store = RemoteQdrantStore(url, QdrantOptions(api_key="wrong"))
        with pytest.raises(FailedPrecondition):
            await store.start()
        await store.aclose()
        store = RemoteQdrantStore(url, QdrantOptions(api_key="secret"))
        await store.start()
        await store.aclose()


@pytest.mark.parametrize(
    ("version", "fine"),
    [("1.19.0", True), ("1.20.1-dev", True), ("2.0.0", True), ("1.18.9", False), ("1.9.7", False)],
)
async def test_a_server_that_is_too_old_is_refused(version, fine):
    api = Api(version=version)
    await api.server.start()
    store = RemoteQdrantStore(api.url, QdrantOptions())
    if fine:
        await store.start()
    else:
        with pytest.raises(FailedPrecondition) as caught:
            await store.start()
        assert caught.value.reason == "ENGINE_TOO_OLD"
    await store.aclose()
    await api.server.stop(None)


async def test_start_waits_for_a_server_and_health_follows_it(api, monkeypatch):
    monkeypatch.setattr("services.retrieve.adapters.qdrant.store.PROBE_SECONDS", 0.02)
    away = True
    asked = asyncio.Event()

    async def refuse(method: str, request: Any) -> None:
        asked.set()
        if away:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "starting")

    api.before = refuse
    store = RemoteQdrantStore(api.url, QdrantOptions())
    start = asyncio.create_task(store.start())
    await asked.wait()
    assert not start.done()
    away = False
    await start
    health = store.availability()
    away = True
    assert await anext(health) is False
    away = False
    assert await anext(health) is True
    await store.aclose()


@pytest.mark.parametrize(
    ("code", "text", "kind", "reason"),
    [
        ("UNAVAILABLE", "", Unavailable, "ENGINE_UNAVAILABLE"),
        ("DEADLINE_EXCEEDED", "", Unavailable, "ENGINE_UNAVAILABLE"),
        ("RESOURCE_EXHAUSTED", "", Unavailable, "ENGINE_UNAVAILABLE"),
        ("PERMISSION_DENIED", "secret detail", FailedPrecondition, "ENGINE_ACCESS_DENIED"),
        ("INTERNAL", "secret detail", Internal, "ENGINE_FAILED"),
        (
            "INVALID_ARGUMENT",
            'Bad request: Index required but not found for "metadata.n" of type ["float"]',
            FailedPrecondition,
            "FILTER_NOT_INDEXED",
        ),
    ],
)
async def test_what_goes_wrong_has_a_name(api, code, text, kind, reason):
    store = await opened(api)
    await store.create_collection(collection(), 10)

    async def fail(method: str, request: Any) -> None:
        raise Refusal(grpc.StatusCode[code], text)

    api.before = fail
    with pytest.raises(kind) as caught:
        await store.get_collection(KEY)
    assert caught.value.reason == reason
    assert "secret" not in caught.value.message
    await store.aclose()


def test_every_code_is_mapped():
    assert set(errors.BY_CODE) == set(grpc.StatusCode)


async def test_a_publication_whose_answer_is_lost_is_not_discarded(api):
    """The record is written, the writer is told that it failed, and gives the document up."""
    store = await opened(api)
    await store.create_collection(collection(), 10)
    await put(store, document("a"))
    new = document("a", "2")
    await store.stage(KEY, [("t", new)], chunks_of("t", new))

    async def lose(method: str, request: Any) -> None:
        if method == "Upsert" and request.HasField("update_filter"):
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    api.after = lose
    with pytest.raises(Unavailable):
        await store.publish(KEY, ["t"])
    store.discard(KEY, ["t"])
    await asyncio.gather(*store._tasks)
    assert await texts(store) == expected(new)
    await store.aclose()


@pytest.mark.parametrize(
    "url",
    ["grpc://", "grpc://host/path", "http://user:key@host", "http://host:x", "ftp://host", "x"],
)
def test_addresses_that_are_none(url):
    with pytest.raises(FailedPrecondition) as caught:
        parse(url)
    assert caught.value.reason == "VECTOR_URL_INVALID"


def test_addresses():
    assert parse("grpc://qdrant") == parse("GRPC://qdrant:6334")
    one = parse("https://example.com/db/")
    assert (one.url, one.tls, one.grpc) == ("https://example.com:6333/db", True, False)
    assert parse("grpcs://[::1]").url == "https://[::1]:6334"


async def test_tls(tmp_path: Path):
    """A server whose certificate a private authority signed, and one that it did not."""
    Authority(tmp_path).issue("localhost")
    Authority(tmp_path / "other")
    key, chain = ((tmp_path / f"localhost.{kind}").read_bytes() for kind in ("key", "crt"))
    api = Api()
    port = api.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await api.server.start()
    url = f"grpcs://localhost:{port}"
    store = RemoteQdrantStore(url, QdrantOptions(ca=tmp_path / "ca.crt", api_key="k"))
    await store.start()
    await store.aclose()
    connection = Remote(parse(url), QdrantOptions(ca=tmp_path / "other" / "ca.crt"))
    with pytest.raises(Unavailable):
        await connection.open()
    await connection.close()
    await api.server.stop(None)


async def test_more_kinds_of_documents_than_one_facet_tells(api, monkeypatch):
    monkeypatch.setattr("services.retrieve.adapters.qdrant.catalog.MAX_FACETS", 2)
    store = await opened(api)
    await store.create_collection(collection(), 10)
    await put(store, *(document(f"d{n}", chunks=n) for n in range(1, 5)), document("e"))
    found = await store.get_collection(KEY)
    assert (found.documents, found.chunks) == (5, 13)
    await store.aclose()


async def test_certificates_that_cannot_be_read(tmp_path):
    options = QdrantOptions(ca=tmp_path / "missing.pem")
    store = RemoteQdrantStore("grpcs://127.0.0.1:1", options)
    with pytest.raises(FailedPrecondition) as caught:
        await store.start()
    assert caught.value.reason == "VECTOR_CA_UNREADABLE"
    await store.aclose()


async def test_an_earlier_local_layout_is_refused(tmp_path: Path):
    (tmp_path / "qdrant").mkdir()
    (tmp_path / "qdrant" / "catalog.sqlite").touch()
    store = LocalQdrantStore("", tmp_path)
    with pytest.raises(FailedPrecondition) as caught:
        await store.start()
    assert caught.value.reason == "DATA_TOO_OLD"
    await store.aclose()


async def test_a_catalogue_of_a_later_version_is_refused(api):
    store = await opened(api)
    await store.aclose()

    async def newer(method: str, request: Any) -> None:
        for one in (await api.client.scroll("ragmesh-catalog"))[0]:
            await api.client.set_payload("ragmesh-catalog", {"format": 99}, [one.id])

    api.before = newer
    store = RemoteQdrantStore(api.url, QdrantOptions())
    with pytest.raises(FailedPrecondition) as caught:
        await store.start()
    assert caught.value.reason == "DATA_TOO_NEW"
    await store.aclose()
