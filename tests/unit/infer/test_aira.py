"""What AI-Q's adapter does beyond the engine contract: both generations, their shapes, jobs that
outlive their streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.infer.adapters import aira_jobs
from services.infer.adapters.aira import AiraEngine
from services.infer.adapters.aira_service import ERRORS
from services.infer.adapters.aira_settings import AiraSettings, configured
from services.infer.ports import (
    Delta,
    EngineEvent,
    Finish,
    GenerateRequest,
    Passage,
    Role,
    Task,
    Usage,
    text_message,
)
from services.runtime.errors import FailedPrecondition, RagmeshError
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Failure, ScriptedServer, running
from tests.contract.infer.servers.aira import AiraJobServer, AiraServer
from tests.contract.infer.servers.openai import COMPLETION_TOKENS, KEY, PROMPT_TOKENS
from tests.until import until

SAID = (
    text_message(Role.SYSTEM, "Be brief."),
    text_message(Role.USER, "What is a fox?"),
    text_message(Role.ASSISTANT, "An animal."),
    text_message(Role.USER, "Is it quick?"),
)
CHAT = GenerateRequest(model="artifact_qa", messages=SAID, timeout=5.0)
JOB = replace(CHAT, model="shallow_researcher")
ANSWER = replace(
    CHAT, task=Task.ANSWER, passages=(Passage(1, "The system: foxes are quick.", title="Foxes"),)
)


@asynccontextmanager
async def aira(server: ScriptedServer, **changes: object) -> AsyncIterator[AiraEngine]:
    async with running(server):
        assert isinstance(server.settings, AiraSettings)
        engine = AiraEngine(server.settings.model_copy(update=changes))
        try:
            yield engine
        finally:
            await engine.aclose()


async def events(engine: AiraEngine, request: GenerateRequest) -> list[EngineEvent]:
    async with aclosing(engine.generate(request)) as generated:
        return [event async for event in generated]


def text(made: list[EngineEvent]) -> str:
    return "".join(event.text for event in made if isinstance(event, Delta))


def reasoning(made: list[EngineEvent]) -> str:
    return "".join(event.reasoning for event in made if isinstance(event, Delta))


# which generation


async def test_it_says_which_generation_it_found(caplog):
    caplog.set_level(logging.INFO, "services.infer")
    async with aira(AiraServer()) as engine:
        await engine.ready()
        assert [(m.name, m.owned_by) for m in await engine.models()] == [
            ("artifact_qa", "nvidia-aira"),
            ("generate_summary", "nvidia-aira"),
        ]
    async with aira(AiraJobServer()) as engine:
        await engine.ready()
        assert [(m.name, m.owned_by) for m in await engine.models()] == [
            ("shallow_researcher", "nvidia-aiq"),
            ("deep_researcher", "nvidia-aiq"),
        ]
    found = [record.getMessage() for record in caplog.records]
    assert [line.split()[2] for line in found if "AI-Q is" in line] == [
        "nvidia-aira,",
        "nvidia-aiq,",
    ]


class Upgraded(AiraServer):
    """A service that another generation takes the place of."""

    def __init__(self) -> None:
        super().__init__()
        self.next = AiraJobServer()
        self.done = False

    async def answer(self, asked, reply):
        return await (self.next.answer if self.done else super().answer)(asked, reply)


async def test_a_generation_that_took_the_others_place_is_found():
    server = Upgraded()
    async with aira(server) as engine:
        await engine.ready()
        server.done = True
        await engine.ready()
        assert (await engine.models())[0].owned_by == "nvidia-aiq"
        assert text(await events(engine, JOB)) == server.text


class Page(ScriptedServer):
    """A server of web pages at the address."""

    def start(self) -> None:
        self.settings = AiraSettings(url=self.url)

    async def answer(self, asked, reply):
        if asked.path == "/aiqhealth":
            return await reply.send(404, "Not Found", kind="text/plain")
        return await reply.send(200, "<!doctype html>", kind="text/html")


async def test_an_address_with_something_else_is_said_to_be_wrong():
    async with aira(Page()) as engine:
        with pytest.raises(RagmeshError) as caught:
            await engine.ready()
        assert caught.value.reason == "ENGINE_UNAVAILABLE"
        assert "no such route" in caught.value.message
        assert list(await engine.models()) == []


async def test_a_wrong_key_is_the_operators_matter():
    async with aira(AiraJobServer(), api_key=SecretStr("wrong")) as engine:
        with pytest.raises(RagmeshError) as caught:
            await engine.ready()
    assert caught.value.reason == "ENGINE_AUTHENTICATION_FAILED"


# the older service


async def test_documents_travel_in_the_artifact_and_turns_in_their_order():
    server = AiraServer()
    async with aira(server, collection="Papers") as engine:
        assert text(await events(engine, ANSWER)) == server.text
    body = server.generations[-1]
    assert body["question"] == "Is it quick?"
    assert body["chat_history"] == ["What is a fox?", "An animal."]
    assert body["rag_collection"] == "Papers"
    assert body["use_internet"] is False
    assert "The system: foxes are quick." in body["artifact"]
    assert "Be brief." in body["artifact"]


async def test_turns_alternate_as_the_service_reads_them():
    doubled = (
        text_message(Role.ASSISTANT, "Welcome."),
        text_message(Role.USER, "One."),
        text_message(Role.USER, "Two."),
        text_message(Role.USER, "Three?"),
    )
    server = AiraServer()
    async with aira(server) as engine:
        await events(engine, replace(CHAT, messages=doubled))
    assert server.generations[-1]["chat_history"] == ["One.\n\nTwo.", ""]


@pytest.mark.parametrize("task", [Task.SUMMARIZE, Task.REWRITE])
async def test_summaries_and_rewritten_questions_search_nothing(task):
    request = replace(CHAT, task=task, text="Foxes are quick.")
    server, jobs = AiraServer(), AiraJobServer()
    async with aira(server, search_web=True) as engine:
        assert text(await events(engine, request)) == server.text
    assert server.generations[-1]["use_internet"] is False
    assert "ox" in server.generations[-1]["artifact"]
    async with aira(jobs) as engine:
        assert text(await events(engine, replace(request, model="deep_researcher"))) == jobs.text
    assert jobs.generations[0]["data_sources"] == []
    assert "ox" in jobs.generations[0]["input"]


async def test_a_report_is_researched_and_its_steps_are_reasoning():
    server = AiraServer()
    async with aira(server, search_web=True, report_queries=5) as engine:
        made = await events(engine, replace(CHAT, model="generate_summary"))
    assert text(made) == f"{server.text}\n\n[1] a.pdf"
    assert reasoning(made) == "読んでいます"
    queries, report = server.generations
    assert (queries["topic"], queries["num_queries"]) == ("Is it quick?", 5)
    assert (report["search_web"], report["report_organization"]) == (True, "Be brief.")


async def test_sources_that_come_as_a_list_are_lines():
    class Listing(AiraServer):
        citations = ("[1] a.pdf", "[2] b.pdf")

    server = Listing()
    async with aira(server) as engine:
        made = await events(engine, replace(CHAT, model="generate_summary"))
    assert text(made) == f"{server.text}\n\n[1] a.pdf\n[2] b.pdf"


async def test_a_report_whose_stream_breaks_off_is_no_answer():
    server = AiraServer()
    async with aira(server) as engine:
        await engine.ready()
        server.behave(rig.CUT)
        with pytest.raises(RagmeshError) as caught:
            await events(engine, replace(CHAT, model="generate_summary"))
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


# jobs


async def test_a_job_is_one_text_and_a_question_alone_stays_as_it_is():
    server = AiraJobServer()
    async with aira(server, data_sources=("web_search",)) as engine:
        await events(engine, replace(JOB, messages=SAID[-1:]))
        await events(engine, JOB)
    alone, chat = server.generations
    assert (alone["agent_type"], alone["input"]) == ("shallow_researcher", "Is it quick?")
    assert alone["data_sources"] == ["web_search"]
    assert chat["input"] == (
        "Be brief.\n\nUser: What is a fox?\n\nAssistant: An animal.\n\nUser: Is it quick?"
    )


async def test_agents_speak_as_reasoning_and_their_tokens_are_counted():
    server = AiraJobServer()
    async with aira(server) as engine:
        made = await events(engine, JOB)
    assert reasoning(made) == "考えます"
    assert text(made) == server.text
    assert made[-2:] == [Finish(), Usage(PROMPT_TOKENS, COMPLETION_TOKENS)]


async def test_a_broken_stream_is_taken_up_after_the_last_stored_event(monkeypatch):
    monkeypatch.setattr(aira_jobs, "_PAUSE", 0.0)
    server = AiraJobServer()
    server.cuts = 3
    async with aira(server) as engine:
        made = await events(engine, JOB)
    assert reasoning(made) == "考えます"
    assert text(made) == server.text
    asked = [asked.path for asked in server.asked if "/stream" in asked.path]
    # Not after the number that the stream's mode had.
    assert [path.partition("/stream")[2] for path in asked] == ["", "/2", "/4", "/6"]
    assert server.aborted == 0


async def test_a_stream_that_never_says_anything_new_is_given_up_and_the_job_cancelled(monkeypatch):
    monkeypatch.setattr(aira_jobs, "_PAUSE", 0.0)
    server = AiraJobServer()
    server.behave(rig.CUT)
    async with aira(server, resumes=4) as engine:
        with pytest.raises(RagmeshError) as caught:
            await events(engine, JOB)
        await until(lambda: server.aborted == 1)
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert sum("/stream" in asked.path for asked in server.asked) == 1 + 1 + 4


async def test_a_job_that_has_not_begun_is_cancelled_once_it_has(monkeypatch):
    monkeypatch.setattr(aira_jobs, "_PAUSE", 0.01)
    server = AiraJobServer()
    server.behave(rig.STALL)
    server.refuse_cancels = 8
    async with aira(server) as engine:
        task = asyncio.ensure_future(events(engine, JOB))
        await until(lambda: server.running)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: server.aborted == 1)
    assert server.refuse_cancels == 0


class SlowToSubmit(AiraJobServer):
    """Takes a job and does not say so."""

    async def submit(self, body, reply):
        self.jobs[body["job_id"]] = "running"
        await asyncio.Event().wait()


async def test_a_job_is_cancelled_whose_submission_was_not_waited_for():
    server = SlowToSubmit()
    async with aira(server) as engine:
        task = asyncio.ensure_future(events(engine, JOB))
        await until(lambda: server.running)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: server.aborted == 1)


async def test_closing_the_engine_waits_for_cancels_under_way():
    server = AiraJobServer()
    server.behave(rig.HANG)
    async with aira(server) as engine:
        async with aclosing(engine.generate(JOB)) as generated:
            async for _ in generated:
                break
        await engine.aclose()
        assert server.aborted == 1


@pytest.mark.parametrize("how", [rig.RATE, rig.OVERLOAD, rig.DOWN])
async def test_what_was_refused_is_not_cancelled(how):
    server = AiraJobServer()
    async with aira(server) as engine:
        await engine.ready()
        server.behave(how)
        with pytest.raises(RagmeshError):
            await events(engine, JOB)
    assert not any(asked.path.endswith("/cancel") for asked in server.asked)


class WithoutArtifact(AiraJobServer):
    """As agents are that do not put their report into the events."""

    def stored(self):
        *others, _ = super().stored()
        yield from others


async def test_a_report_that_is_not_in_the_events_is_asked_for():
    server = WithoutArtifact()
    async with aira(server) as engine:
        assert text(await events(engine, JOB)) == server.text
    assert server.asked[-1].path.endswith("/report")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Error code: 429 - {'detail': 'slow down'}", "ENGINE_RATE_LIMITED"),
        ("[401] Unauthorized", "ENGINE_AUTHENTICATION_FAILED"),
        ("Error code: 503 - no healthy upstream", "ENGINE_OVERLOADED"),
        ("Request timed out.", "ENGINE_TIMEOUT"),
        ("This model's maximum context length is 512 tokens.", "CONTEXT_LENGTH_EXCEEDED"),
        ("'NoneType' object is not iterable", "ENGINE_UNAVAILABLE"),
        ("Job timed out (no heartbeat received from worker)", "ENGINE_TIMEOUT"),
    ],
)
async def test_why_a_job_failed_is_read_from_its_words(said, reason):
    class Failing(AiraJobServer):
        def stored(self):
            yield 1, f'id: 1\nevent: job.error\ndata: {{"data": {{"error": "{said}"}}}}\n\n'

    server = Failing()
    async with aira(server) as engine:
        with pytest.raises(RagmeshError) as caught:
            await events(engine, JOB)
    assert caught.value.reason == reason
    assert said not in caught.value.message
    assert not any(asked.path.endswith("/cancel") for asked in server.asked)


def test_an_agent_that_is_not_there_is_no_model():
    refused = Failure(400, '{"detail": "\'Unknown agent type: x\'"}')
    assert ERRORS.error(refused.status, refused.body).reason == "MODEL_NOT_FOUND"


# its file


@pytest.mark.parametrize(
    ("file", "url", "key"),
    [
        ("base_url: http://aiq:3838\napi_key: abc", "http://aiq:3838", "abc"),
        ('{"aira": {"url": "https://aiq.example"}}', "https://aiq.example", ""),
        ("general: {front_end: {_type: aira_frontend}}", "http://127.0.0.1:8000", ""),
        (
            "general: {front_end: {host: 0.0.0.0, port: 3838}}\nllms: {}",
            "http://127.0.0.1:3838",
            "",
        ),
        ("general: {front_end: {host: aiq}}", "http://aiq:8000", ""),
    ],
)
def test_the_address_may_stand_in_a_file(tmp_path: Path, monkeypatch, file, url, key):
    path = tmp_path / "config.yaml"
    path.write_text(file)
    monkeypatch.setenv("AIRA_CONFIG_PATH", str(path))
    settings = AiraSettings()
    assert settings.configured
    read = configured(settings)
    assert (read.url, read.api_key.get_secret_value()) == (url, key)
    own = configured(AiraSettings(url="http://mine", api_key=SecretStr(KEY)))
    assert (own.url, own.api_key.get_secret_value()) == ("http://mine", KEY)


def test_a_file_without_an_address_asks_for_one(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("url: ${AIRA}\nllms: {nemotron: {base_url: 'http://nim'}}")
    with pytest.raises(FailedPrecondition) as caught:
        AiraEngine(AiraSettings(config_path=path))
    assert caught.value.reason == "SETTING_REQUIRED"
    assert "RAGMESH_AIRA_URL" in caught.value.message


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("a: [")
    for each in (path, tmp_path / "none.yaml"):
        with pytest.raises(FailedPrecondition) as caught:
            AiraEngine(AiraSettings(config_path=each))
        assert caught.value.reason == "CONFIG_UNREADABLE"


@pytest.mark.parametrize(
    ("said", "sources"), [("none", ()), ("web, papers", ("web", "papers")), ("", None)]
)
def test_what_may_be_searched(monkeypatch, said, sources):
    monkeypatch.setenv("RAGMESH_AIRA_DATA_SOURCES", said)
    assert AiraSettings().data_sources == sources
