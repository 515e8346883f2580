"""Ollama by its native API: https://github.com/ollama/ollama/blob/main/docs/api.md.

Streams are JSON by line. Left alone Ollama cuts a prompt that is too long down and answers from the
rest; `truncate` and `shift` forbid that, so that it is refused instead.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import orjson
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import (
    BAD,
    CUT,
    DOWN,
    NO_MODEL,
    OVERLOADED,
    TOO_LONG,
    UNSUPPORTED,
    ErrorTable,
    failure,
)
from services.infer.adapters.http import OK, HttpServer, Reply, bearer, is_whole, parse_json
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.sse import LineSplitter
from services.infer.lengths import ContextExceeded, too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    ModelInfo,
    PullProgress,
    Task,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from services.infer.settings import ServerSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import InvalidArgument, RagmeshError

_ASKING_TIMEOUT = 5.0
_LOADING_TIMEOUT = 600.0
_IMAGE = re.compile(r"data:[\w.+/-]+;base64,(?P<data>.*)", re.S)

_ERRORS = ErrorTable(
    patterns=(
        (
            re.compile(
                r"exceeds? the (?:available )?context (?:length|size)"
                r"|longer than the context length",
                re.I,
            ),
            TOO_LONG,
        ),
        (re.compile(r"model .*not found|try pulling it first", re.I), NO_MODEL),
        (
            re.compile(r"does not support (?:tools|thinking|chat|generate|vision)", re.I),
            UNSUPPORTED,
        ),
        (re.compile(r"server busy|maximum pending requests", re.I), OVERLOADED),
        (re.compile(r"file does not exist|pull model manifest", re.I), NO_MODEL),
        (re.compile(r"requires more system memory|out of memory|loading model", re.I), DOWN),
    ),
    numbers=(
        re.compile(
            r"\((?P<needed>\d+) tokens?\).*?context (?:size|length) \((?P<limit>\d+) tokens?\)",
            re.I | re.S,
        ),
    ),
)


class OllamaSettings(ServerSettings):
    """An Ollama server."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_OLLAMA_")

    url: str = "http://127.0.0.1:11434"
    """Address of Ollama."""
    keep_alive: str = ""
    """How long a model stays loaded after an answer, as Ollama writes it: ``5m``, ``-1`` for
    always; empty: its own setting."""
    exclusive: bool = True
    """Whether one model at a time is loaded: generations of another one wait until the running ones
    end, and the loaded one is unloaded first."""
    think: bool | None = Field(None)
    """Whether models that can do so reason before they answer; unset: the model's default."""


class OllamaEngine:
    """Ollama: an `Engine` and a `ModelManager`."""

    Settings = OllamaSettings

    def __init__(self, settings: OllamaSettings) -> None:
        """Raises:
        FailedPrecondition: URL_INVALID, CA_FILE_UNREADABLE.
        """
        self._settings = settings
        self._server = HttpServer.from_settings(
            settings.url.rstrip("/").removesuffix("/v1").removesuffix("/api"),
            settings,
            bearer(settings),
        )

    @classmethod
    def from_settings(cls, settings: OllamaSettings) -> "OllamaEngine":
        return cls(settings)

    # the engine

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            tools=True,
            json_object=True,
            json_schema=True,
            logprobs=True,
            vision=True,
            seed=True,
            top_k=True,
            penalties=True,
            completions=True,
            pull=True,
            load=True,
            lists_all=False,
        )

    async def models(self) -> Sequence[ModelInfo]:
        try:
            return await self._listed()
        except RagmeshError:
            return ()

    async def ready(self) -> None:
        await self._ask("GET", "/api/version")

    async def aclose(self) -> None:
        await self._server.aclose()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        path = "/api/generate" if request.task is Task.COMPLETE else "/api/chat"
        calls = 0
        said: list[str] = []
        async with self._server.stream("POST", path, self._body(request)) as reply:
            if reply.status != OK:
                body = await reply.read_error()
                raise await self._refusal(request.model, reply.status, body, reply.headers)
            async with aclosing(_objects(reply)) as objects:
                async for item in objects:
                    try:
                        delta = _delta(item, calls)
                        calls += len(delta.tool_calls)
                        said.append(delta.text)
                        if delta.text or delta.tool_calls or delta.reasoning or delta.logprobs:
                            yield delta
                        if item.get("done"):
                            await reply.drain()
                            yield Finish(_reason(item, calls))
                            yield _usage(item, request, "".join(said))
                            return
                    except (TypeError, KeyError, ValueError, AttributeError) as error:
                        raise failure(BAD) from error
        raise failure(CUT)

    # its models

    @property
    def exclusive(self) -> bool:
        return self._settings.exclusive

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        async with self._server.stream("POST", "/api/pull", {"model": model}) as reply:
            if reply.status != OK:
                raise _ERRORS.error(reply.status, await reply.read_error(), reply.headers)
            async with aclosing(_objects(reply)) as objects:
                async for item in objects:
                    try:
                        counts = int(item.get("completed") or 0), int(item.get("total") or 0)
                    except (TypeError, ValueError) as error:
                        raise failure(BAD) from error
                    status = str(item.get("status") or "")
                    yield PullProgress(status, *counts)
                    if status == "success":
                        return
        raise failure(CUT)

    async def load(self, model: str) -> None:
        body: dict[str, Any] = {"model": model, "stream": False}
        if self._settings.keep_alive:
            body["keep_alive"] = _keep_alive(self._settings.keep_alive)
        await self._ask("POST", "/api/generate", body, timeout=_LOADING_TIMEOUT)

    async def unload(self, model: str) -> None:
        try:
            body = {"model": model, "stream": False, "keep_alive": 0}
            await self._ask("POST", "/api/generate", body)
        except RagmeshError as error:
            if error.reason != NO_MODEL.reason:  # what is not there is not loaded
                raise

    # requests

    async def _refusal(
        self, model: str, status: int, body: bytes, headers: Mapping[str, str]
    ) -> RagmeshError:
        """A refusal. Some runners keep it to themselves how long a prompt may be; then ask."""
        error = _ERRORS.error(status, body, headers)
        if not isinstance(error, ContextExceeded) or error.limit:
            return error
        limit = self._settings.context_length
        with suppress(RagmeshError, LookupError, TypeError, ValueError):
            running = (await self._ask("GET", "/api/ps"))["models"]
            limit = next(int(one["context_length"]) for one in running if one["model"] == model)
        return too_long(error.needed, limit or None)

    async def _listed(self) -> Sequence[ModelInfo]:
        found = await self._ask("GET", "/api/tags")
        try:
            names = [str(one["model"]) for one in found["models"]]
        except (KeyError, TypeError) as error:
            raise failure(BAD) from error
        length = self._settings.context_length
        return [ModelInfo(name, length, "ollama") for name in names]

    async def _ask(
        self, method: str, path: str, body: Any = None, *, timeout: float = _ASKING_TIMEOUT
    ) -> Any:
        answer = await self._server.request(method, path, body, timeout=timeout)
        if answer.status != OK:
            raise _ERRORS.error(answer.status, answer.body, answer.headers)
        return answer.json()

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        """Raises: InvalidArgument IMAGE_UNSUPPORTED, for an image that is not in the request."""
        sampling = request.sampling
        options = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "num_predict": sampling.max_tokens,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "stop": list(sampling.stop) or None,
            "num_ctx": self._settings.context_length or None,
        }
        known = {name: value for name, value in options.items() if value is not None}
        given = request.extra.get("options")
        body: dict[str, Any] = {
            **{k: v for k, v in request.extra.items() if k in ("think", "keep_alive")},
            "model": request.model,
            "stream": True,
            "truncate": False,
            "shift": False,
            "options": {**(given if isinstance(given, Mapping) else {}), **known},
        }
        if self._settings.keep_alive:
            body.setdefault("keep_alive", _keep_alive(self._settings.keep_alive))
        if self._settings.think is not None:
            body.setdefault("think", self._settings.think)
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        wanted = request.response_format
        if wanted.type is FormatType.JSON_OBJECT:
            body["format"] = "json"
        elif wanted.type is FormatType.JSON_SCHEMA:
            body["format"] = orjson.loads(wanted.json_schema)
        if request.task is Task.COMPLETE:
            return {**body, "prompt": request.text, "raw": True}
        usual = body_of(request)
        body["messages"] = [_message(one) for one in usual["messages"]]
        if request.tools and usual.get("tool_choice") != "none":
            body["tools"] = usual["tools"]
        return body


async def _objects(reply: Reply) -> AsyncGenerator[dict[str, Any], None]:
    """The lines of a stream.

    Raises:
        RagmeshError: one of them says an error, or is no JSON object.
    """
    splitter = LineSplitter()

    def read(line: bytes) -> dict[str, Any]:
        item = parse_json(line)
        if not isinstance(item, dict):
            raise failure(BAD)
        if item.get("error"):
            raise _ERRORS.error(OK, line)
        return item

    async for block in reply.blocks():
        for line in splitter.feed(block):
            yield read(line)
    for line in splitter.end():
        if not is_whole(line):
            raise failure(CUT)
        yield read(line)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message of OpenAI's protocol as Ollama has it: text and images apart, arguments parsed."""
    role = "system" if message["role"] == "developer" else message["role"]
    made: dict[str, Any] = {"role": role, "content": message["content"] or ""}
    if isinstance(message["content"], list):
        parts = message["content"]
        made["content"] = "\n".join(part["text"] for part in parts if part["type"] == "text")
        made["images"] = [
            _image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"
        ]
    if message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call["id"],
                "function": {
                    "name": call["function"]["name"],
                    "arguments": _arguments(call["function"]["arguments"]),
                },
            }
            for call in message["tool_calls"]
        ]
    if message.get("tool_call_id"):
        made["tool_call_id"] = message["tool_call_id"]
    if message["role"] == "tool" and message.get("name"):
        made["tool_name"] = message["name"]
    return made


def _image(url: str) -> str:
    found = _IMAGE.fullmatch(url)
    if found is None:
        raise InvalidArgument(
            "PARAMETER_UNSUPPORTED",
            "Ollama reads images that are in the request, as data: URLs in base64.",
            field="messages",
        )
    return found["data"]


def _arguments(text: str) -> Any:
    try:
        value = orjson.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _delta(item: Mapping[str, Any], calls: int) -> Delta:
    """What one line adds to the answer.

    Args:
        calls: how many tool calls came before.
    """
    message = item.get("message") or {}
    return Delta(
        str(message.get("content") or item.get("response") or ""),
        0,
        tuple(
            ToolCallDelta(
                number,
                str(call.get("id") or f"call_{number}"),
                str(call["function"]["name"]),
                orjson.dumps(call["function"].get("arguments") or {}).decode(),
            )
            for number, call in enumerate(message.get("tool_calls") or (), calls)
        ),
        str(message.get("thinking") or item.get("thinking") or ""),
        tuple(_token(one) for one in item.get("logprobs") or ()),
    )


def _token(one: Mapping[str, Any]) -> TokenLogprob:
    tops = tuple(
        TopLogprob(str(top["token"]), float(top["logprob"]), _bytes(top))
        for top in one.get("top_logprobs") or ()
    )
    return TokenLogprob(str(one["token"]), float(one["logprob"]), _bytes(one), tops)


def _bytes(one: Mapping[str, Any]) -> bytes:
    return bytes(one["bytes"]) if one.get("bytes") else str(one["token"]).encode()


def _reason(item: Mapping[str, Any], calls: int) -> FinishReason:
    if calls:
        return FinishReason.TOOL_CALLS
    return FinishReason.LENGTH if item.get("done_reason") == "length" else FinishReason.STOP


def _usage(item: Mapping[str, Any], request: GenerateRequest, said: str) -> Usage:
    """Ollama leaves a prompt out that it had in its cache as a whole, and what it did not count."""
    read, made = item.get("prompt_eval_count"), item.get("eval_count")
    if read is not None and made is not None:
        return Usage(int(read), int(made))
    prompt = estimate_tokens(request.text) + sum(estimate_tokens(m.text) for m in request.messages)
    return Usage(
        prompt if read is None else int(read),
        estimate_tokens(said) if made is None else int(made),
        estimated=True,
    )


def _keep_alive(text: str) -> str | int:
    """A number alone means seconds, and Ollama wants it as one."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text
