import math
from dataclasses import replace

import pytest

from services.infer.ports import (
    Capabilities,
    ContentPart,
    FormatType,
    GenerateRequest,
    Message,
    Passage,
    ResponseFormat,
    Role,
    Sampling,
    Task,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    text_message,
)
from services.infer.validation import validate, validate_support
from services.runtime.errors import InvalidArgument

CHAT = GenerateRequest(messages=(text_message(Role.USER, "hi"),))


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (GenerateRequest(), "MESSAGES_EMPTY", "messages"),
        (
            GenerateRequest(messages=(text_message(Role.USER, " "),)),
            "MESSAGES_EMPTY",
            "messages[0].content",
        ),
        (GenerateRequest(task=Task.SUMMARIZE, text=" \n"), "TEXT_EMPTY", "text"),
        (
            replace(CHAT, task=Task.ANSWER, messages=(text_message(Role.SYSTEM, "x"),)),
            "MESSAGES_EMPTY",
            "messages",
        ),
        (
            replace(CHAT, messages=(Message(Role.TOOL, (ContentPart("1"),)),)),
            "PARAMETER_INVALID",
            "messages[0].tool_call_id",
        ),
        (
            replace(CHAT, passages=(Passage(1, "a"), Passage(1, "b"))),
            "PARAMETER_INVALID",
            "passages",
        ),
        (replace(CHAT, n=129), "PARAMETER_INVALID", "n"),
        (replace(CHAT, n=-1), "PARAMETER_INVALID", "n"),
        (replace(CHAT, top_logprobs=21), "PARAMETER_INVALID", "top_logprobs"),
        (replace(CHAT, tools=(Tool(""),)), "PARAMETER_INVALID", "tools[0].function.name"),
        (
            replace(CHAT, tools=(Tool("f", parameters_json="[1]"),)),
            "PARAMETER_INVALID",
            "tools[0].function.parameters",
        ),
        (
            replace(CHAT, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED)),
            "PARAMETER_INVALID",
            "tool_choice",
        ),
        (
            replace(CHAT, tools=(Tool("f"),), tool_choice=ToolChoice(ToolChoiceMode.FUNCTION, "g")),
            "PARAMETER_INVALID",
            "tool_choice",
        ),
        (
            replace(CHAT, response_format=ResponseFormat(FormatType.JSON_SCHEMA, "{")),
            "PARAMETER_INVALID",
            "response_format.json_schema",
        ),
    ],
)
def test_refusals_name_the_field(request_, reason, field):
    with pytest.raises(InvalidArgument) as caught:
        validate(request_)
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("max_tokens", 0),
        ("presence_penalty", -3.0),
        ("frequency_penalty", 3.0),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
        ("logit_bias", {1: 101.0}),
    ],
)
def test_sampling_has_bounds(field, value):
    with pytest.raises(InvalidArgument) as caught:
        validate(replace(CHAT, sampling=replace(Sampling(), **{field: value})))
    assert caught.value.field == field


def test_what_is_right_passes():
    sampling = Sampling(2.0, 1.0, 1, 1, ("a",), 0, -2.0, 2.0, {5: -100.0})
    validate(replace(CHAT, sampling=sampling, n=128, top_logprobs=0))


def test_tools_that_may_not_be_called_need_no_support():
    quiet = replace(CHAT, tools=(Tool("f"),), tool_choice=ToolChoice(ToolChoiceMode.NONE))
    validate_support(quiet, Capabilities())


def test_images_need_vision():
    image = Message(Role.USER, (ContentPart(image_url="https://x/y.png"),))
    asked = replace(CHAT, messages=(image,))
    validate(asked)
    validate_support(asked, Capabilities(vision=True))
    with pytest.raises(InvalidArgument) as caught:
        validate_support(asked, Capabilities())
    assert caught.value.field == "messages[0].content"
