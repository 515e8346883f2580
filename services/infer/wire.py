"""Protobuf to plain data and back."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict

from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.type.v1 import chat_pb2
from services.infer import ports
from services.infer.core import ListedModel
from services.runtime.errors import InvalidArgument

_TASKS = {
    pb.TASK_UNSPECIFIED: ports.Task.CHAT,
    pb.TASK_CHAT: ports.Task.CHAT,
    pb.TASK_ANSWER: ports.Task.ANSWER,
    pb.TASK_SUMMARIZE: ports.Task.SUMMARIZE,
    pb.TASK_REWRITE: ports.Task.REWRITE,
    pb.TASK_COMPLETE: ports.Task.COMPLETE,
}
_ROLES = {
    chat_pb2.ROLE_SYSTEM: ports.Role.SYSTEM,
    chat_pb2.ROLE_USER: ports.Role.USER,
    chat_pb2.ROLE_ASSISTANT: ports.Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: ports.Role.TOOL,
    chat_pb2.ROLE_DEVELOPER: ports.Role.DEVELOPER,
}
_TOOL_MODES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: ports.ToolChoiceMode.AUTO,
    pb.TOOL_CHOICE_MODE_AUTO: ports.ToolChoiceMode.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ports.ToolChoiceMode.NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED: ports.ToolChoiceMode.REQUIRED,
    pb.TOOL_CHOICE_MODE_FUNCTION: ports.ToolChoiceMode.FUNCTION,
}
_FORMATS = {
    pb.RESPONSE_FORMAT_TYPE_UNSPECIFIED: ports.FormatType.TEXT,
    pb.RESPONSE_FORMAT_TYPE_TEXT: ports.FormatType.TEXT,
    pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT: ports.FormatType.JSON_OBJECT,
    pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA: ports.FormatType.JSON_SCHEMA,
}
_LENGTHS = {
    pb.SUMMARY_LENGTH_UNSPECIFIED: ports.SummaryLength.MEDIUM,
    pb.SUMMARY_LENGTH_SHORT: ports.SummaryLength.SHORT,
    pb.SUMMARY_LENGTH_MEDIUM: ports.SummaryLength.MEDIUM,
    pb.SUMMARY_LENGTH_LONG: ports.SummaryLength.LONG,
}
_REASONS = {
    ports.FinishReason.STOP: pb.FINISH_REASON_STOP,
    ports.FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    ports.FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    ports.FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
}
T = TypeVar("T")


def request_from(
    message: pb.GenerateRequest, timeout: float | None, tenant: str = ""
) -> ports.GenerateRequest:
    """Raises:
    InvalidArgument: PARAMETER_INVALID, for a role or an enum value that this version lacks.
    """
    choice = message.tool_choice
    wanted = message.response_format
    return ports.GenerateRequest(
        model=message.model,
        task=_known(_TASKS, message.task, "task"),
        messages=tuple(_message(m, i) for i, m in enumerate(message.messages)),
        passages=tuple(
            ports.Passage(
                p.marker,
                p.text,
                p.title,
                p.heading,
                p.source,
                p.page if p.HasField("page") else None,
                p.language,
                p.score,
                p.document_id,
                p.chunk_id,
            )
            for p in message.passages
        ),
        text=message.text,
        language=message.language,
        sampling=_sampling(message.sampling),
        tools=tuple(
            ports.Tool(t.name, t.description, t.parameters_json, t.strict) for t in message.tools
        ),
        tool_choice=ports.ToolChoice(
            _known(_TOOL_MODES, choice.mode, "tool_choice"), choice.function
        )
        if message.HasField("tool_choice")
        else None,
        response_format=ports.ResponseFormat(
            _known(_FORMATS, wanted.type, "response_format"),
            wanted.json_schema,
            wanted.name or "answer",
            wanted.strict,
        ),
        n=message.n or 1,
        stream=message.stream,
        top_logprobs=message.top_logprobs if message.HasField("top_logprobs") else None,
        extra=_whole_numbers(MessageToDict(message.extra)) if message.HasField("extra") else {},
        summary_length=_known(_LENGTHS, message.summary_length, "length"),
        parallel_tool_calls=message.parallel_tool_calls
        if message.HasField("parallel_tool_calls")
        else None,
        timeout=timeout,
        tenant=tenant,
    )


def response_from(event: ports.Event) -> pb.GenerateResponse:
    if isinstance(event, ports.Delta):
        if event.text and not (event.tool_calls or event.reasoning or event.logprobs):
            # Nearly all events are this one.
            return pb.GenerateResponse(delta=pb.Delta(text=event.text, index=event.index))
        return pb.GenerateResponse(
            delta=pb.Delta(
                index=event.index,
                text=event.text,
                tool_calls=[
                    pb.ToolCallDelta(index=c.index, id=c.id, name=c.name, arguments=c.arguments)
                    for c in event.tool_calls
                ],
                reasoning=event.reasoning,
                logprobs=[_logprob(token) for token in event.logprobs],
            )
        )
    if isinstance(event, ports.Finish):
        return pb.GenerateResponse(
            finish=pb.Finish(
                index=event.index, reason=_REASONS[event.reason], unanswered=event.unanswered
            )
        )
    if isinstance(event, ports.Usage):
        return pb.GenerateResponse(
            usage=chat_pb2.Usage(
                prompt_tokens=event.prompt_tokens,
                completion_tokens=event.completion_tokens,
                cached_tokens=event.cached_tokens,
                estimated=event.estimated,
            )
        )
    return pb.GenerateResponse(started=pb.Started(model=event.model, alias=event.alias))


def model_from(model: ListedModel) -> pb.Model:
    can = model.capabilities
    return pb.Model(
        id=model.id,
        target=model.target,
        owned_by=model.owned_by,
        context_length=model.context_length,
        capabilities=pb.Capabilities(
            streaming=can.streaming,
            tools=can.tools,
            json_object=can.json_object,
            json_schema=can.json_schema,
            logprobs=can.logprobs,
            multiple_choices=can.multiple_choices,
            vision=can.vision,
            seed=can.seed,
            tool_choice=can.tool_choice,
            guides=sorted(can.guides),
            completions=can.completions,
            prefill=can.prefill,
            counts_tokens=can.counts_tokens,
        ),
    )


def _message(message: chat_pb2.ChatMessage, index: int) -> ports.Message:
    return ports.Message(
        _known(_ROLES, message.role, f"messages[{index}].role"),
        tuple(
            ports.ContentPart(image_url=part.image_url)
            if part.WhichOneof("part") == "image_url"
            else ports.ContentPart(text=part.text)
            for part in message.content
        ),
        message.name,
        tuple(ports.ToolCall(c.id, c.name, c.arguments) for c in message.tool_calls),
        message.tool_call_id,
    )


def _sampling(sampling: pb.Sampling) -> ports.Sampling:
    return ports.Sampling(
        sampling.temperature if sampling.HasField("temperature") else None,
        sampling.top_p if sampling.HasField("top_p") else None,
        sampling.top_k if sampling.HasField("top_k") else None,
        sampling.max_tokens if sampling.HasField("max_tokens") else None,
        tuple(sampling.stop),
        sampling.seed if sampling.HasField("seed") else None,
        sampling.presence_penalty if sampling.HasField("presence_penalty") else None,
        sampling.frequency_penalty if sampling.HasField("frequency_penalty") else None,
        dict(sampling.logit_bias),
    )


def _logprob(token: ports.TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        token_bytes=token.token_bytes,
        top=[
            pb.TopLogprob(token=t.token, logprob=t.logprob, token_bytes=t.token_bytes)
            for t in token.top
        ],
    )


def _known(table: Mapping[Any, T], value: int, field: str) -> T:
    try:
        return table[value]
    except KeyError:
        raise InvalidArgument(
            "PARAMETER_INVALID", f"{field} is missing or not known.", field=field
        ) from None


def _whole_numbers(value: Any) -> Any:
    """A Struct knows floats only; engines want ``5`` where the client wrote ``5``."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
