"""vLLM's OpenAI-compatible server, by URL (0.12 and later, whose guides are `structured_outputs`).

https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
"""

import re
from dataclasses import replace
from typing import Any

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import (
    BAD,
    OVERLOADED,
    REFUSED,
    UNSUPPORTED,
    ErrorTable,
    failure,
)
from services.infer.adapters.openai_body import messages_of
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import FAMILY, OpenAIProtocolEngine
from services.infer.ports import EngineLoad, GenerateRequest, GuideKind, Task
from services.infer.settings import ServerSettings

# A server that was started without a tool parser, a model that reads no images, and a guide that
# is none, in its words.
_WORDS = (
    (
        re.compile(r"--enable-auto-tool-choice|--tool-call-parser"),
        UNSUPPORTED._replace(message="The engine's server calls no tools.", field="tools"),
    ),
    (
        re.compile(r"not a multimodal model|[Aa]t most 0 image"),
        UNSUPPORTED._replace(message="The model reads no images.", field="messages"),
    ),
    (
        re.compile(r"^Grammar error|[Ii]nvalid (?:grammar|regex)|compile grammar"),
        REFUSED._replace(message="The guide cannot be read.", field="structured_outputs"),
    ),
)


class VllmSettings(ServerSettings):
    """A vLLM server."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_VLLM_")

    url: str = "http://127.0.0.1:8001/v1"
    """Address of vLLM."""


class VllmEngine(OpenAIProtocolEngine):
    """vLLM: guides, going on with a message, exact counts."""

    Settings = VllmSettings
    can = replace(FAMILY, guides=frozenset(GuideKind), prefill=True, counts_tokens=True)
    errors = ErrorTable(
        {**CODES, "engineoverloaded": OVERLOADED},
        (*_WORDS, *PATTERNS),
        numbers=NUMBERS,
    )

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        guide = request.guide
        if guide is not None:
            value = list(guide.values) if guide.kind is GuideKind.CHOICE else guide.value
            body["structured_outputs"] = {guide.kind.value: value}
        if request.continue_final:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    async def check(self) -> None:
        await self.healthy("/health")
        await super().check()

    async def load_now(self) -> EngineLoad:
        return await self.read_load(
            ["vllm:num_requests_running"],
            ["vllm:num_requests_waiting"],
            ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        )

    async def count_tokens(self, request: GenerateRequest) -> int:
        body: dict[str, Any] = {"model": request.model}
        if request.task is Task.COMPLETE:
            body["prompt"] = request.text
        else:
            body["messages"] = messages_of(request)
            if request.continue_final:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        return _count(await self.counted("/tokenize", body))

    async def count_text(self, model: str, text: str) -> int:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return _count(await self.counted("/tokenize", body))


def _count(counted: Any) -> int:
    try:
        return int(counted["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise failure(BAD) from error
