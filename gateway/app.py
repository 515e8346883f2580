"""The ASGI application: middlewares, routes, errors, the reference."""

from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from gateway.edge.middleware import EdgeGuard
from gateway.errors import error_response
from gateway.limits.middleware import RequestLimits
from gateway.middleware import BodyLimit, CancelOnDisconnect, RequestFrame
from gateway.openapi import describe
from gateway.routes import (
    admin,
    chat,
    collections,
    documents,
    embeddings,
    generate,
    health,
    models,
    query,
    rerank,
    search,
    sessions,
    transfers,
    usage,
)
from gateway.state import State
from services.runtime.errors import InvalidArgument, NotFound, RagmeshError, Unimplemented
from services.runtime.version import VERSION

STATIC = Path(__file__).parent / "static"
ROUTERS = (
    query.router,
    search.router,
    rerank.router,
    chat.router,
    embeddings.router,
    generate.router,
    collections.router,
    transfers.router,
    documents.router,
    models.router,
    sessions.router,
    usage.router,
    admin.router,
    health.router,
)
PAGE_HEADERS = {
    # The pages load nothing from elsewhere and run nothing that is inline.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def create_app(state: State) -> FastAPI:
    """The gateway's REST face over what `__main__`, or a test, has built."""
    app = routes()
    app.state.ragmesh = state
    settings = state.settings
    # Added innermost first.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(RequestLimits, limiter=state.limiter, authenticator=state.authenticator)
    app.add_middleware(
        BodyLimit, json_bytes=settings.max_json_bytes, upload_bytes=settings.max_upload_bytes
    )
    if state.edge is not None:
        app.add_middleware(EdgeGuard, rules=state.edge, authenticator=state.authenticator)
    app.add_middleware(RequestFrame)
    return app


def routes() -> FastAPI:
    """The routes alone, which is all that the reference is generated from."""
    app = FastAPI(
        title="ragmesh",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        exception_handlers={
            RagmeshError: _tell,
            HTTPException: _tell_http,
            RequestValidationError: _tell_invalid,
        },
    )
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/", _page("index.html"), include_in_schema=False)
    app.add_api_route("/docs", _page("docs.html"), include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    original = app.openapi
    app.openapi = lambda: describe(app, original)  # type: ignore[method-assign]
    return app


def _page(name: str) -> Any:
    async def page() -> Response:
        return FileResponse(STATIC / name, headers=PAGE_HEADERS)

    return page


async def _tell(request: Request, error: Exception) -> Response:
    return error_response(cast(RagmeshError, error))


async def _tell_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, no such method, a body that cannot be read."""
    error = cast(HTTPException, error)
    if error.status_code == 404:
        return error_response(NotFound("ROUTE_NOT_FOUND", "There is no such route."))
    if error.status_code == 405:
        refused = error_response(
            Unimplemented("METHOD_NOT_ALLOWED", "The route does not know this method.")
        )
        refused.headers.update(error.headers or {})  # Allow
        return refused
    return error_response(InvalidArgument("REQUEST_INVALID", "The request cannot be read."))


async def _tell_invalid(request: Request, error: Exception) -> Response:
    """A query parameter that FastAPI itself refused."""
    first = cast(RequestValidationError, error).errors()[0]
    name = str(first["loc"][-1])
    return error_response(InvalidArgument("PARAMETER_INVALID", f"{name} is invalid.", field=name))
