"""Collections and documents."""

import pytest

from tests.gateway.conftest import running, token
from tests.gateway.mesh import TOKENIZER

PATH = "/v1/collections/docs/documents"


async def test_collections(gateway):
    made = await gateway.post("/v1/collections", {"name": "文書"})
    assert made.status_code == 201
    assert made.json()["name"] == "文書"
    again = await gateway.post("/v1/collections", {"name": "文書"})
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "collection_exists"
    listed = (await gateway.client.get("/v1/collections")).json()
    assert [each["name"] for each in listed["collections"]] == ["文書"]
    assert listed["next"] is None
    assert (await gateway.client.get("/v1/collections/文書")).json()["chunk_tokens"] == 200
    deleted = await gateway.client.delete("/v1/collections/文書")
    assert deleted.json() == {"id": "文書", "deleted": True, "documents": 0}
    assert (await gateway.client.get("/v1/collections/文書")).status_code == 404


async def test_tenants_do_not_see_each_other(gateway):
    await gateway.collection()
    other = {"authorization": f"Bearer {token(tenant='other')}"}
    forged = {**other, "x-ragmesh-tenant": gateway.mesh.retrieve.callers[-1].tenant}
    for headers in (other, forged):
        assert (await gateway.client.get(PATH, headers=headers)).status_code == 404
        listed = (await gateway.client.get("/v1/collections", headers=headers)).json()
        assert listed["collections"] == []


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=utf-8''%E8%8C%B6%20%22a%22.txt", '茶 "a".txt'),  # urllib3 before 2
        ("filename*=Shift_JIS''%92%83.txt", "茶.txt"),
        ("filename=\"plain.txt\"; filename*=utf-8''%E8%8C%B6.txt", "plain.txt"),
        ('filename="茶.txt"', "茶.txt"),
    ],
)
async def test_names_of_files(gateway, disposition, name):
    await gateway.collection()
    part = f'Content-Disposition: form-data; name="file"; {disposition}\r\n\r\nTea is hot.'
    response = await gateway.client.post(
        PATH,
        content=f"--b\r\n{part}\r\n--b--\r\n".encode(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert response.status_code == 201, response.text
    assert response.json()["documents"][0]["id"] == name


@pytest.mark.parametrize("charset", ["utf-8''%FF%FE.txt", "none''%FF.txt", "nothing", "''", "%"])
async def test_a_name_that_cannot_be_decoded_is_no_failure_of_the_server(gateway, charset):
    await gateway.collection()
    part = f'Content-Disposition: form-data; name="file"; filename*={charset}\r\n\r\nTea is hot.'
    response = await gateway.client.post(
        PATH,
        content=f"--b\r\n{part}\r\n--b--\r\n".encode(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert response.status_code in (201, 400), response.text


async def test_files(gateway):
    await gateway.collection()
    files = [
        ("file", ("notes/茶.md", b"Tea\n\nis hot", "text/markdown")),
        ("file", ("b.txt", b"x" * 200_000, "text/plain")),
    ]
    response = await gateway.client.post(PATH, files=files, data={"metadata": '{"year": 2024}'})
    assert response.status_code == 201, response.text
    assert response.json() == {
        "documents": [
            {"id": "notes/茶.md", "chunks": 2, "status": "indexed"},
            {"id": "b.txt", "chunks": 1, "status": "indexed"},
        ]
    }
    again = (
        await gateway.client.post(PATH, files=files, data={"metadata": '{"year": 2024}'})
    ).json()
    assert {each["status"] for each in again["documents"]} == {"unchanged"}
    changed = await gateway.client.post(PATH, files=files[1:], data={"metadata": '{"year": 2025}'})
    assert changed.json()["documents"][0]["status"] == "replaced"
    document = (await gateway.client.get(f"{PATH}/notes/茶.md")).json()
    assert document["metadata"] == {"year": 2024}
    assert (document["source"], document["bytes"]) == ("notes/茶.md", 11)
    chunks = (await gateway.client.get(f"{PATH}/notes/茶.md/chunks")).json()
    assert [each["text"] for each in chunks["chunks"]] == ["Tea", "is hot"]
    assert (await gateway.client.delete(f"{PATH}/notes/茶.md")).json()["deleted"] is True
    assert (await gateway.client.get(f"{PATH}/notes/茶.md")).status_code == 404


async def test_metadata_for_each_file(gateway):
    await gateway.collection()
    files = [("file", ("a.md", b"A")), ("file", ("b.md", b"B"))]
    metadata = '[{"id": "one", "title": "First"}, {"id": "two", "source": "https://x/b"}]'
    made = (await gateway.client.post(PATH, files=files, data={"metadata": metadata})).json()
    assert [each["id"] for each in made["documents"]] == ["one", "two"]
    document = (await gateway.client.get(f"{PATH}/one")).json()
    assert (document["title"], document["source"]) == ("First", "a.md")
    assert document["metadata"] == {"title": "First"}
    document = (await gateway.client.get(f"{PATH}/two")).json()
    assert (document["source"], document["metadata"]) == ("https://x/b", {"source": "https://x/b"})


async def test_texts(gateway):
    await gateway.collection()
    documents = [
        {"id": "a", "title": "Tea", "text": "Hot", "metadata": {"source": "http://x/"}},
        {"text": "No id"},
    ]
    made = await gateway.post(PATH, {"documents": documents})
    assert made.status_code == 201
    first, second = made.json()["documents"]
    assert first == {"id": "a", "chunks": 1, "status": "indexed"}
    assert len(second["id"]) == 32
    header = gateway.mesh.preprocess.headers[0]
    assert (header.filename, header.content_type, header.title) == ("a.md", "text/markdown", "Tea")
    assert (header.chunking.max_tokens, header.chunking.overlap_tokens) == (200, 20)
    assert (await gateway.client.get(f"{PATH}/a")).json()["source"] == "http://x/"
    assert (await gateway.client.get(f"{PATH}/{second['id']}")).json()["title"] == second["id"]


async def test_tokenizer_is_sent_when_asked_for(gateway):
    await gateway.collection()
    await gateway.post(PATH, {"documents": [{"id": "a", "text": "A"}]})
    assert gateway.mesh.preprocess.tokenizer == TOKENIZER
    gateway.mesh.preprocess.tokenizer = b""
    await gateway.post(PATH, {"documents": [{"id": "b", "text": "B"}]})
    assert gateway.mesh.retrieve.tokenizers_sent == 1


async def test_one_bad_document_refuses_the_call(gateway):
    await gateway.collection()
    files = [("file", ("good.md", b"Good")), ("file", ("bad.pdf", b"LOCKED"))]
    response = await gateway.client.post(PATH, files=files)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "encrypted_document"
    assert error["message"].startswith("bad.pdf: ")
    texts = [{"id": "a", "text": "Good"}, {"id": "b", "text": " "}]
    error = (await gateway.post(PATH, {"documents": texts})).json()["error"]
    assert error["param"] == "documents[1]"
    assert error["code"] == "empty_document"
    assert (await gateway.client.get(PATH)).json()["documents"] == []


async def test_pages(gateway):
    await gateway.collection()
    texts = [{"id": f"d{number}", "text": "x"} for number in range(5)]
    await gateway.post(PATH, {"documents": texts})
    ids, after = [], ""
    while True:
        page = (await gateway.client.get(PATH, params={"limit": 2, "after": after})).json()
        ids += [each["id"] for each in page["documents"]]
        after = page["next"]
        if after is None:
            break
    assert ids == ["d0", "d1", "d2", "d3", "d4"]


async def test_limits(tmp_path):
    async with running(
        tmp_path, max_documents=2, max_document_bytes=2000, max_upload_bytes=20_000,
        max_json_bytes=1024,
    ) as gateway:  # fmt: skip
        await gateway.collection()
        client = gateway.client
        large = await client.post(PATH, files=[("file", ("big.md", b"x" * 3000))])
        assert large.status_code == 413
        assert "big.md" in large.json()["error"]["message"]
        many = [("file", (f"{number}.md", b"x")) for number in range(3)]
        assert (await client.post(PATH, files=many)).status_code == 413
        texts = [{"id": str(number), "text": "x"} for number in range(3)]
        assert (await gateway.post(PATH, {"documents": texts})).status_code == 413
        body = b"x" * 30_000

        async def pieces():
            for start in range(0, len(body), 1000):
                yield body[start : start + 1000]

        headers = {"content-type": "application/json"}
        announced = await client.post(PATH, content=body, headers=headers)
        streamed = await client.post(PATH, content=pieces(), headers=headers)
        small = await client.post("/v1/query", content=b" " * 2000, headers=headers)
        for response in (announced, streamed, small):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"
