"""The contract of a `Store`, over every one in the registry."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.retrieve.ports import (
    ArmWeights,
    Attributes,
    Bounds,
    CollectionKey,
    Condition,
    Filter,
    SparseVector,
    StoreQuery,
    TimeBounds,
)
from services.runtime.errors import (
    AlreadyExists,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from tests.contract.retrieve.stores import (
    DIMENSIONS,
    DURABLE,
    KEY,
    TERM,
    chunks_of,
    collection,
    document,
    expected,
    put,
    texts,
)


async def test_a_document_is_seen_whole_and_only_once_published(store):
    one = document("a")
    chunks = chunks_of("token", one)
    await store.stage(KEY, [("token", one)], chunks[:1])
    await store.stage(KEY, [], chunks[1:])
    assert await texts(store) == []
    assert (await store.get_collection(KEY)).documents == 0
    (outcome,) = await store.publish(KEY, ["token"])
    assert (outcome.id, outcome.chunks, outcome.status) == ("a", 3, "indexed")
    assert await texts(store) == expected(one)


async def test_a_replacement_leaves_nothing_of_the_old(store):
    first = await store.list_collections(KEY.tenant, "", 10)
    await put(store, document("a", "1", chunks=5), document("b"))
    new = document("a", "2", chunks=2)
    (outcome,) = await put(store, new)
    assert outcome.status == "replaced"
    assert await texts(store) == expected(new, document("b"))
    facts = await store.get_collection(KEY)
    assert (facts.documents, facts.chunks, dict(facts.languages)) == (2, 5, {"en": 5})
    assert (facts.encoder_languages, facts.encoder_normalizes) == (("en", "ja"), True)
    stored = await store.get_document(KEY, "a")
    assert stored.created_at <= stored.updated_at
    assert first[0].name == KEY.name


async def test_the_same_content_changes_nothing(store):
    await put(store, document("a"))
    before = await store.get_document(KEY, "a")
    (outcome,) = await put(store, document("a"))
    assert outcome.status == "unchanged"
    assert await store.get_document(KEY, "a") == before
    assert await texts(store) == expected(document("a"))
    assert list(await store.check_documents(KEY, [("a", "a-1"), ("a", "a-2"), ("b", "b-1")])) == [
        ("a", 3)
    ]


async def test_one_id_twice_in_a_batch_ends_as_the_last(store):
    outcomes = await put(store, document("a", "1"), document("a", "2"))
    assert [one.status for one in outcomes] == ["indexed", "replaced"]
    assert await texts(store) == expected(document("a", "2"))
    assert (await store.get_collection(KEY)).chunks == 3


async def test_a_discarded_document_leaves_nothing(store):
    one = document("a")
    await store.stage(KEY, [("token", one)], chunks_of("token", one))
    store.discard(KEY, ["token"])
    with pytest.raises(Unavailable):
        await store.publish(KEY, ["token"])
    assert await texts(store) == []


async def test_a_deleted_document_is_gone(store):
    await put(store, document("a"), document("b"))
    assert await store.delete_document(KEY, "a") == 3
    assert await texts(store) == expected(document("b"))
    for call in (store.delete_document, store.get_document):
        with pytest.raises(NotFound) as caught:
            await call(KEY, "a")
        assert caught.value.reason == "DOCUMENT_NOT_FOUND"
    assert (await store.get_collection(KEY)).chunks == 3


async def test_listings_are_in_order_and_go_on_where_they_ended(store):
    await put(store, *(document(f"d{n}", chunks=1) for n in range(7)))
    page = await store.list_documents(KEY, "", 3)
    assert [one.id for one in page] == ["d0", "d1", "d2"]
    page = await store.list_documents(KEY, "d2", 10)
    assert [one.id for one in page] == ["d3", "d4", "d5", "d6"]
    await put(store, document("long", chunks=12))
    chunks = await store.list_chunks(KEY, "long", 8, 10)
    assert [one.text for one in chunks] == [f"long-1 chunk {n}" for n in range(8, 12)]
    assert chunks[0].chunk_id.endswith("-8")
    assert (chunks[0].title, chunks[0].heading, chunks[0].page) == (
        "Title of long", "Heading 8", 9,
    )  # fmt: skip


async def test_tenants_do_not_see_each_other(store):
    other = CollectionKey("other", KEY.name)
    await put(store, document("a"))
    for call in (store.get_collection, store.delete_collection):
        with pytest.raises(NotFound):
            await call(other)
    await store.create_collection(collection(other), 10)
    assert await texts(store, other) == []
    assert await store.delete_collection(other) == 0
    assert await texts(store) == expected(document("a"))
    assert [one.name for one in await store.list_collections("other", "", 10)] == []


async def test_collections_are_made_once_and_up_to_a_limit(store):
    with pytest.raises(AlreadyExists):
        await store.create_collection(collection(), 10)
    with pytest.raises(ResourceExhausted):
        await store.create_collection(collection(CollectionKey("tenant", "more")), 1)


async def test_a_collection_made_again_is_empty(store):
    await put(store, document("a"))
    before = await store.get_collection(KEY)
    assert await store.delete_collection(KEY) == 1
    with pytest.raises(NotFound):
        await texts(store)
    await store.create_collection(collection(), 10)
    assert await texts(store) == []
    assert (await store.get_collection(KEY)).generation != before.generation


@pytest.mark.parametrize("open_store", DURABLE, indirect=True)
async def test_everything_is_there_after_a_restart(open_store):
    first = open_store()
    await first.start()
    await first.create_collection(collection(), 10)
    await put(first, document("a"), document("b"))
    await put(first, document("a", "2", chunks=1))
    staged = document("c")
    await first.stage(KEY, [("token", staged)], chunks_of("token", staged))
    await first.aclose()
    second = open_store()
    await second.start()
    try:
        assert await texts(second) == expected(document("a", "2", chunks=1), document("b"))
        assert (await second.get_collection(KEY)).chunks == 4
        await put(second, staged)
        assert len(await texts(second)) == 7
    finally:
        await second.aclose()


async def test_more_collections_than_may_be_open(open_store):
    store = open_store(open_shards=2)
    await store.start()
    try:
        keys = [CollectionKey("tenant", f"c{n}") for n in range(5)]
        for key in keys:
            await store.create_collection(collection(key), 10)
            await put(store, document(key.name), key=key)
        for key in keys:
            assert await texts(store, key) == expected(document(key.name))
    finally:
        await store.aclose()


async def test_arms_are_ranked_and_fused(store):
    await put(store, document("a"), document("b", chunks=2))
    vector = np.eye(DIMENSIONS, dtype="<f4")[1].tobytes()
    hits = await store.search(
        KEY,
        StoreQuery(
            top_k=3, depth=5, weights=ArmWeights(0.5, 0.5), dense=vector,
            sparse=SparseVector((1001,), (1.0,)),
        ),
    )  # fmt: skip
    assert {hit.chunk.text for hit in hits[:2]} == {"a-1 chunk 1", "b-1 chunk 1"}
    assert hits[0].score == pytest.approx(1.0)
    assert hits[0].dense_score == pytest.approx(1.0)
    assert hits[0].dense_rank == hits[0].sparse_rank == 1
    assert len(hits) == 3
    assert hits[2].sparse_rank is None


async def test_the_dense_arm_can_be_kept_to_languages(store):
    one, two = document("a"), document("b")
    await store.stage(
        KEY, [("1", one), ("2", two)], [*chunks_of("1", one), *chunks_of("2", two, "ja")]
    )
    await store.publish(KEY, ["1", "2"])
    vector = np.eye(DIMENSIONS, dtype="<f4")[0].tobytes()
    query = StoreQuery(
        top_k=9, depth=9, weights=ArmWeights(1, 0), dense=vector, dense_languages=("en",)
    )
    assert {hit.chunk.language for hit in await store.search(KEY, query)} == {"en"}
    assert dict((await store.get_collection(KEY)).languages) == {"en": 3, "ja": 3}


METADATA: dict[str, dict[str, Any]] = {
    "a": {"year": 2020, "score": 1.5, "ok": True, "tags": ["x", "y"], "when": "2026-11-20"},
    "b": {"year": 2021, "ok": False, "deep": {"er": "z"}, "when": "2026-11-21T09:00:00+09:00"},
    "c": {"発行 年": 'q"uote', "ok": 1, "year": "2020", "many": [{"k": 1}, {"k": 2}]},
}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (Condition("document_id", equals="b"), "b"),
        (Condition("document_id", any_of=("a", "c", "x")), "ac"),
        (Condition("source", equals="c.md"), "c"),
        (Condition("title", equals="Title of a"), "a"),
        (Condition("heading", equals="Heading 0"), "abc"),
        (Condition("language", equals="ja"), ""),
        (Condition("page", equals=1.0), "abc"),
        (Condition("page", range=Bounds(gt=1)), ""),
        (Condition("metadata.year", equals=2020.0), "a"),
        (Condition("metadata.year", equals="2020"), "c"),
        (Condition("metadata.year", range=Bounds(gt=2020, lte=2021)), "b"),
        (Condition("metadata.year", any_of=(2020.0, 2021.0)), "ab"),
        (Condition("metadata.score", equals=1.5), "a"),
        (Condition("metadata.ok", equals=True), "a"),
        (Condition("metadata.ok", equals=False), "b"),
        (Condition("metadata.ok", equals=1.0), "c"),
        (Condition("metadata.tags", equals="y"), "a"),
        (Condition("metadata.deep.er", equals="z"), "b"),
        (Condition("metadata.many.k", equals=2.0), "c"),
        (Condition("metadata.発行 年", equals='q"uote'), "c"),
        (Condition("metadata.when", datetime_range=TimeBounds(lt="2026-11-21")), "a"),
        (Condition("metadata.when", datetime_range=TimeBounds(gte="2026-11-21T00:00:00Z")), "b"),
        (
            Condition("", group=Filter(should=(Condition("metadata.ok", equals=True),
                                              Condition("document_id", equals="c")))),
            "ac",
        ),
    ],
)  # fmt: skip
async def test_filters(store, condition, found):
    await put(store, *(document(name, chunks=1, **METADATA[name]) for name in METADATA))
    everything = sorted(f"{name}-1 chunk 0" for name in "abc")
    hits = [f"{name}-1 chunk 0" for name in found]
    assert await texts(store, filter=Filter(must=(condition,))) == hits
    rest = [text for text in everything if text not in hits]
    assert await texts(store, filter=Filter(must_not=(condition,))) == rest
    assert await texts(store, filter=Filter(should=(condition,))) == hits


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        (TimeBounds(gte="2026-11-20", lt="2026-11-22"), "abd"),
        (TimeBounds(gt="2026-11-20"), "bd"),
        (TimeBounds(lte="2026-11-20T23:59:59.5Z"), "a"),
        (TimeBounds(gt="2026-11-21T00:00:00+09:00", lt="2026-11-21T00:00:01z"), "bd"),
        (TimeBounds(gte="2027-01-01"), "d"),
    ],
)
async def test_dates_in_metadata(store, bounds, found):
    """Dates, times with and without a zone, lists of them; other strings are no dates."""
    given = {
        "a": "2026-11-20",
        "b": "2026-11-21T09:00:00+09:00",
        "c": "tomorrow",
        "d": ["soon", "2026-11-21 00:00:00", "2030-01-01T00:00:00.123456789Z"],
        "e": 20261121,
    }
    await put(store, *(document(one, chunks=1, when=when) for one, when in given.items()))
    condition = Condition("metadata.when", datetime_range=bounds)
    hits = [f"{name}-1 chunk 0" for name in found]
    assert await texts(store, filter=Filter(must=(condition,))) == hits


async def test_term_weights_are_the_idf_of_the_sparse_arm(store):
    await put(store, document("a"), document("b", chunks=2))
    weights = await store.term_weights(KEY, [TERM, 1000, 1002, 5])
    # N = 5 chunks; ln((N - n + .5) / (n + .5) + 1)
    expected_weights = [math.log((5 - n + 0.5) / (n + 0.5) + 1) for n in (5, 2, 1)]
    assert weights == pytest.approx([*expected_weights, 0.0], rel=1e-5)
    query = StoreQuery(
        top_k=1, depth=5, weights=ArmWeights(0, 1), sparse=SparseVector((1002,), (1.0,))
    )
    (hit,) = await store.search(KEY, query)
    assert hit.score == pytest.approx(2.0 * expected_weights[2], rel=1e-5)


async def test_idf_is_of_the_collection_alone(store):
    other = CollectionKey("other", "notes")
    await store.create_collection(collection(other), 10)
    await put(store, document("a"))
    before = await store.term_weights(KEY, [TERM, 1000])
    await put(store, *(document(f"d{n}") for n in range(5)), key=other)
    assert await store.term_weights(KEY, [TERM, 1000]) == pytest.approx(before)


async def test_candidates_come_with_vectors_and_terms_when_asked(store):
    await put(store, document("a"))
    sparse = SparseVector((TERM,), (1.0,))
    query = StoreQuery(top_k=3, depth=3, weights=ArmWeights(0, 1), sparse=sparse, vectors=True,
                       terms=True)  # fmt: skip
    hits = await store.search(KEY, query)
    for hit in hits:
        index = int(hit.chunk.chunk_id.rpartition("-")[2])
        assert set(hit.terms) == {TERM, 1000 + index}
        assert np.frombuffer(hit.vector, "<f4") == pytest.approx(np.eye(DIMENSIONS)[index])
    plain = await store.search(KEY, replace(query, vectors=False, terms=False))
    assert [(hit.vector, hit.terms) for hit in plain] == [(None, None)] * 3


async def test_access_lists_hold_in_every_store(store):
    secret = replace(document("secret"), access=("group:eng", "user:alice"))
    pairs = [("s", secret), ("f", document("free"))]
    chunks = [chunk for token, one in pairs for chunk in chunks_of(token, one)]
    await store.stage(KEY, pairs, chunks, ("*",))
    await store.publish(KEY, ["s", "f"])
    for attributes in ((), ("group:ops",)):
        assert await texts(store, attributes=attributes) == expected(document("free"))
        with pytest.raises(NotFound):
            await store.list_chunks(KEY, "secret", 0, 10, attributes)
        with pytest.raises(PermissionDenied):
            await store.delete_collection(KEY, attributes)
    assert await texts(store, attributes=("*",)) == expected(secret, document("free"))


async def test_a_tenant_is_deleted_without_a_trace(store):
    other = CollectionKey("other", "notes")
    await store.create_collection(collection(other), 10)
    await put(store, document("a"), document("b"))
    await put(store, document("c"), key=other)
    removed = await store.delete_tenant(KEY.tenant)
    assert (removed.collections, removed.documents, removed.chunks) == (1, 2, 6)
    left = await store.tenant_contents(KEY.tenant)
    assert (left.collections, left.documents, left.chunks, left.folders) == (0, 0, 0, 0)
    assert await texts(store, other) == expected(document("c"))


async def test_an_empty_collection_answers_with_nothing(store):
    query = StoreQuery(
        top_k=1, depth=1, weights=ArmWeights(0, 1), sparse=SparseVector((TERM,), (1.0,))
    )
    assert list(await store.search(KEY, query)) == []


async def test_access_lists_open_documents(store):
    hidden = replace(document("b"), access=("group:eng", "user:alice"))
    await put(store, document("a"), hidden)
    outside: list[Attributes] = [(), ("group:ops",), ("group:engineering",), ("user:alic",)]
    for attributes in outside:
        assert await texts(store, attributes=attributes) == expected(document("a"))
        assert (await store.get_collection(KEY, attributes)).documents == 1
    inside: list[Attributes] = [("group:eng",), ("user:bob", "user:alice"), ("*",)]
    for attributes in inside:
        assert await texts(store, attributes=attributes) == expected(document("a"), hidden)
        assert (await store.get_collection(KEY, attributes)).chunks == 6
    assert (await store.get_document(KEY, "b", ("*",))).access == hidden.access
