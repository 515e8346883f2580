"""Engines' servers as processes of a test's own: found, started on a free port, ended by pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

START_SECONDS = 240.0


def interpreter(variable: str, package: str) -> str:
    """The Python that has an engine's package: named by the environment, or this one.

    Skips the test where there is none.
    """
    named = os.environ.get(variable, "")  # noqa: TID251 - the developer's, not the mesh's
    python = named or sys.executable
    found = subprocess.run(
        [python, "-c", f"import importlib.util as u; assert u.find_spec({package!r})"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"needs the package {package} ({variable} names its Python)")
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at `ready`; it and its children end with the block."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},  # noqa: TID251 - handed on
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        try:
            _await(process, ready, log)
            yield process
        finally:
            _end(process)


def _await(process: subprocess.Popen[bytes], ready: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(ready, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server does not answer: {log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session that the server leads."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
