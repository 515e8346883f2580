"""``POST /v1/search``: passages of a collection."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import JsonBody, Needs
from gateway.exchange import Call
from gateway.hits import HitsView
from gateway.schemas import SearchBody
from gateway.state import state_of

router = APIRouter(tags=["Answers"])


@router.post("/v1/search", response_model=HitsView, summary="Search a collection")
async def search(
    request: Request,
    call: Annotated[Call, Depends(Needs("search"))],
    body: Annotated[SearchBody, Depends(JsonBody(SearchBody))],
) -> Response:
    """Finds passages by meaning (`dense`), by words (`sparse`), or by both (`hybrid`).

    Offsets of highlights count code points of the original text, as `text` shows it.
    """
    found = await state_of(request.app).pipeline.search(call, body.to_proto())
    return views.json_response(views.hits(found, body.neighbors))
