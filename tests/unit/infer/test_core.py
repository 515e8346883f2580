import asyncio
from contextlib import aclosing

import pytest

from services.infer.adapters.extractive import ExtractiveEngine
from services.infer.adapters.scripted import Script, ScriptedEngine
from services.infer.admission import Admission
from services.infer.core import Inference, Provider
from services.infer.ports import (
    Capabilities,
    Delta,
    Finish,
    GenerateRequest,
    ModelInfo,
    Role,
    Started,
    SummaryLength,
    Task,
    Usage,
    text_message,
)
from services.runtime.errors import DeadlineExceeded, Internal, NotFound, Unavailable
from tests.until import until

CHAT = GenerateRequest(messages=(text_message(Role.USER, "hi"),))


class FakeChat:
    """A chat engine that remembers its requests and says as many words as they have messages."""

    def __init__(self, *events, names=("small", "large"), context=0):
        self.requests = []
        self._events = events or (Delta("said"), Finish(), Usage(3, 1))
        self._models = [ModelInfo(name, context) for name in names]

    def capabilities(self, model=""):
        return Capabilities(lists_all=False)

    async def models(self):
        return self._models

    async def ready(self):
        if not self._models:
            raise Unavailable("ENGINE_UNAVAILABLE", "down")

    async def generate(self, request):
        self.requests.append(request)
        for event in self._events:
            yield event

    async def aclose(self):
        pass


def mesh(engine, model="", aliases=None, limit=4, queue=4):
    providers = {
        "chat": Provider("chat", engine, Admission(limit, queue), model),
        "extractive": Provider("extractive", ExtractiveEngine(), Admission(4, 4)),
    }
    return Inference(providers, aliases or {})


async def run(inference, request, model=""):
    route = await inference.route(model)
    async with aclosing(inference.generate(route, request)) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    ("name", "target", "alias"),
    [
        ("", "chat/small", "default"),
        ("default", "chat/small", "default"),
        ("smart", "chat/large", "smart"),
        ("fast", "chat/small", "fast"),
        ("mine", "extractive/sentences", "mine"),
        ("chat/large", "chat/large", ""),
        ("chat/meta/llama", "chat/meta/llama", ""),
        ("extractive/sentences", "extractive/sentences", ""),
    ],
)
async def test_routes(name, target, alias):
    aliases = {"smart": "chat/large", "mine": "extractive/sentences"}
    route = await mesh(FakeChat(), aliases=aliases).route(name)
    assert (route.provider_model, route.alias) == (target, alias)


async def test_a_configured_model_is_known_by_its_own_name():
    inference = mesh(FakeChat(), model="meta/llama-3")
    assert (await inference.route("meta/llama-3")).provider_model == "chat/meta/llama-3"
    assert (await inference.route("default")).provider_model == "chat/meta/llama-3"


@pytest.mark.parametrize("name", ["gpt-9", "nowhere/x", "chat/", "extractive/other", "/"])
async def test_unknown_names(name):
    with pytest.raises(NotFound) as caught:
        await mesh(FakeChat()).route(name)
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert "chat/" not in caught.value.message or name in caught.value.message


async def test_an_engine_that_lists_nothing_is_unavailable():
    inference = mesh(FakeChat(names=("",)[:0]))
    with pytest.raises(Unavailable):
        await inference.route("default")
    assert not await inference.available()


async def test_aliases_are_listed_before_models():
    listed = await mesh(FakeChat(context=512)).list_models()
    assert [(m.id, m.target) for m in listed] == [
        ("default", "chat/small"),
        ("fast", "chat/small"),
        ("smart", "chat/small"),
        ("chat/small", ""),
        ("chat/large", ""),
        ("extractive/sentences", ""),
    ]
    assert listed[0].context_length == 512


async def test_usage_comes_last_and_is_never_missing():
    events = await run(mesh(FakeChat(Usage(1, 2), Delta("x"), Finish())), CHAT)
    assert events == [Started("chat/small", "default"), Delta("x"), Finish(), Usage(1, 2)]
    events = await run(mesh(FakeChat(Delta("x"), Finish())), CHAT)
    assert events[-1] == Usage(estimated=True)


async def test_an_answer_without_an_end_is_no_answer():
    with pytest.raises(Internal) as caught:
        await run(mesh(FakeChat(Delta("x"))), CHAT)
    assert caught.value.reason == "ENGINE_BAD_ANSWER"


async def test_more_than_the_queue_holds_is_shed():
    engine = ScriptedEngine(Script(mode="hang", after=0, text="x"))
    inference = mesh(engine, limit=1, queue=1)
    waiting = [asyncio.ensure_future(run(inference, CHAT)) for _ in range(2)]
    admission = inference.default.admission
    await until(lambda: (admission.running, admission.waiting) == (1, 1))
    with pytest.raises(Unavailable) as caught:
        await run(inference, CHAT)
    assert caught.value.reason == "ENGINE_OVERLOADED"
    assert caught.value.retry_after
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (admission.running, admission.waiting) == (0, 0)
    assert (engine.started, engine.aborted) == (1, 1)


async def test_waiting_for_a_slot_ends_at_the_deadline():
    inference = mesh(ScriptedEngine(Script(mode="hang", after=0, text="x")), limit=1)
    first = asyncio.ensure_future(run(inference, CHAT))
    await until(lambda: inference.default.admission.running)
    late = GenerateRequest(messages=CHAT.messages, timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        await run(inference, late)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_long_text_is_summarised_part_by_part():
    engine = FakeChat(Delta("note."), Finish(), Usage(10, 2), context=600)
    text = "The mesh has four services and a gateway. " * 200
    asked = GenerateRequest(
        task=Task.SUMMARIZE, text=text, stream=True, summary_length=SummaryLength.SHORT
    )
    events = await run(mesh(engine), asked)
    assert 3 < len(engine.requests) <= 17
    assert events[-1] == Usage(10 * len(engine.requests), 2 * len(engine.requests))
    assert [event for event in events if isinstance(event, Delta)] == [Delta("note.")]
    last = engine.requests[-1]
    assert "note." in last.messages[-1].text
    assert last.stream
    assert not engine.requests[0].stream


async def test_a_huge_text_makes_a_bounded_number_of_calls():
    engine = FakeChat(context=512)
    text = "".join(f"Sentence {i} speaks about subject {i % 97}. " for i in range(20_000))
    await run(mesh(engine), GenerateRequest(task=Task.SUMMARIZE, text=text))
    assert len(engine.requests) <= 17
