"""Refuses what cannot be generated, naming fields as OpenAI's protocol does."""

import json
from typing import NoReturn

from services.infer.ports import (
    Capabilities,
    FormatType,
    GenerateRequest,
    Role,
    Task,
    ToolChoiceMode,
)
from services.runtime.errors import InvalidArgument

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128

_NEEDS_TEXT = (Task.SUMMARIZE, Task.COMPLETE)
_FORCED = (ToolChoiceMode.REQUIRED, ToolChoiceMode.FUNCTION)


def validate(request: GenerateRequest) -> None:
    """Refuse what no engine could do.

    Raises:
        InvalidArgument: MESSAGES_EMPTY, TEXT_EMPTY or PARAMETER_INVALID, with the field.
    """
    _validate_input(request)
    _validate_sampling(request)
    _validate_tools(request)
    _validate_format(request)


def validate_support(request: GenerateRequest, can: Capabilities) -> None:
    """Refuse what this engine cannot do.

    Raises:
        InvalidArgument: PARAMETER_UNSUPPORTED, with the field.
    """
    choice = request.tool_choice
    if request.tools and not can.tools and not (choice and choice.mode is ToolChoiceMode.NONE):
        _unsupported("tools", "calling tools")
    if choice is not None and choice.mode in _FORCED and not can.tool_choice:
        _unsupported("tool_choice", "calls that must be made")
    if request.tools and request.parallel_tool_calls is not None and not can.parallel_tool_calls:
        _unsupported("parallel_tool_calls", "choosing how calls come")
    wanted = request.response_format.type
    if (wanted is FormatType.JSON_OBJECT and not can.json_object) or (
        wanted is FormatType.JSON_SCHEMA and not can.json_schema
    ):
        _unsupported("response_format", f"answers of type {wanted.value}")
    if request.guide is not None and request.guide.kind not in can.guides:
        _unsupported(f"guided_{request.guide.kind.value}", "guides of this kind")
    if request.top_logprobs is not None and not can.logprobs:
        _unsupported("logprobs", "log-probabilities")
    if request.top_logprobs is not None and request.top_logprobs > can.max_top_logprobs:
        _unsupported("top_logprobs", f"more than {can.max_top_logprobs}")
    if request.n > 1 and not can.multiple_choices:
        _unsupported("n", "several choices")
    if request.continue_final and not can.prefill:
        _unsupported("continue_final_message", "going on with a message")
    if request.task is Task.COMPLETE and not can.completions:
        _unsupported("prompt", "text completions; use chat completions")
    _validate_sampling_support(request, can)
    if not can.vision:
        for i, message in enumerate(request.messages):
            if any(part.image_url for part in message.parts):
                _unsupported(f"messages[{i}].content", "images")


def _validate_sampling_support(request: GenerateRequest, can: Capabilities) -> None:
    sampling = request.sampling
    if sampling.seed is not None and not can.seed:
        _unsupported("seed", "seeds")
    if sampling.top_k is not None and not can.top_k:
        _unsupported("top_k", "top_k")
    if sampling.presence_penalty and not can.penalties:
        _unsupported("presence_penalty", "penalties")
    if sampling.frequency_penalty and not can.penalties:
        _unsupported("frequency_penalty", "penalties")
    if sampling.logit_bias and not can.logit_bias:
        _unsupported("logit_bias", "biases")
    if len(sampling.stop) > can.max_stops:
        _unsupported("stop", f"more than {can.max_stops} stop texts")


def _validate_input(request: GenerateRequest) -> None:
    if request.task in _NEEDS_TEXT:
        if not request.text.strip():
            raise InvalidArgument("TEXT_EMPTY", "text must not be empty.", field="text")
        return
    if not request.messages:
        raise InvalidArgument("MESSAGES_EMPTY", "messages must not be empty.", field="messages")
    for i, message in enumerate(request.messages):
        said = message.text.strip() or any(part.image_url for part in message.parts)
        if message.role is Role.TOOL and not message.tool_call_id:
            _invalid(f"messages[{i}].tool_call_id", "is required in a tool message")
        if message.role is Role.USER and not said:
            raise InvalidArgument(
                "MESSAGES_EMPTY",
                f"messages[{i}].content must not be empty.",
                field=f"messages[{i}].content",
            )
    if request.task is not Task.CHAT and not request.question:
        raise InvalidArgument("MESSAGES_EMPTY", "A user message is needed.", field="messages")
    markers = [passage.marker for passage in request.passages]
    if any(marker < 1 for marker in markers) or len(set(markers)) < len(markers):
        _invalid("passages", "must carry distinct markers from 1")


def _validate_sampling(request: GenerateRequest) -> None:
    sampling = request.sampling
    _between("temperature", sampling.temperature, 0, 2)
    _between("presence_penalty", sampling.presence_penalty, -2, 2)
    _between("frequency_penalty", sampling.frequency_penalty, -2, 2)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        _invalid("top_p", "must be above 0 and at most 1")
    if sampling.top_k is not None and sampling.top_k < 1:
        _invalid("top_k", "must be at least 1")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        _invalid("max_tokens", "must be at least 1")
    if len(sampling.stop) > MAX_STOPS or any(not stop for stop in sampling.stop):
        _invalid("stop", f"must be up to {MAX_STOPS} texts, none of them empty")
    for bias in sampling.logit_bias.values():
        _between("logit_bias", bias, -100, 100)
    if not 1 <= request.n <= MAX_CHOICES:
        _invalid("n", f"must be from 1 to {MAX_CHOICES}")
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS:
        _invalid("top_logprobs", f"must be from 0 to {MAX_TOP_LOGPROBS}")


def _validate_tools(request: GenerateRequest) -> None:
    if len(request.tools) > MAX_TOOLS:
        _invalid("tools", f"must be at most {MAX_TOOLS}")
    for i, tool in enumerate(request.tools):
        if not tool.name:
            _invalid(f"tools[{i}].function.name", "must not be empty")
        if tool.parameters_json and not _is_json_object(tool.parameters_json):
            _invalid(f"tools[{i}].function.parameters", "must be a JSON schema")
    choice = request.tool_choice
    if choice is None:
        return
    if choice.mode in _FORCED and not request.tools:
        _invalid("tool_choice", "needs tools")
    names = [tool.name for tool in request.tools]
    if choice.mode is ToolChoiceMode.FUNCTION and choice.function not in names:
        _invalid("tool_choice", "must name one of the tools")


def _validate_format(request: GenerateRequest) -> None:
    wanted = request.response_format
    if wanted.type is FormatType.JSON_SCHEMA and not _is_json_object(wanted.json_schema):
        _invalid("response_format.json_schema", "must be a JSON schema")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _between(field: str, value: float | None, low: float, high: float) -> None:
    # Not a number fails both comparisons, and so is refused as well.
    if value is not None and not low <= value <= high:
        _invalid(field, f"must be from {low} to {high}")


def _invalid(field: str, rule: str) -> NoReturn:
    raise InvalidArgument("PARAMETER_INVALID", f"{field} {rule}.", field=field)


def _unsupported(field: str, what: str) -> NoReturn:
    raise InvalidArgument(
        "PARAMETER_UNSUPPORTED", f"The model does not support {what} ({field}).", field=field
    )
