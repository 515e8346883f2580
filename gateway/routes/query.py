"""``POST /v1/query``: a question answered from a collection."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import sse, views
from gateway.bodies import JsonBody, Needs
from gateway.exchange import Call
from gateway.schemas import AnswerView, QueryBody
from gateway.state import state_of
from ragmesh.gateway.v1 import gateway_pb2

router = APIRouter(tags=["Answers"])

Events = AsyncGenerator[gateway_pb2.StreamQueryResponse, None]


@router.post("/v1/query", response_model=AnswerView, summary="Answer a question")
async def query(
    request: Request,
    call: Annotated[Call, Depends(Needs("chat", "search"))],
    body: Annotated[QueryBody, Depends(JsonBody(QueryBody))],
) -> Response:
    """Finds passages, answers from them and cites them as `[n]`. When nothing relevant is found
    the answer says so, with no citation and low confidence.

    With `stream: true` the answer comes as server-sent events: `event: sources` (what was
    retrieved), `event: delta` (`{"text"}`), and `event: done` with the authoritative object.
    """
    state = state_of(request.app)
    if not body.stream:
        return views.json_response(views.answer(await state.pipeline.query(call, body.to_proto())))
    events = state.pipeline.stream_query(call, body.to_proto())
    return await sse.stream(
        spelled(events),
        route="/v1/query",
        keepalive=state.settings.keepalive_seconds,
        named=True,
    )


async def spelled(events: Events) -> AsyncGenerator[bytes, None]:
    """The pipeline's events as server-sent events."""
    async with aclosing(events):
        async for event in events:
            match event.WhichOneof("event"):
                case "sources":
                    yield sse.event("sources", views.sources(event.sources))
                case "delta":
                    yield sse.event("delta", {"text": event.delta})
                case "done":
                    yield sse.event("done", views.answer(event.done))
                case _:
                    pass
