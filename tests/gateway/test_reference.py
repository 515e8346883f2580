"""The reference says what the code does."""

import pytest
from pydantic import BaseModel

from gateway import docs, hits, reranking, schemas, views
from gateway.app import routes
from gateway.filters import to_filter
from gateway.openapi import api_routes, body_of, scopes_of
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import passage_pb2
from services.runtime.errors import InvalidArgument

ANSWERED = gateway_pb2.QueryResponse(rerank=retrieve_pb2.Reranking())


def test_reference_is_in_sync():
    assert docs.TARGET.read_text(encoding="utf-8") == docs.reference(), (
        "docs/api.md is old: run `python -m gateway.docs`"
    )


def test_every_v1_route_needs_a_token():
    for route in api_routes(routes()):
        assert (scopes_of(route) is not None) == route.path.startswith("/v1/"), route.path


def test_every_body_is_in_the_document():
    document = routes().openapi()
    for route in api_routes(routes()):
        body = body_of(route)
        if body is not None:
            assert body.__name__ in document["components"]["schemas"]
            (method,) = sorted(route.methods or ())
            operation = document["paths"][route.path_format][method.lower()]
            assert "requestBody" in operation


@pytest.mark.parametrize(
    ("view", "made"),
    [
        (schemas.AnswerView, views.answer(ANSWERED)),
        (schemas.RerankingView, reranking.reranking(retrieve_pb2.Reranking())),
        (schemas.CitationView, views.citation(passage_pb2.Citation())),
        (hits.HitView, views.hit(retrieve_pb2.Hit())),
        (schemas.CollectionView, views.collection(retrieve_pb2.Collection())),
        (schemas.DocumentView, views.document(retrieve_pb2.Document())),
        (schemas.ChunkView, views.chunk(passage_pb2.Passage())),
        (schemas.IngestedView, views.ingested(gateway_pb2.IngestResult())),
        (schemas.ModelView, views.model(gateway_pb2.Model(), 0)),
    ],
)
def test_views_have_the_documented_fields(view: type[BaseModel], made: dict):
    view.model_validate(made)
    assert set(made) == set(view.model_fields)


@pytest.mark.parametrize(
    "filter",
    [
        {"year": None},
        {"year": {}},
        {"year": {"gte": "soon"}},
        {"year": {"gte": 1, "lte": "2020-01-01"}},
        {"year": {"gte": True}},
        {"tags": []},
        {"tags": [None]},
        {"tags": [["a"]]},
        {"year": {"gte": "2026-11-21T9:00"}},
        {"": 1},
        {"metadata.": 1},
        {"not": 1},
        {"not": {}},
        {"any": []},
        {"all": [1]},
        {"tags": list(range(3)), "any": [{"a": number} for number in range(300)]},
    ],
)
def test_wrong_filters(filter):
    with pytest.raises(InvalidArgument) as caught:
        to_filter(filter)
    assert caught.value.reason == "FILTER_INVALID"


def test_filters():
    made = to_filter(
        {
            "language": "ja",
            "draft": False,
            "published": {"gte": "2026-11-21", "lt": "2026-11-22T09:00:00Z"},
            "any": [{"page": 1}, {"metadata.a.b": [1, "x"]}],
            "not": [{"source": "a.pdf"}, {"source": "b.pdf"}],
            "all": [{"any": [{"x": 1}, {"y": 2}]}],
        }
    )
    assert [each.field for each in made.must[:3]] == [
        "language",
        "metadata.draft",
        "metadata.published",
    ]
    assert made.must[1].equals.WhichOneof("kind") == "bool_value"
    assert made.must[2].datetime_range.lt == "2026-11-22T09:00:00Z"
    assert [each.group.must[0].field for each in made.should] == ["page", "metadata.a.b"]
    assert len(made.must_not) == 2
    assert len(made.must[3].group.should) == 2
