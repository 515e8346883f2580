"""``/v1/collections``: the tenant's collections."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import JsonBody, Needs
from gateway.exchange import Call
from gateway.paging import Page, page
from gateway.schemas import CollectionBody, CollectionsView, CollectionView, DeletedView
from gateway.state import state_of

router = APIRouter(tags=["Collections"])

Reader = Annotated[Call, Depends(Needs("documents:read"))]
Writer = Annotated[Call, Depends(Needs("documents:write"))]


@router.post("/v1/collections", status_code=201, response_model=CollectionView, summary="Create")
async def create_collection(
    request: Request,
    call: Writer,
    body: Annotated[CollectionBody, Depends(JsonBody(CollectionBody))],
) -> Response:
    """Creates a collection; its name is unique within the tenant."""
    made = await state_of(request.app).pipeline.create_collection(call, body.to_proto())
    return views.json_response(views.collection(made), 201)


@router.get("/v1/collections", response_model=CollectionsView, summary="List")
async def list_collections(
    request: Request, call: Reader, page: Annotated[Page, Depends(page)]
) -> Response:
    """The tenant's collections by name."""
    found = await state_of(request.app).pipeline.list_collections(call, page.limit, page.after)
    return views.json_response(
        {
            "collections": [views.collection(each) for each in found.collections],
            "next": found.next_page_token or None,
        }
    )


@router.get("/v1/collections/{name}", response_model=CollectionView, summary="Get")
async def get_collection(request: Request, name: str, call: Reader) -> Response:
    """A collection's facts."""
    found = await state_of(request.app).pipeline.get_collection(call, name)
    return views.json_response(views.collection(found))


@router.delete("/v1/collections/{name}", response_model=DeletedView, summary="Delete")
async def delete_collection(request: Request, name: str, call: Writer) -> Response:
    """Deletes a collection with everything in it."""
    documents = await state_of(request.app).pipeline.delete_collection(call, name)
    return views.json_response({"id": name, "deleted": True, "documents": documents})
