"""llama.cpp's own server, ``llama-server``, or llama-cpp-python's, by URL."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from services.infer.adapters.failures import CUT, DOWN, OVERLOADED, TOO_LONG, ErrorTable
from services.infer.adapters.http import OK
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, OpenAIProtocolEngine
from services.infer.ports import (
    Capabilities,
    EngineEvent,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
    Task,
)
from services.runtime.errors import RagmeshError

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
    least_top = 1

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        wanted = request.response_format
        if request.task is Task.COMPLETE and wanted.type is not FormatType.TEXT:
            form = body.pop("response_format")  # which is for chats alone
            body["json_schema"] = form.get("json_schema", {}).get("schema", {"type": "object"})
        elif wanted.type is FormatType.JSON_SCHEMA:
            # llama-cpp-python's name for it; llama-server reads both.
            schema = body["response_format"]["json_schema"]["schema"]
            body["response_format"] = {"type": "json_object", "schema": schema}
        if request.guide is not None:
            body["grammar"] = request.guide.value
        return body

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        spoke = False
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    spoke = True
                    yield event
        except RagmeshError as error:
            if spoke or error.message != CUT.message:
                raise
            raise await self._refusal(request) or error from error

    async def _refusal(self, request: GenerateRequest) -> RagmeshError | None:
        """Why a stream ended before it began: llama-cpp-python closes the stream of a request that
        it refuses without a word, and says why when it is asked in one piece."""
        body = {**self.body(request), "stream": False, "max_tokens": 1}
        body.pop("stream_options", None)
        try:
            answer = await self.server.request(
                "POST", self.route(request), body, timeout=ASKING_TIMEOUT
            )
        except RagmeshError:
            return None  # that the stream broke off is what happened
        if answer.status == OK:
            return None
        return self.errors.error(answer.status, answer.body, answer.headers)

    def model_info(self, item: Mapping[str, Any]) -> ModelInfo:
        meta = item.get("meta") or {}
        length = meta.get("n_ctx") or meta.get("n_ctx_train") or 0
        return ModelInfo(item["id"], int(length), item.get("owned_by") or "")
