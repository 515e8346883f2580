"""What the store's contract tests write and ask."""

import itertools
import json
from collections.abc import Sequence

import numpy as np

from services.retrieve.adapters import STORES
from services.retrieve.ports import (
    ArmWeights,
    Chunk,
    CollectionKey,
    Document,
    EncodedChunk,
    NewCollection,
    Published,
    SparseVector,
    Store,
    StoreQuery,
)

PLACES = sorted(STORES.keys() - {"grpcs", "https"})
"""Stores to test; TLS changes how a server is reached, not what it is asked."""
DURABLE = [one for one in PLACES if one != "memory"]
KEY = CollectionKey("tenant", "notes")
DIMENSIONS = 8
TERM = 77  # a term that every chunk has
_tokens = itertools.count()


def collection(key: CollectionKey = KEY) -> NewCollection:
    return NewCollection(key, "for tests", "words@1", DIMENSIONS, "terms@1", "0" * 64, 200, 20)


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
        **options,
    )  # fmt: skip
    return sorted(hit.chunk.text for hit in await store.search(key, query))


def expected(*documents: Document) -> list[str]:
    return sorted(
        f"{one.content_hash} chunk {index}" for one in documents for index in range(one.chunks)
    )
