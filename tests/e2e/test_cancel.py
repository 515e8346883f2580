"""A client that leaves stops the engine's work, through every hop, streaming and not."""

import httpx
import pytest

from tests.e2e.mesh import Mesh, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHAT = {"model": "default", "messages": [{"role": "user", "content": "Go on for long."}]}
TEXT = {"text": "Go on for long."}
METRIC = "ragmesh_infer_aborted_total"
SOON = 10.0


def aborted(mesh: Mesh) -> float:
    return mesh.metric("infer", METRIC)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/query", {"query": "Where is the lighthouse?", "collection": "lights"}),
    ],
)
def test_leaving_a_stream_stops_the_engine(slow_mesh: Mesh, path: str, body: dict) -> None:
    slow_mesh.collection("lights", one="The lighthouse stands on the northern cape.")
    before = aborted(slow_mesh)
    with (
        slow_mesh.client() as client,
        client.stream("POST", path, json=body | {"stream": True}) as answer,
    ):
        assert answer.status_code == 200
        seen = ""
        for piece in answer.iter_text():
            seen += piece
            if "word" in seen:
                break
        assert "word" in seen
    until(lambda: aborted(slow_mesh) == before + 1, SOON, "the engine stops")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/generate", TEXT),
        ("/v1/query", {"query": "Where is the lighthouse?", "collection": "lights"}),
    ],
)
def test_leaving_a_plain_call_stops_the_engine(slow_mesh: Mesh, path: str, body: dict) -> None:
    slow_mesh.collection("lights", one="The lighthouse stands on the northern cape.")
    before = aborted(slow_mesh)
    with slow_mesh.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(path, json=body, timeout=httpx.Timeout(3.0))
    until(lambda: aborted(slow_mesh) == before + 1, SOON, "the engine stops")
