"""A mesh with a cross-encoder of its own, and one whose remote reranker is away."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import Mesh
from tests.unit.retrieve.tiny_cross_encoder import TEXTS, make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DOCUMENTS = {f"d{number}": text for number, text in enumerate(TEXTS)}


@pytest.fixture(scope="module")
def reranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("reranking")
    running = Mesh(
        folder / "var",
        RERANKER_BACKEND="onnx",
        RAGMESH_RERANKER_MODEL=str(make(folder / "tiny", languages="language: en")),
        RAGMESH_RERANK_BUDGET="60",
    )
    try:
        running.collection("notes", **DOCUMENTS)
        yield running
    finally:
        running.stop()


def post(mesh: Mesh, path: str, body: dict[str, Any]) -> Any:
    with mesh.client() as client:
        return client.post(path, json=body).raise_for_status().json()


def search(mesh: Mesh, query: str, **more: Any) -> Any:
    return post(mesh, "/v1/search", {"query": query, "collection": "notes", **more})


def test_searches_and_documents_get_the_same_scores(reranking: Mesh) -> None:
    query = "Where do foxes live?"
    found = search(reranking, query, rerank=True, mode="sparse")
    assert found["rerank"]["status"] == "applied"
    assert found["rerank"]["model"] == "tiny"
    read = [hit for hit in found["hits"] if hit["scores"].get("rerank") is not None]
    assert len(read) == found["rerank"]["candidates"] > 0
    scores = [hit["scores"]["rerank"] for hit in read]
    assert scores == sorted(scores, reverse=True)
    body = {"query": query, "documents": [f"{hit['title']}\n{hit['text']}" for hit in read]}
    ranked = post(reranking, "/v1/rerank", body)
    assert [one["index"] for one in ranked["results"]] == list(range(len(read)))
    assert [one["relevance_score"] for one in ranked["results"]] == pytest.approx(scores, abs=1e-4)
    assert ranked["usage"]["total_tokens"] > 0


def test_an_english_reranker_leaves_japanese_alone(reranking: Mesh) -> None:
    plain = search(reranking, "東京タワーはどこにありますか。")
    found = search(reranking, "東京タワーはどこにありますか。", rerank=True)
    assert found["hits"] == plain["hits"]
    assert (found["rerank"]["status"], found["rerank"]["reason"]) == (
        "skipped", "language_not_covered",
    )  # fmt: skip


def test_an_answer_says_it(reranking: Mesh) -> None:
    body = {"query": "Where do foxes live?", "collection": "notes", "rerank": True}
    answer = post(reranking, "/v1/query", body)
    assert answer["rerank"]["status"] == "applied"
    assert answer["timings"]["rerank"] <= answer["timings"]["retrieve"]


def test_the_command(reranking: Mesh) -> None:
    options = ("-c", "notes", "--rerank")
    done = reranking.command("search", "Where do foxes live?", *options, "--json")
    assert json.loads(done.stdout)["rerank"]["status"] == "applied", done.stderr
    done = reranking.command("search", "東京タワー", *options, "--lang", "en")
    assert "Not reranked (language_not_covered)" in done.stdout, done.stderr
    done = reranking.command("ask", "Where do foxes live?", *options, "--json")
    assert json.loads(done.stdout)["rerank"]["status"] == "applied", done.stderr


def test_it_is_listed_and_named(reranking: Mesh) -> None:
    with reranking.client() as client:
        models = {one["id"]: one["target"] for one in client.get("/v1/models").json()["data"]}
        health = client.get("/health").json()
    assert models["default-reranker"] == "tiny"
    assert "onnx" in str(health)
    assert reranking.metric("retrieve", "ragmesh_retrieve_rerank_seconds_count") > 0


def test_a_server_that_is_away_fails_no_search(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        running = Mesh(
            tmp_path / "var",
            RERANKER_BACKEND="cohere",
            RAGMESH_RERANKER_URL=f"http://127.0.0.1:{taken.getsockname()[1]}/v1",
            RAGMESH_RERANKER_MODEL="rerank-v3.5",
            RAGMESH_RERANKER_LANGUAGES='["en"]',
        )
        try:
            running.collection("notes", **DOCUMENTS)
            plain = search(running, "foxes in dens")
            found = search(running, "foxes in dens", rerank=True)
            assert found["hits"] == plain["hits"]
            assert (found["rerank"]["status"], found["rerank"]["reason"]) == (
                "failed", "reranker_unavailable",
            )  # fmt: skip
            with running.client() as client:
                body = {"query": "foxes", "documents": ["A fox."]}
                answer = client.post("/v1/rerank", json=body)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "reranker_unavailable"
            assert "retry-after" in answer.headers
        finally:
            running.stop()
