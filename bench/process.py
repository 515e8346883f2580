"""The retrieve service as a process of its own, and the gRPC stubs of it."""

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.word_vectors import NAME
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.runtime.context import REQUEST_ID_KEY
from services.runtime.settings import OFFSETS

ROOT = Path(__file__).parent.parent
START_SECONDS = 120.0
END_SECONDS = 30.0


class Service:
    """``python -m bench.service`` on free ports. Keywords are settings, without ``RAGMESH_``."""

    def __init__(self, data: Path, **settings: str) -> None:
        base = free_ports(len(OFFSETS) * 2)
        self.data = data
        self.address = f"127.0.0.1:{base + OFFSETS['retrieve']}"
        self.metrics_port = base + len(OFFSETS) + OFFSETS["retrieve"]
        settings = {"embedding_backend": NAME, "log_level": "WARNING", **settings}
        self.environment = {
            **os.environ,  # noqa: TID251  handed on to the process, not read
            "RAGMESH_DATA": str(data),
            "RAGMESH_GRPC_BASE": str(base),
            "RAGMESH_METRICS_BASE": str(base + len(OFFSETS)),
            **{f"RAGMESH_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.service"],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )

    async def start(self) -> None:
        """Return once it serves."""
        self.launch()
        self.channel = grpc.aio.insecure_channel(self.address)
        # The stubs' annotations are those of synchronous ones.
        self.retrieve: Any = pb_grpc.RetrieveServiceStub(self.channel)
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        self.health = health
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the retrieve service did not start")
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                answer = None
            if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.1)

    async def aclose(self) -> None:
        """End the process."""
        if hasattr(self, "channel"):
            await self.channel.close()
        if self.process is not None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 while it has none."""
        address = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return total(lines, name)


def metadata(tenant: str = "bench") -> tuple[tuple[str, str], ...]:
    """What the gateway sends along for a tenant."""
    return (("x-ragmesh-tenant", tenant_id(tenant)), (REQUEST_ID_KEY, "bench"))


def tenant_id(tenant: str) -> str:
    """As the gateway makes one: 64 hexadecimal digits."""
    return hashlib.sha256(tenant.encode()).hexdigest()


def total(lines: Iterable[str], name: str) -> float:
    """The sum of a metric over its labels, from Prometheus' text format."""
    pattern = re.compile(rf"{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)")
    found = (pattern.fullmatch(line) for line in lines)
    return sum(float(one[1]) for one in found if one)


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that are free now, below those that the system
    gives to outgoing connections."""
    start = 12_000 + os.getpid() * 7919 % 18_000
    for base in range(start, start + 2_000, count):
        sockets = []
        try:
            for port in range(base, base + count):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
        return base
    raise RuntimeError("no neighbouring ports are free")
