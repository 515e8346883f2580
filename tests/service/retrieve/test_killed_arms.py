"""What was acknowledged survives ``kill -9``, whole and in both arms, in other stores than Edge."""

import asyncio
import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from services.retrieve.ports import Store
from tests.contract.retrieve.stores import (
    KEY,
    chunks_of,
    collection,
    dense_texts,
    document,
    expected,
    make_store,
    put,
    texts,
)
from tests.service.retrieve.test_durability import gone

ROUNDS = 5
REPOSITORY = Path(__file__).resolve().parents[3]


async def check(store: Store, acknowledged: dict[str, int]) -> dict[str, int]:
    """Both arms have the same documents, each whole, once, and not older than acknowledged."""
    stored = await store.list_documents(KEY, "", 100)
    revisions = {one.id: int(one.content_hash.split("-")[1]) for one in stored}
    for one, revision in acknowledged.items():
        # The writer may have been killed between an acknowledgement and its line.
        assert revision <= revisions.get(one, 0) <= revision + 1
    whole = expected(
        *(document(one, str(number), chunks=1 + number % 7) for one, number in revisions.items())
    )
    assert await texts(store) == whole
    assert await dense_texts(store) == whole
    facts = await store.get_collection(KEY)
    assert (facts.documents, facts.chunks, facts.lacks_words) == (len(stored), len(whole), False)
    return revisions


@pytest.mark.parametrize("place", ["edge+whoosh", "faiss", "faiss+whoosh"])
async def test_a_writer_is_killed_at_random_moments(place, tmp_path):
    rng = random.Random(place)
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.service.retrieve.writer", str(tmp_path), place,
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert writer.stdout is not None
        engine = int(await writer.stdout.readline())
        first = await writer.stdout.readline()
        await asyncio.sleep(rng.uniform(0.0, 0.7))
        writer.kill()
        lines = [first, *(await writer.stdout.read()).splitlines()]
        await writer.wait()
        seen: defaultdict[str, int] = defaultdict(int)
        for line in lines:
            if len(parts := line.split()) == 2:
                seen[parts[0].decode()] = max(seen[parts[0].decode()], int(parts[1]))
        acknowledged.update(seen)
        await gone(engine)
        store = make_store(place, tmp_path)
        await store.start()
        try:
            acknowledged = await check(store, acknowledged)
        finally:
            await store.aclose()


async def test_words_are_given_to_a_collection_that_was_indexed_without(tmp_path):
    """SPARSE_BACKEND is changed, either way, without indexing again."""
    one, two = document("a"), document("b")
    store = make_store("faiss", tmp_path)
    await store.start()
    await store.create_collection(collection(), 10)
    await put(store, one)
    await store.aclose()
    store = make_store("faiss+whoosh", tmp_path)
    await store.start()
    assert (await store.get_collection(KEY)).lacks_words
    assert await texts(store) == expected(one)  # the engine's own arm answers
    await put(store, two)
    assert await texts(store) == expected(one, two)
    chunks = await store.scan(KEY, 0, 100)
    terms = [chunks_of("t", one)[each.chunk.index].terms for each in chunks[:3]]
    pairs = [(each.position, given) for each, given in zip(chunks, terms, strict=False) if given]
    await store.add_words(KEY, pairs, last=True)
    assert not (await store.get_collection(KEY)).lacks_words
    assert await texts(store) == expected(one, two)
    await store.aclose()
    for place, lacks in (("faiss+whoosh", False), ("faiss", False), ("faiss+whoosh", True)):
        store = make_store(place, tmp_path)
        await store.start()
        assert (await store.get_collection(KEY)).lacks_words is lacks
        assert await texts(store) == expected(one, two)
        await store.aclose()
