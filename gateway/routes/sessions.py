"""``/v1/sessions/{id}``: the memory of a conversation."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import Needs
from gateway.exchange import Call
from gateway.schemas import DeletedView, SessionView
from gateway.state import state_of

router = APIRouter(tags=["Sessions"])


@router.get("/v1/sessions/{id}", response_model=SessionView, summary="Get a conversation")
async def get_session(
    request: Request, id: str, call: Annotated[Call, Depends(Needs("chat"))]
) -> Response:
    """A conversation's questions and answers, oldest first; the token's user must have begun it."""
    stored = await state_of(request.app).sessions.get(call.tenant, id, call.principal.subject)
    return views.json_response(views.session(stored))


@router.delete("/v1/sessions/{id}", response_model=DeletedView, summary="Forget a conversation")
async def delete_session(
    request: Request, id: str, call: Annotated[Call, Depends(Needs("chat"))]
) -> Response:
    """Forgets a conversation."""
    await state_of(request.app).sessions.delete(call.tenant, id, call.principal.subject)
    return views.json_response({"id": id, "deleted": True})
