"""llama.cpp's own server, ``llama-server``, or llama-cpp-python's, by URL."""

import re
from collections.abc import Mapping
from typing import Any

from services.infer.adapters.failures import DOWN, OVERLOADED, TOO_LONG, ErrorTable
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import OpenAIProtocolEngine
from services.infer.ports import (
    Capabilities,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
)

_ERRORS = ErrorTable(
    {
        **CODES,
        "exceed_context_size_error": TOO_LONG,
        "unavailable_error": OVERLOADED,
    },
    ((re.compile("^Loading model"), DOWN), *PATTERNS),
    numbers=(
        re.compile(
            r"request \((?P<needed>\d+) tokens\) exceeds the available context size "
            r"\((?P<limit>\d+) tokens\)"
        ),
        *NUMBERS,
    ),
)


class LlamaCppServer(OpenAIProtocolEngine):
    """The dialect of both servers. Only ``llama-server`` knows grammars and goes on with a
    message; the other one ignores both, and never tells token counts in a stream."""

    can = Capabilities(
        tools=True,
        tool_choice=True,
        json_object=True,
        json_schema=True,
        guides=frozenset({GuideKind.GRAMMAR}),
        logprobs=True,
        seed=True,
        top_k=True,
        penalties=True,
        logit_bias=True,
        completions=True,
        lists_all=False,
    )
    errors = _ERRORS

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        wanted = request.response_format
        if wanted.type is FormatType.JSON_SCHEMA:
            # llama-cpp-python's name for it; llama-server reads both.
            schema = body["response_format"]["json_schema"]["schema"]
            body["response_format"] = {"type": "json_object", "schema": schema}
        if request.guide is not None:
            body["grammar"] = request.guide.value
        return body

    def model_info(self, item: Mapping[str, Any]) -> ModelInfo:
        meta = item.get("meta") or {}
        length = meta.get("n_ctx") or meta.get("n_ctx_train") or 0
        return ModelInfo(item["id"], int(length), item.get("owned_by") or "")
