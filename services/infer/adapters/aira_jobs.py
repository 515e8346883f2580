"""The current AI-Q blueprint: agents that work on jobs
(https://github.com/NVIDIA-AI-Blueprints/aiq, docs/source/integration/rest-api.md).

A job goes on by itself: its events are numbered and kept, so a stream that breaks off is taken up
again after the last event that came, and who leaves has to cancel it. What the agents' models say
on the way comes as reasoning; the report comes in one piece, once the job has succeeded.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import orjson

from services.infer.adapters.aira_service import ERRORS, instructions
from services.infer.adapters.aira_settings import AiraSettings
from services.infer.adapters.failures import BAD, CUT, failure
from services.infer.adapters.http import OK, Answer, HttpServer, parse_json
from services.infer.adapters.sse import Message, MessageSplitter
from services.infer.ports import (
    Delta,
    EngineEvent,
    Finish,
    GenerateRequest,
    Role,
    Task,
    Usage,
)
from services.infer.prompt import Prompt, render, summary_request
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError, Unavailable

log = logging.getLogger(__name__)

_BASE = "/v1/jobs/async"
_UNNUMBERED = frozenset({"stream.mode", "job.status", "job.shutdown"})
"""Events that no stored one stands behind. Some versions number them all the same, and going on
after such a number would skip a stored event."""
_PAUSE = 0.25
"""Seconds before a stream is taken up again; doubled each time that nothing came."""
_LONGEST_PAUSE = 5.0
_CANCELS = 12
"""Times that a cancel is tried while the job has not begun yet, as only running ones can be: for
more than a minute."""
_LOST_CANCELS = 6
"""Times that it is tried while the service is not reached, or does not know the job yet."""
_LONGEST_CANCEL_PAUSE = 10.0
_ASKING_TIMEOUT = 5.0
_PROXIES = frozenset({502, 504})
"""Statuses of a submission that may have gone through all the same."""
_CLOSING = 5.0
"""Seconds that cancels under way have when the engine is closed."""


class JobService:
    """The current generation."""

    owned_by = "nvidia-aiq"

    def __init__(self, server: HttpServer, settings: AiraSettings) -> None:
        self._server = server
        self._settings = settings
        self.models: tuple[str, ...] = ()
        self._cancels: set[asyncio.Task[None]] = set()

    def know(self, agents: Sequence[str]) -> None:
        """Take over the list of agents; the one that answers in seconds is the better default."""
        self.models = tuple(sorted(agents, key=lambda name: name != "shallow_researcher"))

    async def aclose(self) -> None:
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=_CLOSING)
        for task in self._cancels:
            task.cancel()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        # Our own number for it: a job whose submission was not waited for can be cancelled as well.
        job = uuid.uuid4().hex
        asked = self._input(request)
        report, usage, over = "", Usage(), False
        try:
            answer = await self._submit(job, request, asked)
            if answer.status != OK:
                over = answer.status not in _PROXIES
                raise ERRORS.error(answer.status, answer.body, answer.headers)
            async with aclosing(self._events(job)) as messages:
                async for message in messages:
                    item = _item(message)
                    inner = _object(item, "data")
                    if message.event == "llm.chunk":
                        chunk = inner.get("chunk") or item.get("content")
                        if isinstance(chunk, str) and chunk:
                            yield Delta(reasoning=chunk)
                    elif message.event == "llm.end":
                        usage += _usage(_object(_object(item, "metadata"), "usage"))
                    elif message.event == "artifact.update":
                        if inner.get("output_category") == "final_report":
                            report = str(inner.get("content") or "")
                    elif message.event == "job.error":
                        over = True
                        raise ERRORS.error(OK, _said(inner or item))
                    elif message.event == "job.status":
                        over = _succeeded(item)
                        if over:
                            break
            report = report or await self._report(job)
            yield Delta(report)
            yield Finish()
            if not usage.completion_tokens:
                usage = Usage(estimate_tokens(asked), estimate_tokens(report), estimated=True)
            yield usage
        except _Ended as ended:
            over = True
            raise ended.error from None
        finally:
            if not over:
                self._leave(job)

    async def _submit(self, job: str, request: GenerateRequest, asked: str) -> Answer:
        body: dict[str, Any] = {"agent_type": request.model, "input": asked, "job_id": job}
        sources = self._settings.data_sources
        if request.task in (Task.SUMMARIZE, Task.REWRITE):
            sources = ()  # everything that they need is in the request
        if sources is not None:
            body["data_sources"] = list(sources)
        return await self._server.request("POST", f"{_BASE}/submit", body, timeout=request.timeout)

    async def _events(self, job: str) -> AsyncGenerator[Message, None]:
        """The job's events, each once, over as many connections as it takes.

        Raises:
            RagmeshError: the stream breaks off again and again and nothing comes.
        """
        last = silent = 0
        while True:
            came, error = False, failure(CUT)
            path = f"{_BASE}/job/{job}/stream"
            try:
                async with aclosing(self._stream(f"{path}/{last}" if last else path)) as messages:
                    async for message in messages:
                        number = int(message.id) if message.id.isdigit() else 0
                        if number and message.event not in _UNNUMBERED:
                            if number <= last:
                                continue
                            last, came = number, True
                        yield message
            except Unavailable as unavailable:
                error = unavailable
            silent = 0 if came else silent + 1
            if silent > self._settings.resumes:
                raise error
            log.info("the event stream of a job broke off; it is taken up after event %d", last)
            await asyncio.sleep(min(_LONGEST_PAUSE, _PAUSE * 2**silent))

    async def _stream(self, path: str) -> AsyncGenerator[Message, None]:
        """The events of one connection."""
        splitter = MessageSplitter()
        async with self._server.stream("GET", path) as reply:
            if reply.status != OK:
                raise ERRORS.error(reply.status, await reply.read_error(), reply.headers)
            async for block in reply.blocks():
                for message in splitter.feed(block):
                    yield message

    async def _report(self, job: str) -> str:
        answer = await self._server.request(
            "GET", f"{_BASE}/job/{job}/report", timeout=_ASKING_TIMEOUT
        )
        if answer.status != OK:
            raise ERRORS.error(answer.status, answer.body, answer.headers)
        found = answer.json()
        report = found.get("report") if isinstance(found, dict) else None
        if not isinstance(report, str) or not report:
            raise failure(BAD)
        return report

    def _leave(self, job: str) -> None:
        """Have the job cancelled; nobody waits for it."""
        task = asyncio.get_running_loop().create_task(self._cancel(job))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _cancel(self, job: str) -> None:
        pause, path = _PAUSE, f"{_BASE}/job/{job}/cancel"
        for tried in range(1, _CANCELS + 1):
            queued = False
            with suppress(RagmeshError):
                answer = await self._server.request("POST", path, timeout=_ASKING_TIMEOUT)
                if answer.status == 400:  # it has not begun, or it has ended
                    queued = b"submitted" in answer.body.lower()
                if not queued and answer.status < 500 and answer.status != 404:
                    return
            if tried >= _LOST_CANCELS and not queued:
                break
            await asyncio.sleep(pause)
            pause = min(_LONGEST_CANCEL_PAUSE, pause * 2)
        log.warning("a job whose caller left could not be cancelled")

    def _input(self, request: GenerateRequest) -> str:
        """The chat as the one text that an agent takes; a question alone stays as it is."""
        if request.task is Task.SUMMARIZE:
            chat = summary_request(request, request.text)
        else:
            chat = render(request, Prompt(self._settings.context_length))
        names = {Role.USER: "User", Role.ASSISTANT: "Assistant"}
        turns = [one for one in chat.messages if one.role in names and one.text]
        system = instructions(chat)
        if len(turns) == 1:
            return f"{system}\n\n{turns[0].text}" if system else turns[0].text
        lines = [f"{names[one.role]}: {one.text}" for one in turns]
        return "\n\n".join([system, *lines] if system else lines)


class _Ended(Exception):
    """The job has ended without a report."""

    def __init__(self, error: RagmeshError) -> None:
        super().__init__()
        self.error = error


def _succeeded(item: Mapping[str, Any]) -> bool:
    """Whether the job has ended, with a report.

    Raises:
        _Ended: it has, without one.
    """
    status = str(item.get("status") or "").lower()
    if status == "failure":
        raise _Ended(ERRORS.error(OK, _said(item)))
    if status in ("interrupted", "not_found"):
        raise _Ended(failure(CUT))
    return status == "success"


def _item(message: Message) -> dict[str, Any]:
    item = parse_json(message.data)
    if not isinstance(item, dict):
        raise failure(BAD)
    return item


def _object(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def _said(item: Mapping[str, Any]) -> bytes:
    """An error of a job in the shape of an answer's."""
    return orjson.dumps({"error": {"message": str(item.get("error") or "")}})


def _usage(counts: Mapping[str, Any]) -> Usage:
    """The tokens of one call of an agent's model."""

    def count(name: str) -> int:
        value = counts.get(name)
        return value if isinstance(value, int) and value > 0 else 0

    return Usage(count("input_tokens"), count("output_tokens"))
