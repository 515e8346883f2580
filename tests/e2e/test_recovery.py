"""A process that is killed is missed, reported and replaced; what was acknowledged stays."""

import os
import signal

import pytest

from tests.e2e.mesh import RECOVERY_SECONDS, SERVICES, Mesh, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FACT = "The observatory of Mount Kesa opened in 1931."


def found(mesh: Mesh) -> bool:
    with mesh.client() as client:
        body = {"query": "observatory Mount Kesa", "collection": "kept"}
        answer = client.post("/v1/search", json=body)
        return answer.is_success and any(hit["text"] == FACT for hit in answer.json()["hits"])


@pytest.mark.parametrize("service", [*SERVICES, "gateway"])
def test_a_killed_process_is_reported_and_comes_back(mesh: Mesh, service: str) -> None:
    mesh.collection("kept", fact=FACT)
    assert found(mesh)
    first = mesh.pid(service)
    os.kill(first, signal.SIGKILL)
    if service != "gateway":
        # The gap is short: either the report names it, or it is back under another pid.
        def reported() -> bool:
            with mesh.client() as client:
                state = client.get("/health").json()["services"][service]["available"]
            return not state or mesh.pid_or_none(service) not in (first, None)

        until(reported, 15, f"/health reports {service}")
    until(
        lambda: mesh.pid_or_none(service) not in (first, None) and mesh.is_ready(),
        RECOVERY_SECONDS,
        f"{service} serves again",
    )
    until(lambda: found(mesh), 20, "the acknowledged document is found")
    until(lambda: answers(mesh), 20, "a question is answered")


def answers(mesh: Mesh) -> bool:
    with mesh.client() as client:
        body = {"query": "When did the observatory of Mount Kesa open?", "collection": "kept"}
        answer = client.post("/v1/query", json=body)
        return answer.is_success and "1931" in answer.json()["answer"]


def test_a_service_that_is_down_is_a_503_that_says_when(mesh: Mesh) -> None:
    """Stopped, not killed: nothing restarts it, so the gateway's answer can be looked at."""
    pid = mesh.pid("infer")
    os.kill(pid, signal.SIGSTOP)
    try:
        with mesh.client() as client:
            until(
                lambda: not client.get("/health").json()["services"]["infer"]["available"],
                15,
                "/health reports infer",
            )
            assert client.get("/health/ready").status_code == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    until(mesh.is_ready, 15, "infer serves again")


def test_a_call_into_a_gap_is_a_503_with_retry_after(mesh: Mesh) -> None:
    mesh.collection("kept", fact=FACT)
    # A start takes a second or more, a question milliseconds.
    with mesh.client() as client:
        os.kill(mesh.pid("postprocess"), signal.SIGKILL)
        body = {"query": "When did the observatory open?", "collection": "kept"}
        answer = client.post("/v1/query", json=body)
        assert answer.status_code == 503, answer.text
        assert float(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "server_error"
    until(mesh.is_ready, RECOVERY_SECONDS, "the mesh is ready")
