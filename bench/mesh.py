"""Gateway, preprocess and retrieve as real processes on free ports: all that ingesting needs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from bench.limits import raise_edge_limits
from bench.process import END_SECONDS, ROOT, START_SECONDS, free_ports, total
from services.runtime.settings import OFFSETS

SERVICES = ("preprocess", "retrieve", "gateway")


class IngestMesh:
    """Started without a supervisor, so that who kills a process decides when it comes back."""

    def __init__(self, data: Path, *, retrieve: str = "services.retrieve", **settings: str) -> None:
        """Args:
        data: of the mesh; logs lie beside.
        retrieve: the module that serves retrieve.
        settings: without ``RAGMESH_``.
        """
        base = free_ports(2 * len(OFFSETS) + 1)
        self.url = f"http://127.0.0.1:{base}"
        self.data = data
        self._metrics = base + 1 + len(OFFSETS)
        self._modules = {
            "preprocess": "services.preprocess",
            "retrieve": retrieve,
            "gateway": "gateway",
        }
        unlimited = str(10**9)
        settings = {
            "log_level": "WARNING",
            "tenant_requests_per_minute": unlimited,
            "tenant_requests_per_hour": unlimited,
            **settings,
        }
        self._environment = {
            **os.environ,  # noqa: TID251  handed on to the processes, not read
            "RAGMESH_DATA": str(data),
            "RAGMESH_PORT": str(base),
            "RAGMESH_GRPC_BASE": str(base + 1),
            "RAGMESH_METRICS_BASE": str(self._metrics),
            **{f"RAGMESH_{name.upper()}": value for name, value in settings.items()},
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Make keys and return once documents can be ingested."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._command("keys", "init")
        raise_edge_limits(self.data / "kong.yml")
        self.token = self._command("token", "--tenant", "bench")
        for service in SERVICES:
            self.launch(service)
        self.wait()

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli", *arguments],
            env=self._environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def launch(self, service: str) -> None:
        """Start a process, and do not wait for it."""
        with (self.data / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                [sys.executable, "-m", self._modules[service]],
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Return once the gateway finds both services available."""
        end = time.monotonic() + seconds
        while not self.serves():
            for service, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{service} ended: {self.log(service)[-2000:]}")
            if time.monotonic() > end:
                raise RuntimeError("the mesh does not serve")
            time.sleep(0.05)

    def serves(self) -> bool:
        """Whether documents can be ingested now."""
        try:
            answer = httpx.get(f"{self.url}/health", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return False
        services = answer.json()["services"]
        return all(services[one]["available"] for one in ("preprocess", "retrieve"))

    def kill(self, service: str) -> None:
        """``kill -9``."""
        process = self.processes[service]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def descendants(self, service: str) -> Sequence[psutil.Process]:
        """The processes that a service has started, theirs included."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.processes[service].pid).children(recursive=True)
        return ()

    def log(self, service: str) -> str:
        return (self.data / f"{service}.log").read_text(errors="replace")

    def stop(self) -> None:
        """End every process, the gateway first."""
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def client(self, timeout: float = 60.0) -> httpx.AsyncClient:
        """Of the REST API."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False
        )

    def metric(self, service: str, name: str) -> float:
        """The sum of a metric over its labels; 0 while it has none."""
        port = self._metrics + OFFSETS[service]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
        return total(text.splitlines(), name)
