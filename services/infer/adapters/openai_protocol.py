"""A client of OpenAI's protocol, which most servers speak, each with its dialect: a provider is a
small class in a file of its own that says what differs."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, ClassVar

from services.infer.adapters.failures import (
    BAD,
    CUT,
    DOWN,
    NO_MODEL,
    WRONG_ADDRESS,
    ErrorTable,
    failure,
)
from services.infer.adapters.http import (
    OK,
    HttpServer,
    Reply,
    bearer,
    is_whole,
    parse_json,
    with_version,
    without_version,
)
from services.infer.adapters.openai_body import Calls, body_of, events_of
from services.infer.adapters.openai_errors import OPENAI_ERRORS
from services.infer.adapters.prometheus import total
from services.infer.adapters.sse import EventSplitter
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    EngineLoad,
    Finish,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    Task,
    Usage,
)
from services.infer.settings import ServerSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError

FAMILY = Capabilities(
    tools=True,
    tool_choice=True,
    parallel_tool_calls=True,
    json_object=True,
    json_schema=True,
    logprobs=True,
    multiple_choices=True,
    vision=True,
    seed=True,
    top_k=True,
    penalties=True,
    logit_bias=True,
    max_stops=4,
    completions=True,
    lists_all=False,
)
"""What servers of the family take. Whether a model calls tools or reads images is the server's to
say: it refuses clearly."""

ASKING_TIMEOUT = 5.0
"""Seconds that a server may take to say what it is and has."""
_LISTING_AGE = 60.0
"""Seconds that a list of models is believed."""
_READY_AGE = 3.0
"""Seconds that a failure is, and that a server counts as alive without being asked."""
_DONE = b"[DONE]"


class OpenAIProtocolEngine:
    """A streaming client; nothing is retried here. A dialect overrides what its server does
    otherwise: class attributes for facts, the methods without an underscore for behaviour."""

    Settings: ClassVar[type[ServerSettings]] = ServerSettings
    can: ClassVar[Capabilities] = FAMILY
    errors: ClassVar[ErrorTable] = OPENAI_ERRORS
    names_calls: ClassVar[bool] = True
    """Whether an answer that calls tools finishes with that reason, instead of another or none."""

    least_top: ClassVar[int] = 0
    """Of how many likely tokens log-probabilities have to be asked for to come at all."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises:
        FailedPrecondition: SETTING_REQUIRED, URL_INVALID, CA_FILE_UNREADABLE.
        """
        self.settings = settings
        self.server = HttpServer.from_settings(
            self.base_url(settings), settings, self.headers(settings)
        )
        self._listing: tuple[float, Sequence[ModelInfo] | RagmeshError] | None = None
        self._listing_lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> "OpenAIProtocolEngine":
        return cls(settings)

    # what dialects say

    def base_url(self, settings: ServerSettings) -> str:
        """Where ``/chat/completions`` lies."""
        return with_version(settings.require("url", "http://127.0.0.1:8000/v1"))

    def headers(self, settings: ServerSettings) -> Mapping[str, str]:
        """Sent with every request."""
        return bearer(settings)

    def route(self, request: GenerateRequest) -> str:
        """The path of a generation, after the base."""
        return "/completions" if request.task is Task.COMPLETE else "/chat/completions"

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        """The JSON body of a generation."""
        return body_of(request)

    def events(self, chunk: dict[str, Any]) -> list[EngineEvent]:
        """The events of one chunk of a stream, or of a whole answer. Raises as `events_of`."""
        return events_of(chunk)

    def capabilities(self, model: str = "") -> Capabilities:
        return self.can

    def model_info(self, item: Mapping[str, Any]) -> ModelInfo:
        """An entry of ``/models``; errors as `events_of`."""
        length = item.get("max_model_len") or item.get("context_length") or 0
        return ModelInfo(item["id"], int(length), item.get("owned_by") or "")

    async def list_models(self) -> Sequence[ModelInfo]:
        """Ask the server for its models.

        Raises:
            RagmeshError: it does not list them.
        """
        answer = await self.server.request("GET", "/models", timeout=ASKING_TIMEOUT)
        if answer.status != OK:
            refusal = self.errors.error(answer.status, answer.body, answer.headers)
            raise failure(WRONG_ADDRESS) if refusal.reason == NO_MODEL.reason else refusal
        try:
            return [self.model_info(item) for item in answer.json()["data"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise failure(BAD) from error

    async def check(self) -> None:
        """Return when the server can work; errors as `ready`."""
        await self._listed(_READY_AGE)

    async def healthy(self, path: str) -> None:
        """Ask a health route, which lies beside ``/v1``.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE, whatever else the server answers.
        """
        url = without_version(self.server.url) + path
        answer = await self.server.request("GET", url, timeout=ASKING_TIMEOUT)
        if answer.status in (401, 403):
            raise self.errors.error(answer.status, answer.body)
        if answer.status != OK:
            raise failure(DOWN)

    async def read_load(
        self, running: Sequence[str], waiting: Sequence[str], cache: Sequence[str] = ()
    ) -> EngineLoad:
        """What ``/metrics``, beside ``/v1``, says, each figure under one of its names.

        Raises:
            RagmeshError: there is no such page.
        """
        url = without_version(self.server.url) + "/metrics"
        answer = await self.server.request("GET", url, timeout=ASKING_TIMEOUT)
        if answer.status != OK:
            raise self.errors.error(answer.status, answer.body, answer.headers)
        page = answer.body.decode(errors="replace")
        return EngineLoad(
            _whole(total(page, running)), _whole(total(page, waiting)), total(page, cache)
        )

    async def counted(self, path: str, body: Any) -> Any:
        """Ask a route beside ``/v1`` that counts tokens, and parse its answer.

        Raises:
            RagmeshError: it does not count.
        """
        url = without_version(self.server.url) + path
        answer = await self.server.request("POST", url, body, timeout=ASKING_TIMEOUT)
        if answer.status != OK:
            raise self.errors.error(answer.status, answer.body, answer.headers)
        return answer.json()

    # the port

    async def models(self) -> Sequence[ModelInfo]:
        known = self._listing[1] if self._listing else None
        if known is not None and not isinstance(known, RagmeshError):
            self._refresh()  # nobody waits for a list that is only old
            return known
        try:
            return await self._listed(_LISTING_AGE)
        except RagmeshError:
            return ()

    async def ready(self) -> None:
        await self.check()

    async def aclose(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        await self.server.aclose()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        usage: Usage | None = None
        finishes: dict[int, Finish] = {}
        said: list[str] = []
        calls, done = Calls(), False
        asked, top = request, request.top_logprobs
        if top is not None and top < self.least_top:
            asked = replace(request, top_logprobs=self.least_top)
        async with self.server.stream("POST", self.route(asked), self.body(asked)) as reply:
            if reply.status != OK:
                body = await reply.read_error()
                raise self.errors.error(reply.status, body, reply.headers)
            async with aclosing(_bursts(reply)) as bursts:
                async for burst in bursts:
                    for data in burst:
                        if data == _DONE:
                            done = True
                            continue
                        for event in self._events_in(data):
                            if isinstance(event, Delta):
                                said.append(event.text)
                                event = calls.passed(event)  # noqa: PLW2901
                                yield event if asked is request else _fewer(event, top)
                            elif isinstance(event, Finish):
                                finishes[event.index] = event
                            else:
                                usage = event
        if not self.names_calls:
            _name_calls(finishes, calls, done=done)
        if len(finishes) < request.n:
            raise failure(CUT)  # the server closed the stream without saying that it was done
        for index in sorted(finishes):
            yield finishes[index]
        yield usage or Usage(
            _prompt_tokens(request), estimate_tokens("".join(said)), estimated=True
        )

    def _events_in(self, data: bytes) -> list[EngineEvent]:
        """Raises:
        RagmeshError: an error event, or something that is no chunk.
        """
        chunk = parse_json(data)
        if not isinstance(chunk, dict):
            raise failure(BAD)
        if chunk.get("error"):
            raise self.errors.error(OK, data)
        try:
            return self.events(chunk)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise failure(BAD) from error

    def _refresh(self) -> None:
        """List the models anew, in the background, when the list has grown old."""
        clock = asyncio.get_running_loop().time
        busy = self._refreshing is not None and not self._refreshing.done()
        if busy or self._listing is None or clock() - self._listing[0] <= _LISTING_AGE:
            return
        self._refreshing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        known = self._listing
        with suppress(RagmeshError):
            await self._listed(_LISTING_AGE)
            return
        clock = asyncio.get_running_loop().time
        if known is not None:  # an engine that is too busy to list may still answer
            self._listing = (clock() - _LISTING_AGE + _READY_AGE, known[1])

    async def _listed(self, age: float) -> Sequence[ModelInfo]:
        """The server's models, from memory when they are at most `age` seconds old.

        Raises:
            RagmeshError: the server does not list them.
        """
        async with self._listing_lock:
            clock = asyncio.get_running_loop().time
            if self._listing and isinstance(self._listing[1], RagmeshError):
                age = min(age, _READY_AGE)
            if self._listing is None or clock() - self._listing[0] > age:
                try:
                    self._listing = (clock(), await self.list_models())
                except RagmeshError as error:
                    self._listing = (clock(), error)
            listed = self._listing[1]
        if isinstance(listed, RagmeshError):
            raise listed
        return listed


def _name_calls(finishes: dict[int, Finish], calls: Calls, *, done: bool) -> None:
    """Give the reason of a first choice that called tools."""
    finish = finishes.get(0, Finish() if done else None)
    if calls.of(0) and finish is not None and finish.reason is FinishReason.STOP:
        finishes[0] = Finish(FinishReason.TOOL_CALLS)


def _fewer(delta: Delta, top: int | None) -> Delta:
    """A delta with at most so many likely tokens in each place."""
    tokens = tuple(replace(token, top=token.top[:top]) for token in delta.logprobs)
    return replace(delta, logprobs=tokens)


def _whole(count: float | None) -> int | None:
    return None if count is None else int(count)


async def _bursts(reply: Reply) -> AsyncGenerator[list[bytes], None]:
    """The data of events up to and with ``[DONE]``, as many at a time as have come. A JSON answer
    is one event: servers that do not stream send that, and some send errors so."""
    if reply.is_json:
        yield [await reply.read()]
        return
    splitter = EventSplitter()
    async for block in reply.blocks():
        burst = splitter.feed(block)
        if _DONE in burst:
            yield burst[: burst.index(_DONE) + 1]
            await reply.drain()
            return
        if burst:
            yield burst
    burst = splitter.end()
    if burst and burst[-1] != _DONE and not is_whole(burst[-1]):
        raise failure(CUT)
    yield burst[: burst.index(_DONE) + 1] if _DONE in burst else burst


def _prompt_tokens(request: GenerateRequest) -> int:
    return estimate_tokens(request.text) + sum(estimate_tokens(m.text) for m in request.messages)
