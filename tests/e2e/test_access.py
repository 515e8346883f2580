"""Access lists, usage, audit and a tenant's end, over real processes."""

import json

import httpx
import pytest

from tests.e2e.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = {"query": "When does Vulpes launch?", "collection": "docs"}
CHAT = {
    "messages": [{"role": "user", "content": QUESTION["query"]}],
    "retrieval": {"collection": "docs"},
}
DOCUMENTS = [
    {"id": "free", "text": "The canteen serves green tea at noon."},
    {"id": "secret", "text": "The project Vulpes launches in May.", "access": ["group:eng"]},
]


def client(mesh: Mesh, subject: str, group: str) -> httpx.Client:
    done = mesh.command("token", "--tenant", "lists", "--subject", subject, "--group", group)
    assert done.returncode == 0, done.stderr
    headers = {"authorization": f"Bearer {done.stdout.strip()}"}
    return httpx.Client(base_url=mesh.url, headers=headers, timeout=60)


def test_a_tenants_life(mesh: Mesh) -> None:
    with client(mesh, "alice", "eng") as alice, client(mesh, "bob", "ops") as bob:
        alice.post("/v1/collections", json={"name": "docs"}).raise_for_status()
        path = "/v1/collections/docs/documents"
        alice.post(path, json={"documents": DOCUMENTS}).raise_for_status()
        for caller, allowed in ((alice, True), (bob, False)):
            hits = caller.post("/v1/search", json=QUESTION).json()["hits"]
            assert ("secret" in {hit["document_id"] for hit in hits}) is allowed
            answer = caller.post("/v1/query", json=QUESTION).json()
            assert ("May" in answer["answer"]) is allowed
            assert bool(answer["citations"]) is allowed
            chat = caller.post("/v1/chat/completions", json=CHAT).json()
            assert ("May" in chat["choices"][0]["message"]["content"]) is allowed
            assert caller.get("/v1/collections/docs").json()["documents"] == 1 + allowed
            assert caller.get(f"{path}/secret").status_code == (200 if allowed else 404)
        assert bob.delete(f"{path}/secret").status_code == 404
        usage = bob.get("/v1/usage").json()["total"]
        assert usage["requests"] == 4
        assert usage["total_tokens"] > 0
    shown = mesh.command("tenants", "show", "lists", "--consumer", "local", "--json")
    assert json.loads(shown.stdout)["contents"]["documents"] == 2
    deleted = mesh.command("tenants", "delete", "lists", "--yes", "--json")
    assert deleted.returncode == 0, deleted.stderr
    assert set(json.loads(deleted.stdout)["left"].values()) == {0}
    listed = json.loads(mesh.command("audit", "list", "--json").stdout)["entries"]
    deeds = [(entry["event"]["action"], entry["event"]["outcome"]) for entry in listed]
    assert deeds[:2] == [("tenant.delete", "ok"), ("document.delete", "document_not_found")]
    assert mesh.command("audit", "verify").returncode == 0
