"""``GET /v1/models``: what can be asked for."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import Needs
from gateway.exchange import Call
from gateway.schemas import ModelsView, ModelView
from gateway.state import state_of
from services.runtime.errors import NotFound

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", response_model=ModelsView, summary="List models")
async def list_models(
    request: Request, call: Annotated[Call, Depends(Needs("models:read"))]
) -> Response:
    """Aliases and models, of the engines, the encoders and the reranker."""
    state = state_of(request.app)
    models = await state.pipeline.models(call)
    data = [views.model(model, state.started_at) for model in models]
    return views.json_response({"object": "list", "data": data})


@router.get("/v1/models/{id:path}", response_model=ModelView, summary="Get a model")
async def get_model(
    request: Request, id: str, call: Annotated[Call, Depends(Needs("models:read"))]
) -> Response:
    """An alias, or a model by its name, which may hold slashes."""
    state = state_of(request.app)
    for model in await state.pipeline.models(call):
        if model.id == id:
            return views.json_response(views.model(model, state.started_at))
    raise NotFound("MODEL_NOT_FOUND", f"model '{id}' does not exist", field="model")
