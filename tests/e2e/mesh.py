"""A whole mesh as real processes: its own data directory, its own ports, ended by pid."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from services.runtime.settings import OFFSETS

SERVICES = ("preprocess", "retrieve", "infer", "postprocess")
START_SECONDS = 150.0
RECOVERY_SECONDS = 60.0


class Mesh:
    """One running mesh, started by `ragmesh up --foreground`."""

    def __init__(self, data: Path, *, demo: bool = False, **environment: str) -> None:
        base = free_ports(2 * len(OFFSETS) + 1)
        self.data = data
        self.url = f"http://127.0.0.1:{base}"
        self.grpc_base = base + 1
        self.metrics_base = base + 1 + len(OFFSETS)
        self.environment = {
            **os.environ,  # noqa: TID251 - handed on to the processes, not read
            "RAGMESH_DATA": str(data),
            "RAGMESH_PORT": str(base),
            "RAGMESH_GRPC_BASE": str(self.grpc_base),
            "RAGMESH_METRICS_BASE": str(self.metrics_base),
            "LANG": "C.UTF-8",
            **environment,
        }
        data.mkdir(parents=True, exist_ok=True)
        self.output = data / "up.out"
        arguments = ["up", "--foreground", "--json", *(["--demo"] if demo else [])]
        with self.output.open("wb") as out, (data / "up.err").open("wb") as err:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            self.announcement: dict[str, Any] = self._await_announcement()
        except BaseException:
            self.stop()
            raise

    def _await_announcement(self) -> dict[str, Any]:
        """What `up --json` prints once it serves."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            text = self.output.read_text("utf-8")
            if text.endswith("\n"):
                announced: dict[str, Any] = json.loads(text)
                if "error" in announced:
                    raise AssertionError(f"the mesh did not start: {announced['error']}")
                return announced
            if self.supervisor.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"the mesh did not start: {(self.data / 'up.err').read_text()}")

    def stop(self) -> int:
        """Ctrl-C, and the supervisor's exit status."""
        if self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGINT)
            try:
                self.supervisor.wait(60)
            except subprocess.TimeoutExpired:
                self.supervisor.kill()
        return self.supervisor.wait(10)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The operator's command, against this mesh."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def token(self, tenant: str = "local", *, scopes: str | None = None) -> str:
        chosen = ("--scope", scopes) if scopes is not None else ()
        done = self.command("token", "--tenant", tenant, *chosen)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def admin_token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.admin_token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def target(self, service: str) -> str:
        return f"127.0.0.1:{self.grpc_base + OFFSETS[service]}"

    def pid(self, service: str) -> int:
        pid = self.pid_or_none(service)
        assert pid is not None, f"{service} does not run"
        return pid

    def pid_or_none(self, service: str) -> int | None:
        """None while it waits for its next start."""
        state = json.loads((self.data / "mesh.json").read_bytes())
        identity = state["processes"][service]["id"]
        return int(identity["pid"]) if identity else None

    def metric(self, service: str, name: str) -> float:
        """The sum of a metric over its labels; 0 while it has none."""
        port = self.metrics_base + OFFSETS[service]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        pattern = rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$"
        return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def collection(self, name: str, **documents: str) -> None:
        """A collection with documents: id -> text."""
        with self.client() as client:
            answer = client.post("/v1/collections", json={"name": name})
            assert answer.status_code in (200, 201, 409), answer.text
            entries = [{"id": key, "title": key, "text": text} for key, text in documents.items()]
            if entries:
                path = f"/v1/collections/{name}/documents"
                answer = client.post(path, json={"documents": entries})
                assert answer.status_code == 201, answer.text


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for what must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that are free now, below those that the system
    gives to outgoing connections: one of these could take a port before the mesh binds it."""
    while True:
        base = random.randrange(12_000, 32_000)
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
