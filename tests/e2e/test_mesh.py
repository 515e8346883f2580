"""The mesh as its users meet it: real processes, real documents, every face."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ragmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from ragmesh.preprocess.v1 import preprocess_pb2, preprocess_pb2_grpc
from tests.e2e.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
QUESTIONS: list[dict[str, Any]] = json.loads((SAMPLES / "questions.json").read_bytes())
PROTO_SERVICES = {
    "gateway": "ragmesh.gateway.v1.RagService",
    "preprocess": "ragmesh.preprocess.v1.PreprocessService",
    "retrieve": "ragmesh.retrieve.v1.RetrieveService",
    "infer": "ragmesh.infer.v1.InferService",
    "postprocess": "ragmesh.postprocess.v1.PostprocessService",
}


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_the_demo_answers_in_both_languages(mesh: Mesh) -> None:
    answers = {entry["question"]: entry for entry in mesh.announcement["demo"]["answers"]}
    asked = [entry for entry in QUESTIONS if entry.get("demo")]
    assert {entry["lang"] for entry in asked} == {"en", "ja"}
    for entry in asked:
        answer = answers[entry["question"]]
        for part in entry["answer_contains"]:
            assert squeezed(part) in squeezed(answer["answer"])
        cited = {(citation["source"], citation["page"]) for citation in answer["citations"]}
        assert (entry["document"], entry["page"]) in cited
        assert 0 < answer["confidence"] <= 1


@pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry["question"][:40])
def test_a_newcomers_question_has_a_true_answer(mesh: Mesh, entry: dict[str, Any]) -> None:
    with mesh.client() as client:
        body = {"query": entry["question"], "collection": "samples"}
        answer = client.post("/v1/query", json=body).raise_for_status().json()
    for part in entry["answer_contains"]:
        assert squeezed(part) in squeezed(answer["answer"]), answer
    assert entry["document"] in {citation["source"] for citation in answer["citations"]}


def test_the_printed_curl_line_works(mesh: Mesh) -> None:
    done = subprocess.run(
        ["bash", "-c", mesh.announcement["curl"]], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["citations"]


def test_five_processes_answer_health_and_reflection(mesh: Mesh) -> None:
    assert len({mesh.pid(name) for name in PROTO_SERVICES}) == 5
    for name, service in PROTO_SERVICES.items():
        with grpc.insecure_channel(mesh.target(name)) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for asked in ("", service):
                request = health_pb2.HealthCheckRequest(service=asked)
                assert health.Check(request, timeout=5).status == 1, (name, asked)
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            [answer] = list(reflection.ServerReflectionInfo(iter([listing]), timeout=5))
            listed = {entry.name for entry in answer.list_services_response.service}
            assert {service, "grpc.health.v1.Health"} <= listed


def test_only_the_owner_reads_what_users_wrote(mesh: Mesh) -> None:
    stores = [*mesh.data.glob("gateway.db*"), *(mesh.data / "retrieve").rglob("*")]
    assert len(stores) > 3
    assert not [path for path in stores if path.stat().st_mode & 0o077]


def test_documents_come_in_by_both_ways_and_once(mesh: Mesh) -> None:
    mesh.collection("ways")
    path = "/v1/collections/ways/documents"
    upload = {"file": ("note.md", b"# Owls\n\nThe barn owl hunts at night.", "text/markdown")}
    entries = {"documents": [{"id": "fox", "title": "Fox", "text": "The red fox digs a den."}]}
    with mesh.client() as client:
        first = client.post(path, files=upload)
        assert first.status_code == 201, first.text
        assert [(d["id"], d["status"]) for d in first.json()["documents"]] == [
            ("note.md", "indexed")
        ]
        again = client.post(path, files=upload).json()["documents"]
        assert [(d["id"], d["status"]) for d in again] == [("note.md", "unchanged")]
        assert client.post(path, json=entries).status_code == 201
        entries["documents"][0]["text"] = "The red fox digs a deep burrow."
        changed = client.post(path, json=entries).json()["documents"]
        assert [d["status"] for d in changed] == ["replaced"]
        body = {"query": "fox burrow", "collection": "ways"}
        hits = client.post("/v1/search", json=body).json()["hits"]
        assert hits[0]["document_id"] == "fox"
        assert not any("den" in hit["text"].split() for hit in hits)
        assert client.delete(f"{path}/fox").is_success
        hits = client.post("/v1/search", json=body).json()["hits"]
        assert all(hit["document_id"] != "fox" for hit in hits)


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp", "utf-16"])
def test_japanese_encodings_are_read(mesh: Mesh, encoding: str) -> None:
    mesh.collection("encodings")
    text = f"文字コード {encoding} の試験です。吾輩は猫である。名前はまだ無い。\n" * 4
    with mesh.client() as client:
        files = {"file": (f"{encoding}.txt", text.encode(encoding), "text/plain")}
        answer = client.post("/v1/collections/encodings/documents", files=files)
        assert answer.status_code == 201, answer.text
        path = f"/v1/collections/encodings/documents/{encoding}.txt/chunks"
        chunks = client.get(path).raise_for_status().text
        assert "吾輩は猫である" in chunks


def test_a_line_of_three_megabytes_is_read(mesh: Mesh) -> None:
    """By preprocess, which is where a long line hurts: embedding it all would take minutes."""
    line = ("The lighthouse keeper counts ships. " * 90_000)[: 3 * 1024 * 1024].encode()

    def frames() -> Iterator[preprocess_pb2.ProcessDocumentRequest]:
        chunking = preprocess_pb2.Chunking(max_tokens=200)
        header = preprocess_pb2.DocumentHeader(filename="line.txt", chunking=chunking)
        yield preprocess_pb2.ProcessDocumentRequest(header=header)
        for start in range(0, len(line), 65_536):
            piece = line[start : start + 65_536]
            yield preprocess_pb2.ProcessDocumentRequest(data=piece)

    with grpc.insecure_channel(mesh.target("preprocess")) as channel:
        stub: Any = preprocess_pb2_grpc.PreprocessServiceStub(channel)  # type: ignore[arg-type]
        metadata = (("x-ragmesh-tenant", "e2e"),)
        answers = list(stub.ProcessDocument(frames(), metadata=metadata, timeout=60))
    [document] = [answer.document for answer in answers if answer.HasField("document")]
    chunks = [chunk for answer in answers for chunk in answer.chunks.chunks]
    assert document.characters == len(line)
    assert chunks[0].start == 0
    assert chunks[-1].end >= len(line.rstrip())
    assert all(chunk.tokens <= 200 for chunk in chunks)


def test_the_openai_client_works(mesh: Mesh) -> None:
    with openai.OpenAI(
        base_url=f"{mesh.url}/v1", api_key=mesh.admin_token, max_retries=0
    ) as client:
        assert {"default", "default-embedding"} <= {model.id for model in client.models.list()}
        messages: Any = [{"role": "user", "content": "Say something about owls, please."}]
        chat = client.chat.completions.create(model="default", messages=messages)
        assert chat.choices[0].message.content
        assert chat.usage is not None
        chunks = list(
            client.chat.completions.create(
                model="default",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert chunks[0].choices[0].delta.role == "assistant"
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == chat.choices[0].message.content
        finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert finishes[-1] == "stop"
        made = client.embeddings.create(model="default-embedding", input=["owl", "梟"])
        assert [len(entry.embedding) for entry in made.data] == [384, 384]


def test_a_chat_with_retrieval_cites(mesh: Mesh) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "Which gRPC port does the retrieve service use?"}],
        "retrieval": {"collection": "samples"},
    }
    with mesh.client() as client:
        answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    message = answer["choices"][0]["message"]
    assert "50052" in message["content"]
    assert "services.md" in {citation["source"] for citation in message["citations"]}


def test_a_streamed_query_ends_with_the_answer(mesh: Mesh) -> None:
    body = {"query": "Which gRPC port does the retrieve service use?", "collection": "samples"}
    with mesh.client() as client:
        plain = client.post("/v1/query", json=body).json()
        with client.stream("POST", "/v1/query", json=body | {"stream": True}) as answer:
            text = answer.read().decode()
    events = [
        dict(line.split(": ", 1) for line in part.split("\n") if ": " in line[1:])
        for part in text.strip().split("\n\n")
    ]
    names = [event["event"] for event in events]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"delta"}
    done = json.loads(events[-1]["data"])
    assert done["answer"] == plain["answer"]
    assert done["citations"] == plain["citations"]


def test_a_grpc_caller_gets_the_same_answer(mesh: Mesh) -> None:
    entry = next(entry for entry in QUESTIONS if entry.get("demo") and entry["lang"] == "ja")
    with mesh.client() as client:
        body = {"query": entry["question"], "collection": "samples"}
        rest = client.post("/v1/query", json=body).raise_for_status().json()
    request = gateway_pb2.QueryRequest(
        query=entry["question"], retrieval=gateway_pb2.Retrieval(collection="samples")
    )
    metadata = (("authorization", f"Bearer {mesh.admin_token}"),)
    with grpc.insecure_channel(mesh.target("gateway")) as channel:
        stub: Any = gateway_pb2_grpc.RagServiceStub(channel)  # type: ignore[arg-type]
        answer = stub.Query(request, metadata=metadata, timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Query(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert answer.answer == rest["answer"]
    assert answer.confidence == pytest.approx(rest["confidence"])
    told = [
        MessageToDict(citation, preserving_proto_field_name=True) for citation in answer.citations
    ]
    assert [entry["quote"] for entry in told] == [entry["quote"] for entry in rest["citations"]]


def test_tenants_do_not_see_each_other(mesh: Mesh) -> None:
    mesh.collection("private", secret="The vault opens at dawn.")
    with mesh.client(mesh.token("rival")) as client:
        assert client.get("/v1/collections/private").status_code == 404
        body = {"query": "vault", "collection": "private"}
        assert client.post("/v1/search", json=body).status_code == 404
        assert client.post("/v1/query", json=body).status_code == 404
        path = "/v1/collections/private/documents"
        assert client.post(path, json={"documents": [{"id": "x", "text": "x"}]}).status_code == 404
        assert client.delete("/v1/collections/private").status_code == 404
        assert "private" not in client.get("/v1/collections").text


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_who_may_not_is_told(mesh: Mesh) -> None:
    body = {"query": "owl", "collection": "samples"}
    anonymous = httpx.post(f"{mesh.url}/v1/query", json=body, trust_env=False)
    assert error_of(anonymous, 401)["code"] == "token_missing"
    with mesh.client("abc.def.ghi") as client:
        assert error_of(client.post("/v1/query", json=body), 401)["code"] == "token_invalid"
    with mesh.client(mesh.token(scopes="search")) as client:
        assert client.post("/v1/search", json=body).is_success
        assert error_of(client.post("/v1/query", json=body), 403)["code"] == "scope_missing"
        error_of(client.post("/v1/collections", json={"name": "x"}), 403)
    for path in ("/health/live", "/docs", "/openapi.json", "/"):
        assert httpx.get(f"{mesh.url}{path}", trust_env=False).is_success, path


@pytest.mark.parametrize("query", ["", " ", "q" * 8001])
def test_an_empty_or_long_query_is_refused_by_name(mesh: Mesh, query: str) -> None:
    with mesh.client() as client:
        for route in ("/v1/query", "/v1/search"):
            answer = client.post(route, json={"query": query, "collection": "samples"})
            assert error_of(answer, 400)["param"] == "query"


def test_an_unknown_field_is_refused_by_name(mesh: Mesh) -> None:
    with mesh.client() as client:
        body = {"query": "owl", "collection": "samples", "colour": "red"}
        assert error_of(client.post("/v1/query", json=body), 400)["param"] == "colour"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.txt", b""),
        ("empty.pdf", b""),
        ("broken.pdf", b"%PDF-1.7\nnot really"),
        ("broken.docx", b"PK\x03\x04nothing"),
        ("program.exe", b"MZ\x90\x00" + bytes(range(256)) * 8),
    ],
)
def test_a_bad_file_is_refused_by_name_and_nothing_is_indexed(
    mesh: Mesh, name: str, content: bytes
) -> None:
    mesh.collection("refusals")
    path = "/v1/collections/refusals/documents"
    files = [
        ("file", ("good.txt", b"A good file beside a bad one.", "text/plain")),
        ("file", (name, content, "application/octet-stream")),
    ]
    with mesh.client() as client:
        answer = client.post(path, files=files)
        assert 400 <= answer.status_code < 500, answer.text
        assert name in answer.json()["error"]["message"]
        listed = client.get(path).raise_for_status().text
    assert "good.txt" not in listed
    assert name not in listed


def test_a_second_up_on_the_same_data_is_refused(mesh: Mesh) -> None:
    done = mesh.command("up", "--foreground", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "already_running"
    assert mesh.is_ready()


def test_the_operators_commands(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "owl.md").write_text("# Owls\n\nThe snowy owl nests on the tundra.\n")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7 not really")
    done = mesh.command("ingest", str(tmp_path), "-c", "birds", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["indexed"], report["failed"]) == (1, 1)
    assert report["errors"][0]["file"].endswith("bad.pdf")
    asked = mesh.command("ask", "Where does the snowy owl nest?", "-c", "birds")
    assert "tundra" in asked.stdout, asked.stderr
    assert "[1] owl.md" in asked.stdout
    assert "\x1b[" not in asked.stdout
    found = json.loads(mesh.command("search", "snowy owl", "-c", "birds", "--json").stdout)
    assert found["hits"][0]["source"] == "owl.md"
    assert json.loads(mesh.command("models", "--json").stdout)["data"]
    status = mesh.command("status", "--json")
    assert status.returncode == 0
    assert json.loads(status.stdout)["serving"] is True


def test_two_meshes_run_side_by_side(mesh: Mesh, slow_mesh: Mesh) -> None:
    assert mesh.is_ready()
    assert slow_mesh.is_ready()
    with slow_mesh.client(mesh.admin_token) as client:
        assert client.get("/v1/models").status_code == 401
