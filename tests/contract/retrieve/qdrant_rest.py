"""The same server by Qdrant's public REST API: what `qdrant_server` is for gRPC."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from pydantic import TypeAdapter
from qdrant_client import AsyncQdrantClient, models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.contract.retrieve.qdrant_server import VERSION

Handler = Callable[[AsyncQdrantClient, str, Any], Awaitable[Any]]
_DONE = {"operation_id": 0, "status": "completed"}


async def _exists(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    return {"exists": await client.collection_exists(name)}


async def _create(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.CreateCollection(**body)
    await client.create_collection(
        name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors
    )
    return True


async def _index(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    models.CreateFieldIndex(**body)
    return _DONE


async def _upsert(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.PointsList(**body)
    await client.upsert(
        name, asked.points, update_filter=asked.update_filter, update_mode=asked.update_mode
    )
    return _DONE


async def _delete(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    await client.delete(name, TypeAdapter[Any](models.PointsSelector).validate_python(body))
    return _DONE


async def _payload(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.SetPayload(**body)
    await client.set_payload(name, asked.payload, asked.filter or models.Filter())
    return _DONE


async def _vectors(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    await client.update_vectors(name, models.UpdateVectors(**body).points)
    return _DONE


async def _get(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.PointRequest(**body)
    return await client.retrieve(
        name,
        asked.ids,
        with_payload=True if asked.with_payload is None else asked.with_payload,
        with_vectors=asked.with_vector or False,
    )


async def _scroll(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.ScrollRequest(**body)
    records, following = await client.scroll(
        name,
        asked.filter,
        limit=asked.limit or 10,
        offset=asked.offset,
        with_payload=True if asked.with_payload is None else asked.with_payload,
    )
    return {"points": records, "next_page_offset": following}


async def _count(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    return await client.count(name, models.CountRequest(**body).filter)


async def _facet(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    asked = models.FacetRequest(**body)
    return await client.facet(name, asked.key, asked.filter, asked.limit or 10)


async def _query(client: AsyncQdrantClient, name: str, body: Any) -> Any:
    return await client.query_batch_points(name, models.QueryRequestBatch(**body).searches)


_ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/exists"): _exists, ("PUT", ""): _create, ("PUT", "/index"): _index,
    ("PUT", "/points"): _upsert, ("POST", "/points/delete"): _delete,
    ("POST", "/points/payload"): _payload, ("PUT", "/points/vectors"): _vectors,
    ("POST", "/points"): _get, ("POST", "/points/scroll"): _scroll,
    ("POST", "/points/count"): _count, ("POST", "/facet"): _facet,
    ("POST", "/points/query/batch"): _query,
}  # fmt: skip


@asynccontextmanager
async def serving_rest(client: AsyncQdrantClient, api_key: str = "") -> AsyncIterator[str]:
    """A server on a port of its own; its URL."""

    async def root(request: Request) -> Response:
        return JSONResponse({"title": "qdrant", "version": VERSION})

    async def names(request: Request) -> Response:
        return _answer(await client.get_collections())

    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            if request.headers.get("api-key", "") != api_key:
                return JSONResponse({"status": {"error": "Invalid API key"}}, 401)
            body = await request.json() if await request.body() else {}
            try:
                return _answer(await handler(client, request.path_params["name"], body))
            except KeyError as error:
                text = f"Not found: No point with id {error} found"
                return JSONResponse({"status": {"error": text}}, 404)

        return handle

    routes = [
        Route("/", root),
        Route("/collections", names),
        *(
            Route("/collections/{name}" + path, endpoint(handler), methods=[method])
            for (method, path), handler in _ROUTES.items()
        ),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), port=0, log_level="warning", lifespan="off", loop="asyncio"
    )
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        work = asyncio.create_task(server.serve([listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await work


def _answer(result: Any) -> Response:
    text = TypeAdapter[Any](Any).dump_json({"result": result, "status": "ok", "time": 0.0})
    return Response(text, media_type="application/json")
