"""``POST /v1/generate`` and ``/v1/summarize``: the simple task routes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import completions, sse, views
from gateway.bodies import JsonBody, Needs
from gateway.completions import EngineEvents, Generation
from gateway.errors import too_large
from gateway.exchange import Call
from gateway.schemas import GenerateBody, SummarizeBody, TextView
from gateway.state import State, state_of
from ragmesh.infer.v1 import infer_pb2
from services.runtime.errors import InvalidArgument

router = APIRouter(tags=["Tasks"])


@router.post("/v1/generate", response_model=TextView, summary="Generate a text")
async def generate(
    request: Request,
    call: Annotated[Call, Depends(Needs("chat"))],
    body: Annotated[GenerateBody, Depends(JsonBody(GenerateBody))],
) -> Response:
    """Works on a text. With `stream: true`: `event: delta` (`{"text"}`), then `event: done`."""
    state = state_of(request.app)
    _check_length(state, body.text)
    return await _answer(state, call, body.to_proto(), "/v1/generate")


@router.post("/v1/summarize", response_model=TextView, summary="Summarise a text or a document")
async def summarize(
    request: Request,
    call: Annotated[Call, Depends(Needs("chat"))],
    body: Annotated[SummarizeBody, Depends(JsonBody(SummarizeBody))],
) -> Response:
    """Summarises a `text`, or a document of a collection (`document_id` and `collection`, which
    needs the scope `documents:read` besides). Streams as `/v1/generate` does."""
    state = state_of(request.app)
    text = await _text(state, call, body)
    _check_length(state, text)
    return await _answer(state, call, body.to_proto(text), "/v1/summarize")


async def _text(state: State, call: Call, body: SummarizeBody) -> str:
    if body.text is not None:
        if body.document_id is not None:
            raise InvalidArgument(
                "PARAMETER_INVALID", "Send text or document_id, not both.", field="document_id"
            )
        return body.text
    if body.document_id is None:
        raise InvalidArgument("FIELD_REQUIRED", "text or document_id is required.", field="text")
    if body.collection is None:
        raise InvalidArgument("FIELD_REQUIRED", "document_id needs collection.", field="collection")
    call.principal.require("documents:read")
    return await state.pipeline.document_text(call, body.collection, body.document_id)


def _check_length(state: State, text: str) -> None:
    most = state.settings.max_text_characters
    if len(text) > most:
        raise too_large(
            "REQUEST_TOO_LARGE", f"text is longer than {most} characters.", field="text"
        )


async def _answer(
    state: State, call: Call, asked: infer_pb2.GenerateRequest, route: str
) -> Response:
    events = state.pipeline.generate(call, asked)
    if not asked.stream:
        return views.json_response(_view(await completions.gather(events)))
    return await sse.stream(
        _spelled(events),
        route=route,
        keepalive=state.settings.keepalive_seconds,
        named=True,
    )


async def _spelled(events: EngineEvents) -> AsyncGenerator[bytes, None]:
    made = Generation()
    async with aclosing(events):
        async for event in events:
            made.add(event)
            if event.HasField("delta") and event.delta.text:
                yield sse.event("delta", {"text": event.delta.text})
    yield sse.event("done", _view(made.finished()))


def _view(made: Generation) -> views.View:
    return {"text": made.text, "model": made.model, "usage": views.usage(made.usage)}
