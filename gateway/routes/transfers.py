"""Collections as a whole: out of a mesh, into one, and made anew."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from gateway import sse, transfers, views
from gateway.bodies import JsonBody, Needs
from gateway.errors import unsupported_content_type
from gateway.exchange import Call
from gateway.schemas import (
    ImportView,
    ReindexBody,
    ReindexView,
    UnchangedBody,
    UnchangedView,
)
from gateway.state import state_of
from ragmesh.retrieve.v1 import retrieve_pb2

router = APIRouter(tags=["Transfers"])

PREFIX = "/v1/collections/{name}"
NDJSON = "application/x-ndjson"
Reader = Annotated[Call, Depends(Needs("documents:read", ingest=True))]
Writer = Annotated[Call, Depends(Needs("documents:write", ingest=True))]


@router.get(
    PREFIX + "/export",
    summary="Export",
    response_class=Response,
    responses={200: {"content": {NDJSON: {}}, "description": "Records, one a line."}},
)
async def export(
    request: Request,
    name: str,
    call: Reader,
    after: Annotated[str, Query(max_length=512, description="The document to go on after.")] = "",
    generation: Annotated[
        str, Query(max_length=200, description="The `generation` that the header began with.")
    ] = "",
) -> Response:
    """The documents that the token may read, by id, with their chunks and vectors, as
    `application/x-ndjson`: the records that docs/transfers.md describes. A `document` counts once
    all of its chunks are there. The stream is whole when its last record is `end`; a failure on
    the way is a last line with the error object. With `after`, and the `generation` of the header,
    it goes on after a document."""
    state = state_of(request.app)
    asked = retrieve_pb2.ExportDocumentsRequest(collection=name, after=after, generation=generation)
    lines = transfers.spelled(state.pipeline.export(call, asked))
    return await sse.stream(
        lines, route=PREFIX + "/export", keepalive=state.settings.keepalive_seconds, lines=True
    )


@router.post(PREFIX + "/import", response_model=ImportView, summary="Import")
async def import_documents(request: Request, name: str, call: Writer) -> Response:
    """Takes records of an export, as `application/x-ndjson`, into a collection that exists: up to
    1,000 documents a call. With the `header` first, vectors of the collection's encoder are taken
    over; others are made from the texts. Access lists name only what the token holds. Documents
    that are there with the same content are left as they are, so a call may be repeated."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != NDJSON:
        raise unsupported_content_type(f"Send the records as {NDJSON}.")
    state = state_of(request.app)
    coming = transfers.Import(name, request.stream(), state.settings)
    acks = state.pipeline.import_documents(call, name, coming.frames())
    return views.json_response(await transfers.imported(coming, acks))


@router.post(PREFIX + "/unchanged", response_model=UnchangedView, summary="Check documents")
async def unchanged(
    request: Request,
    name: str,
    call: Writer,
    body: Annotated[UnchangedBody, Depends(JsonBody(UnchangedBody))],
) -> Response:
    """Which of the named documents are in the collection with just that content."""
    found = await state_of(request.app).pipeline.check_documents(call, body.to_proto(name))
    return views.json_response(
        {"unchanged": [{"id": one.id, "chunks": one.chunks} for one in found.unchanged]}
    )


@router.post(PREFIX + "/reindex", response_model=ReindexView, summary="Reindex")
async def reindex(
    request: Request,
    name: str,
    call: Writer,
    body: Annotated[ReindexBody, Depends(JsonBody(ReindexBody))],
) -> Response:
    """Makes the collection anew with the running encoder and analyser, from the chunks that it has,
    while it goes on answering; needs a token that may read all of it. Answers as server-sent
    events: `event: progress`, and `event: done` with `reindexed` and the collection, or
    `event: error`. What was done is kept when the stream ends early: a repeat goes on with it."""
    state = state_of(request.app)
    progress = state.pipeline.reindex(call, name, force=body.force)
    return await sse.stream(
        _spelled(progress),
        route=PREFIX + "/reindex",
        keepalive=state.settings.keepalive_seconds,
        named=True,
    )


async def _spelled(
    progress: AsyncGenerator[retrieve_pb2.ReindexCollectionResponse, None],
) -> AsyncGenerator[bytes, None]:
    async with aclosing(progress):
        async for one in progress:
            name = "done" if one.HasField("collection") else "progress"
            yield sse.event(name, transfers.reindexed(one))
