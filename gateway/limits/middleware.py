"""Counts every HTTP request that comes in, as Kong would, on routes with a token and without."""

from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import Authenticator, Principal
from gateway.errors import error_response
from gateway.limits.limiter import Limiter
from gateway.middleware import exchange_of
from services.runtime.errors import RagmeshError


class RequestLimits:
    """Refuses a request over a limit of its consumer, address or tenant with 429.

    A request whose token is refused is not counted: its route answers 401, as Kong does before it
    counts. Verifying here costs little, for the verified token is remembered.
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter, authenticator: Authenticator) -> None:
        self._app = app
        self._limiter = limiter
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        principal: Principal | None = None
        with suppress(RagmeshError):  # the route will say so
            principal = self._authenticator.authenticate(given.decode("latin-1"))
        client = scope.get("client")
        admission = await self._limiter.admit(
            principal, client[0] if client else "", scope["method"], scope["path"]
        )
        exchange_of(scope).headers.update(admission.headers)
        if admission.refusal is not None:
            await error_response(admission.refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)
