"""Access lists at the gateway: whose attributes travel with every call, and what may be written."""

import json

import pytest

from gateway.auth import Authenticator
from ragmesh.gateway.v1 import gateway_pb2
from services.runtime.errors import Unauthenticated
from tests.gateway.conftest import SECRET, token

PATH = "/v1/collections/docs/documents"


def bearer(**claims) -> dict[str, str]:
    return {"authorization": f"Bearer {token(**claims)}"}


ALICE = bearer(groups=["eng", "営業部"])


async def test_attributes_travel_with_every_call(gateway):
    client, retrieve = gateway.client, gateway.mesh.retrieve
    await client.post("/v1/collections", json={"name": "docs"}, headers=ALICE)
    document = {"id": "a", "text": "Tea", "access": ["group:営業部", "user:alice"]}
    made = await client.post(PATH, json={"documents": [document]}, headers=ALICE)
    assert made.status_code == 201, made.text
    retrieve.callers.clear()
    question = {"query": "Is tea hot?", "collection": "docs"}
    chat = {
        "messages": [{"role": "user", "content": "Is tea hot?"}],
        "retrieval": {"collection": "docs"},
    }
    for method, path, body in (
        ("POST", "/v1/search", question),
        ("POST", "/v1/query", question),
        ("POST", "/v1/query", {**question, "stream": True}),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "stream": True}),
        ("POST", "/v1/summarize", {"document_id": "a", "collection": "docs"}),
        ("GET", "/v1/collections", None),
        ("GET", "/v1/collections/docs", None),
        ("GET", PATH, None),
        ("GET", f"{PATH}/a", None),
        ("GET", f"{PATH}/a/chunks", None),
        ("DELETE", f"{PATH}/a", None),
    ):
        before = len(retrieve.callers)
        response = await client.request(method, path, json=body, headers=ALICE)
        assert response.status_code == 200, (path, response.text)
        assert len(retrieve.callers) > before, path
    metadata = [("authorization", ALICE["authorization"])]
    retrieval = gateway_pb2.Retrieval(collection="docs")
    await gateway.rag.Search(
        gateway_pb2.SearchRequest(query="tea", retrieval=retrieval), metadata=metadata
    )
    await gateway.rag.ListDocuments(
        gateway_pb2.ListDocumentsRequest(collection="docs"), metadata=metadata
    )
    expected = ("user:alice", "group:eng", "group:営業部")
    assert {caller.attributes for caller in retrieve.callers} == {expected}


async def test_clients_cannot_send_attributes_themselves(gateway):
    await gateway.collection()
    forged = {**bearer(), "x-ragmesh-attributes": "Kg=="}
    await gateway.client.get("/v1/collections/docs", headers=forged)
    metadata = [("authorization", forged["authorization"]), ("x-ragmesh-attributes", "Kg==")]
    await gateway.rag.GetCollection(
        gateway_pb2.GetCollectionRequest(name="docs"), metadata=metadata
    )
    assert {caller.attributes for caller in gateway.mesh.retrieve.callers} == {("user:alice",)}


async def test_a_writer_names_only_what_it_holds(gateway):
    await gateway.collection()
    for access, headers, status in (
        (["group:ops"], ALICE, 403),
        (["user:bob"], ALICE, 403),
        (["group:eng", "user:alice"], ALICE, 201),
        (["group:ops"], bearer(groups=["*"]), 201),
        (["ops"], ALICE, 400),
        ([], ALICE, 400),
        ("group:eng", ALICE, 400),
        ([f"user:{n}" for n in range(65)], ALICE, 400),
    ):
        document = {"id": "a", "text": "Tea", "access": access}
        made = await gateway.client.post(PATH, json={"documents": [document]}, headers=headers)
        assert made.status_code == status, (access, made.text)
        metadata = {"id": "b", "access": access, "year": 2024}
        made = await gateway.client.post(
            PATH,
            files=[("file", ("b.md", b"Tea"))],
            data={"metadata": json.dumps(metadata)},
            headers=headers,
        )
        assert made.status_code == status, (access, made.text)
    stored = (await gateway.client.get(f"{PATH}/b", headers=ALICE)).json()
    assert (stored["access"], stored["metadata"]) == (["group:ops"], {"year": 2024})


async def test_a_list_among_the_metadata_is_refused_not_ignored(gateway):
    await gateway.collection()
    document = {"id": "a", "text": "Tea", "metadata": {"access": ["user:alice"]}}
    refused = await gateway.post(PATH, {"documents": [document]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "access_invalid"


async def test_another_list_is_another_content(gateway):
    await gateway.collection()
    for access, status in (
        (None, "indexed"),
        (None, "unchanged"),
        (["group:eng"], "replaced"),
        (["group:eng"], "unchanged"),
        (["group:eng", "user:alice"], "replaced"),
        (["user:alice", "group:eng"], "unchanged"),
        (None, "replaced"),
    ):
        document = {"id": "a", "text": "Tea", "access": access}
        made = await gateway.client.post(PATH, json={"documents": [document]}, headers=ALICE)
        assert made.json()["documents"][0]["status"] == status, access


async def test_a_conversation_is_its_users_own(gateway):
    await gateway.collection()
    query = {"query": "Is tea hot?", "collection": "docs", "session_id": "s"}
    assert (await gateway.post("/v1/query", query)).status_code == 200
    bob = bearer(subject="bob")
    taken = await gateway.client.post("/v1/query", json=query, headers=bob)
    assert taken.status_code == 409
    assert taken.json()["error"]["code"] == "session_id_taken"
    for method in ("GET", "DELETE"):
        response = await gateway.client.request(method, "/v1/sessions/s", headers=bob)
        assert response.status_code == 404
    assert len((await gateway.client.get("/v1/sessions/s")).json()["turns"]) == 1


@pytest.mark.parametrize(
    "groups", ["eng", {"eng": 1}, [1], [""], ["a\nb"], [["eng"]], ["g"] * 65, ["x" * 257], [None]]
)
def test_a_claim_of_another_shape_is_refused(tmp_path, groups):
    path = tmp_path / "kong.yml"
    path.write_text("consumers: []\n")
    with pytest.raises(Unauthenticated):
        Authenticator(path, secret=SECRET).authenticate(f"Bearer {token(groups=groups)}")
    many = [f"{n:03}" + "営" * 100 for n in range(12)]
    with pytest.raises(Unauthenticated):
        Authenticator(path, secret=SECRET).authenticate(f"Bearer {token(groups=many)}")
