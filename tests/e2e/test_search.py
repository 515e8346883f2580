"""Searches as users ask for them, over REST and RagService, in a whole mesh."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from ragmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from tests.e2e.mesh import Mesh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COLLECTION = "dated"
DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "spring",
        "title": "Spring",
        "text": "The maintenance window moves to Sunday night. Backups run before it.",
        "metadata": {"when": "2026-03-20", "tags": ["ops"], "version": 3},
    },
    {
        "id": "autumn",
        "title": "Autumn",
        "text": "The maintenance window moves to Monday. Backups run after it.",
        "metadata": {"when": "2026-10-01T09:00:00+09:00", "tags": ["ops", "jp"], "version": 4},
    },
    {
        "id": "nihongo",
        "title": "保守",
        "text": "保守時間帯は日曜の夜に変わります。バックアップはその前に実行します。",
        "metadata": {"when": ["2026-11-20", "未定"], "version": 4},
    },
]


@pytest.fixture(scope="module")
def dated(mesh: Mesh) -> Iterator[Mesh]:
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": COLLECTION}).raise_for_status()
        path = f"/v1/collections/{COLLECTION}/documents"
        client.post(path, json={"documents": DOCUMENTS}).raise_for_status()
        yield mesh
        client.delete(f"/v1/collections/{COLLECTION}").raise_for_status()


def search(mesh: Mesh, **body: Any) -> Any:
    with mesh.client() as client:
        response = client.post("/v1/search", json={"collection": COLLECTION, **body})
        return response.raise_for_status().json()


def ids(found: Any) -> set[str]:
    return {hit["document_id"] for hit in found["hits"]}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"when": {"gte": "2026-10-01"}}, {"autumn", "nihongo"}),
        ({"when": {"lt": "2026-10-01T00:00:00Z"}}, {"spring"}),
        ({"when": {"gt": "2026-10-01T00:00:00Z"}}, {"nihongo"}),
        ({"metadata.when": {"gte": "2026-11-20T00:00:00.5Z"}}, set()),
        ({"version": {"gte": 4}, "tags": "ops"}, {"autumn"}),
        ({"version": [3, 5]}, {"spring"}),
        ({"document_id": ["spring", "nihongo"], "not": {"language": "ja"}}, {"spring"}),
    ],
)
def test_filters(dated: Mesh, condition: dict[str, Any], found: set[str]) -> None:
    queries = ["maintenance window", "保守時間帯"]
    assert ids(search(dated, queries=queries, filter=condition)) == found


def test_everything_about_a_hit(dated: Mesh) -> None:
    found = search(
        dated, query="When does the maintenance window begin?", highlights=True, explain=True,
        neighbors=1, relevant_only=True, diversity=0.2, group_by="document",
    )  # fmt: skip
    assert {"spring", "autumn"} <= ids(found)
    hit = found["hits"][0]
    words = [hit["text"][one["start"] : one["end"]] for one in hit["highlights"]["terms"]]
    assert words[:2] == ["maintenance", "window"]
    (sentence,) = hit["highlights"]["sentences"]
    assert hit["text"][sentence["start"] : sentence["end"]].startswith("The maintenance window")
    assert hit["scores"]["sparse"] > 0
    assert hit["neighbors"] == {"before": [], "after": []}
    assert {"maintenance", "window"} <= set(hit["explanation"]["matched_terms"])
    (query,) = found["explanation"]["queries"]
    assert query["language"] == "en"


def test_nothing_relevant_is_an_empty_list(dated: Mesh) -> None:
    assert search(dated, query="Who painted the Mona Lisa?")["hits"]
    for query in ("Who painted the Mona Lisa?", "日曜の絵画教室と量子力学の観測問題"):
        assert search(dated, query=query, relevant_only=True)["hits"] == []


async def test_ragservice_has_the_same_wishes(dated: Mesh) -> None:
    async with grpc.aio.insecure_channel(dated.target("gateway")) as channel:
        stub = gateway_pb2_grpc.RagServiceStub(channel)
        answer = await stub.Search(
            gateway_pb2.SearchRequest(
                queries=["maintenance window", "保守時間帯"],
                retrieval=gateway_pb2.Retrieval(collection=COLLECTION, relevant_only=True),
                explain=True,
            ),
            metadata=[("authorization", f"Bearer {dated.admin_token}")],
        )
    assert {hit.passage.document_id for hit in answer.hits} == {"spring", "autumn", "nihongo"}
    assert [one.language for one in answer.explanation.queries] == ["en", "ja"]
    assert len(answer.hits[0].explanation.query_ranks) == 2
