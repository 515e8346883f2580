"""`ragmesh ingest` on a terminal: how far a long file is."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from rich.console import Console

from cli.api import EVENTS, Api, ApiError
from cli.commands.ingest import _run
from cli.console import Screen
from cli.documents import find_documents
from cli.options import Session
from cli.progress import LONG_CHUNKS, ChunkBars, progress_bar
from cli.settings import CommandSettings

SETTINGS = CommandSettings(url="http://mesh", token=SecretStr("t"))
ANSWER = {"documents": [{"id": "a", "chunks": 300, "status": "indexed"}]}


def progress(chunks: int, total: int = 300) -> tuple[str, Any]:
    said = {"documents": 1, "total_documents": 1, "chunks": chunks, "total_chunks": total}
    return "progress", said


def stream(*events: tuple[str, Any]) -> httpx.Response:
    body = "".join(f"event: {name}\ndata: {json.dumps(said)}\n\n" for name, said in events)
    return httpx.Response(200, headers={"content-type": EVENTS}, text=": keep-alive\n\n" + body)


class Mesh:
    """Answers in turn; keeps what was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        return self.answers.pop(0)

    def api(self) -> Api:
        return Api(SETTINGS, httpx.MockTransport(self))


def screen(*, terminal: bool, language: str = "en") -> Screen:
    made = Screen(language=language)
    made.err = Console(
        file=io.StringIO(), force_terminal=terminal, width=100, markup=False, emoji=False
    )
    return made


def test_events_are_told_and_the_last_is_the_answer() -> None:
    mesh = Mesh(stream(progress(0), progress(96), ("done", ANSWER)))
    told: list[int] = []
    with mesh.api() as api:
        answer = api.call_told("/d", lambda said: told.append(said["chunks"]), json={})
    assert (told, answer) == ([0, 96], ANSWER)
    assert mesh.asked[0].headers["accept"] == EVENTS


def test_a_mesh_that_does_not_tell_is_understood() -> None:
    with Mesh(httpx.Response(201, json=ANSWER)).api() as api:
        assert api.call_told("/d", lambda said: None, json={}) == ANSWER


@pytest.mark.parametrize(
    ("kind", "retried"),
    [("server_error", True), ("rate_limit_error", True), ("invalid_request_error", False)],
)
def test_a_failure_on_the_way_is_repeated_where_that_helps(
    kind: str, retried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.api.time.sleep", lambda seconds: None)
    error = {"message": "No.", "type": kind, "param": None, "code": "c"}
    mesh = Mesh(stream(progress(1), ("error", {"error": error})), stream(("done", ANSWER)))
    with mesh.api() as api:
        if retried:
            assert api.again(lambda: api.call_told("/d", lambda said: None, json={})) == ANSWER
        else:
            with pytest.raises(ApiError, match="No"):
                api.again(lambda: api.call_told("/d", lambda said: None, json={}))
    assert len(mesh.asked) == 1 + retried


def test_a_stream_without_an_end_is_a_failure_that_passes() -> None:
    with Mesh(stream(progress(1))).api() as api, pytest.raises(ApiError) as caught:
        api.call_told("/d", lambda said: None, json={})
    assert caught.value.may_retry


@pytest.mark.parametrize(("language", "word"), [("en", "chunks"), ("ja", "チャンク")])
def test_a_long_file_has_a_bar_while_it_is_on_its_way(language: str, word: str) -> None:
    shown = screen(terminal=True, language=language)
    with progress_bar(shown) as bar:
        bars = ChunkBars(bar, shown)
        with bars.of("[red]a.txt") as tell:
            tell(progress(0, LONG_CHUNKS - 1)[1])
            assert not bar.tasks, "a short one has none"
            tell(progress(96)[1])
            [task] = bar.tasks
            assert (task.completed, task.total) == (96, 300)
            assert word in task.description
            bar.refresh()
            assert "[red]a.txt" in shown.err.file.getvalue()  # type: ignore[attr-defined]
        assert not bar.tasks


@pytest.mark.parametrize("terminal", [False, True])
def test_only_a_terminal_asks(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("Tea", "utf-8")
    mesh = Mesh(
        httpx.Response(200, json={"name": "c"}),
        stream(progress(96), ("done", ANSWER)) if terminal else httpx.Response(201, json=ANSWER),
    )
    monkeypatch.setattr("cli.commands.ingest.Api", lambda settings: mesh.api())
    shown = screen(terminal=terminal)
    session = Session(SETTINGS, shown)
    results, errors = _run(session, find_documents([tmp_path / "a"]), "c", 1)
    assert (results, errors) == (ANSWER["documents"], [])
    assert (mesh.asked[1].headers["accept"] == EVENTS) is terminal
    assert bool(shown.err.file.getvalue()) is terminal  # type: ignore[attr-defined]
