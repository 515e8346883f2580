"""How soon an engine stops after its client has left, through every hop.

A client leaves a request by closing its connection; the gateway cancels its call of infer, infer
ends the engine's work. The engine is the scripted one, in infer's own process, and tells when it
was aborted by the clock that all processes share. Timed: from the client's close to the engine's
abort, for a stream after its first text, for a plain request, and for a stream before its first
text. `--others` streams go on all the while.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.harness import Block, Defaults, Finding, Run, Side, Work
from bench.harness.sides import Figures
from bench.relay import free_port
from gateway.keys import Keyring

SUMMARY = "from a client's leaving to the engine's abort, through every hop"
QUICK = ("--samples", "20", "--starts", "1", "--rounds", "2")
DEFAULTS = Defaults(starts=3, rounds=4)
MESH = "gateway and infer"
KINDS = ("a stream", "a plain request", "before the first text")
P50_MS, P99_MS = 50.0, 250.0
_READY_SECONDS = 90.0
_ANSWER_SECONDS = 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=50, help="of each kind in a round")
    parser.add_argument("--others", type=int, default=4, help="streams that go on meanwhile")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    given = {"samples": options.samples, "others": options.others, "folder": str(folder)}
    return [Side(MESH, "bench.cancel:Leaving", given)]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    found = []
    for kind in KINDS:
        summary = run.summary(MESH, kind)
        found.append(Finding(f"{kind}: p50", summary.p50 * 1e3, "ms", below=P50_MS))
        found.append(Finding(f"{kind}: p99", summary.p99 * 1e3, "ms", below=P99_MS))
    return found


class Leaving(Work):
    """Clients that leave."""

    async def prepare(self) -> Figures:
        self._processes: list[asyncio.subprocess.Process] = []
        self._others: list[asyncio.Task[None]] = []
        folder = Path(self.options["folder"]) / f"mesh-{os.getpid()}"
        folder.mkdir()
        keyring = Keyring(folder)
        keyring.create("bench", tenants=["*"], scopes=["chat"])
        self._token = keyring.issue(consumer="bench", subject="bench", scopes=["chat"])
        keyring.render()
        self._port, base = free_port(), free_port() - 3
        self._engine = Engine()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self._engine, ("127.0.0.1", 0)
        )
        told = str(transport.get_extra_info("sockname")[1])
        settings = {
            "RAGMESH_DATA": str(folder),
            "RAGMESH_PORT": str(self._port),
            "RAGMESH_GRPC_BASE": str(base),
            "RAGMESH_METRICS_BASE": "0",
            "RAGMESH_MODEL_BACKEND": "scripted",
            "RAGMESH_LOG_LEVEL": "WARNING",
            "RAGMESH_MAX_STREAMS": "1000",
        }
        await self._run("bench.cancel_engine", told, **settings)
        await self._run("gateway", **settings)
        await asyncio.wait_for(self._answering(), _READY_SECONDS)
        for _ in range(self.options["others"]):
            self._others.append(asyncio.create_task(self._go_on()))
        for kind in KINDS:
            await self._leave(kind, f"warm-{KINDS.index(kind)}")
        return {}

    async def measure(self, round_: int) -> Block:
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(self.options["samples"]):
            for place, kind in enumerate(KINDS):
                seconds[kind].append(await self._leave(kind, f"{round_}-{number}-{place}"))
        return Block(self.options["samples"] * len(KINDS), seconds)

    async def aclose(self) -> None:
        for task in getattr(self, "_others", ()):
            task.cancel()
        for process in getattr(self, "_processes", ()):
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _leave(self, kind: str, name: str) -> float:
        """Seconds from the close to the abort."""
        script: dict[str, Any] = {"text": name, "mode": "hang", "after": 1}
        if kind != "a stream":
            script = {"text": name, "first_delay": 600}
        reader, writer = await self._ask(script, stream=kind != "a plain request")
        await asyncio.wait_for(self._engine.started(name), _ANSWER_SECONDS)
        if kind == "a stream":
            while name.encode() not in await asyncio.wait_for(reader.readline(), _ANSWER_SECONDS):
                pass
        left = time.monotonic()
        writer.close()
        aborted = await asyncio.wait_for(self._engine.aborted(name), _ANSWER_SECONDS)
        return aborted - left

    async def _go_on(self) -> None:
        """A client that stays."""
        while True:
            script = {"text": "on and on ", "repeat": 200, "delay": 0.02}
            reader, writer = await self._ask(script, stream=True)
            try:
                while line := await reader.readline():
                    if line == b"data: [DONE]\n":
                        break
            finally:
                writer.close()

    async def _ask(
        self, script: dict[str, Any], *, stream: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        body = json.dumps(
            {
                "model": "default",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": stream,
                "scripted": script,
            }
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\n"
            b"content-type: application/json\r\n"
            + f"authorization: Bearer {self._token}\r\n".encode()
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return reader, writer

    async def _answering(self) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await self._ask({"text": "ready"}, stream=False)
                line = await reader.readline()
                writer.close()
                if b" 200 " in line:
                    return
            await asyncio.sleep(0.2)

    async def _run(self, *arguments: str, **variables: str) -> None:
        environment = {**os.environ, **variables}  # noqa: TID251 - handed on, not read
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, env=environment
        )
        self._processes.append(process)


class Engine(asyncio.DatagramProtocol):
    """What the engine tells: `started` or `aborted`, when, and the name of the request."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], asyncio.Future[float]] = {}

    async def started(self, name: str) -> float:
        return await self._of("started", name)

    async def aborted(self, name: str) -> float:
        return await self._of("aborted", name)

    def datagram_received(self, data: bytes, address: Any) -> None:
        what, when, name = data.decode().split(" ", 2)
        future = self._of(what, name)
        if not future.done():
            future.set_result(float(when))

    def _of(self, what: str, name: str) -> asyncio.Future[float]:
        future = self._told.get((what, name))
        if future is None:
            future = self._told[what, name] = asyncio.get_running_loop().create_future()
        return future
