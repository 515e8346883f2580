"""``POST /v1/rerank``: documents ordered by their relevance to a query."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import JsonBody, Needs
from gateway.exchange import Call
from gateway.reranking import RerankBody, RerankView, ranked
from gateway.state import state_of

router = APIRouter(tags=["Answers"])


@router.post("/v1/rerank", response_model=RerankView, summary="Rerank documents")
async def rerank(
    request: Request,
    call: Annotated[Call, Depends(Needs("search"))],
    body: Annotated[RerankBody, Depends(JsonBody(RerankBody))],
) -> Response:
    """Reads each document together with the query (a cross-encoder) and orders them, as Cohere's
    and Jina's clients know it. Needs a configured reranker, else 400
    `reranker_not_configured`; the documents have at most 3 MiB together."""
    made = await state_of(request.app).pipeline.rerank(call, body.to_proto())
    return views.json_response(ranked(made, body.texts if body.return_documents else None))
