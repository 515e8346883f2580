import json
from dataclasses import replace

import pytest

from services.infer.extensions import read_extensions
from services.infer.ports import (
    FormatType,
    GenerateRequest,
    Guide,
    GuideKind,
    ResponseFormat,
    Role,
    text_message,
)
from services.runtime.errors import InvalidArgument

CHAT = GenerateRequest(messages=(text_message(Role.USER, "hi"),))
SAID = (*CHAT.messages, text_message(Role.ASSISTANT, "He"))


@pytest.mark.parametrize(
    ("extra", "guide"),
    [
        ({"guided_regex": "a+"}, Guide(GuideKind.REGEX, ("a+",))),
        ({"regex": "a+"}, Guide(GuideKind.REGEX, ("a+",))),
        ({"ebnf": "root"}, Guide(GuideKind.GRAMMAR, ("root",))),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Guide(GuideKind.CHOICE, ("a", "b"))),
        ({"nvext": {"guided_grammar": "root"}}, Guide(GuideKind.GRAMMAR, ("root",))),
    ],
)
def test_guides_by_the_names_of_all_engines(extra, guide):
    read = read_extensions(replace(CHAT, extra={**extra, "min_p": 0.1}))
    assert read.guide == guide
    assert read.extra == {"min_p": 0.1}


@pytest.mark.parametrize("extra", [{"guided_json": {"a": 1}}, {"nvext": {"guided_json": {"a": 1}}}])
def test_a_schema_is_a_format(extra):
    wanted = read_extensions(replace(CHAT, extra=extra)).response_format
    assert wanted.type is FormatType.JSON_SCHEMA
    assert json.loads(wanted.json_schema) == {"a": 1}


def test_what_is_no_guide_stays_where_it_was():
    extra = {"nvext": {"guided_regex": "a", "top_k": 3}, "user": "u"}
    read = read_extensions(replace(CHAT, extra=extra))
    assert read.extra == {"nvext": {"top_k": 3}, "user": "u"}
    assert read_extensions(CHAT) is CHAT


def test_going_on_with_a_message():
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    read = read_extensions(replace(CHAT, messages=SAID, extra=extra))
    assert read.continue_final
    assert read.extra == {}


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_regex": 3}, "guided_regex"),
        ({"structured_outputs": "a"}, "structured_outputs"),
        ({"structured_outputs": {"regex": 3}}, "structured_outputs.regex"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": "yes"}, "continue_final_message"),
    ],
)
def test_refusals_name_the_field(extra, field):
    with pytest.raises(InvalidArgument) as caught:
        read_extensions(replace(CHAT, extra=extra))
    assert (caught.value.reason, caught.value.field) == ("PARAMETER_INVALID", field)


def test_a_guide_and_a_format_exclude_each_other():
    wanted = ResponseFormat(FormatType.JSON_OBJECT)
    with pytest.raises(InvalidArgument):
        read_extensions(replace(CHAT, response_format=wanted, extra={"guided_regex": "a"}))
