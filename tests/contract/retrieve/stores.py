"""What the store's contract tests write and ask."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.retrieve.adapters import LOCAL_STORES, SPARSE_BACKENDS, STORES
from services.retrieve.ports import (
    ArmWeights,
    Chunk,
    CollectionKey,
    Document,
    EncodedChunk,
    FieldTerms,
    NewCollection,
    Published,
    SparseVector,
    Store,
    StoreQuery,
    WordQuery,
)
from services.runtime.registry import resolve

MERGING = "edge, merging"
"""Edge with so low a bound that nearly every publication makes a run, which is then merged."""
_ARMS = SPARSE_BACKENDS.keys() - {"engine"}
PLACES = sorted(
    [
        *(STORES.keys() - {"grpcs", "https", "rediss"}),
        *(f"{store}+{arm}" for store in LOCAL_STORES for arm in _ARMS),
        MERGING,
    ]
)
"""Stores to test, and those with another sparse arm beside them; ``grpc`` and ``http`` are at
servers that stand in for Qdrant's, ``redis`` at a Redis 8. TLS changes how a server is reached, not
what it is asked."""
AT_SERVERS = frozenset({"grpc", "http", "redis"})
"""Those that `make_store` cannot open: a server must be started for them."""
DURABLE = [one for one in PLACES if not one.startswith("memory")]
KEY = CollectionKey("tenant", "notes")
DIMENSIONS = 8
TERM = 77  # a term that every chunk has
WORD = "every"  # the same as a word
_tokens = itertools.count()


def make_store(name: str, data: Path, **options) -> Store:
    """A store of `PLACES` that keeps its data in a folder, over that."""
    if name == MERGING:
        return make_store("edge", data, merge_points=4, **options)
    store, _, arm = name.rpartition("+")
    if arm not in SPARSE_BACKENDS:
        store, arm = name, "engine"
    made: Store = resolve(STORES, store, "store")("", data, **options, **_arm(arm))
    return made


def _arm(name: str) -> dict[str, str]:
    return {} if name == "engine" else {"sparse": name}


def collection(key: CollectionKey = KEY) -> NewCollection:
    return NewCollection(
        key, "for tests", "words@1", DIMENSIONS, "terms@1", "0" * 64, 200, 20, ("en", "ja"), True
    )


def document(document_id: str, revision: str = "1", chunks: int = 3, **metadata) -> Document:
    return Document(
        id=document_id, title=f"Title of {document_id}", source=f"{document_id}.md",
        metadata_json=json.dumps(metadata), content_hash=f"{document_id}-{revision}",
        format="md", language="en", pages=0, chunks=chunks, bytes=10,
    )  # fmt: skip


def chunks_of(token: str, one: Document, language: str = "en") -> list[EncodedChunk]:
    return [
        EncodedChunk(
            token,
            Chunk(index, f"{one.content_hash} chunk {index}", f"{one.content_hash} chunk {index}",
                  f"Heading {index}", index + 1, language),
            np.eye(DIMENSIONS, dtype="<f4")[index % DIMENSIONS].tobytes(),
            SparseVector((TERM, 1000 + index), (1.0, 2.0)),
            FieldTerms(("title", "of", one.id), ("heading", f"h{index}"),
                       (WORD, f"w{index}", "last"), ()),
        )
        for index in range(one.chunks)
    ]  # fmt: skip


async def put(store: Store, *documents: Document, key: CollectionKey = KEY) -> Sequence[Published]:
    """Stage and publish documents in one batch."""
    pairs = [(f"t{next(_tokens)}", one) for one in documents]
    chunks = [chunk for token, one in pairs for chunk in chunks_of(token, one)]
    await store.stage(key, pairs, chunks)
    return await store.publish(key, [token for token, _ in pairs])


async def texts(store: Store, key: CollectionKey = KEY, **options) -> list[str]:
    """The texts of all chunks, as a sparse search finds them."""
    query = StoreQuery(
        top_k=1000, depth=1000, weights=ArmWeights(0, 1), sparse=SparseVector((TERM,), (1.0,)),
        words=WordQuery(((WORD, 1.0),)), **options,
    )  # fmt: skip
    return sorted(hit.chunk.text for hit in await store.search(key, query))


async def dense_texts(store: Store, key: CollectionKey = KEY) -> list[str]:
    """The texts of all chunks, as a dense search finds them."""
    vector = np.ones(DIMENSIONS, "<f4").tobytes()
    query = StoreQuery(top_k=1000, depth=1000, weights=ArmWeights(1, 0), dense=vector)
    return sorted(hit.chunk.text for hit in await store.search(key, query))


def expected(*documents: Document) -> list[str]:
    return sorted(
        f"{one.content_hash} chunk {index}" for one in documents for index in range(one.chunks)
    )
