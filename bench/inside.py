"""The retrieve service inside a bench's process: no gRPC, everything else real."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from bench.corpus import DOCUMENT_CHUNKS, Piece
from bench.process import tenant_id
from bench.word_vectors import NAME, WORD_VECTORS
from services.retrieve.__main__ import wire
from services.retrieve.adapters import ENCODERS
from services.retrieve.core import Retrieval
from services.retrieve.indexing import Indexing
from services.retrieve.ports import Chunk, Collection, CollectionKey, Document, Published
from services.retrieve.settings import RetrieveSettings
from services.text.normalize import normalize

TENANT = tenant_id("bench")
COLLECTION = "corpus"
KEY = CollectionKey(TENANT, COLLECTION)
_FRAME_CHUNKS = 64
_CALIBRATION_SECONDS = 1800.0


def settings(data: Path, **changed: Any) -> RetrieveSettings:
    """Those of a service with the quick encoder, which they make known to this process."""
    ENCODERS[NAME] = WORD_VECTORS
    return RetrieveSettings(data=data, embedding_backend=NAME, **changed)


async def opened(chosen: RetrieveSettings) -> Retrieval:
    """A retrieval that can work."""
    retrieval = wire(chosen)
    await retrieval.start()
    return retrieval


async def ingest(retrieval: Retrieval, pieces: Iterable[Piece], total: int) -> float:
    """Index chunks in documents of twenty, as `IndexDocuments` would; returns the seconds."""
    started = time.perf_counter()
    indexing = Indexing(retrieval, TENANT, COLLECTION)
    done = 0
    async for outcome in indexing.run(frames(pieces, total)):
        done += outcome.chunks if isinstance(outcome, Published) else 0
    assert done == total, f"{done} of {total} chunks were indexed"
    return time.perf_counter() - started


async def frames(pieces: Iterable[Piece], total: int) -> AsyncIterator[Document | list[Chunk]]:
    """Documents and their chunks; `total` chunks from a multiple of twenty on."""
    waiting: list[Chunk] = []
    left = total
    for piece in pieces:
        index = piece.number % DOCUMENT_CHUNKS
        if index == 0:
            if waiting:
                yield waiting
                waiting = []
            yield document(piece, min(DOCUMENT_CHUNKS, left))
        waiting.append(Chunk(index, piece.text, normalize(piece.text), "", None, "en"))
        left -= 1
        if len(waiting) == _FRAME_CHUNKS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def document(piece: Piece, chunks: int) -> Document:
    """The facts of the document that a chunk opens."""
    number = piece.number // DOCUMENT_CHUNKS
    return Document(
        id=f"d{number}", title=piece.title, source=f"d{number}.md", metadata_json="{}",
        content_hash=f"{piece.title}-{number}", format="md", language="en", pages=0,
        chunks=chunks, bytes=0,
    )  # fmt: skip


def number_of(chunk_id: str, document_id: str) -> int:
    """The number of the chunk that was found."""
    return int(document_id[1:]) * DOCUMENT_CHUNKS + int(chunk_id.rpartition("-")[2])


async def calibrated(retrieval: Retrieval) -> Collection:
    """The collection, once its arms were measured."""
    async with asyncio.timeout(_CALIBRATION_SECONDS):
        await retrieval.learning.settled(KEY)
    return await retrieval.store.get_collection(KEY)


def disk_mb(folder: Path) -> float:
    """What a folder's files take on disk: holes of sparse files are not counted."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            found += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return found / (1 << 20)
