"""TensorRT-LLM's `trtllm-serve`, by URL.

https://nvidia.github.io/TensorRT-LLM/: commands/trtllm-serve, features/guided-decoding. It refuses
fields that it does not know, serves one model under whatever name it is asked for, calls no tool
unless told to, and has its own kinds of `response_format`.
"""

import json
import re
from dataclasses import replace
from typing import Any

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import OVERLOADED, TOO_LONG, ErrorTable
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import FAMILY, OpenAIProtocolEngine
from services.infer.ports import FormatType, GenerateRequest, GuideKind
from services.infer.settings import ServerSettings

_TOO_LONG = re.compile(r"max_seq_len|max_num_tokens|max_input_len", re.I)
_NUMBERS = (
    re.compile(r"prompt length \((?P<needed>[\d.]+)\).*?max_\w+ \((?P<limit>\d+)\)", re.I | re.S),
    re.compile(r"max_seq_len \((?P<limit>\d+)\) - splited_prompt_len \((?P<needed>\d+)\)", re.I),
)
_FULL = re.compile(r"queue is full|too many requests in flight", re.I)


class TrtllmSettings(ServerSettings):
    """A server of TensorRT-LLM."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_TRTLLM_")

    url: str = "http://127.0.0.1:8000/v1"
    """Address of trtllm-serve."""


class TrtllmEngine(OpenAIProtocolEngine):
    """trtllm-serve; guides need `guided_decoding_backend` in its configuration."""

    Settings = TrtllmSettings
    least_top = 1
    can = replace(
        FAMILY,
        tool_choice=False,
        parallel_tool_calls=False,
        max_stops=16,
        guides=frozenset({GuideKind.REGEX, GuideKind.GRAMMAR}),
        lists_all=True,
    )
    errors = ErrorTable(
        CODES,
        ((_TOO_LONG, TOO_LONG), (_FULL, OVERLOADED), *PATTERNS),
        numbers=(*_NUMBERS, *NUMBERS),
    )

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        if request.tools:
            body.setdefault("tool_choice", "auto")  # the server's default is none
        guide, wanted = request.guide, request.response_format
        if guide is not None:
            kind = "regex" if guide.kind is GuideKind.REGEX else "ebnf"
            body["response_format"] = {"type": kind, kind: guide.value}
        elif wanted.type is FormatType.JSON_SCHEMA:
            body["response_format"] = {"type": "json", "schema": json.loads(wanted.json_schema)}
        return body

    async def check(self) -> None:
        await self.healthy("/health")
        await super().check()
