"""LiteLLM: the library in this process, or its proxy by URL.

The library reaches some hundred providers by names such as ``anthropic/claude-...``; a model here
is called as it is there, so that the mesh's name is ``litellm/anthropic/claude-...``. What a
provider does not count the library counts by itself, and does not say so.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import (
    BAD,
    CUT,
    DOWN,
    FILTERED,
    LATE,
    LIMITED,
    NO_MODEL,
    OUT_OF_QUOTA,
    OVERLOADED,
    REFUSED,
    TOO_LONG,
    UNAUTHENTICATED,
    UNSUPPORTED,
    Meaning,
    failure,
    retry_after,
)
from services.infer.adapters.http import key_of
from services.infer.adapters.litellm_proxy import CAN, LiteLlmProxy
from services.infer.adapters.openai_body import Calls, body_of, events_of
from services.infer.adapters.openai_errors import OPENAI_ERRORS
from services.infer.lengths import too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    GenerateRequest,
    ModelInfo,
    Task,
    Usage,
)
from services.infer.settings import ServerSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError
from services.runtime.registry import package

log = logging.getLogger(__name__)

_WHO = "model provider 'litellm'"

MEANINGS: Mapping[str, Meaning] = {
    "APIConnectionError": DOWN,
    "APIError": DOWN,
    "APIResponseValidationError": BAD,
    "AuthenticationError": UNAUTHENTICATED,
    "BadGatewayError": DOWN,
    "BadRequestError": REFUSED,
    "BlockedPiiEntityError": FILTERED,
    "BudgetExceededError": OUT_OF_QUOTA,
    "ContentPolicyViolationError": FILTERED,
    "ContextWindowExceededError": TOO_LONG,
    "EndpointNotSupportedByModelError": UNSUPPORTED,
    "GuardrailRaisedException": FILTERED,
    "InternalServerError": DOWN,
    "InvalidRequestError": REFUSED,
    "JSONSchemaValidationError": BAD,
    "LiteLLMUnknownProvider": NO_MODEL,
    "MidStreamFallbackError": CUT,
    "MockException": DOWN,
    "ModelNotMappedError": NO_MODEL,
    "ModifyResponseException": FILTERED,
    "NotFoundError": NO_MODEL,
    "OpenAIError": DOWN,
    "PaymentRequiredError": OUT_OF_QUOTA,
    "PermissionDeniedError": UNAUTHENTICATED,
    "RateLimitError": LIMITED,
    "RejectedRequestError": FILTERED,
    "SensitiveDataRouteException": FILTERED,
    "ServiceUnavailableError": OVERLOADED,
    "Timeout": LATE,
    "UnprocessableEntityError": REFUSED,
    "UnsupportedEndpointError": UNSUPPORTED,
    "UnsupportedParamsError": UNSUPPORTED,
}
"""The name of an exception of ``litellm.exceptions`` -> meaning; what inherits means the same."""

_REFUSALS = (
    (re.compile(r"LLM Provider NOT provided"), NO_MODEL),
    (re.compile(r"safety system|content[ _]policy|content management policy", re.I), FILTERED),
    (re.compile(r"JSONDecodeError|Expecting value|Unable to parse|invalid JSON", re.I), BAD),
)
"""What the messages of its commonest exceptions say more exactly."""


class LiteLlmSettings(ServerSettings):
    """LiteLLM: its proxy, where an address is set, else the library in this process."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_LITELLM_")

    url: str = ""
    """Address of LiteLLM's proxy; empty: the library."""
    api_base: str = ""
    """For the library: address of the provider's server, where it is not the vendor's own."""
    api_version: str = ""
    """For the library: version of the provider's interface, where it has several."""


class LiteLlmEngine:
    """The library."""

    Settings = LiteLlmSettings

    def __init__(self, settings: LiteLlmSettings, library: Any) -> None:
        """Args:
        settings: the model and its provider.
        library: the package.

        Raises:
            FailedPrecondition: SETTING_REQUIRED.
        """
        self._settings = settings
        self._model = settings.require("model", "anthropic/claude-sonnet-4-5")
        self._library = library
        self._length: int | None = None
        library.telemetry = False
        library.suppress_debug_info = True
        library.turn_off_message_logging = True
        library.drop_params = False

    @classmethod
    def from_settings(cls, settings: LiteLlmSettings) -> "LiteLlmEngine | LiteLlmProxy":
        if settings.url:
            return LiteLlmProxy(settings)
        # Without it the library fetches a table of prices from the internet when it is imported.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # noqa: TID251
        return cls(settings, package("litellm", _WHO))

    def capabilities(self, model: str = "") -> Capabilities:
        return replace(CAN, multiple_choices=False)  # its streams mix them up

    async def models(self) -> Sequence[ModelInfo]:
        if self._length is None:
            # Once, and not in the loop: of some providers' models it asks their servers, and waits.
            self._length = await asyncio.to_thread(self._context_length)
        return (ModelInfo(self._model, self._length, "litellm"),)

    async def ready(self) -> None:
        """Whether the provider answers is seen when it is asked: asking costs money."""

    async def aclose(self) -> None:
        close = getattr(self._library, "close_litellm_async_clients", None)
        if close is not None:
            await close()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        usage: Usage | None = None
        finishes: dict[int, Finish] = {}
        said: list[str] = []
        calls = Calls()
        try:
            ask, arguments = self._call(request)
            async with _closing(await ask(**arguments)) as stream:
                async for chunk in stream:
                    for event in events_of(chunk.model_dump(exclude_none=True)):
                        if isinstance(event, Delta):
                            said.append(event.text)
                            yield calls.passed(event)
                        elif isinstance(event, Finish):
                            finishes[event.index] = event
                        else:
                            usage = event
        except RagmeshError:
            raise
        except Exception as error:
            raise self._error(error) from error
        if len(finishes) < request.n:
            raise failure(CUT)
        for index in sorted(finishes):
            yield finishes[index]
        if usage is None or not usage.completion_tokens:
            prompt = sum(estimate_tokens(one.text) for one in request.messages)
            prompt += estimate_tokens(request.text)
            usage = Usage(prompt, estimate_tokens("".join(said)), estimated=True)
        yield usage

    def _call(self, request: GenerateRequest) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The library's function and its arguments."""
        body = body_of(request)
        settings = self._settings
        own = {
            "api_key": key_of(settings),
            "api_base": settings.api_base,
            "api_version": settings.api_version,
        }
        arguments = {
            **body,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": request.timeout,
            **{name: value for name, value in own.items() if value},
        }
        if request.task is Task.COMPLETE:
            return self._library.atext_completion, arguments
        return self._library.acompletion, arguments

    def _context_length(self) -> int:
        if self._settings.context_length:
            return self._settings.context_length
        try:
            info = self._library.get_model_info(self._model)
        except Exception:  # it raises a plain one for a model that is not in its table
            return 0
        return int(info.get("max_input_tokens") or 0)

    def _error(self, error: Exception) -> RagmeshError:
        """The library's exception in our terms."""
        kinds = [kind.__name__ for kind in type(error).__mro__]
        meaning = next((MEANINGS[name] for name in kinds if name in MEANINGS), None)
        if meaning is None:
            log.error("a generation failed", exc_info=error)
            return failure(BAD)
        said = str(getattr(error, "message", "") or error)
        read = OPENAI_ERRORS.error(400, orjson.dumps({"error": {"message": said}}))
        if meaning in (REFUSED, TOO_LONG) and read.reason == TOO_LONG.reason:
            return read  # with the numbers
        if meaning is TOO_LONG:
            return too_long()
        if meaning in (REFUSED, DOWN, CUT):
            meaning = next((m for pattern, m in _REFUSALS if pattern.search(said)), meaning)
        response = getattr(error, "response", None)
        delay = retry_after(getattr(response, "headers", None) or {})
        return meaning.kind(
            meaning.reason,
            meaning.message,
            field="model" if meaning is NO_MODEL else None,
            retry_after=meaning.retry_after if delay is None else delay,
        )


@asynccontextmanager
async def _closing(stream: Any) -> AsyncGenerator[Any, None]:
    """A stream of the library that is closed, and its connection with it, at the block's end."""
    try:
        yield stream
    finally:
        for one in (stream, getattr(stream, "completion_stream", None)):
            close = getattr(one, "aclose", None)
            if close is not None:
                await close()
                break
