"""Requests and answers of reranking: the route ``/v1/rerank``, and what searches say of it."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from gateway.schemas import MAX_QUERY_CHARACTERS, ModelName, Request, UsageView
from ragmesh.retrieve.v1 import retrieve_pb2

MAX_DOCUMENTS = 1000
MAX_DOCUMENT_CHARACTERS = 100_000

STATUSES = {
    retrieve_pb2.RERANK_STATUS_APPLIED: "applied",
    retrieve_pb2.RERANK_STATUS_TIMED_OUT: "timed_out",
    retrieve_pb2.RERANK_STATUS_FAILED: "failed",
    retrieve_pb2.RERANK_STATUS_SKIPPED: "skipped",
}

DocumentText = Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_CHARACTERS)]


class RerankDocument(Request):
    """A document as an object."""

    text: DocumentText


def _object(value: object) -> object:
    """A bare text as an object."""
    return {"text": value} if isinstance(value, str) else value


Document = Annotated[
    RerankDocument, BeforeValidator(_object, json_schema_input_type=str | RerankDocument)
]


class RerankBody(Request):
    """Documents to order by their relevance to a query."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
    documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS)] = Field(
        description="Texts, or objects with `text`; what the model cannot read is cut off."
    )
    top_n: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] | None = Field(
        None, description="How many to return; all when unset."
    )
    return_documents: bool = Field(False, description="Whether results carry their document.")
    model: ModelName = "default-reranker"

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.documents]

    def to_proto(self) -> retrieve_pb2.RerankRequest:
        return retrieve_pb2.RerankRequest(
            model=self.model, query=self.query, documents=self.texts, top_n=self.top_n or 0
        )


class RankedDocumentView(BaseModel):
    """A document's text."""

    text: str


class RankedView(BaseModel):
    """A document's place."""

    index: int = Field(description="Its position in the request, from 0.")
    relevance_score: float = Field(
        description="Higher is better; from 0 to 1 where the model's are."
    )
    document: RankedDocumentView | None = Field(None, description="With `return_documents`.")


class RerankView(BaseModel):
    """An order, best first."""

    model: str
    results: list[RankedView]
    usage: UsageView


def reranking(message: retrieve_pb2.Reranking) -> dict[str, Any]:
    """What a search says of its reranker."""
    return {
        "status": STATUSES.get(message.status, "failed"),
        "model": message.model,
        "reason": message.reason.lower() or None,
        "candidates": message.candidates,
        "milliseconds": round(message.seconds * 1000, 3),
    }


def ranked(made: retrieve_pb2.RerankResponse, documents: list[str] | None) -> dict[str, Any]:
    """The answer of ``/v1/rerank``.

    Args:
        made: the order.
        documents: the texts, where they are to be returned.
    """
    results: list[dict[str, Any]] = [
        {"index": one.index, "relevance_score": one.relevance_score} for one in made.results
    ]
    if documents is not None:
        for one in results:
            one["document"] = {"text": documents[one["index"]]}
    usage = {
        "prompt_tokens": made.tokens,
        "completion_tokens": 0,
        "total_tokens": made.tokens,
    }
    return {"model": made.model, "results": results, "usage": usage}
