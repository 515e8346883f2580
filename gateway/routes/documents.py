"""``/v1/collections/{name}/documents``: documents in, out and away."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import sse, views
from gateway.bodies import JsonBody, Needs, is_json, parse
from gateway.errors import unsupported_content_type
from gateway.exchange import Call
from gateway.freeform import to_struct
from gateway.ingest import Meter, Upload
from gateway.paging import Page, page
from gateway.schemas import (
    ChunksView,
    DeletedView,
    DocumentsBody,
    DocumentsView,
    DocumentView,
    IngestView,
    MoveBody,
)
from gateway.state import state_of
from gateway.uploads import (
    check_metadata,
    from_documents,
    from_form,
    read_form,
    refuse_misplaced_access,
)
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.retrieve.v1 import retrieve_pb2

router = APIRouter(tags=["Documents"])

PREFIX = "/v1/collections/{name}/documents"
Reader = Annotated[Call, Depends(Needs("documents:read"))]
Writer = Annotated[Call, Depends(Needs("documents:write", ingest=True))]
Chosen = Annotated[Page, Depends(page)]


Coming = AsyncGenerator[Meter | list[gateway_pb2.IngestResult], None]


@router.post(
    PREFIX,
    status_code=201,
    response_model=IngestView,
    summary="Ingest documents",
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "The same with its progress, under `Accept: text/event-stream`.",
        }
    },
)
async def ingest(request: Request, name: str, call: Writer) -> Response:
    """Takes files as `multipart/form-data` (parts named `file`; optional `metadata`: a JSON object
    for all of them, or a list of one object a file) or JSON `{"documents": [...]}`, up to 1,000 a
    call, and answers once all are durable and searchable. A file's id is `metadata.id`, else its
    name; its source is `metadata.source`, else its name. All are parsed before any is indexed: one
    bad document refuses the call and is named. The same content under the same id changes
    nothing.

    Under `Accept: text/event-stream`, without `application/json` beside it, it answers 200 with
    server-sent events: `event: progress` (`{"documents", "total_documents", "chunks",
    "total_chunks"}`: documents that were parsed or are there already, and their chunks that are
    embedded, of those in the documents parsed so far), and `event: done` with the answer, or
    `event: error`. What fails before the first event has a status of its own. A client that
    leaves before the end cancels the call, and nothing of it is indexed."""
    state = state_of(request.app)
    content_type = request.headers.get("content-type", "")
    if is_json(content_type):
        body = parse(DocumentsBody, await request.body())
        uploads = from_documents(body.documents, state.settings)
        return await _answered(request, call, name, uploads, AsyncExitStack())
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        form = await read_form(request, state.settings)
        async with AsyncExitStack() as files:
            files.push_async_callback(form.close)
            uploads = from_form(form, state.settings)
            return await _answered(request, call, name, uploads, files)
    raise unsupported_content_type("Send documents as multipart/form-data or as JSON.")


async def _answered(
    request: Request, call: Call, name: str, uploads: Sequence[Upload], files: AsyncExitStack
) -> Response:
    """The answer once all is done, or the stream that tells of it, which then closes the files."""
    state = state_of(request.app)
    if not wants_events(request.headers.getlist("accept")):
        results = await state.pipeline.ingest(call, name, uploads)
        return views.json_response(views.ingest_results(results), 201)
    coming = state.pipeline.watch_ingest(call, name, uploads)
    return await sse.stream(
        _spelled(coming, files.pop_all()),
        route=PREFIX,
        keepalive=state.settings.keepalive_seconds,
        named=True,
    )


def wants_events(accept: Sequence[str]) -> bool:
    """Whether the headers ask for events. Clients that name JSON beside them, as those of other
    protocols do in every call, expect the plain answer."""
    kinds = {
        one.partition(";")[0].strip().lower() for header in accept for one in header.split(",")
    }
    return "text/event-stream" in kinds and "application/json" not in kinds


async def _spelled(coming: Coming, files: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    async with files, aclosing(coming):
        async for one in coming:
            if isinstance(one, Meter):
                yield sse.event("progress", views.ingest_progress(one))
            else:
                yield sse.event("done", views.ingest_results(one))


@router.get(PREFIX, response_model=DocumentsView, summary="List documents")
async def list_documents(request: Request, name: str, call: Reader, page: Chosen) -> Response:
    """A collection's documents by id."""
    found = await state_of(request.app).pipeline.list_documents(call, name, page.limit, page.after)
    return views.json_response(
        {
            "documents": [views.document(each) for each in found.documents],
            "next": found.next_page_token or None,
        }
    )


# Before the route of a document: an id may hold slashes, as the name of a file in a folder does.
@router.get(PREFIX + "/{id:path}/chunks", response_model=ChunksView, summary="List chunks")
async def list_chunks(request: Request, name: str, id: str, call: Reader, page: Chosen) -> Response:
    """A document's chunks in reading order."""
    found = await state_of(request.app).pipeline.list_chunks(call, name, id, page.limit, page.after)
    return views.json_response(
        {
            "chunks": [views.chunk(each) for each in found.chunks],
            "next": found.next_page_token or None,
        }
    )


@router.get(PREFIX + "/{id:path}", response_model=DocumentView, summary="Get a document")
async def get_document(request: Request, name: str, id: str, call: Reader) -> Response:
    """A document's facts."""
    found = await state_of(request.app).pipeline.get_document(call, name, id)
    return views.json_response(views.document(found))


@router.patch(PREFIX + "/{id:path}", response_model=DocumentView, summary="Change a document")
async def change_document(
    request: Request,
    name: str,
    id: str,
    call: Writer,
    body: Annotated[MoveBody, Depends(JsonBody(MoveBody))],
) -> Response:
    """Gives a document another id, title, source or metadata, in one commit and without embedding
    it again: its chunks keep their vectors, and sparse search finds the new title. Its access list
    stays."""
    state = state_of(request.app)
    if body.metadata is not None:
        check_metadata(body.metadata, "metadata", state.settings)
        refuse_misplaced_access(body.metadata, "body")
    moved = retrieve_pb2.MoveDocumentRequest(
        collection=name,
        id=id,
        new_id=body.id or "",
        title=body.title,
        source=body.source,
        metadata=None if body.metadata is None else to_struct(body.metadata, "metadata"),
        replace=body.replace,
    )
    return views.json_response(views.document(await state.pipeline.move_document(call, moved)))


@router.delete(PREFIX + "/{id:path}", response_model=DeletedView, summary="Delete a document")
async def delete_document(request: Request, name: str, id: str, call: Writer) -> Response:
    """Deletes a document with its chunks."""
    await state_of(request.app).pipeline.delete_document(call, name, id)
    return views.json_response({"id": id, "deleted": True})
