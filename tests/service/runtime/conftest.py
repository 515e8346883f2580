"""An echo service behind the real interceptors, in this process or in one of its own."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from services.runtime.testing import serve_for_test
from tests.service.runtime.echo import EchoServicer, add_to_server
from tests.service.runtime.ports import free_base

ROOT = Path(__file__).resolve().parents[3]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
async def echo() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
async def channel(echo: EchoServicer) -> AsyncIterator[grpc.aio.Channel]:
    async with serve_for_test([(add_to_server, echo)]) as connected:
        yield connected


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the echo service with settings; metrics are off unless given a base."""
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> subprocess.Popen[str]:
        defaults = {"grpc_base": str(free_base("infer")), "metrics_base": "0"}
        for name, value in {**defaults, **settings}.items():
            monkeypatch.setenv(f"RAGMESH_{name.upper()}", value)
        command = [sys.executable, "-m", "tests.service.runtime.echo_process"]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
