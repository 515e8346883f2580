"""Prompts that fit, and long texts in parts."""

import asyncio
from dataclasses import replace

import pytest

from services.infer.admission import Admission
from services.infer.core import Inference, Provider
from services.infer.lengths import ContextExceeded, too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    Finish,
    GenerateRequest,
    ModelInfo,
    Passage,
    Role,
    Sampling,
    Started,
    Task,
    TokenCounter,
    Usage,
    text_message,
)
from services.infer.prompt import MAX_PARTS
from services.runtime.errors import InvalidArgument, Unavailable
from tests.until import until

LONG = "".join(f"Sentence number {i} speaks about subject {i % 97}. " for i in range(600))
SUMMARY = GenerateRequest(task=Task.SUMMARIZE, text=LONG, stream=True)
PASSAGES = tuple(
    Passage(i, f"Fact {i} is that the value of item {i} is {i * 7}. " * 8) for i in range(1, 21)
)
ASKED = GenerateRequest(
    task=Task.ANSWER,
    messages=(text_message(Role.USER, "What is the value of item 3?"),),
    passages=PASSAGES,
    sampling=Sampling(max_tokens=100),
)


class Engine:
    """Knows how long its context is: so many characters are a token."""

    def __init__(self, context, per_token=4.0, *, tells=True, says="note."):
        self.context = context
        self.per_token = per_token
        self.tells = tells
        self.says = says
        self.asked = []
        self.running = 0
        self.most = 0
        self.aborted = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail_at = None

    def capabilities(self, model=""):
        return Capabilities(counts_tokens=isinstance(self, TokenCounter))

    async def models(self):
        return [ModelInfo("m", self.context if self.tells else 0)]

    async def ready(self):
        pass

    async def aclose(self):
        pass

    def tokens(self, request):
        return int(sum(len(m.text) for m in request.messages) / self.per_token)

    async def generate(self, request):
        self.asked.append(request)
        if self.fail_at == len(self.asked):
            raise Unavailable("ENGINE_UNAVAILABLE", "down")
        needed = self.tokens(request) + (request.sampling.max_tokens or 0)
        if needed > self.context:
            raise too_long(needed, self.context)
        self.running += 1
        self.most = max(self.most, self.running)
        done = False
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            yield Delta(self.says)
            done = True
            yield Finish()
            yield Usage(self.tokens(request), 2)
        finally:
            self.running -= 1
            self.aborted += not done


class CountingEngine(Engine):
    """Tells its counts as well."""

    async def count_tokens(self, request):
        return self.tokens(request)


def mesh(engine, limit=8):
    return Inference({"x": Provider("x", engine, Admission(limit, 8), "")})


async def run(inference, request):
    route = await inference.route("")
    return [event async for event in inference.generate(route, request)]


async def test_parts_are_worked_on_side_by_side_and_all_tokens_are_counted():
    engine = Engine(1200)
    *events, usage = await run(mesh(engine), SUMMARY)
    calls = len(engine.asked)
    assert 3 < calls <= MAX_PARTS + 1
    assert engine.most == 4
    assert usage == Usage(sum(map(engine.tokens, engine.asked)), 2 * calls)
    assert [e.text for e in events if isinstance(e, Delta)] == ["note."]
    notes, last = engine.asked[:-1], engine.asked[-1]
    assert all(not note.stream for note in notes)
    assert last.stream
    assert last.messages[-1].text.count("note.") == len(notes)
    said = "".join(note.messages[-1].text for note in notes)
    assert all(f"Sentence number {i} " in said for i in (0, 299, 599))


async def test_parts_keep_to_the_engines_limit():
    engine = Engine(1200)
    await run(mesh(engine, limit=1), SUMMARY)
    assert engine.most == 1
    engine = Engine(1200)
    inference = mesh(engine, limit=2)
    await asyncio.gather(*(run(inference, SUMMARY) for _ in range(3)))
    assert engine.most <= 2


async def test_notes_that_are_long_themselves_are_summarised_again():
    engine = Engine(1200, says="A long note that says much. " * 40)
    await run(mesh(engine), SUMMARY)
    assert len(engine.asked) <= 4 * MAX_PARTS
    assert engine.tokens(engine.asked[-1]) < 1200


async def test_leaving_ends_all_parts():
    engine = Engine(1200)
    engine.gate.clear()
    inference = mesh(engine)
    task = asyncio.ensure_future(run(inference, SUMMARY))
    await until(lambda: engine.running == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (engine.running, engine.aborted) == (0, 4)
    admission = inference.default.admission
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_part_that_fails_ends_the_others():
    engine = Engine(1200)
    engine.fail_at = 3
    inference = mesh(engine)
    with pytest.raises(Unavailable):
        await run(inference, SUMMARY)
    assert engine.running == 0
    assert inference.default.admission.running == 0


async def test_exact_counts_pack_more_than_estimates():
    careless = Engine(2000, per_token=6.0)
    await run(mesh(careless), ASKED)
    exact = CountingEngine(2000, per_token=6.0)
    await run(mesh(exact), ASKED)
    packed = [engine.asked[-1].messages[-1].text.count("<passage") for engine in (careless, exact)]
    assert packed[0] < packed[1]
    assert exact.tokens(exact.asked[-1]) <= 1900


async def test_exact_counts_pack_less_where_estimates_fall_short():
    engine = CountingEngine(2000, per_token=2.0)
    started, *_ = await run(mesh(engine), ASKED)
    assert isinstance(started, Started)
    assert len(engine.asked) == 1
    assert "Fact 1 " in engine.asked[0].messages[-1].text


async def test_an_engine_that_only_says_how_much_too_long_gets_fewer_passages_once():
    engine = Engine(2000, per_token=2.0)
    await run(mesh(engine), ASKED)
    assert len(engine.asked) == 2
    first, second = (asked.messages[-1].text.count("<passage") for asked in engine.asked)
    assert second < first


async def test_so_does_one_that_says_only_how_long_a_prompt_may_be():
    class Terse(Engine):
        async def generate(self, request):
            try:
                async for event in super().generate(request):
                    yield event
            except ContextExceeded as error:
                raise too_long(None, error.limit) from error

    engine = Terse(2000, tells=False)
    await run(mesh(engine), ASKED)
    first, second = (asked.messages[-1].text.count("<passage") for asked in engine.asked)
    assert 0 < second < first


async def test_what_can_never_fit_says_so_with_the_numbers():
    question = (text_message(Role.USER, "why " * 900),)
    for engine in (Engine(512, per_token=1.0), CountingEngine(512, per_token=1.0)):
        with pytest.raises(InvalidArgument, match=r"needs \d+ tokens, the context has 512"):
            await run(mesh(engine), replace(ASKED, messages=question))


async def test_a_question_that_only_the_estimate_finds_too_long_is_asked():
    question = (text_message(Role.USER, "why " * 700),)
    for engine in (Engine(600, per_token=8.0), CountingEngine(600, per_token=8.0)):
        await run(mesh(engine), replace(ASKED, messages=question))
        assert len(engine.asked) == 1
    assert "<passage" in engine.asked[0].messages[-1].text


async def test_summaries_of_an_unknown_tokenizer_fit_by_its_counts():
    engine = CountingEngine(1200, per_token=1.5)
    await run(mesh(engine), SUMMARY)
    assert all(engine.tokens(asked) <= 1200 for asked in engine.asked)
