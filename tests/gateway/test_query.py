"""/v1/query, /v1/search and sessions."""

import json

from gateway.hits import HitsView
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import passage_pb2
from services.runtime.errors import Unavailable
from tests.gateway.conftest import running, token
from tests.gateway.mesh import answer, delta, finish, started, usage

QUESTION = {"query": "Is tea hot?", "collection": "docs"}


def events(body: bytes) -> list[tuple[str, dict]]:
    """Named events of a stream."""
    parsed = []
    for block in body.decode().split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n", 1)
            parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


async def test_answer(gateway):
    await gateway.collection()
    response = await gateway.post("/v1/query", QUESTION)
    assert response.status_code == 200
    body = response.json()
    timings = body.pop("timings")
    assert body == {
        "answer": "Tea is hot [1].",
        "citations": [
            {
                "marker": 1,
                "document_id": "tea",
                "chunk_id": "tea-0",
                "source": "tea.pdf",
                "title": "Tea",
                "page": 2,
                "heading": "Top > Sub",
                "quote": "Tea is hot.",
                "score": 1.0,
            }
        ],
        "confidence": 0.75,
        "model": "fake/echo",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    assert set(timings) == {"preprocess", "retrieve", "infer", "postprocess", "total"}
    for hop in timings:
        assert f"{hop};dur=" in response.headers["server-timing"]
    search = gateway.mesh.retrieve.searches[-1]
    assert (search.query, search.language, search.top_k) == ("is tea hot?", "en", 5)
    generate = gateway.mesh.infer.requests[-1]
    assert [each.marker for each in generate.passages] == [1, 2]
    assert not generate.stream


async def test_stream(gateway):
    await gateway.collection()
    response = await gateway.post("/v1/query", {**QUESTION, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["transfer-encoding"] == "chunked"
    got = events(response.content)
    assert [name for name, _ in got] == ["sources", "delta", "delta", "done"]
    assert [each["marker"] for each in got[0][1]["sources"]] == [1, 2]
    assert got[0][1]["sources"][0]["metadata"] == {"year": 2024, "ratio": 0.5, "tags": ["a", "b"]}
    assert [data["text"] for name, data in got if name == "delta"] == ["Tea is ", "hot [1]."]
    assert got[-1][1]["answer"] == "Tea is hot [1]."
    assert got[-1][1]["citations"][0]["page"] == 2


async def test_unanswered_cites_nothing(gateway):
    await gateway.collection()
    gateway.mesh.infer.script = [started(), delta("No idea [1]."), finish(unanswered=True), usage()]
    body = (await gateway.post("/v1/query", QUESTION)).json()
    assert body["citations"] == []
    assert body["confidence"] == 0


async def test_nothing_found_is_unanswered(gateway):
    await gateway.collection()
    gateway.mesh.retrieve.found = []
    await gateway.post("/v1/query", QUESTION)
    assert gateway.mesh.postprocess.requests[-1].unanswered


async def test_failure_before_the_first_piece_has_a_status(gateway):
    await gateway.collection()
    gateway.mesh.infer.script = [
        started(),
        Unavailable("ENGINE_OVERLOADED", "Busy.", retry_after=2),
    ]
    response = await gateway.post("/v1/query", {**QUESTION, "stream": True})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert response.json()["error"]["code"] == "engine_overloaded"


async def test_failure_after_the_first_piece_ends_the_stream(gateway):
    await gateway.collection()
    gateway.mesh.infer.script = [
        started(),
        delta("Tea"),
        Unavailable("ENGINE_UNAVAILABLE", "Gone."),
    ]
    response = await gateway.post("/v1/query", {**QUESTION, "stream": True})
    got = events(response.content)
    assert [name for name, _ in got] == ["sources", "delta", "error"]
    assert got[-1][1]["error"]["code"] == "engine_unavailable"


async def test_session_gives_history(gateway):
    await gateway.collection()
    await gateway.post("/v1/query", {**QUESTION, "session_id": "s1"})
    gateway.mesh.infer.script = answer("Yes [1].")
    await gateway.post("/v1/query", {**QUESTION, "query": "and cold?", "session_id": "s1"})
    assert [each.query for each in gateway.mesh.preprocess.plans] == [
        "Is tea hot?",
        "and cold?",
        "standalone question",
    ]
    history = gateway.mesh.preprocess.plans[1].history
    assert [each.content[0].text for each in history] == ["Is tea hot?", "Tea is hot [1]."]
    stored = (await gateway.client.get("/v1/sessions/s1")).json()
    assert [(turn["question"], turn["answer"]) for turn in stored["turns"]] == [
        ("Is tea hot?", "Tea is hot [1]."),
        ("and cold?", "Yes [1]."),
    ]


async def test_rewrite_that_fails_falls_back(gateway):
    await gateway.collection()
    await gateway.post("/v1/query", {**QUESTION, "session_id": "s1"})
    gateway.mesh.infer.rewritten = Unavailable("ENGINE_UNAVAILABLE", "Gone.")
    await gateway.post("/v1/query", {**QUESTION, "query": "and cold?", "session_id": "s1"})
    assert gateway.mesh.retrieve.searches[-1].query == "fallback"


async def test_sessions_belong_to_their_tenant(gateway):
    await gateway.collection()
    await gateway.post("/v1/query", {**QUESTION, "session_id": "s1"})
    other = {"authorization": f"Bearer {token(tenant='other')}"}
    response = await gateway.client.get("/v1/sessions/s1", headers=other)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "session_not_found"
    assert (await gateway.client.delete("/v1/sessions/s1", headers=other)).status_code == 404
    deleted = await gateway.client.delete("/v1/sessions/s1")
    assert deleted.json() == {"id": "s1", "deleted": True}
    assert (await gateway.client.get("/v1/sessions/s1")).status_code == 404


async def test_sessions_survive_a_restart(tmp_path):
    async with running(tmp_path) as gateway:
        await gateway.collection()
        await gateway.post("/v1/query", {**QUESTION, "session_id": "s1"})
    async with running(tmp_path) as gateway:
        assert len((await gateway.client.get("/v1/sessions/s1")).json()["turns"]) == 1


async def test_hits(gateway):
    await gateway.collection()
    response = await gateway.post("/v1/search", {"query": "Tea", "collection": "docs", "top_k": 3})
    hits = response.json()["hits"]
    assert hits[0] == {
        "document_id": "tea",
        "chunk_id": "tea-0",
        "text": "Tea is hot.",
        "source": "tea.pdf",
        "title": "Tea",
        "page": 2,
        "heading": "Top > Sub",
        "metadata": {"year": 2024, "ratio": 0.5, "tags": ["a", "b"]},
        "language": "en",
        "score": 0.5,
        "ranks": {"dense": 1, "sparse": None},
        "scores": {"dense": None, "sparse": None},
        "highlights": None,
        "neighbors": None,
        "explanation": None,
    }
    assert set(response.json()) == {"hits"}
    assert hits[1]["page"] is None
    assert gateway.mesh.retrieve.searches[-1].top_k == 3


async def test_filter_reaches_retrieve(gateway):
    await gateway.collection()
    filter = {"language": "ja", "year": {"gte": 2020}, "not": {"source": ["a.pdf", "b.pdf"]}}
    await gateway.post("/v1/search", {"query": "Tea", "collection": "docs", "filter": filter})
    made = gateway.mesh.retrieve.searches[-1].filter
    assert [each.field for each in made.must] == ["language", "metadata.year"]
    assert made.must[1].range.gte == 2020
    assert len(made.must_not[0].group.must[0].any_of.values) == 2


async def test_wishes_reach_retrieve_and_come_back(gateway):
    await gateway.collection()
    gateway.mesh.retrieve.answer = retrieve_pb2.SearchResponse(
        hits=[
            retrieve_pb2.Hit(
                passage=passage_pb2.Passage(text="Tea is hot."),
                sparse_score=2.5,
                highlights=retrieve_pb2.Highlights(terms=[retrieve_pb2.TextSpan(start=0, end=3)]),
                after=[passage_pb2.Passage(chunk_id="tea-1", text="More.")],
                explanation=retrieve_pb2.HitExplanation(
                    matched_terms=["tea"],
                    coverage=1.0,
                    query_ranks=[retrieve_pb2.QueryRank(rank=1), retrieve_pb2.QueryRank()],
                ),
            )
        ],
        explanation=retrieve_pb2.SearchExplanation(
            queries=[
                retrieve_pb2.QueryExplanation(
                    query="Tea",
                    language="en",
                    weights=retrieve_pb2.ArmWeights(dense=0.0, sparse=1.0),
                    dense_left_out="mode is sparse",
                )
            ],
            candidates=7,
        ),
    )
    response = await gateway.post(
        "/v1/search",
        {
            "queries": ["Tea", "熱い お茶"], "collection": "docs", "mode": "sparse",
            "diversity": 0.5, "group_by": "document", "group_size": 2, "min_score": 0.0,
            "relevant_only": True, "highlights": True, "neighbors": 1, "explain": True,
        },
    )  # fmt: skip
    asked = gateway.mesh.retrieve.searches[-1]
    assert (asked.query, asked.language, list(asked.queries)) == ("", "", ["tea", "熱い お茶"])
    assert (asked.diversity, asked.group_by, asked.group_size) == (
        0.5, retrieve_pb2.GROUP_BY_DOCUMENT, 2,
    )  # fmt: skip
    assert asked.HasField("min_score")
    assert (asked.relevant_only, asked.highlights, asked.neighbors, asked.explain) == (
        True, True, 1, True,
    )  # fmt: skip
    made = response.json()
    (hit,) = made["hits"]
    assert hit["scores"] == {"dense": None, "sparse": 2.5}
    assert hit["highlights"] == {"terms": [{"start": 0, "end": 3}], "sentences": []}
    assert hit["neighbors"]["before"] == []
    assert [one["chunk_id"] for one in hit["neighbors"]["after"]] == ["tea-1"]
    assert hit["explanation"] == {
        "matched_terms": ["tea"], "coverage": 1.0, "query_ranks": [1, None],
    }  # fmt: skip
    assert made["explanation"] == {
        "queries": [
            {
                "query": "Tea",
                "language": "en",
                "weights": {"dense": 0.0, "sparse": 1.0},
                "left_out": {"dense": "mode is sparse"},
            }
        ],
        "candidates": 7,
    }
    HitsView.model_validate(made)


async def test_a_question_may_ask_for_diverse_and_relevant_passages(gateway):
    await gateway.collection()
    wishes = {"diversity": 0.5, "group_by": "document", "relevant_only": True, "min_score": 0.1}
    await gateway.post("/v1/query", {**QUESTION, **wishes})
    asked = gateway.mesh.retrieve.searches[-1]
    assert (asked.diversity, asked.relevant_only, asked.min_score) == (0.5, True, 0.1)
    assert asked.group_by == retrieve_pb2.GROUP_BY_DOCUMENT
