"""The promises of the Engine port, for every line of REGISTRY."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from services.infer.adapters import PLANNED, REGISTRY
from services.infer.adapters.scripted import ScriptedEngine
from services.infer.admission import Admission
from services.infer.core import Inference, Provider
from services.infer.ports import (
    Delta,
    Engine,
    Event,
    Finish,
    FormatType,
    GenerateRequest,
    Passage,
    ResponseFormat,
    Role,
    Sampling,
    Started,
    Task,
    Tool,
    Usage,
    text_message,
)
from services.infer.settings import LEGACY_BACKENDS, InferSettings
from services.runtime.errors import InvalidArgument, NotFound, RagmeshError
from services.runtime.registry import resolve
from tests.unit.infer.openai_server import OpenAIServer, openai_server
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
# It answers at once, waiting for nothing that could be cancelled.
IMMEDIATE = {"extractive"}
REQUESTS = {
    "answer": ASKED,
    "plain": replace(ASKED, stream=False),
    "chat": GenerateRequest(messages=(text_message(Role.USER, "こんにちは"),), stream=True),
    "summarize": GenerateRequest(task=Task.SUMMARIZE, text=TEXT, stream=True),
    "rewrite": GenerateRequest(task=Task.REWRITE, messages=(text_message(Role.USER, "why?"),)),
    "complete": GenerateRequest(task=Task.COMPLETE, text="Once upon a time"),
}


@dataclass
class Harness:
    """An engine in its mesh, and its server when it has one."""

    inference: Inference
    engine: Engine
    server: OpenAIServer | None

    def stall(self, request: GenerateRequest) -> GenerateRequest:
        """The request, on which this engine now never answers."""
        if self.server:
            self.server.mode = "silent"
            return request
        assert isinstance(self.engine, ScriptedEngine), "say here how the new engine is stalled"
        return replace(request, extra={"scripted": {"mode": "hang", "after": 0}})

    @property
    def idle(self) -> bool:
        """Whether the engine's work has ended."""
        if isinstance(self.engine, ScriptedEngine):
            return self.engine.started == self.engine.finished + self.engine.aborted
        return self.server is None or self.server.running == 0

    async def events(self, request: GenerateRequest) -> list[Event]:
        route = await self.inference.route(request.model)
        async with aclosing(self.inference.generate(route, request)) as events:
            return [event async for event in events]


@asynccontextmanager
async def harness(provider: str) -> AsyncIterator[Harness]:
    async with AsyncExitStack() as stack:
        settings = InferSettings(model_backend=provider)
        server = None
        if "OpenAIEngine" in REGISTRY[provider]:
            server = await stack.enter_async_context(openai_server())
            settings = InferSettings(model_backend=provider, backend_url=server.url)
        engine: Engine = resolve(REGISTRY, provider, "test").from_settings(provider, settings)
        stack.push_async_callback(engine.aclose)
        providers = {provider: Provider(provider, engine, Admission(4, 4))}
        yield Harness(Inference(providers), engine, server)


@pytest.fixture(params=sorted(REGISTRY))
async def mesh(request) -> AsyncIterator[Harness]:
    async with harness(request.param) as made:
        yield made


@pytest.fixture(params=sorted(REGISTRY.keys() - IMMEDIATE))
async def waiting_mesh(request) -> AsyncIterator[Harness]:
    """A mesh whose engine can be made to wait."""
    async with harness(request.param) as made:
        yield made


@pytest.mark.parametrize("kind", sorted(REQUESTS))
async def test_events_come_in_order_and_no_answer_is_empty(mesh, kind):
    started, *events = await mesh.events(REQUESTS[kind])
    assert isinstance(started, Started)
    assert started.model.startswith(f"{mesh.inference.default.name}/")
    kinds = [type(event) for event in events]
    assert kinds[-2:] == [Finish, Usage]
    assert set(kinds[:-2]) == {Delta}
    assert "".join(e.text for e in events if isinstance(e, Delta)).strip()
    assert events[-1].completion_tokens > 0


async def test_an_unknown_model_is_not_found(mesh):
    name = mesh.inference.default.name
    with pytest.raises(NotFound) as caught:
        await mesh.events(replace(ASKED, model=f"{name}/no-such-model"))
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert caught.value.field == "model"


async def test_models_are_listed_and_answer_by_their_own_name(mesh):
    await mesh.engine.ready()
    (first, *_) = await mesh.engine.models()
    listed = {model.id: model for model in await mesh.inference.list_models()}
    own = f"{mesh.inference.default.name}/{first.name}"
    assert listed["default"].target == own
    events = await mesh.events(replace(ASKED, model=own))
    assert events[0] == Started(own)


async def test_closing_the_generator_ends_the_engines_work(mesh):
    if mesh.server:
        mesh.server.mode = "hang"
    events = mesh.engine.generate(
        replace(ASKED, task=Task.CHAT, model=(await mesh.engine.models())[0].name)
    )
    async for event in events:
        assert isinstance(event, Delta)
        break
    await events.aclose()
    if mesh.server:
        await until(lambda: mesh.server.aborted == 1 and mesh.server.running == 0)


async def test_cancelling_the_waiting_task_ends_the_engines_work(waiting_mesh):
    task = asyncio.ensure_future(waiting_mesh.events(waiting_mesh.stall(ASKED)))
    await until(lambda: not waiting_mesh.idle)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: waiting_mesh.idle)


async def test_the_deadline_ends_a_generation(waiting_mesh):
    with pytest.raises(RagmeshError) as caught:
        await waiting_mesh.events(waiting_mesh.stall(replace(ASKED, timeout=0.2)))
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert caught.value.reason == "ENGINE_TIMEOUT"
    await until(lambda: waiting_mesh.idle)


async def test_capabilities_are_honest(mesh):
    can = mesh.engine.capabilities()
    chat = replace(ASKED, task=Task.CHAT)
    wishes = {
        "tools": (can.tools, replace(chat, tools=(Tool("f"),))),
        "n": (can.multiple_choices, replace(chat, n=2)),
        "logprobs": (can.logprobs, replace(chat, top_logprobs=0)),
        "response_format": (
            can.json_object,
            replace(chat, response_format=ResponseFormat(FormatType.JSON_OBJECT)),
        ),
    }
    for field, (supported, request) in wishes.items():
        if supported:
            events = await mesh.events(request)
            assert sum(isinstance(event, Finish) for event in events) == request.n
        else:
            with pytest.raises(InvalidArgument) as caught:
                await mesh.events(request)
            assert (caught.value.reason, caught.value.field) == ("PARAMETER_UNSUPPORTED", field)


async def test_many_at_once_do_not_mix(mesh):
    answers = await asyncio.gather(*(mesh.events(ASKED) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)


async def test_sampling_is_accepted_or_refused_by_the_mesh(mesh):
    sampling = Sampling(temperature=0.0, top_p=0.5, max_tokens=64, stop=("§",), seed=1)
    events = await mesh.events(replace(ASKED, sampling=sampling))
    assert isinstance(events[-1], Usage)


def test_names_are_kept_apart():
    assert not REGISTRY.keys() & PLANNED
    assert set(LEGACY_BACKENDS.values()) <= REGISTRY.keys() | PLANNED
