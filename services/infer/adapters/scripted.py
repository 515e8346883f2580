"""The test double for the whole mesh: says what it is told, as slowly and badly as it is told."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pydantic_settings import SettingsConfigDict

from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from services.infer.settings import EngineSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    RagmeshError,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.settings import Seconds

MODEL = "script"
DIRECTIVES = "scripted"
"""The key of `extra` under which one request is directed."""

# Pieces of a text as a model would send them: a word with the space before it, or a few
# characters of Japanese.
_PIECE = re.compile(r"\s*[\x21-\x7e]+|\s*[^\x00-\x7f\s]{1,3}|\s+")
_FAILURES: Mapping[str, type[RagmeshError]] = {
    "CONTEXT_LENGTH_EXCEEDED": InvalidArgument,
    "ENGINE_AUTHENTICATION_FAILED": FailedPrecondition,
    "ENGINE_BAD_ANSWER": Internal,
    "ENGINE_OVERLOADED": Unavailable,
    "ENGINE_RATE_LIMITED": ResourceExhausted,
    "ENGINE_TIMEOUT": DeadlineExceeded,
    "ENGINE_UNAVAILABLE": Unavailable,
    "MODEL_NOT_FOUND": NotFound,
}


@dataclass(frozen=True, slots=True)
class Script:
    """What happens in one generation; each field is a directive of ``extra["scripted"]``."""

    text: str = ""
    first_delay: float = 0.0
    """Seconds before the first delta."""
    delay: float = 0.0
    """Seconds between deltas."""
    mode: str = ""
    """`fail` before the first delta, `cut` after `after` deltas, `hang` after them."""
    reason: str = "ENGINE_UNAVAILABLE"
    retry_after: float | None = None
    after: int = 1
    """Deltas that come before a cut or a hang."""
    repeat: int = 1
    """How often the text is said, for long streams."""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON text) of each call."""
    finish: str = "stop"
    unanswered: bool = False

    def directed(self, directives: object) -> "Script":
        """This script with one request's directives.

        Raises:
            InvalidArgument: PARAMETER_INVALID, for an unknown or mistyped directive.
        """
        if directives is None:
            return self
        if not isinstance(directives, Mapping):
            raise _invalid("must be an object")
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        changes: dict[str, Any] = {}
        for name, value in directives.items():
            if name not in known:
                raise _invalid(f"has no directive {name!r}; known are: {', '.join(known)}")
            changes[name] = _converted(name, value, known[name])
        return replace(self, **changes)


class ScriptedSettings(EngineSettings):
    """The test double, for trying failures out."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_SCRIPTED_")

    text: str = "This answer comes from a script."
    """What it answers."""
    first_delay: Seconds = 0.0
    """Seconds before the first delta."""
    delay: Seconds = 0.0
    """Seconds between deltas."""
    mode: Literal["", "fail", "cut", "hang"] = ""
    """fail: before the first delta; cut: break off in the middle; hang: never go on."""
    reason: str = "ENGINE_UNAVAILABLE"
    """Reason of the failure."""


class ScriptedEngine:
    """Plays a script. `started`, `finished` and `aborted` count its generations."""

    Settings = ScriptedSettings

    def __init__(self, script: Script) -> None:
        self._script = script
        self.started = 0
        self.finished = 0
        self.aborted = 0

    @classmethod
    def from_settings(cls, settings: ScriptedSettings) -> "ScriptedEngine":
        return cls(
            Script(
                text=settings.text,
                first_delay=settings.first_delay,
                delay=settings.delay,
                mode=settings.mode,
                reason=settings.reason,
            )
        )

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            tools=True,
            tool_choice=True,
            parallel_tool_calls=True,
            json_object=True,
            json_schema=True,
            guides=frozenset(GuideKind),
            logprobs=True,
            multiple_choices=True,
            vision=True,
            seed=True,
            top_k=True,
            penalties=True,
            logit_bias=True,
            completions=True,
            prefill=True,
            reads_tasks=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        return (ModelInfo(MODEL, owned_by="ragmesh"),)

    async def ready(self) -> None:
        """Nothing to wait for."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        script = self._script.directed(request.extra.get(DIRECTIVES))
        self.started += 1
        ended = False
        try:
            async with aclosing(_play(script, request)) as events:
                async for event in events:
                    yield event
            ended = True
        except RagmeshError:
            ended = True
            raise
        finally:
            if ended:
                self.finished += 1
            else:
                self.aborted += 1


async def _play(script: Script, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
    await asyncio.sleep(script.first_delay)
    if script.mode == "fail":
        raise _failure(script)
    deltas, reason = _deltas(script, request)
    for count, delta in enumerate(deltas):
        if count == script.after and script.mode == "cut":
            raise _failure(script)
        if count == script.after and script.mode == "hang":
            await asyncio.Event().wait()
        if count:
            await asyncio.sleep(script.delay)
        for choice in range(request.n):
            yield replace(delta, index=choice)
    if script.mode == "cut":
        raise _failure(script)
    if script.mode == "hang":
        await asyncio.Event().wait()
    for choice in range(request.n):
        yield Finish(reason, choice, script.unanswered)
    prompt = request.text + "".join(m.text for m in request.messages)
    prompt += "".join(passage.text for passage in request.passages)
    said = "".join(delta.text for delta in deltas)
    yield Usage(estimate_tokens(prompt), estimate_tokens(said) * request.n, estimated=True)


def _deltas(script: Script, request: GenerateRequest) -> tuple[list[Delta], FinishReason]:
    reason = FinishReason(script.finish)
    thought = [Delta(reasoning=script.reasoning)] if script.reasoning else []
    if script.tool_calls:
        return [*thought, *_tool_deltas(script)], FinishReason.TOOL_CALLS
    text = script.text * script.repeat
    if request.response_format.type is not FormatType.TEXT and not _is_json(text):
        text = json.dumps({"answer": text}, ensure_ascii=False)
    ends = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
    text = text[: min(ends, default=len(text))]
    pieces: list[str] = _PIECE.findall(text)
    limit = request.sampling.max_tokens
    if limit is not None and limit < len(pieces):
        pieces, reason = pieces[:limit], FinishReason.LENGTH
    if not request.stream and not (script.delay or script.mode):
        pieces = ["".join(pieces)]
    return [
        *thought,
        *(Delta(piece, logprobs=_logprobs(piece, request.top_logprobs)) for piece in pieces),
    ], reason


def _tool_deltas(script: Script) -> list[Delta]:
    deltas: list[Delta] = []
    for i, (name, arguments) in enumerate(script.tool_calls):
        half = len(arguments) // 2
        first = ToolCallDelta(i, f"call_{i}", name, arguments[:half])
        deltas.append(Delta(tool_calls=(first,)))
        deltas.append(Delta(tool_calls=(ToolCallDelta(i, arguments=arguments[half:]),)))
    return deltas


def _logprobs(piece: str, top: int | None) -> tuple[TokenLogprob, ...]:
    """Of a piece that nothing else could have stood for."""
    if top is None:
        return ()
    likely = (TopLogprob(piece, -0.5, piece.encode()),) if top else ()
    return (TokenLogprob(piece, -0.5, piece.encode(), likely),)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _converted(name: str, value: object, default: object) -> object:
    """A directive's value in its field's type; JSON numbers are floats on the wire."""
    if name == "tool_calls":
        return _calls(value)
    if name == "finish" and value not in list(FinishReason):
        raise _invalid(f"finish must be one of: {', '.join(FinishReason)}")
    if name == "mode" and value not in ("", "fail", "cut", "hang"):
        raise _invalid("mode must be fail, cut or hang")
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, str):
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return int(value) if isinstance(default, int) else float(value)
    raise _invalid(f"{name} has a value of the wrong type")


def _calls(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _invalid("tool_calls must be a list of {name, arguments}")
    calls: list[tuple[str, str]] = []
    for call in value:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise _invalid("tool_calls must be a list of {name, arguments}")
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        calls.append((call["name"], text))
    return tuple(calls)


def _failure(script: Script) -> RagmeshError:
    kind = _FAILURES.get(script.reason, Unavailable)
    return kind(script.reason, "The script says so.", retry_after=script.retry_after)


def _invalid(rule: str) -> InvalidArgument:
    return InvalidArgument("PARAMETER_INVALID", f"{DIRECTIVES} {rule}.", field=DIRECTIVES)
