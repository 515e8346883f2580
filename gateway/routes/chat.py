"""``POST /v1/chat/completions`` and ``POST /v1/completions``, as OpenAI's clients know them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import completions, sse, views
from gateway.bodies import JsonBody, Needs
from gateway.completions import EngineEvents
from gateway.exchange import Call
from gateway.openai import ChatBody, CompletionBody
from gateway.pipeline import Pipeline
from gateway.state import state_of
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/chat/completions", summary="Continue a chat")
async def chat(
    request: Request,
    call: Annotated[Call, Depends(Needs("chat"))],
    body: Annotated[ChatBody, Depends(JsonBody(ChatBody))],
) -> Response:
    """OpenAI's chat completion, plain and as a stream. The object `retrieval` turns it into an
    answer from a collection: its message, or the delta of its finish chunk, then carries
    `citations`. That needs the scope `search` besides."""
    state = state_of(request.app)
    if body.retrieval is not None:
        call.principal.require("search")
    asked = gateway_pb2.ChatRequest(
        generate=body.to_proto(),
        retrieval=body.retrieval.to_proto() if body.retrieval else None,
        session_id=body.session_id,
    )
    events = state.pipeline.chat(call, asked)
    if not body.stream:
        made = await completions.gather_chat(events)
        return views.json_response(completions.chat_completion(made))
    chunks = completions.chat_chunks(events, include_usage=body.include_usage)
    return await sse.stream(
        spelled(chunks),
        route="/v1/chat/completions",
        keepalive=state.settings.keepalive_seconds,
    )


@router.post("/v1/completions", summary="Continue a text")
async def complete(
    request: Request,
    call: Annotated[Call, Depends(Needs("chat"))],
    body: Annotated[CompletionBody, Depends(JsonBody(CompletionBody))],
) -> Response:
    """OpenAI's older completion: a text, or several, continued without a chat template."""
    state = state_of(request.app)
    asked = [body.to_proto(prompt) for prompt in body.prompts]
    if not body.stream:
        made = [
            await completions.gather(state.pipeline.generate(call, generate)) for generate in asked
        ]
        return views.json_response(completions.text_completion(made))
    chunks = completions.text_chunks(
        in_turn(state.pipeline, call, asked),
        choices_each=body.n or 1,
        include_usage=body.include_usage,
    )
    return await sse.stream(
        spelled(chunks),
        route="/v1/completions",
        keepalive=state.settings.keepalive_seconds,
    )


async def in_turn(
    pipeline: Pipeline, call: Call, asked: list[infer_pb2.GenerateRequest]
) -> AsyncIterator[EngineEvents]:
    """One prompt's events after another's."""
    for generate in asked:
        yield pipeline.generate(call, generate)


async def spelled(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """Chunks as OpenAI's server-sent events."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield sse.data(chunk)
    yield sse.DONE
