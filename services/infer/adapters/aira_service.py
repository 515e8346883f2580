"""The older AI-Q: the research assistant that NeMo Agent Toolkit serves
(https://github.com/NVIDIA-AI-Blueprints/aiq-research-assistant, docs/rest-api.md).

``/artifact_qa`` answers a question about a text that it is given; ``/generate_query`` and
``/generate_summary`` research a topic and write a report. It looks at the questions, not at the
text, for what it blocks, so documents travel in the text. An answer comes in one piece; a stream
has no mark of its end.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from services.infer.adapters.aira_settings import AiraSettings
from services.infer.adapters.failures import (
    BAD,
    CUT,
    FILTERED,
    LATE,
    LIMITED,
    NO_MODEL,
    OVERLOADED,
    UNAUTHENTICATED,
    ErrorTable,
    failure,
)
from services.infer.adapters.http import OK, HttpServer, parse_json
from services.infer.adapters.openai_errors import NUMBERS, PATTERNS
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

ERRORS = ErrorTable(
    patterns=(
        (re.compile(r"potentially harmful content", re.I), FILTERED),
        (re.compile(r"Unknown agent type|Agent type is internal-only", re.I), NO_MODEL),
        (re.compile(r"at sandbox capacity|submission is currently unavailable", re.I), OVERLOADED),
        *PATTERNS,
        # What its own model's server said, in the words of the clients that it asks with.
        (re.compile(r"(?:Error code: |\[)429\b|too many requests", re.I), LIMITED),
        (re.compile(r"(?:Error code: |\[)40[13]\b|unauthorized", re.I), UNAUTHENTICATED),
        (re.compile(r"(?:Error code: |\[)503\b|service unavailable", re.I), OVERLOADED),
        (re.compile(r"(?:Error code: |\[)504\b|timed? ?out", re.I), LATE),
    ),
    numbers=NUMBERS,
)
"""The failures of both generations."""

ANSWERS = "artifact_qa"
REPORTS = "generate_summary"
_ORGANIZATION = "A short report: an introduction, a section for each finding, and a conclusion."


class AiraService:
    """The older generation."""

    owned_by = "nvidia-aira"
    models: tuple[str, ...] = (ANSWERS, REPORTS)

    def __init__(self, server: HttpServer, settings: AiraSettings) -> None:
        self._server = server
        self._settings = settings

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        reports = request.model == REPORTS and request.task in (Task.CHAT, Task.ANSWER)
        body = self._topic(request) if reports else self._question(request)
        said: list[str] = []
        if reports:
            body["queries"] = await self._queries(body, request.timeout)
        path = f"/{REPORTS if reports else ANSWERS}/stream"
        async with aclosing(self._items(path, body)) as items:
            async for item in items:
                delta = _delta(item)
                said.append(delta.text)
                if delta.text or delta.reasoning:
                    yield delta
        text = "".join(said)
        if not text:  # the stream ended before its answer
            raise failure(CUT)
        yield Finish()
        prompt = estimate_tokens(orjson.dumps(body).decode())
        yield Usage(prompt, estimate_tokens(text), estimated=True)

    async def _items(self, path: str, body: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a stream.

        Raises:
            RagmeshError: one of them says an error, or is no JSON object.
        """
        splitter = MessageSplitter()

        def read(message: Message) -> dict[str, Any]:
            item = parse_json(message.data)
            if not isinstance(item, dict):
                raise failure(BAD)
            if message.event == "error" or item.get("error"):
                raise ERRORS.error(OK, message.data)
            return item

        async with self._server.stream("POST", path, body) as reply:
            if reply.status != OK:
                raise ERRORS.error(reply.status, await reply.read_error(), reply.headers)
            async for block in reply.blocks():
                for message in splitter.feed(block):
                    yield read(message)
            for message in splitter.end():
                yield read(message)

    async def _queries(self, body: Mapping[str, Any], timeout: float | None) -> Any:
        """What it wants to look for."""
        wanted = {
            "topic": body["topic"],
            "report_organization": body["report_organization"],
            "num_queries": self._settings.report_queries,
            "llm_name": self._settings.report_model,
        }
        answer = await self._server.request("POST", "/generate_query", wanted, timeout=timeout)
        if answer.status != OK:
            raise ERRORS.error(answer.status, answer.body, answer.headers)
        found = answer.json()
        queries = found.get("queries") if isinstance(found, dict) else None
        if not isinstance(queries, list) or not queries:
            raise failure(BAD)
        return queries

    def _topic(self, request: GenerateRequest) -> dict[str, Any]:
        return {
            "topic": request.question,
            "report_organization": instructions(request) or _ORGANIZATION,
            "search_web": self._settings.search_web,
            "rag_collection": self._settings.collection,
            "reflection_count": self._settings.report_reflections,
            "llm_name": self._settings.report_model,
        }

    def _question(self, request: GenerateRequest) -> dict[str, Any]:
        history: list[str] = []
        if request.task is Task.SUMMARIZE:
            system, text = summary_request(request, request.text).messages
            artifact, question = text.text, system.text
        elif request.task is Task.REWRITE:
            system, text = render(request, Prompt(self._settings.context_length)).messages
            artifact, question = text.text, system.text
        else:
            artifact, question = instructions(request), request.question
            history = _turns(request)
            if request.task is Task.ANSWER:
                system, *_, last = render(request, Prompt(self._settings.context_length)).messages
                artifact = f"{system.text}\n\n{last.text}"
        return {
            "artifact": artifact,
            "question": question,
            "chat_history": history,
            "use_internet": self._settings.search_web and request.task in (Task.CHAT, Task.ANSWER),
            "rag_collection": self._settings.collection,
        }


def instructions(request: GenerateRequest) -> str:
    """What a chat's system says."""
    roles = (Role.SYSTEM, Role.DEVELOPER)
    return "\n\n".join(message.text for message in request.messages if message.role in roles)


def _turns(request: GenerateRequest) -> list[str]:
    """What was said before the last question: the user's turns at even places, the assistant's at
    odd ones, as the service reads them."""
    turns: list[str] = []
    said = [one for one in request.messages if one.role in (Role.USER, Role.ASSISTANT) and one.text]
    last = max((i for i, one in enumerate(said) if one.role is Role.USER), default=0)
    for message in said[:last]:
        mine = message.role is Role.USER
        if mine is (len(turns) % 2 == 0):
            turns.append(message.text)
        elif turns:
            turns[-1] += f"\n\n{message.text}"
    if len(turns) % 2:  # the question is a user's turn as well
        turns.append("")
    return turns


def _delta(item: Mapping[str, Any]) -> Delta:
    report = item.get("final_report")
    if report:
        cited = item.get("citations") or ""
        sources = "\n".join(map(str, cited)) if isinstance(cited, list) else str(cited).strip()
        text = str(report)
        return Delta(text if not sources or sources in text else f"{text}\n\n{sources}")
    return Delta(str(item.get("assistant_reply") or ""), reasoning=_step(item))


def _step(item: Mapping[str, Any]) -> str:
    """What a step of the research says; steps that are the whole state of it say nothing."""
    step = item.get("intermediate_step")
    if not isinstance(step, str) or not step:
        return ""
    try:
        parts = orjson.loads(step)
    except ValueError:
        return step
    if isinstance(parts, dict) and all(isinstance(part, str) for part in parts.values()):
        return "\n".join(parts.values())
    return ""
