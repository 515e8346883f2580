"""How many messages a second infer relays from an engine's event stream, beside a bare gRPC server.

Side by side: a bare grpc.aio server that streams the same messages, made beforehand, from its own
memory; and infer, which reads each of them as a server-sent event of a process that speaks OpenAI's
protocol, one event a message, and relays it through its interceptors and checks. Both run under
uvloop in processes of their own, and the same client reads their streams.

`messages_per_s` is the client's count by wall time: on few cores infer shares them with the client
and with the engine's stand-in. `server_us` is the server's own processor time a message.
"""

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import psutil

from bench.harness import Block, Defaults, Finding, Run, Side, Work
from bench.harness.sides import Figures
from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.infer.v1 import infer_pb2_grpc
from ragmesh.type.v1 import chat_pb2

SUMMARY = "messages a second through infer, beside a bare gRPC server"
QUICK = ("--messages", "500", "--starts", "1", "--rounds", "3")
DEFAULTS = Defaults(starts=3, rounds=5)
RAW = "bare grpc.aio"
INFER = "infer"
_READY_SECONDS = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", type=int, default=16, help="at a time")
    parser.add_argument("--messages", type=int, default=2000, help="of a stream")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    sizes = {"streams": options.streams, "messages": options.messages}
    return [Side(RAW, "bench.relay:Raw", sizes), Side(INFER, "bench.relay:Relay", sizes)]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    if not {RAW, INFER} <= set(run.sides):
        return []
    share = 1 / run.ratio(INFER, RAW).value
    cpu = run.figure(INFER, "server_us") / run.figure(RAW, "server_us")
    return [
        Finding("share of the bare server's messages/s", share, at_least=0.5),
        Finding("times the bare server's processor time a message", cpu),
    ]


class Streams(Work):
    """Reads many streams of one server."""

    address = ""

    async def prepare(self) -> Figures:
        self._processes: list[asyncio.subprocess.Process] = []
        self._server = await self.start()
        self._channel = grpc.aio.insecure_channel(self.address)
        self._stub = infer_pb2_grpc.InferServiceStub(self._channel)
        await asyncio.wait_for(self._answering(), _READY_SECONDS)
        await self._round()
        return {}

    async def start(self) -> asyncio.subprocess.Process:
        """Start the server; sets `address`."""
        raise NotImplementedError

    async def measure(self, round_: int) -> Block:
        before = psutil.Process(self._server.pid).cpu_times()
        started = time.perf_counter()
        read = await self._round()
        seconds = time.perf_counter() - started
        after = psutil.Process(self._server.pid).cpu_times()
        used = after.user + after.system - before.user - before.system
        figures = {"messages_per_s": read / seconds, "server_us": used / read * 1e6}
        return Block(read, figures=figures)

    async def aclose(self) -> None:
        for process in getattr(self, "_processes", ()):
            if process.returncode is None:
                process.terminate()
            await process.wait()
        if hasattr(self, "_channel"):
            await self._channel.close()

    async def run(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        environment = {**os.environ, **variables}  # noqa: TID251 - handed on, not read
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, env=environment
        )
        self._processes.append(process)
        return process

    async def _round(self) -> int:
        streams = range(self.options["streams"])
        return sum(await asyncio.gather(*(self._read() for _ in streams)))

    async def _read(self) -> int:
        part = chat_pb2.ContentPart(text="go on")
        said = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[part])
        count = 0
        async for event in self._stub.Generate(pb.GenerateRequest(messages=[said], stream=True)):
            count += event.HasField("delta")
        if count != self.options["messages"]:
            raise RuntimeError(f"{count} messages came instead of {self.options['messages']}")
        return count

    async def _answering(self) -> None:
        while True:
            try:
                await self._stub.GetServerInfo(pb.GetServerInfoRequest(), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    return
                await asyncio.sleep(0.1)
            else:
                return


class Raw(Streams):
    """A bare server."""

    async def start(self) -> asyncio.subprocess.Process:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        return await self.run("bench.relay_server", "raw", str(port), str(self.options["messages"]))


class Relay(Streams):
    """infer before an engine's stand-in."""

    async def start(self) -> asyncio.subprocess.Process:
        port, base = free_port(), free_port() - 3
        await self.run("bench.relay_server", "sse", str(port), str(self.options["messages"]))
        self.address = f"127.0.0.1:{base + 3}"
        return await self.run(
            "services.infer",
            RAGMESH_MODEL_BACKEND="vllm",
            RAGMESH_VLLM_URL=f"http://127.0.0.1:{port}/v1",
            RAGMESH_VLLM_MODEL="m",
            RAGMESH_GRPC_BASE=str(base),
            RAGMESH_METRICS_BASE="0",
            RAGMESH_LOG_LEVEL="WARNING",
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
