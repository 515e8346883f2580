"""Requests and chunks of OpenAI's protocol."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.infer.adapters.failures import CUT, failure
from services.infer.ports import (
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    Message,
    Task,
    TokenLogprob,
    ToolCallDelta,
    ToolChoiceMode,
    TopLogprob,
    Usage,
)

_OURS = frozenset({"model", "messages", "prompt", "stream", "stream_options", "n", "tools"})
"""What `extra` may not overwrite: the mesh decides or has validated it."""

_FINISHES: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_CUTS = frozenset({"abort", "aborted", "cancelled", "error", "timeout"})
"""What servers say in that place of an answer that they gave up: vLLM and SGLang when they pause or
shut down, TensorRT-LLM when its own time is over."""


def body_of(request: GenerateRequest) -> dict[str, Any]:
    """The JSON body: always streamed, so that a cancel reaches the engine at once. What the
    protocol itself does not have (a guide, going on with a message) is for the dialects."""
    body: dict[str, Any] = {k: v for k, v in request.extra.items() if k not in _OURS}
    body |= {
        "model": request.model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.task is Task.COMPLETE:
        body["prompt"] = request.text
    else:
        body["messages"] = messages_of(request)
    if request.n > 1:
        body["n"] = request.n
    body |= _sampling(request) | _logprobs(request) | _tools(request) | _format(request)
    return body


def messages_of(request: GenerateRequest) -> list[dict[str, Any]]:
    """The messages as the protocol has them."""
    return [_message(message) for message in request.messages]


def events_of(chunk: Mapping[str, Any]) -> list[EngineEvent]:
    """The events of one chunk; a chunk with the role alone has none. A whole message, from a
    server that does not stream, counts as a chunk.

    Raises:
        TypeError, KeyError, ValueError, AttributeError: it is not a chunk of this protocol.
        Unavailable: ENGINE_UNAVAILABLE: the server gave the answer up.
    """
    events: list[EngineEvent] = []
    for choice in chunk.get("choices") or ():
        index = choice.get("index") or 0
        delta = choice.get("delta")
        if delta is None:
            delta = _whole(choice.get("message")) if "message" in choice else choice
        text = delta.get("content") or delta.get("text") or delta.get("refusal") or ""
        calls = delta.get("tool_calls")
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        logprobs = choice.get("logprobs")
        if text or calls or reasoning or logprobs:
            made = Delta(
                text if type(text) is str else _text(text),
                int(index),
                tuple(_call_delta(call) for call in calls) if calls else (),
                str(reasoning),
                _token_logprobs(logprobs) if logprobs else (),
            )
            events.append(made)
        reason = choice.get("finish_reason")
        if reason in _CUTS:
            raise failure(CUT)
        if reason:
            events.append(Finish(_FINISHES.get(reason, FinishReason.STOP), int(index)))
    usage = chunk.get("usage")
    if usage:
        details = usage.get("prompt_tokens_details") or {}
        events.append(
            Usage(
                int(usage.get("prompt_tokens") or 0),
                int(usage.get("completion_tokens") or 0),
                int(details.get("cached_tokens") or 0),
            )
        )
    return events


class Calls:
    """The tool calls of one answer. A call's id and name pass in its first piece only, whatever
    the server repeats, for clients put the pieces together; one without an id gets one."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], ToolCallDelta] = {}

    def of(self, index: int) -> bool:
        """Whether a choice has called."""
        return any(choice == index for choice, _ in self._first)

    def passed(self, delta: Delta) -> Delta:
        """A delta as it goes on."""
        if not delta.tool_calls:
            return delta
        pieces = tuple(self._piece(delta.index, call) for call in delta.tool_calls)
        return replace(delta, tool_calls=pieces)

    def _piece(self, index: int, call: ToolCallDelta) -> ToolCallDelta:
        first = self._first.get((index, call.index))
        if first is None:
            first = replace(call, id=call.id or f"call_{call.index}")
            self._first[index, call.index] = first
            return first
        return replace(
            call,
            id="" if call.id == first.id else call.id,
            name="" if call.name == first.name else call.name,
        )


def _whole(message: Any) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    return {**message, "tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]}


def _text(content: Any) -> str:
    """Content in parts, as some servers answer."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return str(content)


def _message(message: Message) -> dict[str, Any]:
    if any(part.image_url for part in message.parts):
        content: Any = [
            {"type": "image_url", "image_url": {"url": part.image_url}}
            if part.image_url
            else {"type": "text", "text": part.text or ""}
            for part in message.parts
        ]
    else:
        content = message.text
    body: dict[str, Any] = {"role": message.role.value, "content": content}
    if message.name:
        body["name"] = message.name
    if message.tool_calls:
        body["content"] = content or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _sampling(request: GenerateRequest) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
        "logit_bias": {str(k): v for k, v in sampling.logit_bias.items()} or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _logprobs(request: GenerateRequest) -> dict[str, Any]:
    if request.top_logprobs is None:
        return {}
    if request.task is Task.COMPLETE:
        return {"logprobs": request.top_logprobs}
    return {"logprobs": True, "top_logprobs": request.top_logprobs}


def _tools(request: GenerateRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters_json:
            function["parameters"] = json.loads(tool.parameters_json)
        if tool.strict:
            function["strict"] = True
        tools.append({"type": "function", "function": function})
    body: dict[str, Any] = {"tools": tools}
    choice = request.tool_choice
    if choice is not None:
        body["tool_choice"] = (
            {"type": "function", "function": {"name": choice.function}}
            if choice.mode is ToolChoiceMode.FUNCTION
            else choice.mode.value
        )
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def _format(request: GenerateRequest) -> dict[str, Any]:
    wanted = request.response_format
    if wanted.type is FormatType.TEXT:
        return {}
    body: dict[str, Any] = {"type": wanted.type.value}
    if wanted.type is FormatType.JSON_SCHEMA:
        body["json_schema"] = {
            "name": wanted.name or "answer",
            "schema": json.loads(wanted.json_schema),
            "strict": wanted.strict,
        }
    return {"response_format": body}


def _call_delta(call: Mapping[str, Any]) -> ToolCallDelta:
    function = call.get("function") or {}
    return ToolCallDelta(
        int(call.get("index") or 0),
        call.get("id") or "",
        function.get("name") or "",
        function.get("arguments") or "",
    )


def _token_logprobs(logprobs: Any) -> tuple[TokenLogprob, ...]:
    """Of a chat's shape ``{"content": [...]}``, or of a completion's parallel lists."""
    if "tokens" in logprobs:
        return _parallel_logprobs(logprobs)
    return tuple(
        TokenLogprob(
            item["token"],
            float(item["logprob"]),
            _bytes(item),
            tuple(
                TopLogprob(top["token"], float(top["logprob"]), _bytes(top))
                for top in item.get("top_logprobs") or ()
            ),
        )
        for item in logprobs.get("content") or ()
    )


def _parallel_logprobs(logprobs: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    tokens = logprobs.get("tokens") or ()
    values = logprobs.get("token_logprobs") or [0.0] * len(tokens)
    tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
    return tuple(
        TokenLogprob(
            token,
            float(value or 0.0),
            token.encode(),
            tuple(TopLogprob(t, float(v), t.encode()) for t, v in (top or {}).items()),
        )
        for token, value, top in zip(tokens, values, tops, strict=False)
    )


def _bytes(item: Mapping[str, Any]) -> bytes:
    return bytes(item["bytes"]) if item.get("bytes") else str(item["token"]).encode()
