"""Access lists over gRPC: what a caller may not read does not exist for it, whatever it asks."""

import grpc
import pytest

from ragmesh.retrieve.v1 import filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from services.runtime.context import ATTRIBUTES_KEY, pack_attributes
from services.runtime.status import error_from_rpc
from tests.service.retrieve.test_servicer import frames, refused, serving

FREE = ("free", ["Foxes live in dens.", "The fox is red."])
SECRET = ("secret", ["The fox project is called Vulpes.", "Foxes cost 5 million."])


def holding(*attributes: str) -> list[tuple[str, str]]:
    return [(ATTRIBUTES_KEY, pack_attributes(attributes))] if attributes else []


ALICE = holding("user:alice", "group:eng", "group:営業部")
BOB = holding("user:bob", "group:ops")
ADMIN = holding("*")
NOBODY = holding()


@pytest.fixture
async def stub(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await put(stub, FREE)
        await put(stub, SECRET, access=["group:eng"], by=ALICE)
        yield stub


async def put(stub, *documents, by=ADMIN, **facts):
    answers = stub.IndexDocuments(frames(*documents, **facts), metadata=by)
    return [one.status async for one in answers]


async def found(stub, by, *, mode=pb.SEARCH_MODE_HYBRID, query="fox foxes", **more) -> set[str]:
    request = pb.SearchRequest(collection="notes", query=query, mode=mode, top_k=50, **more)
    return {hit.passage.document_id for hit in (await stub.Search(request, metadata=by)).hits}


@pytest.mark.parametrize(
    "mode", [pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_SPARSE, pb.SEARCH_MODE_HYBRID]
)
async def test_both_arms_find_only_what_may_be_read(stub, mode):
    assert await found(stub, ALICE, mode=mode) == {"free", "secret"}
    assert await found(stub, ADMIN, mode=mode) == {"free", "secret"}
    for caller in (BOB, NOBODY):
        assert await found(stub, caller, mode=mode) == {"free"}
        # All that is asked for comes: what may not be read takes no place among the candidates.
        request = pb.SearchRequest(collection="notes", query="foxes", mode=mode, top_k=2)
        assert len((await stub.Search(request, metadata=caller)).hits) == 2


async def test_a_filter_does_not_reach_past_the_list(stub):
    for field in ("document_id", "source"):
        condition = filter_pb2.Condition(field=field)
        condition.equals.string_value = "secret" if field == "document_id" else "secret.md"
        for filter_ in (
            filter_pb2.Filter(must=[condition]),
            filter_pb2.Filter(should=[condition]),
            filter_pb2.Filter(
                should=[filter_pb2.Condition(group=filter_pb2.Filter(must=[condition]))]
            ),
        ):
            assert await found(stub, BOB, filter=filter_) == set()
            assert await found(stub, ALICE, filter=filter_) == {"secret"}


async def test_it_does_not_exist_for_others(stub):
    get = pb.GetDocumentRequest(collection="notes", id="secret")
    chunks = pb.ListChunksRequest(collection="notes", document_id="secret")
    delete = pb.DeleteDocumentRequest(collection="notes", id="secret")
    missing = pb.GetDocumentRequest(collection="notes", id="missing")
    for caller in (BOB, NOBODY):
        messages = set()
        for call, request in (
            (stub.GetDocument, get),
            (stub.ListChunks, chunks),
            (stub.DeleteDocument, delete),
            (stub.GetDocument, missing),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request, metadata=caller)
            error = error_from_rpc(caught.value)
            messages.add((error.code, error.reason, error.message, error.field))
        assert len(messages) == 1  # nothing tells the one from the other
        assert next(iter(messages))[1] == "DOCUMENT_NOT_FOUND"
        listed = await stub.ListDocuments(
            pb.ListDocumentsRequest(collection="notes"), metadata=caller
        )
        assert [one.id for one in listed.documents] == ["free"]
        (listed_collection,) = (
            await stub.ListCollections(pb.ListCollectionsRequest(), metadata=caller)
        ).collections
        assert (listed_collection.documents, listed_collection.chunks) == (1, 2)
        got = await stub.GetCollection(pb.GetCollectionRequest(name="notes"), metadata=caller)
        assert (got.collection.documents, got.collection.chunks) == (1, 2)
    document = (await stub.GetDocument(get, metadata=ALICE)).document
    assert list(document.access) == ["group:eng"]
    assert len((await stub.ListChunks(chunks, metadata=ALICE)).chunks) == 2
    got = await stub.GetCollection(pb.GetCollectionRequest(name="notes"), metadata=ALICE)
    assert (got.collection.documents, got.collection.chunks) == (2, 4)


async def test_pages_are_full_of_what_may_be_read(stub):
    for number in range(6):
        access = ["group:eng"] if number % 2 else []
        await put(stub, (f"p{number}", ["text"]), access=access)
    ids, token = [], ""
    while True:
        page = await stub.ListDocuments(
            pb.ListDocumentsRequest(collection="notes", page_size=2, page_token=token), metadata=BOB
        )
        ids.append([one.id for one in page.documents])
        token = page.next_page_token
        if not token:
            break
    assert ids == [["free", "p0"], ["p2", "p4"]]


async def test_nobody_replaces_or_deletes_what_they_may_not_read(stub):
    async with refused("ALREADY_EXISTS", "DOCUMENT_ID_TAKEN"):
        await put(stub, ("secret", ["overwritten"]), by=BOB)
    version = pb.DocumentVersion(id="secret", content_hash="guess")
    check = pb.CheckDocumentsRequest(collection="notes", documents=[version])
    async with refused("ALREADY_EXISTS", "DOCUMENT_ID_TAKEN"):
        await stub.CheckDocuments(check, metadata=BOB)
    async with refused("PERMISSION_DENIED", "COLLECTION_RESTRICTED"):
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"), metadata=BOB)
    assert await found(stub, ALICE) == {"free", "secret"}
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"), metadata=ALICE)


async def test_a_list_names_only_what_its_writer_holds(stub):
    for access in (["group:ops"], ["user:alice", "user:bob"]):
        async with refused("PERMISSION_DENIED", "ACCESS_NOT_HELD"):
            await put(stub, ("mine", ["text"]), access=access, by=ALICE)
    for access in (["eng"], ["group:"], ["user:a\nb"], [f"user:{n}" for n in range(65)]):
        async with refused("INVALID_ARGUMENT", "ACCESS_INVALID"):
            await put(stub, ("mine", ["text"]), access=access, by=ADMIN)
    await put(stub, ("mine", ["Sales of foxes."]), access=["group:営業部", "user:alice"], by=ALICE)
    assert await found(stub, holding("group:営業部")) == {"free", "mine"}
    await put(stub, ("hers", ["A fox."]), access=["user:bob"], by=ADMIN)
    assert await found(stub, BOB) == {"free", "hers"}


async def test_replacing_the_list_takes_effect_at_once(stub):
    assert await put(stub, SECRET, content_hash="2", access=["group:eng", "group:ops"]) == [
        pb.INDEX_STATUS_REPLACED
    ]
    assert await found(stub, BOB) == {"free", "secret"}
    await put(stub, SECRET, content_hash="3", access=["user:alice"])
    assert await found(stub, BOB) == {"free"}
    assert await found(stub, holding("group:eng")) == {"free"}
    await put(stub, SECRET, content_hash="4")
    assert await found(stub, NOBODY) == {"free", "secret"}
    got = await stub.GetCollection(pb.GetCollectionRequest(name="notes"), metadata=NOBODY)
    assert (got.collection.documents, got.collection.chunks) == (2, 4)


async def test_lists_are_there_after_a_restart(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await put(stub, FREE)
        await put(stub, SECRET, access=["group:eng"])
    async with serving(tmp_path) as stub:
        assert await found(stub, BOB) == {"free"}
        assert await found(stub, ALICE) == {"free", "secret"}
        got = await stub.GetCollection(pb.GetCollectionRequest(name="notes"), metadata=BOB)
        assert (got.collection.documents, got.collection.chunks) == (1, 2)


async def test_attributes_that_cannot_be_read_are_refused(stub):
    async with refused("INVALID_ARGUMENT", "ATTRIBUTES_MALFORMED"):
        await found(stub, [(ATTRIBUTES_KEY, "%%%")])


async def test_a_deleted_tenant_leaves_nothing(tmp_path):
    other = [("x-ragmesh-tenant", "other"), *ADMIN]
    async with serving(tmp_path) as stub:
        for by in (ADMIN, other):
            for name in ("notes", "more"):
                await stub.CreateCollection(pb.CreateCollectionRequest(name=name), metadata=by)
            await put(stub, FREE, by=by)
            await put(stub, SECRET, access=["group:eng"], by=by)
        before = (await stub.GetTenantContents(pb.GetTenantContentsRequest())).contents
        assert (before.collections, before.documents, before.chunks) == (2, 2, 4)
        assert before.folders == 2  # its own, and that of the collection with chunks
        gone = await stub.DeleteTenant(pb.DeleteTenantRequest())
        assert gone.removed == before
        assert gone.left == pb.TenantContents()
        assert (await stub.DeleteTenant(pb.DeleteTenantRequest())).removed == pb.TenantContents()
        listed = await stub.ListCollections(pb.ListCollectionsRequest())
        assert list(listed.collections) == []
        assert await found(stub, other) == {"free", "secret"}
    shards = list((tmp_path / "retrieve" / "shards").glob("[!.]*"))
    assert len(shards) == 1
    data = b"".join(path.read_bytes() for path in (tmp_path / "retrieve").glob("catalog*"))
    assert data.count(b"test-tenant") == 0
