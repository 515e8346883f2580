"""What learning needs of a store: samples, scans, replaced sparse vectors and a profile."""

import numpy as np
import pytest

from services.retrieve.ports import ArmWeights, CollectionKey, SparseVector, StoreQuery
from services.runtime.errors import NotFound
from tests.contract.retrieve.stores import DIMENSIONS, KEY, TERM, collection, document, put


async def test_a_scan_reads_every_chunk_once_in_order(store):
    await put(store, document("a", chunks=3), document("b", chunks=5))
    await put(store, document("a", revision="2", chunks=2))  # the old version is not read
    found, after = [], 0
    while page := await store.scan(KEY, after, 2):
        assert len(page) <= 2
        found += page
        after = page[-1].position
    assert [one.position for one in found] == sorted({one.position for one in found})
    texts = sorted(one.chunk.normalized_text for one in found)
    assert texts == [f"a-2 chunk {n}" for n in range(2)] + [f"b-1 chunk {n}" for n in range(5)]
    one = found[-1]
    assert (one.title, one.chunk.heading) == ("Title of a", "Heading 1")
    assert np.frombuffer(one.dense, "<f4").tolist() == np.eye(DIMENSIONS)[1].tolist()


async def test_a_sample_is_drawn_from_all_chunks(store):
    assert not await store.sample(KEY, 5, seed=1)
    await put(store, document("a", chunks=30), document("b", chunks=10))
    drawn = await store.sample(KEY, 12, seed=1)
    assert len({one.position for one in drawn}) == 12
    assert {one.title for one in drawn} == {"Title of a", "Title of b"}
    assert list(drawn) == list(await store.sample(KEY, 12, seed=1))
    assert len(await store.sample(KEY, 1000, seed=2)) == 40


async def test_sparse_vectors_are_replaced_and_nothing_else(store):
    await put(store, document("a", chunks=2))
    first, second = await store.scan(KEY, 0, 10)
    await store.replace_sparse(KEY, [(first.position, SparseVector((TERM, 9), (5.0, 1.0)))])
    query = StoreQuery(
        top_k=10, depth=10, weights=ArmWeights(0, 1), sparse=SparseVector((TERM,), (1.0,))
    )
    best, other = await store.search(KEY, query)
    assert best.chunk.text == first.chunk.text
    assert best.score == pytest.approx(5 * other.score)
    assert list(await store.scan(KEY, 0, 10)) == [first, second]
    await store.delete_document(KEY, "a")
    await store.replace_sparse(KEY, [(first.position, SparseVector((TERM,), (5.0,)))])
    assert not await store.search(KEY, query)  # what is gone does not come back


async def test_a_profile_belongs_to_one_generation(store):
    made = await store.get_collection(KEY)
    assert made.profile == ""
    await store.set_profile(KEY, made.generation, '{"a": 1}')
    assert (await store.get_collection(KEY)).profile == '{"a": 1}'
    await store.set_profile(KEY, "another", '{"a": 2}')
    assert (await store.get_collection(KEY)).profile == '{"a": 1}'
    await store.delete_collection(KEY)
    await store.create_collection(collection(), 10)
    assert (await store.get_collection(KEY)).profile == ""
    with pytest.raises(NotFound):
        await store.set_profile(CollectionKey("tenant", "none"), "x", "{}")


async def test_all_chunks_are_counted_whoever_asks(store):
    await put(store, document("a", chunks=4))
    assert (await store.get_collection(KEY)).all_chunks == 4
