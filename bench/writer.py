"""``python -m bench.writer ADDRESS SEED CHUNKS START COUNT``: index part of a corpus over gRPC.

A process of its own, so that making text takes nothing from who measures. Says "ready" when all
text is made, begins when the standard input ends, and leaves with status 0 once every chunk is
durable and searchable.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc

from bench import inside
from bench.corpus import Corpus
from bench.process import metadata
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.retrieve.ports import Chunk, Document


async def write(address: str, requests: Sequence[pb.IndexDocumentsRequest], count: int) -> None:
    """Index `count` chunks into the bench's collection."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = pb_grpc.RetrieveServiceStub(channel)
        with suppress(grpc.aio.AioRpcError):  # it is there already
            await stub.CreateCollection(
                pb.CreateCollectionRequest(name=inside.COLLECTION), metadata=metadata()
            )
        done = 0
        async for one in stub.IndexDocuments(iter(requests), metadata=metadata()):
            done += one.chunks
    if done != count:
        raise SystemExit(f"{done} of {count} chunks were indexed")


async def made(corpus: Corpus, start: int, count: int) -> list[pb.IndexDocumentsRequest]:
    """What is sent for `count` chunks from `start` on, a multiple of twenty."""
    header = pb.IndexDocumentsRequest(header=pb.IndexHeader(collection=inside.COLLECTION))
    frames = inside.frames(corpus.pieces(start, start + count), count)
    return [header, *[request(one) async for one in frames]]


def request(frame: Document | list[Chunk]) -> pb.IndexDocumentsRequest:
    """A frame of the port as one of the service."""
    if isinstance(frame, Document):
        document = pb.IndexDocument(
            id=frame.id,
            title=frame.title,
            source=frame.source,
            content_hash=frame.content_hash,
            chunk_count=frame.chunks,
        )
        return pb.IndexDocumentsRequest(document=document)
    chunks = [
        pb.IndexChunk(
            index=one.index,
            text=one.text,
            normalized_text=one.normalized_text,
            language=one.language,
        )
        for one in frame
    ]
    return pb.IndexDocumentsRequest(chunks=pb.IndexChunks(chunks=chunks))


if __name__ == "__main__":
    where = sys.argv[1]
    seed, chunks, first, size = map(int, sys.argv[2:])
    everything = asyncio.run(made(Corpus(seed, chunks=chunks), first, size))
    print("ready", flush=True)
    sys.stdin.read()
    asyncio.run(write(where, everything, size))
