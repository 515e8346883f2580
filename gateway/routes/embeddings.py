"""``POST /v1/embeddings``, as OpenAI's clients know it, and the simple ``/v1/embed``."""

import sys
from array import array
from base64 import b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import JsonBody, Needs
from gateway.exchange import Call
from gateway.openai import EmbeddingsBody
from gateway.schemas import EmbedBody, EmbeddingView
from gateway.state import state_of
from ragmesh.retrieve.v1 import retrieve_pb2

router = APIRouter()


@router.post("/v1/embeddings", summary="Embed texts", tags=["OpenAI"])
async def embeddings(
    request: Request,
    call: Annotated[Call, Depends(Needs("search"))],
    body: Annotated[EmbeddingsBody, Depends(JsonBody(EmbeddingsBody))],
) -> Response:
    """OpenAI's embeddings: a text, a list of texts, or their token ids; `encoding_format` float
    or base64 (little-endian float32); `input_type` query or passage."""
    made = await state_of(request.app).pipeline.embed(call, body.to_proto())
    encode = _base64 if body.encoding_format == "base64" else _floats
    return views.json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(each)}
                for index, each in enumerate(made.embeddings)
            ],
            "model": made.model,
            "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
        }
    )


@router.post("/v1/embed", response_model=EmbeddingView, summary="Embed a text", tags=["Tasks"])
async def embed(
    request: Request,
    call: Annotated[Call, Depends(Needs("search"))],
    body: Annotated[EmbedBody, Depends(JsonBody(EmbedBody))],
) -> Response:
    """One text's vector."""
    made = await state_of(request.app).pipeline.embed(call, body.to_proto())
    usage = {
        "prompt_tokens": made.tokens,
        "completion_tokens": 0,
        "total_tokens": made.tokens,
    }
    embedding = _floats(made.embeddings[0])
    return views.json_response({"embedding": embedding, "usage": usage, "model": made.model})


def _floats(embedding: retrieve_pb2.Embedding) -> Any:
    return list(embedding.values)


def _base64(embedding: retrieve_pb2.Embedding) -> Any:
    values = array("f", embedding.values)
    if sys.byteorder == "big":
        values.byteswap()
    return b64encode(values.tobytes()).decode("ascii")
