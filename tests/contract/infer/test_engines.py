"""The promises of the Engine port, for every line of REGISTRY and for an engine that nobody has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.infer.adapters import PLANNED, REGISTRY
from services.infer.adapters.scripted import ScriptedEngine
from services.infer.admission import Admission
from services.infer.core import Inference
from services.infer.ports import (
    Capabilities,
    ContentPart,
    Delta,
    Engine,
    Event,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    Guide,
    GuideKind,
    Message,
    ModelManager,
    Passage,
    ResponseFormat,
    Role,
    Sampling,
    Started,
    Task,
    TokenCounter,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    Usage,
    text_message,
)
from services.infer.providers import build_provider
from services.infer.settings import LEGACY_BACKENDS, EngineSettings, InferSettings
from services.runtime.errors import InvalidArgument, NotFound, RagmeshError
from services.runtime.registry import resolve
from tests.conftest import NOT_APPLICABLE
from tests.contract.infer import rig
from tests.contract.infer.claims import line
from tests.contract.infer.rig import Rig
from tests.contract.infer.rows import ALL, MORE, REAL, ROWS, Row, ScriptedRig
from tests.until import until

TEXT = (
    "The gateway conducts the services. Services never call each other. The gateway answers on "
    "port 8000. 推論サービスはポート50053で待ち受けます。"
)
PASSAGES = (Passage(1, TEXT, title="Ports", language="en"),)
ASKED = GenerateRequest(
    task=Task.ANSWER,
    messages=(text_message(Role.USER, "Which port does the gateway answer on?"),),
    passages=PASSAGES,
    stream=True,
)
CHAT = GenerateRequest(messages=(text_message(Role.USER, "こんにちは"),), stream=True)
REQUESTS = {
    "answer": ASKED,
    "plain": replace(ASKED, stream=False),
    "chat": CHAT,
    "summarize": GenerateRequest(task=Task.SUMMARIZE, text=TEXT, stream=True),
    "rewrite": GenerateRequest(task=Task.REWRITE, messages=(text_message(Role.USER, "why?"),)),
}
# What was told -> code, reason, whether a delay is named. The delay for RATE is the server's own.
FAILURES = {
    rig.CONTEXT: ("INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED"),
    rig.RATE: ("RESOURCE_EXHAUSTED", "ENGINE_RATE_LIMITED"),
    rig.AUTH: ("FAILED_PRECONDITION", "ENGINE_AUTHENTICATION_FAILED"),
    rig.OVERLOAD: ("UNAVAILABLE", "ENGINE_OVERLOADED"),
    rig.DOWN: ("UNAVAILABLE", "ENGINE_UNAVAILABLE"),
    rig.CUT: ("UNAVAILABLE", "ENGINE_UNAVAILABLE"),
    rig.GARBAGE: ("INTERNAL", "ENGINE_BAD_ANSWER"),
    rig.FILTER: ("INVALID_ARGUMENT", "CONTENT_FILTERED"),
}


@dataclass
class Harness:
    """An engine in its mesh, and what surrounds it."""

    inference: Inference
    engine: Engine
    rig: Rig

    @property
    def name(self) -> str:
        return self.inference.default.name

    @property
    def can(self) -> Capabilities:
        return self.engine.capabilities()

    def needs(self, behaviour: str) -> None:
        if behaviour not in self.rig.can:
            pytest.skip(f"{NOT_APPLICABLE}{self.name} cannot be made to {behaviour}")

    async def events(self, request: GenerateRequest) -> list[Event]:
        return [event async for event in self.stream(request)]

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        request = self.rig.directed(request)
        route = await self.inference.route(request.model)
        async with aclosing(self.inference.generate(route, request)) as events:
            async for event in events:
                yield event

    async def text(self, request: GenerateRequest) -> str:
        events = await self.events(request)
        return "".join(event.text for event in events if isinstance(event, Delta))


@asynccontextmanager
async def harness(
    case: str, limit: int = 8, rows: Mapping[str, Row] = ROWS
) -> AsyncIterator[Harness]:
    provider, row = MORE[case] if case in MORE else (case, rows[case])
    async with row() as surroundings:
        settings = InferSettings(model_backend=provider)
        built = build_provider(provider, settings, surroundings.settings, registry=ALL)
        built = replace(built, admission=Admission(limit, 4))
        if isinstance(surroundings, ScriptedRig):
            assert isinstance(built.engine, ScriptedEngine)
            surroundings.engine = built.engine
        try:
            yield Harness(Inference({provider: built}), built.engine, surroundings)
        finally:
            await built.engine.aclose()


@pytest.fixture(params=[*sorted(ROWS), *sorted(MORE)])
async def mesh(request) -> AsyncIterator[Harness]:
    async with harness(request.param) as made:
        yield made


def test_every_row_is_tested():
    assert ROWS.keys() | REAL.keys() == ALL.keys()


def test_names_are_kept_apart():
    assert not REGISTRY.keys() & PLANNED
    assert set(LEGACY_BACKENDS.values()) <= REGISTRY.keys() | PLANNED


@pytest.mark.parametrize("provider", sorted(ALL))
def test_settings_bear_the_providers_name(provider):
    settings: type[EngineSettings] = resolve(ALL, provider, "test").Settings
    expected = f"RAGMESH_{provider.upper().replace('-', '_')}_"
    assert settings.model_config.get("env_prefix") == expected
    assert settings.__doc__


async def test_claims_and_protocols_agree(mesh):
    can = mesh.can
    assert isinstance(mesh.engine, TokenCounter) or not can.counts_tokens
    assert isinstance(mesh.engine, ModelManager) or not (can.pull or can.load)


async def test_the_documentation_says_what_it_claims(mesh):
    if mesh.name not in REGISTRY:
        return
    expected = line(mesh.name, mesh.can)
    page = Path(__file__).parents[3] / "docs" / "engines.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    assert any(each.startswith(expected) for each in lines), f"it lacks: {expected} tested how |"


# what it answers


@pytest.mark.parametrize("kind", sorted(REQUESTS))
async def test_events_come_in_order_and_no_answer_is_empty(mesh, kind):
    started, *events = await mesh.events(REQUESTS[kind])
    assert isinstance(started, Started)
    assert started.model.startswith(f"{mesh.name}/")
    kinds = [type(event) for event in events]
    assert kinds[-2:] == [Finish, Usage]
    assert set(kinds[:-2]) == {Delta}
    assert "".join(e.text for e in events if isinstance(e, Delta)).strip()
    assert events[-1].completion_tokens > 0


async def test_the_known_answer_arrives_whole(mesh):
    if mesh.rig.text is None:
        pytest.skip(f"{NOT_APPLICABLE}{mesh.name} answers as it finds")
    assert await mesh.text(CHAT) == mesh.rig.text
    assert await mesh.text(replace(CHAT, stream=False)) == mesh.rig.text


async def test_characters_that_fall_apart_on_the_wire_arrive_whole(mesh):
    mesh.needs(rig.BYTES)
    mesh.rig.behave(rig.BYTES)
    deltas = [event.text for event in await mesh.events(CHAT) if isinstance(event, Delta)]
    assert "".join(deltas) == mesh.rig.text
    assert not any("\ufffd" in delta for delta in deltas)


async def test_usage_is_marked_when_it_is_estimated(mesh):
    mesh.needs(rig.NO_USAGE)
    *_, exact = await mesh.events(CHAT)
    assert not exact.estimated
    mesh.rig.behave(rig.NO_USAGE)
    *_, usage = await mesh.events(CHAT)
    assert usage.estimated is not mesh.can.counts_tokens
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


async def test_many_at_once_do_not_mix(mesh):
    answers = await asyncio.gather(*(mesh.events(ASKED) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)


async def test_an_unknown_model_is_not_found(mesh):
    with pytest.raises(NotFound) as caught:
        await mesh.events(replace(ASKED, model=f"{mesh.name}/no-such-model"))
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert caught.value.field == "model"


async def test_models_are_listed_and_answer_by_their_own_name(mesh):
    await mesh.engine.ready()
    (first, *_) = await mesh.engine.models()
    listed = {model.id: model for model in await mesh.inference.list_models()}
    own = f"{mesh.name}/{first.name}"
    assert listed["default"].target == own
    events = await mesh.events(replace(ASKED, model=own))
    assert events[0] == Started(own)


# what it can and cannot do

TOOL = Tool("weather", "Tells the weather.", '{"type": "object", "properties": {"city": {}}}')
SCHEMA = '{"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}'
IMAGE = Message(
    Role.USER, (ContentPart("What is it?"), ContentPart(image_url="data:image/png;base64,aGk="))
)
GUIDES = {GuideKind.GRAMMAR: 'root ::= "yes"'}
GOES_ON = (*CHAT.messages, text_message(Role.ASSISTANT, "こん"))


def wishes(can: Capabilities) -> dict[str, tuple[bool, str, GenerateRequest]]:
    """What may be asked -> whether it is claimed, the field, the request."""
    forced = ToolChoice(ToolChoiceMode.FUNCTION, "weather")
    sampled = Sampling
    return {
        "tools": (can.tools, "tools", replace(CHAT, tools=(TOOL,))),
        "tool choice": (
            can.tools and can.tool_choice,
            "tool_choice" if can.tools else "tools",
            replace(CHAT, tools=(TOOL,), tool_choice=forced),
        ),
        "json object": (
            can.json_object,
            "response_format",
            replace(CHAT, response_format=ResponseFormat(FormatType.JSON_OBJECT)),
        ),
        "json schema": (
            can.json_schema,
            "response_format",
            replace(CHAT, response_format=ResponseFormat(FormatType.JSON_SCHEMA, SCHEMA)),
        ),
        "logprobs": (can.logprobs, "logprobs", replace(CHAT, top_logprobs=1)),
        "n": (can.multiple_choices, "n", replace(CHAT, n=2)),
        "images": (can.vision, "messages[0].content", replace(CHAT, messages=(IMAGE,))),
        "seed": (can.seed, "seed", replace(CHAT, sampling=sampled(seed=1))),
        "top_k": (can.top_k, "top_k", replace(CHAT, sampling=sampled(top_k=5))),
        "penalty": (
            can.penalties,
            "presence_penalty",
            replace(CHAT, sampling=sampled(presence_penalty=0.5)),
        ),
        "bias": (
            can.logit_bias,
            "logit_bias",
            replace(CHAT, sampling=sampled(logit_bias={7: 1.0})),
        ),
        "stops": (
            can.max_stops >= 16,
            "stop",
            replace(CHAT, sampling=sampled(stop=tuple(f"§{i}" for i in range(16)))),
        ),
        "completion": (
            can.completions,
            "prompt",
            GenerateRequest(task=Task.COMPLETE, text="Once upon a time", stream=True),
        ),
        "prefill": (
            can.prefill,
            "continue_final_message",
            replace(CHAT, messages=GOES_ON, continue_final=True),
        ),
        **{
            f"guide {kind.value}": (
                kind in can.guides,
                f"guided_{kind.value}",
                replace(CHAT, guide=Guide(kind, (GUIDES.get(kind, "yes"),))),
            )
            for kind in GuideKind
        },
    }


@pytest.mark.parametrize("wish", sorted(wishes(Capabilities())))
async def test_what_is_claimed_works_and_the_rest_is_refused_by_name(mesh, wish):
    claimed, field, request = wishes(mesh.can)[wish]
    if claimed:
        events = await mesh.events(request)
        assert sum(isinstance(event, Finish) for event in events) == request.n
    else:
        with pytest.raises(InvalidArgument) as caught:
            await mesh.events(request)
        assert (caught.value.reason, caught.value.field) == ("PARAMETER_UNSUPPORTED", field)


async def test_as_many_stops_as_it_claims(mesh):
    stops = tuple(f"§{i}" for i in range(mesh.can.max_stops))
    sampling = Sampling(temperature=0.0, top_p=0.5, max_tokens=64, stop=stops)
    events = await mesh.events(replace(CHAT, sampling=sampling))
    assert isinstance(events[-1], Usage)


async def test_a_tool_is_called_with_its_arguments(mesh):
    if not mesh.can.tools or not mesh.rig.stands_in:
        pytest.skip(f"{NOT_APPLICABLE}{mesh.name} calls no tools here")
    events = await mesh.events(replace(CHAT, tools=(TOOL,)))
    pieces = [call for event in events if isinstance(event, Delta) for call in event.tool_calls]
    assert [piece.name for piece in pieces if piece.name] == ["weather"]
    assert sum(bool(piece.id) for piece in pieces) == 1
    assert pieces[0].id
    assert {piece.index for piece in pieces} == {0}
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"city": "東京"}
    assert [e.reason for e in events if isinstance(e, Finish)] == [FinishReason.TOOL_CALLS]


async def test_structured_answers_are_json(mesh):
    for wanted in (
        ResponseFormat(FormatType.JSON_OBJECT) if mesh.can.json_object else None,
        ResponseFormat(FormatType.JSON_SCHEMA, SCHEMA) if mesh.can.json_schema else None,
    ):
        if wanted is not None:
            assert "answer" in json.loads(await mesh.text(replace(CHAT, response_format=wanted)))


@pytest.mark.parametrize("top", [0, 1])
async def test_logprobs_cover_the_text(mesh, top):
    if not mesh.can.logprobs:
        pytest.skip(f"{NOT_APPLICABLE}{mesh.name} has no log-probabilities")
    events = await mesh.events(replace(CHAT, top_logprobs=top))
    tokens = [token for e in events if isinstance(e, Delta) for token in e.logprobs]
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert b"".join(token.token_bytes for token in tokens).decode() == text
    assert all(token.logprob <= 0 and len(token.top) == top for token in tokens)


# leaving, and time


@pytest.mark.parametrize("how", [rig.STALL, rig.HANG])
async def test_cancelling_the_waiting_task_ends_the_engines_work(mesh, how):
    mesh.needs(how)
    mesh.rig.behave(how)
    task = asyncio.ensure_future(mesh.events(ASKED))
    await until(lambda: mesh.rig.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not mesh.rig.running and mesh.rig.aborted == 1)


async def test_closing_the_generator_ends_the_engines_work(mesh):
    mesh.needs(rig.HANG)
    mesh.rig.behave(rig.HANG)
    events = mesh.stream(ASKED)
    async for event in events:
        if isinstance(event, Delta):
            break
    await events.aclose()
    await until(lambda: not mesh.rig.running and mesh.rig.aborted == 1)


@pytest.mark.parametrize("case", [*sorted(ROWS), *sorted(MORE)])
async def test_leaving_the_queue_asks_nothing_of_the_engine(case):
    async with harness(case, limit=1) as mesh:
        mesh.needs(rig.STALL)
        mesh.rig.behave(rig.STALL)
        first = asyncio.ensure_future(mesh.events(CHAT))
        await until(lambda: mesh.rig.running == 1)
        admission = mesh.inference.default.admission
        second = asyncio.ensure_future(mesh.events(CHAT))
        await until(lambda: admission.waiting == 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (admission.waiting, mesh.rig.running) == (0, 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await until(lambda: mesh.rig.aborted == 1 and not mesh.rig.running)


@pytest.mark.parametrize("how", [rig.STALL, rig.HANG])
async def test_the_deadline_ends_a_generation(mesh, how):
    mesh.needs(how)
    mesh.rig.behave(how)
    with pytest.raises(RagmeshError) as caught:
        await mesh.events(replace(ASKED, timeout=0.2))
    assert (caught.value.code, caught.value.reason) == ("DEADLINE_EXCEEDED", "ENGINE_TIMEOUT")
    await until(lambda: not mesh.rig.running)


# failures


@pytest.mark.parametrize("how", sorted(FAILURES))
async def test_each_failure_is_the_documented_error(mesh, how):
    mesh.needs(how)
    mesh.rig.behave(how)
    seen: list[Event] = []
    with pytest.raises(RagmeshError) as caught:
        async for event in mesh.stream(CHAT):
            seen.append(event)
    error = caught.value
    assert (error.code, error.reason) == FAILURES[how]
    assert not any(isinstance(event, Finish) for event in seen), "a false stop"
    if how == rig.RATE and mesh.rig.rate_limit_delay is not None:
        assert error.retry_after == mesh.rig.rate_limit_delay
    if how in (rig.RATE, rig.OVERLOAD, rig.DOWN):
        assert error.spelling.retry_helps
        assert error.retry_after is not None
    if how in (rig.AUTH, rig.CONTEXT, rig.FILTER):
        assert not error.spelling.retry_helps
    if how == rig.CONTEXT and mesh.rig.stands_in:
        assert "513" in error.message
        assert "512" in error.message
