"""Export, import, reindexing and changing documents over REST."""

import base64
import json
from urllib.parse import quote

import httpx_sse
import pytest

from gateway import records
from tests.gateway.conftest import running, token

PATH = "/v1/collections/docs"
NDJSON = {"content-type": "application/x-ndjson"}
VECTOR = base64.b64encode(b"\0\0\x80?" * 2).decode()


def document(id="a", chunks=1, **more):
    return {"type": "document", "id": id, "content_hash": f"hash-{id}", "chunks": chunks, **more}


def chunks(*texts, **more):
    return {"type": "chunks", "chunks": [{"text": text, **more} for text in texts]}


HEADER = {
    "type": "header", "format": "ragmesh-collection", "version": 1, "encoder": "words@1",
    "analyzer": "terms@1", "profile": "{}", "name": "elsewhere",
}  # fmt: skip


async def send(gateway, *lines, headers=NDJSON):
    body = b"".join(one if isinstance(one, bytes) else records.dump(one) for one in lines)
    return await gateway.client.post(f"{PATH}/import", content=body, headers=headers)


async def export(gateway, **params):
    response = await gateway.client.get(f"{PATH}/export", params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return response.content.splitlines()


async def test_what_is_exported_can_be_imported(gateway):
    await gateway.collection()
    documents = [{"id": "a/b", "title": "A", "text": "One\n\nTwo", "metadata": {"k": [1, "x"]}},
                 {"id": "c", "text": "三", "access": ["user:alice"]}]  # fmt: skip
    await gateway.post(f"{PATH}/documents", {"documents": documents})
    lines = await export(gateway)
    found = [records.load(line) for line in lines]
    assert [one["type"] for one in found] == [
        "header", "document", "chunks", "document", "chunks", "end",
    ]  # fmt: skip
    assert (found[0]["encoder"], found[0]["generation"]) == ("fake-encoder", "g-1")
    assert (found[1]["metadata"], found[1]["chunks"]) == ({"k": [1, "x"]}, 2)
    assert "access" not in found[1]
    assert found[3]["access"] == ["user:alice"]
    assert found[4]["chunks"][0]["text"] == "三"
    assert (found[5]["documents"], found[5]["chunks"]) == (2, 3)
    held = dict(gateway.mesh.retrieve.collections.popitem()[1])
    await gateway.collection()
    response = await send(gateway, *(line + b"\n" for line in lines))
    assert response.status_code == 200, response.text
    assert response.json()["documents"] == [
        {"id": "a/b", "chunks": 2, "status": "indexed"},
        {"id": "c", "chunks": 1, "status": "indexed"},
    ]
    ((_, copy),) = gateway.mesh.retrieve.collections.items()
    assert {id: one for id, (one, _) in copy.items()} == {id: one for id, (one, _) in held.items()}
    assert gateway.mesh.retrieve.headers[-1].origin.encoder == "fake-encoder"


async def test_vectors_come_through_as_they_are(gateway):
    await gateway.collection()
    response = await send(
        gateway,
        HEADER,
        document("a", 2, created_at="2026-01-02T03:04:05.5Z", access=["user:alice"]),
        chunks("One", vector=VECTOR, page=3, heading="H", normalized_text="one"),
        {**chunks("Two"), "first": 1},
        {"type": "end", "documents": 1, "chunks": 2},
    )
    assert response.json()["embedded_chunks"] == 1
    origin = gateway.mesh.retrieve.headers[-1].origin
    assert (origin.encoder, origin.analyzer, origin.profile) == ("words@1", "terms@1", "{}")
    ((_, known),) = gateway.mesh.retrieve.collections.items()
    stored, (one, two) = known["a"]
    assert list(stored.access) == ["user:alice"]
    assert one.vector == b"\0\0\x80?" * 2
    assert (one.page, one.heading, one.normalized_text) == (3, "H", "one")
    assert (two.index, two.normalized_text, two.HasField("page")) == (1, "Two", False)


async def test_an_export_goes_on_and_fails_in_the_open(gateway):
    await gateway.collection()
    entries = [{"id": f"d{n}", "text": "T"} for n in range(4)]
    await gateway.post(f"{PATH}/documents", {"documents": entries})
    lines = await export(gateway, after="d1", generation="g-1")
    assert [json.loads(line).get("id") for line in lines] == [None, "d2", None, "d3", None, None]
    asked = gateway.mesh.retrieve.exports[-1]
    assert (asked.after, asked.generation) == ("d1", "g-1")
    gateway.mesh.retrieve.torn = "d2"
    *_, last = await export(gateway)
    error = json.loads(last)["error"]
    assert (error["code"], error["type"]) == ("document_changed", "conflict_error")
    response = await gateway.client.get("/v1/collections/none/export")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "collection_not_found")


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ([b"{\n"], "invalid_json", "line 1"),
        ([b"[]\n"], "record_invalid", "line 1"),
        ([records.dump(HEADER).replace(b"elsewhere", b"nowhere")], "record_invalid", "line 1"),
        ([HEADER, {"type": "hello"}], "record_invalid", "line 2"),
        ([{**HEADER, "version": 2}], "format_unsupported", "line 1"),
        ([{**HEADER, "format": "zip"}], "format_unsupported", "line 1"),
        ([HEADER, document(chunks=0)], "field_invalid", "line 2"),
        ([HEADER, document(colour="red")], "unknown_field", "line 2"),
        ([HEADER, document(access=[])], "field_invalid", "line 2"),
        ([HEADER, document(created_at="soon")], "record_invalid", "line 2"),
        ([HEADER, document(), chunks("T", vector="?")], "record_invalid", "line 3"),
        ([HEADER, document(), chunks("T", page=0)], "field_invalid", "line 3"),
        ([document(id="a\0b")], "nul_character", "line 1"),
    ],
)
async def test_a_record_that_is_none_is_named(gateway, lines, code, said):
    await gateway.collection()
    response = await send(gateway, *lines)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert said in error["message"]


async def test_what_stands_before_a_bad_record_is_in(gateway):
    await gateway.collection()
    response = await send(gateway, document("a"), chunks("T"), document("b"), {"type": "x"})
    assert response.status_code == 400
    ((_, known),) = gateway.mesh.retrieve.collections.items()
    assert set(known) <= {"a"}


async def test_what_a_call_takes(tmp_path):
    async with running(tmp_path, max_documents=2) as gateway:
        await gateway.collection()
        records_ = [one for name in "abc" for one in (document(name), chunks("T"))]
        response = await send(gateway, *records_)
        assert (response.status_code, response.json()["error"]["code"]) == (
            413, "too_many_documents",
        )  # fmt: skip
        response = await send(gateway, b" " * (records.MAX_LINE_BYTES + 10))
        assert response.status_code == 413
        response = await send(gateway, document(), headers={"content-type": "application/json"})
        assert response.status_code == 415
        assert (await send(gateway)).json() == {"documents": [], "embedded_chunks": 0}


async def test_which_documents_are_there(gateway):
    await gateway.collection()
    await send(gateway, document("a"), chunks("T"))
    asked = [{"id": "a", "content_hash": "hash-a"}, {"id": "b", "content_hash": "hash-b"}]
    response = await gateway.post(f"{PATH}/unchanged", {"documents": asked})
    assert response.json() == {"unchanged": [{"id": "a", "chunks": 1}]}


async def test_a_collection_is_made_anew(gateway):
    await gateway.collection()
    await gateway.post(f"{PATH}/documents", {"documents": [{"id": "a", "text": "T"}]})
    async with httpx_sse.aconnect_sse(
        gateway.client, "POST", f"{PATH}/reindex", json={"force": True}
    ) as source:
        events = [(one.event, json.loads(one.data)) async for one in source.aiter_sse()]
    assert [name for name, _ in events] == ["progress", "done"]
    assert events[0][1]["total_documents"] == 1
    assert events[1][1]["reindexed"]
    assert events[1][1]["collection"]["name"] == "docs"
    assert gateway.mesh.retrieve.reindexed[0].force
    response = await gateway.post("/v1/collections/none/reindex", {})
    assert response.status_code == 404


async def test_a_document_is_changed(gateway):
    await gateway.collection()
    await gateway.post(f"{PATH}/documents", {"documents": [{"id": "a/b", "text": "T"}]})
    change = {"id": "c", "title": "C", "metadata": {"k": 1}, "replace": True}
    response = await gateway.client.patch(f"{PATH}/documents/a/b", json=change)
    assert response.status_code == 200, response.text
    assert (response.json()["id"], response.json()["metadata"]) == ("c", {"k": 1})
    asked = gateway.mesh.retrieve.moves[0]
    assert (asked.new_id, asked.title, asked.HasField("source"), asked.replace) == (
        "c", "C", False, True,
    )  # fmt: skip
    assert (await gateway.client.get(f"{PATH}/documents/c")).status_code == 200
    address = "https://example.com//a b/c?d=e%2F&f=ガ#g"
    response = await gateway.client.patch(f"{PATH}/documents/c", json={"id": address})
    assert response.json()["id"] == address
    response = await gateway.client.patch(
        f"{PATH}/documents/{quote(address, safe='')}", json={"id": "c"}
    )
    assert response.json()["id"] == "c", "an address is an id like any other"
    for wrong in ({"colour": 1}, {"id": ""}, {"metadata": {"access": ["user:a"]}}):
        response = await gateway.client.patch(f"{PATH}/documents/c", json=wrong)
        assert response.status_code == 400, wrong


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/export", "documents:write"),
        ("POST", "/import", "documents:read"),
        ("POST", "/unchanged", "documents:read"),
        ("POST", "/reindex", "documents:read"),
        ("PATCH", "/documents/a", "documents:read"),
    ],
)
async def test_scopes(gateway, method, path, scope):
    await gateway.collection()
    headers = {"authorization": f"Bearer {token(scope=scope)}"}
    response = await gateway.client.request(method, PATH + path, headers=headers, json={})
    assert response.status_code == 403
    assert (
        await gateway.client.request(method, PATH + path, headers={"authorization": ""})
    ).status_code == 401


async def test_transfers_are_in_the_audit_log(gateway):
    await gateway.collection()
    await send(gateway, document("a"), chunks("T"))
    await export(gateway)
    await gateway.post(f"{PATH}/reindex", {})
    await gateway.client.patch(f"{PATH}/documents/a", json={"title": "B"})
    headers = {"authorization": f"Bearer {token(scope='models:admin', tenant='ops')}"}
    response = await gateway.client.get("/v1/admin/audit", headers=headers)
    found = [(one["action"], one["target"], one["outcome"]) for one in response.json()["entries"]]
    assert found == [
        ("document.update", "docs/a", "ok"),
        ("collection.reindex", "docs", "ok"),
        ("collection.export", "docs", "ok"),
        ("collection.import", "docs", "ok"),
        ("collection.create", "docs", "ok"),
    ]
