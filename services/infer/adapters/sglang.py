"""SGLang's server, by URL.

https://docs.sglang.ai/: basic_usage/openai_api_completions, advanced_features/structured_outputs.
It serves one model under whatever name it is asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import OVERLOADED, ErrorTable
from services.infer.adapters.http import OK, without_version
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import ASKING_TIMEOUT, FAMILY, OpenAIProtocolEngine
from services.infer.ports import EngineLoad, GenerateRequest, GuideKind, ModelInfo
from services.infer.settings import ServerSettings

_NUMBERS = (
    re.compile(
        r"input \((?P<needed>\d+) tokens\) is longer than .*?\((?P<limit>\d+) tokens\)", re.I | re.S
    ),
    re.compile(
        r"maximum context length of (?P<limit>\d+) tokens.*?total of (?P<needed>\d+) tokens",
        re.I | re.S,
    ),
)
_FULL = re.compile(r"queue is full|waiting timeout|server is (?:busy|overloaded)", re.I)
_INFO = ("/get_server_info", "/server_info")
"""Where the server tells its limits; the second is the newer name."""


class SglangSettings(ServerSettings):
    """A server of SGLang."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_SGLANG_")

    url: str = "http://127.0.0.1:30000/v1"
    """Address of SGLang."""


class SglangEngine(OpenAIProtocolEngine):
    """SGLang; its guides are fields beside the protocol's own."""

    Settings = SglangSettings
    can = replace(FAMILY, guides=frozenset(GuideKind), prefill=True, max_stops=16, lists_all=True)
    errors = ErrorTable(CODES, ((_FULL, OVERLOADED), *PATTERNS), numbers=(*_NUMBERS, *NUMBERS))

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        body = super().body(request)
        guide = request.guide
        if guide is not None and guide.kind is GuideKind.GRAMMAR:
            body["ebnf"] = guide.value
        elif guide is not None and guide.kind is GuideKind.REGEX:
            body["regex"] = guide.value
        elif guide is not None:  # it has no choices of its own
            body["regex"] = f"({'|'.join(re.escape(value) for value in guide.values)})"
        if request.continue_final:
            body["continue_final_message"] = True
        return body

    async def check(self) -> None:
        await self.healthy("/health")
        await super().check()

    async def load_now(self) -> EngineLoad:
        """Told where the server runs with ``--enable-metrics``."""
        return await self.read_load(
            ["sglang:num_running_reqs"], ["sglang:num_queue_reqs"], ["sglang:token_usage"]
        )

    async def list_models(self) -> Sequence[ModelInfo]:
        models = await super().list_models()
        if all(model.context_length for model in models):
            return models
        length = await self._context_length()
        return [replace(model, context_length=model.context_length or length) for model in models]

    async def _context_length(self) -> int:
        """What older servers tell elsewhere; 0: nothing."""
        for path in _INFO:
            url = without_version(self.server.url) + path
            answer = await self.server.request("GET", url, timeout=ASKING_TIMEOUT)
            told = answer.json() if answer.status == OK else None
            if isinstance(told, dict):
                return int(told.get("context_length") or told.get("max_total_num_tokens") or 0)
        return 0
