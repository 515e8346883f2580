"""The engine's events as OpenAI's completions, in one piece or in chunks.

A chunk's id, created and model never change; a choice's first chunk carries the role; a finish
chunk ends each choice; usage, when asked for, comes last with `choices: []`.
"""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from gateway import views
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from ragmesh.type.v1 import chat_pb2
from services.runtime.errors import Internal

FINISH_REASONS = {
    infer_pb2.FINISH_REASON_STOP: "stop",
    infer_pb2.FINISH_REASON_LENGTH: "length",
    infer_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    infer_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}

Json = dict[str, Any]
ChatEvents = AsyncGenerator[gateway_pb2.ChatResponse, None]
EngineEvents = AsyncGenerator[infer_pb2.GenerateResponse, None]


@dataclass(slots=True)
class Choice:
    """One choice as it grows."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, Json] = field(default_factory=dict)
    logprobs: list[infer_pb2.TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    unanswered: bool = False

    def add(self, delta: infer_pb2.Delta) -> None:
        if delta.text:
            self.text.append(delta.text)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        self.logprobs.extend(delta.logprobs)
        for piece in delta.tool_calls:
            call = self.tool_calls.setdefault(
                piece.index,
                {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["id"] = call["id"] or piece.id
            call["function"]["name"] = call["function"]["name"] or piece.name
            call["function"]["arguments"] += piece.arguments


@dataclass(slots=True)
class Generation:
    """A generation in one piece."""

    model: str = ""
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: chat_pb2.Usage = field(default_factory=chat_pb2.Usage)
    citations: gateway_pb2.Citations | None = None

    def choice(self, index: int) -> Choice:
        return self.choices.setdefault(index, Choice())

    def add(self, event: infer_pb2.GenerateResponse) -> None:
        match event.WhichOneof("event"):
            case "started":
                self.model = event.started.model
            case "delta":
                self.choice(event.delta.index).add(event.delta)
            case "finish":
                self.choice(event.finish.index).finish_reason = _reason(event.finish)
                self.choice(event.finish.index).unanswered = event.finish.unanswered
            case "usage":
                self.usage = event.usage
            case _:
                pass

    def finished(self) -> "Generation":
        """Itself, when every choice has ended.

        Raises:
            Internal: ENGINE_BAD_ANSWER: an engine stopped in the middle.
        """
        if not self.choices or any(
            choice.finish_reason is None for choice in self.choices.values()
        ):
            raise broken_off()
        return self

    @property
    def text(self) -> str:
        """The first choice's text."""
        return "".join(self.choice(0).text)


async def gather(events: EngineEvents) -> Generation:
    """Join a generation's events."""
    made = Generation()
    async with aclosing(events):
        async for event in events:
            made.add(event)
    return made.finished()


async def gather_chat(events: ChatEvents) -> Generation:
    """Join a chat's events."""
    made = Generation()
    async with aclosing(events):
        async for event in events:
            if event.HasField("citations"):
                made.citations = event.citations
            else:
                made.add(event.generated)
    return made.finished()


def chat_completion(made: Generation) -> Json:
    """The answer of a plain chat."""
    return {
        "id": _new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": made.model,
        "choices": [
            {
                "index": index,
                "message": _message(choice, made.citations),
                "logprobs": _chat_logprobs(choice.logprobs),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in sorted(made.choices.items())
        ],
        "usage": views.usage(made.usage),
    }


def text_completion(generations: list[Generation]) -> Json:
    """The answer of a plain completion: one generation a prompt, numbered through."""
    choices: list[Json] = []
    usage = chat_pb2.Usage()
    for made in generations:
        _add(usage, made.usage)
        for _, choice in sorted(made.choices.items()):
            choices.append(
                {
                    "index": len(choices),
                    "text": "".join(choice.text),
                    "logprobs": _text_logprobs(choice.logprobs),
                    "finish_reason": choice.finish_reason,
                }
            )
    return {
        "id": _new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": generations[0].model,
        "choices": choices,
        "usage": views.usage(usage),
    }


async def chat_chunks(events: ChatEvents, *, include_usage: bool) -> AsyncGenerator[Json, None]:
    """The chunks of a streamed chat, without the final `[DONE]`."""
    head: Json = {
        "id": _new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "",
    }
    tail: Json = {"usage": None} if include_usage else {}
    open_choices: set[int] = set()
    ended: set[int] = set()
    cited: Json = {}
    usage = chat_pb2.Usage()

    def chunk(index: int, delta: Json, *, logprobs: Any = None, reason: Any = None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**head, "choices": [choice], **tail}

    def opening(index: int) -> list[Json]:
        if index in open_choices:
            return []
        open_choices.add(index)
        return [chunk(index, {"role": "assistant", "content": ""})]

    async with aclosing(events):
        async for event in events:
            if event.HasField("citations"):
                cited = views.cited(event.citations)
                continue
            generated = event.generated
            match generated.WhichOneof("event"):
                case "started":
                    head["model"] = generated.started.model
                case "delta":
                    delta = _delta(generated.delta)
                    if not delta and not generated.delta.logprobs:
                        continue
                    for first in opening(generated.delta.index):
                        yield first
                    logprobs = _chat_logprobs(generated.delta.logprobs)
                    yield chunk(generated.delta.index, delta, logprobs=logprobs)
                case "finish":
                    index = generated.finish.index
                    for first in opening(index):
                        yield first
                    ended.add(index)
                    yield chunk(index, cited, reason=_reason(generated.finish))
                case "usage":
                    usage = generated.usage
                case _:
                    pass
    if not ended or ended != open_choices:
        raise broken_off()
    if include_usage:
        yield {**head, "choices": [], "usage": views.usage(usage)}


async def text_chunks(
    generations: AsyncIterator[EngineEvents], *, choices_each: int, include_usage: bool
) -> AsyncGenerator[Json, None]:
    """The chunks of a streamed completion, prompt after prompt."""
    head: Json = {
        "id": _new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": "",
    }
    tail: Json = {"usage": None} if include_usage else {}
    total = chat_pb2.Usage()
    first_index = 0
    async for events in generations:
        ended = 0
        async with aclosing(events):
            async for event in events:
                match event.WhichOneof("event"):
                    case "started":
                        head["model"] = head["model"] or event.started.model
                    case "delta" if event.delta.text or event.delta.logprobs:
                        choice = {
                            "index": first_index + event.delta.index,
                            "text": event.delta.text,
                            "logprobs": _text_logprobs(event.delta.logprobs),
                            "finish_reason": None,
                        }
                        yield {**head, "choices": [choice], **tail}
                    case "finish":
                        ended += 1
                        choice = {
                            "index": first_index + event.finish.index,
                            "text": "",
                            "logprobs": None,
                            "finish_reason": _reason(event.finish),
                        }
                        yield {**head, "choices": [choice], **tail}
                    case "usage":
                        _add(total, event.usage)
                    case _:
                        pass
        if not ended:
            raise broken_off()
        first_index += choices_each
    if include_usage:
        yield {**head, "choices": [], "usage": views.usage(total)}


def broken_off() -> Internal:
    """The engine's stream ended without a finish."""
    return Internal("ENGINE_BAD_ANSWER", "The engine's answer broke off.")


def _add(total: chat_pb2.Usage, usage: chat_pb2.Usage) -> None:
    total.prompt_tokens += usage.prompt_tokens
    total.completion_tokens += usage.completion_tokens
    total.cached_tokens += usage.cached_tokens
    total.estimated = total.estimated or usage.estimated


def _new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def _reason(finish: infer_pb2.Finish) -> str:
    return FINISH_REASONS.get(finish.reason, "stop")


def _message(choice: Choice, citations: gateway_pb2.Citations | None) -> Json:
    text = "".join(choice.text)
    if citations is not None:
        text = citations.text
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.tool_calls:
        message["tool_calls"] = [call for _, call in sorted(choice.tool_calls.items())]
        message["content"] = text or None
    if citations is not None:
        message |= views.cited(citations)
    return message


def _delta(delta: infer_pb2.Delta) -> Json:
    made: Json = {}
    if delta.text:
        made["content"] = delta.text
    if delta.reasoning:
        made["reasoning_content"] = delta.reasoning
    if delta.tool_calls:
        made["tool_calls"] = [_tool_call(piece) for piece in delta.tool_calls]
    return made


def _tool_call(piece: infer_pb2.ToolCallDelta) -> Json:
    function = {"arguments": piece.arguments}
    if not (piece.id or piece.name):
        return {"index": piece.index, "function": function}
    return {
        "index": piece.index,
        "id": piece.id,
        "type": "function",
        "function": {"name": piece.name, **function},
    }


def _chat_logprobs(tokens: Any) -> Json | None:
    if not tokens:
        return None
    return {"content": [{**_token(each), "top_logprobs": [_token(top) for top in each.top]}
                        for each in tokens], "refusal": None}  # fmt: skip


def _token(token: infer_pb2.TokenLogprob | infer_pb2.TopLogprob) -> Json:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.token_bytes) or None,
    }


def _text_logprobs(tokens: Any) -> Json | None:
    if not tokens:
        return None
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.token: top.logprob for top in token.top} for token in tokens],
    }
