"""Hugging Face's Text Generation Inference, by URL.

https://huggingface.co/docs/text-generation-inference (messages API, guidance). Its errors are
``{"error": "text", "error_type": "validation"}``, its answer formats grammars of its own; it knows
neither further choices nor biases, and serves one model under whatever name it is asked for.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import (
    BAD,
    DOWN,
    OVERLOADED,
    REFUSED,
    TOO_LONG,
    UNSUPPORTED,
    ErrorTable,
    failure,
)
from services.infer.adapters.http import OK, without_version
from services.infer.adapters.openai_body import messages_of
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, FAMILY, OpenAIProtocolEngine
from services.infer.lengths import too_long
from services.infer.ports import (
    EngineEvent,
    EngineLoad,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
    Task,
)
from services.infer.settings import ServerSettings
from services.runtime.errors import InvalidArgument, RagmeshError

_TOO_LONG = re.compile(r"`(?:inputs|max_new_tokens)`[^.]*must (?:be <=|have less than)", re.I)
_SUM = re.compile(
    r"must be <= (?P<limit>\d+)\. Given: (?P<inputs>\d+) `inputs` tokens and "
    r"(?P<new>\d+) `max_new_tokens`",
    re.I,
)
_NUMBERS = (
    re.compile(r"must have less than (?P<limit>\d+) tokens\. Given: (?P<needed>\d+)", re.I),
)


class TgiErrors(ErrorTable):
    """Adds up what the answer and the prompt need together."""

    def error(self, status: int, body: bytes | str = b"", headers: Any = None) -> RagmeshError:
        found = _SUM.search(self.parse(body).message)
        if found:
            needed = int(found["inputs"]) + int(found["new"])
            return too_long(needed, int(found["limit"]))
        return super().error(status, body, headers)


class TgiSettings(ServerSettings):
    """A server of Text Generation Inference."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_TGI_")

    url: str = "http://127.0.0.1:8080/v1"
    """Address of TGI."""


class TgiEngine(OpenAIProtocolEngine):
    """TGI by its messages API. A stream that calls a tool names the tool in every piece, and ends
    without a reason."""

    Settings = TgiSettings
    names_calls = False
    can = replace(
        FAMILY,
        parallel_tool_calls=False,
        guides=frozenset({GuideKind.REGEX, GuideKind.CHOICE}),
        max_top_logprobs=5,
        multiple_choices=False,
        top_k=False,
        logit_bias=False,
        counts_tokens=True,
        lists_all=True,
    )
    errors = TgiErrors(
        {
            "overloaded": OVERLOADED,
            "generation": DOWN,
            "incomplete_generation": DOWN,
            "template_error": UNSUPPORTED,
            "tool_error": UNSUPPORTED,
            "validation": REFUSED,
        },
        (
            (_TOO_LONG, TOO_LONG),
            # Inside a stream, where all but what it says is always the same.
            (re.compile("^Input validation error"), REFUSED),
            (re.compile("^Model is overloaded"), OVERLOADED),
            (re.compile("^(?:Template|Tool) error|^Missing template"), UNSUPPORTED),
        ),
        numbers=_NUMBERS,
    )

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        """Raises:
        InvalidArgument: PARAMETER_UNSUPPORTED, for what its two routes cannot do together.
        """
        if request.task is Task.COMPLETE and request.top_logprobs is not None:
            raise _unsupported("logprobs")
        if request.task is Task.COMPLETE and request.sampling.presence_penalty:
            raise _unsupported("presence_penalty")
        body = super().body(request)
        for penalty in ("presence_penalty", "frequency_penalty"):
            if not body.get(penalty):  # it makes a heavy penalty on repetition of a presence of 0
                body.pop(penalty, None)
        if body.get("top_p") == 1.0:
            del body["top_p"]  # it wants less than 1, which means the same
        guide, wanted = request.guide, request.response_format
        grammar: dict[str, Any] | None = None
        if guide is not None and guide.kind is GuideKind.REGEX:
            grammar = {"type": "regex", "value": guide.value}
        elif guide is not None:
            choices = "|".join(re.escape(value) for value in guide.values)
            grammar = {"type": "regex", "value": f"({choices})"}
        elif wanted.type is FormatType.JSON_SCHEMA:
            grammar = {"type": "json", "value": json.loads(wanted.json_schema)}
        elif wanted.type is FormatType.JSON_OBJECT:
            grammar = {"type": "json", "value": {"type": "object"}}
        if grammar is not None:
            if request.tools:
                raise _unsupported("response_format")
            if request.task is Task.COMPLETE:
                raise _unsupported("response_format" if guide is None else "guided_regex")
            body["response_format"] = grammar
        return body

    def events(self, chunk: dict[str, Any]) -> list[EngineEvent]:
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if isinstance(delta.get("tool_calls"), dict):  # before version 3
                delta["tool_calls"] = [delta["tool_calls"]]
        return super().events(chunk)

    async def check(self) -> None:
        await self.healthy("/health")

    async def load_now(self) -> EngineLoad:
        return await self.read_load(["tgi_batch_current_size"], ["tgi_queue_size"])

    async def list_models(self) -> Sequence[ModelInfo]:
        url = without_version(self.server.url) + "/info"
        answer = await self.server.request("GET", url, timeout=ASKING_TIMEOUT)
        if answer.status != OK:
            raise self.errors.error(answer.status, answer.body, answer.headers)
        info = answer.json()
        try:
            length = info.get("max_total_tokens") or info.get("max_input_tokens") or 0
            return [ModelInfo(info["model_id"], int(length), "tgi")]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise failure(BAD) from error

    async def count_tokens(self, request: GenerateRequest) -> int:
        if request.task is Task.COMPLETE:
            counted = await self.counted("/tokenize", {"inputs": request.text})
        else:
            body = {"model": request.model, "messages": messages_of(request)}
            told = await self.counted("/chat_tokenize", body)
            counted = told.get("tokenize_response") if isinstance(told, dict) else None
        if not isinstance(counted, list):
            raise failure(BAD)
        return len(counted)

    async def count_text(self, model: str, text: str) -> int:
        counted = await self.counted("/tokenize", {"inputs": text})
        try:
            # Tokens that stand for nothing of the text begin or end it.
            return sum(token.get("stop", 1) > token.get("start", 0) for token in counted)
        except (AttributeError, TypeError) as error:
            raise failure(BAD) from error


def _unsupported(field: str) -> InvalidArgument:
    return InvalidArgument(
        "PARAMETER_UNSUPPORTED", f"TGI does not support this request: {field}.", field=field
    )
