"""Two gateway processes with one set of keys, one store and one Redis behave as one."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.mesh import free_ports, until
from tests.redis_server import RedisServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("redis-server") is None,
        reason="needs redis-server: apt-get install redis-server",
    ),
]

CALLS = int(os.environ.get("SOAK_CALLS", "2000"))  # noqa: TID251 - `make soak` sets it
LIMIT = CALLS * 3 // 10
WINDOW = 60
ROOM = 40
"""Seconds of a window that the calls may need."""
# Asks for a token and counts, yet needs none of the services.
ROUTE = "/v1/sessions/nobody"


class Replicas:
    """Two gateways; no service runs behind them."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.data = folder / "var"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.urls: list[str] = []
        self.environment = {
            **os.environ,  # noqa: TID251 - handed on to the processes, not read
            "RAGMESH_DATA": str(self.data),
            "RAGMESH_METRICS_BASE": "0",
            "RAGMESH_REDIS_URL": redis.url,
            # A Redis that is slow to answer is taken for gone, and counts are then each gateway's
            # own; on a busy machine that must not happen here.
            "RAGMESH_LIMIT_REDIS_TIMEOUT": "5",
            "RAGMESH_TENANT_REQUESTS_PER_MINUTE": str(LIMIT),
        }
        self.command("keys", "init")
        log = (folder / "gateways.log").open("wb")
        with log:
            for _ in range(2):
                port = free_ports(2)
                environment = {
                    **self.environment,
                    "RAGMESH_PORT": str(port),
                    "RAGMESH_GRPC_BASE": str(port + 1),
                }
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "gateway"],
                        env=environment,
                        stdout=log,
                        stderr=log,
                    )
                )
                self.urls.append(f"http://127.0.0.1:{port}")
        try:
            until(lambda: all(is_live(url) for url in self.urls), 60, "both gateways answer")
        except BaseException:
            self.stop()
            raise

    def command(self, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)


def is_live(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    redis = RedisServer(folder)
    redis.start()
    running = None
    try:
        running = Replicas(folder, redis)
        yield running
    finally:
        if running is not None:
            running.stop()
        redis.kill()


async def test_two_gateways_hold_one_limit(replicas: Replicas) -> None:
    token = replicas.command("token", "--tenant", "crowd")
    headers = {"authorization": f"Bearer {token}"}
    left = WINDOW - time.time() % WINDOW
    if left < ROOM:
        await asyncio.sleep(left)
    began = time.time() // WINDOW
    statuses: Counter[int] = Counter()
    calls = iter(range(CALLS))

    async def caller(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            for _ in calls:
                statuses[(await client.get(ROUTE, timeout=30)).status_code] += 1

    await asyncio.gather(*(caller(url) for url in replicas.urls for _ in range(8)))
    if time.time() // WINDOW != began:
        pytest.fail(f"{CALLS} calls did not fit into one window: too slow a machine to judge")
    assert statuses == {404: LIMIT, 429: CALLS - LIMIT}


def test_a_revoked_token_is_refused_by_both_within_a_second(replicas: Replicas) -> None:
    token = replicas.command("token", "--tenant", "leaver")
    headers = {"authorization": f"Bearer {token}"}

    def status(url: str) -> int:
        return httpx.get(f"{url}{ROUTE}", headers=headers, trust_env=False).status_code

    assert [status(url) for url in replicas.urls] == [404, 404]
    replicas.command("token", "revoke", token)
    # A poll every half second; the margin is for the machine, not for the gateway.
    until(lambda: {status(url) for url in replicas.urls} == {401}, 3, "both refuse the token")
