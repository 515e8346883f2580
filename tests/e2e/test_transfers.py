"""Collections as a whole, and folders that are followed, through the whole mesh by its command."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from os import kill
from pathlib import Path
from typing import Any

import pytest

from gateway import records
from tests.e2e.mesh import Mesh, until

WORDS = (
    "kettle teapot harvest winter river mountain copper engine signal window garden letter "
    "market forest ticket planet lantern bridge station melody"
).split()
ENCODED = "ragmesh_retrieve_encoder_batch_size_sum"
DOCUMENTS, PARAGRAPHS = 24, 4


def run(mesh: Mesh, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = mesh.command(*arguments, "--json")
    assert done.returncode == status, (done.stdout, done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def start(mesh: Mesh, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", *arguments, "--json"],
        env=mesh.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(running: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = running.communicate(timeout=200)
    assert running.returncode == 0, (out, err)
    answer: dict[str, Any] = json.loads(out)
    return answer


def hits(mesh: Mesh, collection: str, query: str, mode: str = "hybrid") -> list[Any]:
    with mesh.client() as client:
        body = {"query": query, "collection": collection, "mode": mode}
        answer = client.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["hits"]
        return found


def counts(mesh: Mesh, collection: str) -> tuple[int, int]:
    shown = run(mesh, "collections", "show", collection)
    return shown["documents"], shown["chunks"]


def learned(mesh: Mesh, collection: str) -> bool:
    """Whether a collection was learned from, and nothing is being embedded for it any more."""
    encoded = mesh.metric("retrieve", ENCODED)
    if run(mesh, "collections", "show", collection)["calibration"] is None:
        return False
    time.sleep(1)
    return mesh.metric("retrieve", ENCODED) == encoded


@pytest.fixture(scope="module")
def large(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A collection whose encoding takes seconds."""
    folder = tmp_path_factory.mktemp("large")
    chance = random.Random(5)
    for number in range(DOCUMENTS):
        paragraphs = [" ".join(chance.choices(WORDS, k=180)) for _ in range(PARAGRAPHS)]
        (folder / f"d{number:02}.md").write_text(f"# D{number}\n\n" + "\n\n".join(paragraphs))
    assert len(run(mesh, "sync", str(folder), "large")["added"]) == DOCUMENTS
    # Learning from it embeds too, and is not what the tests wait for.
    until(lambda: learned(mesh, "large"), 60, "the collection is calibrated")
    yield "large"
    run(mesh, "collections", "delete", "large", "--yes")


def test_an_exported_collection_is_imported_as_it_was(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl.gz"
    # What is learned from a collection goes with it, once it is learned.
    until(lambda: learned(mesh, "samples"), 60, "the samples are calibrated")
    exported = run(mesh, "collections", "export", "samples", str(file))
    assert exported["everything"]
    encoded = mesh.metric("retrieve", ENCODED)
    done = run(mesh, "collections", "import", str(file), "--name", "samples-copy")
    assert (done["indexed"], done["embedded_chunks"]) == (exported["documents"], 0)
    assert mesh.metric("retrieve", ENCODED) == encoded
    for query in ("Which port does the gateway use?", "管理トークンはどこに書かれますか"):
        for mode in ("hybrid", "dense", "sparse"):
            here = hits(mesh, "samples", query, mode)
            assert here
            assert hits(mesh, "samples-copy", query, mode) == here
    again = run(mesh, "collections", "import", str(file), "--name", "samples-copy")
    assert (again["indexed"], again["unchanged"]) == (0, exported["documents"])
    names = [one["name"] for one in run(mesh, "collections", "list")["collections"]]
    assert {"samples", "samples-copy"} <= set(names)
    run(mesh, "collections", "delete", "samples-copy", "--yes")


def test_a_limited_token_exports_what_it_may_read(mesh: Mesh, tmp_path: Path) -> None:
    mesh.collection("restricted", open="Everybody reads this.")
    with mesh.client() as client:
        entry = {"id": "secret", "text": "Few read this.", "access": ["group:few"]}
        path = "/v1/collections/restricted/documents"
        assert client.post(path, json={"documents": [entry]}).status_code == 201
    limited = mesh.token(scopes="documents:read documents:write search")
    with mesh.client(limited) as client:
        lines = client.get("/v1/collections/restricted/export").content.splitlines()
        found = [records.load(line) for line in lines]
        assert [one.get("id") for one in found if one["type"] == "document"] == ["open"]
        assert not found[0]["everything"]
        refused = client.post("/v1/collections/restricted/reindex", json={"force": True})
        assert refused.json()["error"]["code"] == "collection_restricted"
    file = tmp_path / "restricted.jsonl.gz"
    assert run(mesh, "collections", "export", "restricted", str(file))["documents"] == 2
    mesh.collection("widened")
    with mesh.client(limited) as client:
        refused = client.post(
            "/v1/collections/widened/import",
            content=gzip.decompress(file.read_bytes()),
            headers={"content-type": "application/x-ndjson"},
        )
        assert refused.json()["error"]["code"] == "access_not_held"
    other = mesh.token("other", scopes="documents:read documents:write")
    with mesh.client(other) as client:
        assert client.get("/v1/collections/restricted/export").status_code == 404


@pytest.mark.timeout(300)
def test_a_killed_service_ends_no_reindexing(mesh: Mesh, large: str) -> None:
    before, query = counts(mesh, large), "copper engine"
    encoded = mesh.metric("retrieve", ENCODED)
    running = start(mesh, "collections", "reindex", large, "--force")
    try:
        until(lambda: mesh.metric("retrieve", ENCODED) > encoded + 8, 120, "a part is encoded")
        assert hits(mesh, large, query)  # the old one answers
        kill(mesh.pid("retrieve"), signal.SIGKILL)
        done = finish(running)
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()
    assert done["reindexed"]
    assert 0 < done["embedded_chunks"] <= before[1]
    assert counts(mesh, large) == before
    assert hits(mesh, large, query)


@pytest.mark.timeout(300)
def test_a_killed_service_ends_no_import_and_nothing_is_doubled(
    mesh: Mesh, large: str, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl.gz"
    run(mesh, "collections", "export", large, str(file))
    # As another encoder would have made it, so that importing takes its time.
    lines = [records.load(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    lines[0] = {**lines[0], "encoder": "another@1"}
    for record in lines:
        del record["sum"]
    file.write_bytes(gzip.compress(b"".join(map(records.dump, lines))))
    encoded = mesh.metric("retrieve", ENCODED)
    running = start(mesh, "collections", "import", str(file), "--name", "large-copy")
    try:
        until(lambda: mesh.metric("retrieve", ENCODED) > encoded + 8, 120, "a part is encoded")
        kill(mesh.pid("retrieve"), signal.SIGKILL)
        done = finish(running)
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()
    assert done["vectors"] == "embedded"
    assert counts(mesh, "large-copy") == counts(mesh, large)
    run(mesh, "collections", "delete", "large-copy", "--yes")


def test_a_folder_is_followed(mesh: Mesh, tmp_path: Path) -> None:
    for number in range(20):  # too few to be calibrated, which embeds too
        (tmp_path / f"n{number}.md").write_text(f"# Note {number}\n\nThe {WORDS[number]}.\n")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    first = run(mesh, "sync", str(tmp_path), "followed")
    assert (len(first["added"]), len(first["skipped"])) == (20, 1)
    until(lambda: learned(mesh, "samples"), 60, "what was embedded before is done")
    encoded = mesh.metric("retrieve", ENCODED)
    assert run(mesh, "sync", str(tmp_path), "followed")["unchanged"] == 20
    (tmp_path / "sub").mkdir()
    (tmp_path / "n1.md").rename(tmp_path / "sub" / "moved.md")
    done = run(mesh, "sync", str(tmp_path), "followed")
    assert done["moved"] == [{"from": "n1.md", "to": "sub/moved.md"}]
    assert mesh.metric("retrieve", ENCODED) == encoded, "nothing was embedded"
    (tmp_path / "n2.md").write_text("# Note 2\n\nA zeppelin.\n")
    (tmp_path / "n3.md").unlink()
    done = run(mesh, "sync", str(tmp_path), "followed")
    assert (done["changed"], done["deleted"], done["added"]) == (["n2.md"], ["n3.md"], [])
    assert mesh.metric("retrieve", ENCODED) == encoded + 1
    assert hits(mesh, "followed", "zeppelin")[0]["document_id"] == "n2.md"
    assert counts(mesh, "followed")[0] == 19
    (tmp_path / "bad.md").write_bytes(b"%PDF-1.4 this is none")
    assert run(mesh, "sync", str(tmp_path), "followed", status=1)["failed"][0]["id"] == "bad.md"
    run(mesh, "collections", "delete", "followed", "--yes")
