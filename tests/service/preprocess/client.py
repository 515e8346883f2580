"""A client that speaks ProcessDocument as the gateway does."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from ragmesh.preprocess.v1 import preprocess_pb2 as pb
from ragmesh.preprocess.v1 import preprocess_pb2_grpc

FRAME_BYTES = 64 * 1024

Stub = preprocess_pb2_grpc.PreprocessServiceStub


@dataclass(frozen=True)
class Answer:
    """What one document came back as."""

    tokenizer_needed: bool
    document: pb.DocumentInfo
    chunks: list[pb.Chunk]


def frames(data: bytes) -> Iterable[bytes]:
    return (data[first : first + FRAME_BYTES] for first in range(0, len(data), FRAME_BYTES))


async def process(
    stub: Stub,
    filename: str,
    data: bytes,
    *,
    chunking: pb.Chunking | None = None,
    tokenizer: bytes = b"",
    title: str = "",
) -> Answer:
    """Send one document and collect the answer; raises AioRpcError."""
    header = pb.DocumentHeader(filename=filename, title=title, chunking=chunking or pb.Chunking())
    call = stub.ProcessDocument()
    await call.write(pb.ProcessDocumentRequest(header=header))
    first = await call.read()
    if not isinstance(first, pb.ProcessDocumentResponse):  # refused: the status says why
        async for _ in call:
            pass
        raise AssertionError("neither ready nor refused")
    try:
        if first.ready.tokenizer_needed:
            for part in frames(tokenizer):
                await call.write(pb.ProcessDocumentRequest(tokenizer=part))
        for part in frames(data):
            await call.write(pb.ProcessDocumentRequest(data=part))
        await call.done_writing()
    except asyncio.InvalidStateError:
        pass  # refused in the middle of the upload: reading on raises the status
    rest = [response async for response in call]
    chunks = [chunk for response in rest[1:] for chunk in response.chunks.chunks]
    return Answer(first.ready.tokenizer_needed, rest[0].document, chunks)
