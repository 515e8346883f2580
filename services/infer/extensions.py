"""What clients ask of engines beyond OpenAI's protocol, under the names that engines' own clients
use, read into fields that every adapter can write in its dialect."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.infer.ports import FormatType, GenerateRequest, Guide, GuideKind, ResponseFormat, Role
from services.runtime.errors import InvalidArgument

_GUIDES: Mapping[str, GuideKind] = {
    "regex": GuideKind.REGEX,
    "choice": GuideKind.CHOICE,
    "grammar": GuideKind.GRAMMAR,
    "ebnf": GuideKind.GRAMMAR,
}
_FLAT: Mapping[str, str] = {
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_json": "json",
    "regex": "regex",
    "ebnf": "ebnf",
}
"""Names of vLLM before 0.12, NIM and SGLang."""
_NESTED = ("structured_outputs", "nvext")
"""Objects that hold guides: vLLM's ``{"regex": ...}``, NIM's ``{"guided_regex": ...}``."""
_TAKEN = frozenset({*_FLAT, *_NESTED, "continue_final_message", "add_generation_prompt"})


def read_extensions(request: GenerateRequest) -> GenerateRequest:
    """The request with what `extra` says about guides and going on with a message in their fields;
    the rest of `extra` stays.

    Raises:
        InvalidArgument: PARAMETER_INVALID, with the field.
    """
    extra = request.extra
    if not _TAKEN & extra.keys():
        return request
    rest = {name: value for name, value in extra.items() if name not in _TAKEN}
    wishes = {name: (_FLAT[name], extra[name]) for name in _FLAT if extra.get(name) is not None}
    for outer in _NESTED:
        inner = extra.get(outer)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise _invalid(outer, "must be an object")
        other = {}
        for name, value in inner.items():
            kind = _FLAT.get(name, name)
            if kind not in _GUIDES and kind != "json":
                other[name] = value
            elif value is not None:
                wishes[f"{outer}.{name}"] = (kind, value)
        if other:
            rest[outer] = other
    request = replace(request, extra=rest)
    if len(wishes) > 1:
        raise _invalid(list(wishes)[1], "is one guide too many: an answer follows one")
    for field, (kind, value) in wishes.items():
        request = _guided(request, field, kind, value)
    return _continued(request, extra)


def _guided(request: GenerateRequest, field: str, kind: str, value: Any) -> GenerateRequest:
    if request.response_format.type is not FormatType.TEXT:
        raise _invalid(field, "and response_format exclude each other")
    if kind == "json":
        schema = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        wanted = ResponseFormat(FormatType.JSON_SCHEMA, schema, strict=True)
        return replace(request, response_format=wanted)
    if kind == "choice":
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise _invalid(field, "must be a list of texts")
        return replace(request, guide=Guide(GuideKind.CHOICE, tuple(value)))
    if not (isinstance(value, str) and value):
        raise _invalid(field, "must be a text")
    return replace(request, guide=Guide(_GUIDES[kind], (value,)))


def _continued(request: GenerateRequest, extra: Mapping[str, Any]) -> GenerateRequest:
    wish = extra.get("continue_final_message")
    if wish is None or wish is False:
        return request
    if wish is not True:
        raise _invalid("continue_final_message", "must be true or false")
    if extra.get("add_generation_prompt") is True:
        raise _invalid("add_generation_prompt", "and continue_final_message exclude each other")
    if not request.messages or request.messages[-1].role is not Role.ASSISTANT:
        raise _invalid("continue_final_message", "needs a last message of the assistant")
    return replace(request, continue_final=True)


def _invalid(field: str, rule: str) -> InvalidArgument:
    return InvalidArgument("PARAMETER_INVALID", f"{field} {rule}.", field=field)
