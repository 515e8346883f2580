"""Messages of the protos as the JSON that REST clients see."""

from collections.abc import Iterable
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.responses import Response

from gateway.freeform import from_struct
from gateway.ingest import Meter
from gateway.reranking import reranking
from gateway.store.sessions import StoredSession
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import chat_pb2, passage_pb2

STATUSES = {
    retrieve_pb2.INDEX_STATUS_INDEXED: "indexed",
    retrieve_pb2.INDEX_STATUS_REPLACED: "replaced",
    retrieve_pb2.INDEX_STATUS_UNCHANGED: "unchanged",
}

View = dict[str, Any]


def json_response(payload: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(payload), status, media_type="application/json")


def usage(message: chat_pb2.Usage) -> View:
    view: View = {
        "prompt_tokens": message.prompt_tokens,
        "completion_tokens": message.completion_tokens,
        "total_tokens": message.prompt_tokens + message.completion_tokens,
    }
    if message.cached_tokens:
        view["prompt_tokens_details"] = {"cached_tokens": message.cached_tokens}
    if message.estimated:
        view["estimated"] = True
    return view


def citation(message: passage_pb2.Citation) -> View:
    return {
        "marker": message.marker,
        "document_id": message.document_id,
        "chunk_id": message.chunk_id,
        "source": message.source,
        "title": message.title,
        "page": message.page if message.HasField("page") else None,
        "heading": message.heading,
        "quote": message.quote,
        "score": message.score,
    }


def cited(message: gateway_pb2.Citations) -> View:
    """What a chat with retrieval carries besides its text."""
    view: View = {"citations": [citation(each) for each in message.citations]}
    if message.HasField("rerank"):
        view["rerank"] = reranking(message.rerank)
    return view


def answer(message: gateway_pb2.QueryResponse) -> View:
    view: View = {
        "answer": message.answer,
        "citations": [citation(cited) for cited in message.citations],
        "confidence": message.confidence,
        "model": message.model,
        "usage": usage(message.usage),
        "timings": dict(message.timings),
    }
    if message.HasField("rerank"):
        view["rerank"] = reranking(message.rerank)
    return view


def passage(message: passage_pb2.Passage) -> View:
    return {
        "document_id": message.document_id,
        "chunk_id": message.chunk_id,
        "text": message.text,
        "source": message.source,
        "title": message.title,
        "page": message.page if message.HasField("page") else None,
        "heading": message.heading,
        "metadata": from_struct(message.metadata),
        "language": message.language,
        "score": message.score,
    }


def sources(message: gateway_pb2.Sources) -> View:
    """What was retrieved, each with the marker that the answer may cite it by."""
    view: View = {
        "sources": [{"marker": each.marker, **passage(each)} for each in message.passages]
    }
    if message.HasField("rerank"):
        view["rerank"] = reranking(message.rerank)
    return view


def hits(message: retrieve_pb2.SearchResponse | gateway_pb2.SearchResponse, neighbors: int) -> View:
    """The hits of a search that asked for so many neighbours."""
    view: View = {"hits": [hit(one, neighbors) for one in message.hits]}
    if message.HasField("explanation"):
        view["explanation"] = {
            "queries": [_query_explanation(one) for one in message.explanation.queries],
            "candidates": message.explanation.candidates,
        }
    if message.HasField("rerank"):
        view["rerank"] = reranking(message.rerank)
    return view


def hit(message: retrieve_pb2.Hit, neighbors: int = 0) -> View:
    around = {"before": message.before, "after": message.after} if neighbors else None
    return {
        **passage(message.passage),
        "ranks": {
            "dense": message.dense_rank if message.HasField("dense_rank") else None,
            "sparse": message.sparse_rank if message.HasField("sparse_rank") else None,
        },
        "scores": {
            "dense": message.dense_score if message.HasField("dense_score") else None,
            "sparse": message.sparse_score if message.HasField("sparse_score") else None,
            **({"rerank": message.rerank_score} if message.HasField("rerank_score") else {}),
        },
        "highlights": {
            "terms": _spans(message.highlights.terms),
            "sentences": _spans(message.highlights.sentences),
        }
        if message.HasField("highlights")
        else None,
        "neighbors": {side: [chunk(one) for one in chunks] for side, chunks in around.items()}
        if around
        else None,
        "explanation": {
            "matched_terms": list(message.explanation.matched_terms),
            "coverage": message.explanation.coverage,
            "query_ranks": [
                one.rank if one.HasField("rank") else None
                for one in message.explanation.query_ranks
            ],
        }
        if message.HasField("explanation")
        else None,
    }


def _spans(spans: Iterable[retrieve_pb2.TextSpan]) -> list[View]:
    return [{"start": one.start, "end": one.end} for one in spans]


def _query_explanation(message: retrieve_pb2.QueryExplanation) -> View:
    left_out = {"dense": message.dense_left_out, "sparse": message.sparse_left_out}
    return {
        "query": message.query,
        "language": message.language,
        "weights": {"dense": message.weights.dense, "sparse": message.weights.sparse},
        "left_out": {arm: reason for arm, reason in left_out.items() if reason},
    }


def collection(message: retrieve_pb2.Collection) -> View:
    return {
        "name": message.name,
        "description": message.description,
        "encoder": message.encoder,
        "dimensions": message.dimensions,
        "encoder_languages": list(message.encoder_languages),
        "encoder_normalizes": (
            message.encoder_normalizes if message.HasField("encoder_normalizes") else None
        ),
        "analyzer": message.analyzer,
        "chunk_tokens": message.chunk_tokens,
        "chunk_overlap": message.chunk_overlap,
        "documents": message.documents,
        "chunks": message.chunks,
        "created_at": moment(message.created_at) if message.HasField("created_at") else None,
        "calibration": (
            calibration(message.calibration) if message.HasField("calibration") else None
        ),
    }


def calibration(message: retrieve_pb2.Calibration) -> View:
    return {
        "chunks": message.chunks,
        "measured_at": moment(message.measured_at),
        "seconds": message.seconds,
        "languages": [
            {
                "language": one.language,
                "weights": {"dense": one.weights.dense, "sparse": one.weights.sparse},
                "questions": one.questions,
                "dense": one.dense,
                "sparse": one.sparse,
                "hybrid": one.hybrid,
                "agreement": one.agreement,
                "unknown": one.unknown,
            }
            for one in message.languages
        ],
    }


def document(message: retrieve_pb2.Document) -> View:
    return {
        "id": message.id,
        "title": message.title,
        "source": message.source,
        "metadata": from_struct(message.metadata),
        "access": list(message.access) or None,
        "format": message.format,
        "language": message.language,
        "pages": message.pages or None,
        "chunks": message.chunks,
        "bytes": message.bytes,
        "created_at": moment(message.created_at) if message.HasField("created_at") else None,
        "updated_at": moment(message.updated_at) if message.HasField("updated_at") else None,
    }


def chunk(message: passage_pb2.Passage) -> View:
    return {
        "chunk_id": message.chunk_id,
        "document_id": message.document_id,
        "text": message.text,
        "page": message.page if message.HasField("page") else None,
        "heading": message.heading,
        "language": message.language,
    }


def ingested(message: gateway_pb2.IngestResult) -> View:
    return {
        "id": message.id,
        "chunks": message.chunks,
        "status": STATUSES.get(message.status, "indexed"),
    }


def ingest_results(messages: Iterable[gateway_pb2.IngestResult]) -> View:
    return {"documents": [ingested(each) for each in messages]}


def ingest_progress(meter: Meter) -> View:
    return {
        "documents": meter.documents,
        "total_documents": meter.total_documents,
        "chunks": meter.chunks,
        "total_chunks": meter.total_chunks,
    }


def session(stored: StoredSession) -> View:
    return {
        "id": stored.id,
        "created_at": stored.created_at.isoformat(),
        "updated_at": stored.updated_at.isoformat(),
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "created_at": turn.created_at.isoformat(),
            }
            for turn in stored.turns
        ],
    }


def model(message: gateway_pb2.Model, created: int) -> View:
    return {
        "id": message.id,
        "object": "model",
        "created": created,
        "owned_by": message.owned_by or "ragmesh",
        "target": message.target or None,
    }


def moment(timestamp: Timestamp) -> str:
    """RFC 3339."""
    return str(timestamp.ToJsonString())
