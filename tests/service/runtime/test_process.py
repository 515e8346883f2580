"""A service as a process: signals, exit status, JSON lines, the metrics endpoint."""

import json
import signal
import time
import urllib.error
import urllib.request

import pytest

from services.runtime.settings import EXIT_MISCONFIGURED, OFFSETS
from tests.service.runtime.conftest import Start
from tests.service.runtime.ports import free_base


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def wait_for(url: str, status: int) -> str:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        got, text = get(url)
        if got == status:
            return text
        time.sleep(0.05)
    raise AssertionError(f"{url} never answered {status}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_success(number: signal.Signals, start: Start) -> None:
    base = free_base("infer")
    process = start(metrics_base=str(base), loading="0.5")
    url = f"http://127.0.0.1:{base + OFFSETS['infer']}"
    wait_for(f"{url}/health", 503)
    wait_for(f"{url}/health", 200)
    assert 'ragmesh_build_info{service="infer"' in get(f"{url}/metrics")[1]
    assert get(f"{url}/other")[0] == 404
    process.send_signal(number)
    _, logged = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["msg"] for line in lines] == ["started", "serving", "draining", "stopped"]
    assert {line["service"] for line in lines} == {"infer"}


def test_a_signal_while_loading_ends_the_process(start: Start) -> None:
    process = start(loading="60")
    assert process.stderr is not None
    assert "started" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"grpc_base": "many"}, "settings: RAGMESH_GRPC_BASE='many' is not accepted"),
        ({"host": "0.0.0.0"}, "infer: RAGMESH_HOST=0.0.0.0 is not loopback"),
        ({"loading": "-1"}, "infer: RAGMESH_MODEL_PATH names no model."),
    ],
)
def test_a_misconfigured_process_says_so_and_ends_with_2(
    settings: dict[str, str], says: str, start: Start
) -> None:
    process = start(**settings)
    _, said = process.communicate(timeout=15)
    assert process.returncode == EXIT_MISCONFIGURED
    assert says in said
    assert "Traceback" not in said
