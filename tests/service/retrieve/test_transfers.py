"""Export and import, moves and reindexing over gRPC: the real engine, a small encoder."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import struct_pb2

from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from services.retrieve.adapters import STORES
from services.runtime.context import ATTRIBUTES_KEY, pack_attributes
from services.runtime.registry import resolve
from tests.service.retrieve.test_servicer import (
    FOX,
    OTHER_TENANT,
    TOKYO,
    index,
    refused,
    serving,
)
from tests.unit.retrieve.fakes import WordModel

EVERYTHING = [(ATTRIBUTES_KEY, pack_attributes(("*",)))]


@pytest.fixture
def model():
    return WordModel()


@pytest.fixture
async def stub(tmp_path, model):
    async with serving(tmp_path, model=model) as stub:
        for name in ("notes", "copy"):
            await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
        yield stub


@dataclass
class Export:
    header: pb.ExportHeader = field(default_factory=pb.ExportHeader)
    documents: list[tuple[pb.IndexDocument, list[pb.IndexChunk]]] = field(default_factory=list)

    @property
    def ids(self):
        return [document.id for document, _ in self.documents]

    def frames(self, collection, origin=None):
        header = pb.IndexHeader(collection=collection, origin=origin)
        yield pb.IndexDocumentsRequest(header=header)
        for document, chunks in self.documents:
            yield pb.IndexDocumentsRequest(document=document)
            yield pb.IndexDocumentsRequest(chunks=pb.IndexChunks(chunks=chunks))

    @property
    def origin(self):
        of = self.header.collection
        return pb.IndexOrigin(encoder=of.encoder, analyzer=of.analyzer, profile=self.header.profile)


async def export(stub, collection="notes", metadata=None, **options):
    request = pb.ExportDocumentsRequest(collection=collection, **options)
    found = Export()
    async for frame in stub.ExportDocuments(request, metadata=metadata):
        match frame.WhichOneof("frame"):
            case "header":
                found.header = frame.header
            case "document":
                found.documents.append((frame.document, []))
            case "chunks":
                found.documents[-1][1].extend(frame.chunks.chunks)
    return found


async def found(stub, query, collection="notes", **options):
    request = pb.SearchRequest(collection=collection, query=query, top_k=50, **options)
    hits = (await stub.Search(request)).hits
    return [(hit.passage.chunk_id, round(hit.passage.score, 4), hit.passage.text) for hit in hits]


def many(count, words=3):
    return [(f"d{n:03}", [f"number {n} tells of fox {n * 7 + k}" for k in range(words)])
            for n in range(count)]  # fmt: skip


async def reindex(stub, name="notes", **options):
    request = pb.ReindexCollectionRequest(name=name, **options)
    return [progress async for progress in stub.ReindexCollection(request)]


# Export and import


async def test_an_imported_export_is_found_just_so_and_nothing_is_embedded(stub, model):
    await index(stub, FOX, TOKYO, *many(20))
    await learned(stub, "notes")
    exported = await export(stub)
    assert exported.ids == sorted(["fox", "tokyo", *(one for one, _ in many(20))])
    batches = len(model.batches)
    acks = [ack async for ack in stub.IndexDocuments(exported.frames("copy", exported.origin))]
    assert {ack.status for ack in acks} == {pb.INDEX_STATUS_INDEXED}
    assert acks[-1].embedded_chunks == 0
    assert len(model.batches) == batches
    for query in ("quick fox", "number 7 tells", "東京タワー", "lazy dog"):
        for mode in (pb.SEARCH_MODE_HYBRID, pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_SPARSE):
            here = await found(stub, query, mode=mode)
            assert here
            assert await found(stub, query, "copy", mode=mode) == here
    again = await export(stub, "copy")
    learned_there = exported.header.collection.calibration.languages
    assert again.header.collection.calibration.languages == learned_there
    for (document, chunks), (copy, copied) in zip(exported.documents, again.documents, strict=True):
        assert document == copy  # times and all
        assert chunks == copied


async def test_an_export_goes_on_where_it_stopped(stub):
    await index(stub, *many(10))
    whole = await export(stub)
    rest = await export(stub, after="d006", generation=whole.header.generation)
    assert rest.ids == ["d007", "d008", "d009"]
    await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"))
    await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
    async with refused("ABORTED", "COLLECTION_CHANGED"):
        await export(stub, after="d006", generation=whole.header.generation)


async def test_a_document_of_many_chunks_is_exported_whole(stub):
    long = ("long", [f"chunk number {n}" for n in range(500)])
    await index(stub, long)
    ((document, chunks),) = (await export(stub)).documents
    assert document.chunk_count == 500
    assert [chunk.index for chunk in chunks] == list(range(500))
    assert {len(chunk.vector) for chunk in chunks} == {4 * 32}


async def test_an_export_holds_what_the_token_may_read(stub):
    await index(stub, FOX)
    frames = Export(documents=[
        (pb.IndexDocument(id="secret", content_hash="h", chunk_count=1, access=["group:eng"]),
         [pb.IndexChunk(text="treasure", normalized_text="treasure")]),
    ]).frames("notes")  # fmt: skip
    assert [ack.id async for ack in stub.IndexDocuments(frames, metadata=EVERYTHING)]
    plain = await export(stub)
    assert (plain.ids, plain.header.everything) == (["fox"], False)
    assert plain.header.collection.documents == 1
    whole = await export(stub, metadata=EVERYTHING)
    assert (whole.ids, whole.header.everything) == (["fox", "secret"], True)
    assert list(whole.documents[1][0].access) == ["group:eng"]
    async with refused("PERMISSION_DENIED", "ACCESS_NOT_HELD"):
        async for _ in stub.IndexDocuments(whole.frames("copy", whole.origin)):
            pass
    async with refused("NOT_FOUND", "COLLECTION_NOT_FOUND"):
        await export(stub, metadata=OTHER_TENANT)


async def test_vectors_of_another_encoder_are_left_out(stub, model):
    await index(stub, FOX)
    exported = await export(stub)
    exported.documents[0][1][0].vector = b"\0" * 7
    origin = pb.IndexOrigin(encoder="other@3", analyzer=exported.origin.analyzer)
    acks = [ack async for ack in stub.IndexDocuments(exported.frames("copy", origin))]
    assert acks[-1].embedded_chunks == 2
    assert await found(stub, "quick fox", "copy") == await found(stub, "quick fox")


@pytest.mark.parametrize("scheme", ["memory", "qdrant+local"])
async def test_a_collection_moves_to_another_store_and_back(stub, tmp_path, scheme):
    await index(stub, FOX, TOKYO, *many(20))
    await learned(stub, "notes")
    exported = await export(stub)
    model = WordModel()
    store = resolve(STORES, scheme, "store")("", tmp_path / "other")
    async with serving(tmp_path, model=model, store=store) as other:
        await other.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        batches = len(model.batches)
        async for _ in other.IndexDocuments(exported.frames("notes", exported.origin)):
            pass
        assert len(model.batches) == batches
        for mode in (pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_SPARSE):
            here, there = [await found(one, "fox 7", mode=mode) for one in (stub, other)]
            assert [(id, pytest.approx(score, rel=1e-4)) for id, score, _ in there[:5]] == [
                (id, score) for id, score, _ in here[:5]
            ]
        back = await export(other)
        assert [one for one, _ in back.documents] == [one for one, _ in exported.documents]
        assert (await reindex(other, force=True))[-1].reindexed


@pytest.mark.parametrize(
    "vector", [b"\0" * 4 * 31, b"\0" * 4 * 32, b"\xff" * 4 * 32], ids=["short", "zero", "nan"]
)
async def test_a_vector_that_is_none_is_refused(stub, vector):
    await index(stub, FOX)
    exported = await export(stub)
    exported.documents[0][1][1].vector = vector
    async with refused("INVALID_ARGUMENT", "CHUNK_INVALID"):
        async for _ in stub.IndexDocuments(exported.frames("copy", exported.origin)):
            pass
    copy = await stub.GetCollection(pb.GetCollectionRequest(name="copy"))
    assert copy.collection.documents == 0


async def test_a_profile_that_is_none_is_left_out(stub):
    await index(stub, FOX)
    exported = await export(stub)
    for profile in ("{", "[]", '{"format": 1}', '{"format":1,"averages":{"en":["x"]}}'):
        origin = pb.IndexOrigin(
            encoder=exported.origin.encoder, analyzer=exported.origin.analyzer, profile=profile
        )
        assert [ack.id async for ack in stub.IndexDocuments(exported.frames("copy", origin))]
    assert await found(stub, "fox", "copy")


async def learned(stub, name):
    async with asyncio.timeout(30):
        while True:
            one = (await stub.GetCollection(pb.GetCollectionRequest(name=name))).collection
            if one.HasField("calibration"):
                return
            await asyncio.sleep(0.05)


# Moving


async def move(stub, id="fox", **change):
    request = pb.MoveDocumentRequest(collection="notes", id=id, **change)
    return (await stub.MoveDocument(request)).document


async def test_a_document_moves_without_being_embedded(stub, model):
    await index(stub, FOX, TOKYO)
    before = await export(stub)
    batches = len(model.batches)
    metadata = struct_pb2.Struct()
    metadata.update({"digest": "x"})
    made = await move(stub, new_id="reynard", title="Reynard", source="r.md", metadata=metadata)
    assert len(model.batches) == batches
    assert (made.id, made.title, made.source) == ("reynard", "Reynard", "r.md")
    assert made.metadata["digest"] == "x"
    assert made.created_at == before.documents[0][0].created_at
    after = await export(stub)
    assert after.ids == ["reynard", "tokyo"]
    assert after.documents[0][1] == before.documents[0][1]
    hits = await found(stub, "reynard", mode=pb.SEARCH_MODE_SPARSE)
    assert {text for _, _, text in hits} == set(FOX[1])
    async with refused("NOT_FOUND", "DOCUMENT_NOT_FOUND"):
        await move(stub, new_id="again")


async def test_facts_change_in_place(stub):
    await index(stub, FOX)
    before = (await export(stub)).documents[0][0]
    made = await move(stub, title="Another")
    assert (made.id, made.title, made.source) == ("fox", "Another", "fox.md")
    assert made.content_hash != before.content_hash
    collection = await stub.GetCollection(pb.GetCollectionRequest(name="notes"))
    assert (collection.collection.documents, collection.collection.chunks) == (1, 2)
    assert await move(stub, title="Another") == made


async def test_another_document_is_replaced_only_when_that_is_asked(stub):
    await index(stub, FOX, TOKYO)
    async with refused("ALREADY_EXISTS", "DOCUMENT_EXISTS"):
        await move(stub, new_id="tokyo")
    await move(stub, new_id="tokyo", replace=True)
    ((document, chunks),) = (await export(stub)).documents
    assert document.id == "tokyo"
    assert [chunk.text for chunk in chunks] == FOX[1]


async def test_what_may_not_be_read_is_neither_moved_nor_replaced(stub):
    await index(stub, FOX)
    frames = Export(documents=[
        (pb.IndexDocument(id="secret", content_hash="h", chunk_count=1, access=["group:eng"]),
         [pb.IndexChunk(text="treasure", normalized_text="treasure")]),
    ]).frames("notes")  # fmt: skip
    assert [ack.id async for ack in stub.IndexDocuments(frames, metadata=EVERYTHING)]
    async with refused("NOT_FOUND", "DOCUMENT_NOT_FOUND"):
        await move(stub, "secret", new_id="mine")
    for replace in (False, True):
        async with refused("ALREADY_EXISTS", "DOCUMENT_ID_TAKEN"):
            await move(stub, new_id="secret", replace=replace)
    async with refused("INVALID_ARGUMENT", "DOCUMENT_INVALID"):
        await move(stub, new_id="a\nb")
    assert (await export(stub, metadata=EVERYTHING)).ids == ["fox", "secret"]


# Reindexing


async def test_a_collection_of_another_encoder_is_made_anew(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(
            pb.CreateCollectionRequest(name="notes", description="about foxes")
        )
        await index(stub, FOX, TOKYO, *many(20))
        before = await export(stub)
    async with serving(tmp_path, model=WordModel(version="2")) as stub:
        async with refused("FAILED_PRECONDITION", "ENCODER_MISMATCH"):
            await found(stub, "fox")
        told = await reindex(stub)
        last = told[-1]
        assert last.reindexed
        assert (last.documents, last.total_documents, last.embedded_chunks) == (22, 22, 64)
        assert last.collection.encoder == "words@2"
        assert last.collection.description == "about foxes"
        assert last.collection.created_at == before.header.collection.created_at
        assert (await found(stub, "quick fox"))[0][2] == FOX[1][0]
        after = await export(stub)
        assert [one for one, _ in after.documents] == [one for one, _ in before.documents]
        listed = await stub.ListCollections(pb.ListCollectionsRequest())
        assert [one.name for one in listed.collections] == ["notes"]
        contents = await stub.GetTenantContents(pb.GetTenantContentsRequest())
        assert contents.contents.collections == 1
        (again,) = await reindex(stub)
        assert (again.reindexed, again.collection.encoder) == (False, "words@2")


async def test_only_the_terms_are_made_anew_where_the_encoder_is_the_same(stub, model):
    await index(stub, FOX)
    (fits,) = await reindex(stub)
    assert not fits.reindexed
    batches = len(model.batches)
    told = await reindex(stub, force=True)
    assert (told[-1].reindexed, told[-1].embedded_chunks) == (True, 2)
    assert len(model.batches) > batches


async def test_a_reindexing_that_was_broken_off_goes_on(tmp_path):
    async with serving(tmp_path) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, *many(150, words=5))
    slow = WordModel(version="2", pause=0.2)
    async with serving(tmp_path, model=slow) as stub:
        call = stub.ReindexCollection(pb.ReindexCollectionRequest(name="notes"))
        async for progress in call:
            if progress.documents:
                break
        async with refused("ABORTED", "REINDEX_RUNNING"):
            await reindex(stub)
        call.cancel()
        for request in (pb.GetCollectionRequest(name=".notes"),):
            async with refused("NOT_FOUND", "COLLECTION_NOT_FOUND"):
                await stub.GetCollection(request)
    quick = WordModel(version="2")
    async with serving(tmp_path, model=quick) as stub:
        told = await reindex(stub)
        assert 0 < told[0].documents < 150
        assert told[-1].embedded_chunks == 5 * (150 - told[0].documents)
        assert (await export(stub)).ids == [one for one, _ in many(150)]


async def test_what_is_written_meanwhile_is_not_lost(tmp_path):
    async with serving(tmp_path, model=WordModel(pause=0.01)) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, *many(60))
        running = asyncio.create_task(reindex(stub, force=True))
        written, number = set(), 0
        while not running.done():
            with contextlib.suppress(grpc.aio.AioRpcError):  # COLLECTION_BUSY, or swapped away
                await index(stub, (f"w{number:03}", [f"written {number}"]))
                written.add(f"w{number:03}")
            if number % 5 == 4:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    request = pb.DeleteDocumentRequest(collection="notes", id=f"d{number:03}")
                    await stub.DeleteDocument(request)
                    written.add(f"-d{number:03}")
            number += 1
        assert (await running)[-1].reindexed
        ids = set((await export(stub)).ids)
        gone = {one[1:] for one in written if one.startswith("-")}
        assert written - {f"-{one}" for one in gone} <= ids
        assert not gone & ids
        assert {one for one, _ in many(60)} - gone <= ids


async def test_who_may_not_read_all_of_it_may_not_make_it_anew(stub):
    frames = Export(documents=[
        (pb.IndexDocument(id="secret", content_hash="h", chunk_count=1, access=["group:eng"]),
         [pb.IndexChunk(text="treasure", normalized_text="treasure")]),
    ]).frames("notes")  # fmt: skip
    assert [ack.id async for ack in stub.IndexDocuments(frames, metadata=EVERYTHING)]
    async with refused("PERMISSION_DENIED", "COLLECTION_RESTRICTED"):
        await reindex(stub, force=True)
    request = pb.ReindexCollectionRequest(name="notes", force=True)
    told = [one async for one in stub.ReindexCollection(request, metadata=EVERYTHING)]
    assert told[-1].reindexed
    assert (await export(stub, metadata=EVERYTHING)).ids == ["secret"]


async def test_what_was_begun_goes_with_the_collection(tmp_path):
    async with serving(tmp_path, model=WordModel(pause=0.1)) as stub:
        await stub.CreateCollection(pb.CreateCollectionRequest(name="notes"))
        await index(stub, *many(40, words=5))
        call = stub.ReindexCollection(pb.ReindexCollectionRequest(name="notes", force=True))
        async for progress in call:
            if progress.documents:
                break
        call.cancel()
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name="notes"))
        contents = (await stub.GetTenantContents(pb.GetTenantContentsRequest())).contents
        assert (contents.collections, contents.chunks) == (0, 0)
