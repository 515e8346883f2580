"""What copying needs of a `Store`: reading a document as it was indexed, moving it in one commit,
and putting a collection in the place of another."""

from dataclasses import replace

import numpy as np
import pytest

from services.retrieve.ports import Attributes, CollectionKey
from services.runtime.errors import Aborted, NotFound, PermissionDenied
from tests.contract.retrieve.stores import (
    DIMENSIONS,
    DURABLE,
    KEY,
    chunks_of,
    collection,
    document,
    expected,
    put,
    texts,
)

OTHER = CollectionKey(KEY.tenant, ".copy")


async def test_a_document_is_read_as_it_was_indexed(store):
    one = document("a", chunks=5, tag="x")
    chunks = [
        replace(each, chunk=replace(each.chunk, normalized_text=f"normalised {each.chunk.index}"))
        for each in chunks_of("token", one)
    ]
    await store.stage(KEY, [("token", one)], chunks)
    await store.publish(KEY, ["token"])
    facts, read = await store.read_document(KEY, "a", 1, 3)
    assert facts == await store.get_document(KEY, "a")
    assert [each.chunk for each in read] == [each.chunk for each in chunks[1:4]]
    for each in read:
        vector = np.frombuffer(each.dense, "<f4")
        assert vector == pytest.approx(np.eye(DIMENSIONS)[each.chunk.index])
    assert (await store.read_document(KEY, "a", 5, 3))[1] in ([], ())
    with pytest.raises(NotFound) as caught:
        await store.read_document(KEY, "b", 0, 1)
    assert caught.value.reason == "DOCUMENT_NOT_FOUND"


async def test_a_restricted_document_is_read_by_whom_its_list_names(store):
    await put(store, replace(document("a"), access=("group:eng",)))
    outside: list[Attributes] = [(), ("group:ops",)]
    for attributes in outside:
        with pytest.raises(NotFound):
            await store.read_document(KEY, "a", 0, 1, attributes)
    assert (await store.read_document(KEY, "a", 0, 9, ("group:eng",)))[0].id == "a"


async def test_the_times_of_a_copy_are_kept(store):
    await put(store, replace(document("a"), created_at=1000.0, updated_at=2000.5))
    kept = await store.get_document(KEY, "a")
    assert (kept.created_at, kept.updated_at) == (1000.0, 2000.5)
    await put(store, document("a", "2"))
    later = await store.get_document(KEY, "a")
    assert later.created_at == 1000.0
    assert later.updated_at > 2000.5


async def test_one_commit_publishes_and_removes(store):
    await put(store, document("old"), document("other"))
    new = document("new")
    await store.stage(KEY, [("token", new)], chunks_of("token", new))
    (outcome,) = await store.publish(KEY, ["token"], [("old", "old-1")])
    assert (outcome.id, outcome.status) == ("new", "indexed")
    assert await texts(store) == expected(new, document("other"))
    assert (await store.get_collection(KEY)).documents == 2
    with pytest.raises(NotFound):
        await store.get_document(KEY, "old")


@pytest.mark.parametrize("removing", [("old", "old-0"), ("missing", "old-1")])
async def test_what_was_changed_meanwhile_is_not_removed_and_nothing_is_published(store, removing):
    await put(store, document("old"))
    new = document("new")
    await store.stage(KEY, [("token", new)], chunks_of("token", new))
    with pytest.raises(Aborted) as caught:
        await store.publish(KEY, ["token"], [removing])
    assert caught.value.reason == "DOCUMENT_CHANGED"
    assert await texts(store) == expected(document("old"))
    await store.publish(KEY, ["token"], [("old", "old-1")])  # it is still staged
    assert await texts(store) == expected(new)


async def test_a_collection_takes_the_place_of_another(store):
    await put(store, document("a"), document("b"))
    before = await store.get_collection(KEY)
    await store.create_collection(replace(collection(OTHER), encoder="words@2"), 10)
    await put(store, document("a"), document("b"), key=OTHER)
    copy = await store.get_collection(OTHER)
    await store.replace_collection(KEY, OTHER)
    after = await store.get_collection(KEY)
    assert (after.encoder, after.generation) == ("words@2", copy.generation)
    assert (after.name, after.description) == (before.name, before.description)
    assert (after.created_at, after.documents) == (before.created_at, 2)
    with pytest.raises(NotFound):
        await store.get_collection(OTHER)
    assert await texts(store) == expected(document("a"), document("b"))
    contents = await store.tenant_contents(KEY.tenant)
    assert (contents.collections, contents.documents) == (1, 2)
    await put(store, document("c"))
    assert len(await texts(store)) == 9
    await store.create_collection(collection(OTHER), 10)
    assert await texts(store, OTHER) == []


@pytest.mark.parametrize(
    "copied", [["a"], ["a", "b", "c"], ["a", "c"]], ids=["missing", "more", "other"]
)
async def test_only_equals_take_each_others_place(store, copied):
    await put(store, document("a"), document("b"))
    await store.create_collection(collection(OTHER), 10)
    await put(store, *(document(name) for name in copied), key=OTHER)
    with pytest.raises(Aborted) as caught:
        await store.replace_collection(KEY, OTHER)
    assert caught.value.reason == "COLLECTION_CHANGED"
    assert await texts(store) == expected(document("a"), document("b"))
    assert (await store.get_collection(OTHER)).documents == len(copied)


async def test_another_content_under_the_same_id_is_no_equal(store):
    await put(store, document("a", "2"))
    await store.create_collection(collection(OTHER), 10)
    await put(store, document("a", "1"), key=OTHER)
    with pytest.raises(Aborted):
        await store.replace_collection(KEY, OTHER)


async def test_who_may_not_read_all_of_it_may_not_replace_it(store):
    secret = replace(document("a"), access=("group:eng",))
    await put(store, secret)
    await store.create_collection(collection(OTHER), 10)
    await put(store, secret, key=OTHER)
    with pytest.raises(PermissionDenied) as caught:
        await store.replace_collection(KEY, OTHER, ("group:ops",))
    assert caught.value.reason == "COLLECTION_RESTRICTED"
    await store.replace_collection(KEY, OTHER, ("*",))
    assert await texts(store, attributes=()) == []
    assert len(await texts(store, attributes=("*",))) == 3


@pytest.mark.parametrize("open_store", DURABLE, indirect=True)
async def test_a_taken_place_is_taken_after_a_restart(open_store):
    first = open_store()
    await first.start()
    await first.create_collection(collection(), 10)
    await put(first, document("a"))
    await first.create_collection(collection(OTHER), 10)
    await put(first, document("a"), key=OTHER)
    staged = document("late")
    await first.stage(KEY, [("late", staged)], chunks_of("late", staged))
    await first.replace_collection(KEY, OTHER)
    generation = (await first.get_collection(KEY)).generation
    await first.aclose()
    second = open_store()
    await second.start()
    try:
        assert (await second.get_collection(KEY)).generation == generation
        assert await texts(second) == expected(document("a"))
        assert (await second.tenant_contents(KEY.tenant)).collections == 1
    finally:
        await second.aclose()
