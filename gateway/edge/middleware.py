"""Kong's twin around every request: the order of checks is that of Kong's plugins."""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Authenticator
from gateway.edge.rules import EdgeRules, Headers, SizeLimit
from gateway.errors import error_response, too_large
from services.runtime.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RagmeshError,
    Unauthenticated,
)

NO_ROUTE = "no Route matched with those values"
TOO_LARGE = "Request size limit exceeded"


class EdgeGuard:
    """Does what Kong would do with the rendered file, but count: `RequestLimits` does that.

    A path that the file does not route is 404 before anything looks at a token; on a route with
    a jwt plugin a token that does not verify is 401 whether or not the gateway knows the path.
    """

    def __init__(self, app: ASGIApp, *, rules: EdgeRules, authenticator: Authenticator) -> None:
        self._app = app
        self._rules = rules
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rules = self._rules.current
        if scope["type"] != "http" or not rules.has_routes:
            await self._app(scope, receive, send)
            return
        route = rules.route(scope["method"], scope["path"])
        bound = rules.bindings(route)
        headers = scope["headers"]
        origin = _header(headers, b"origin")
        told = bound.cors.answer(origin) if bound.cors else []

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and told:
                message["headers"] = _merged(message["headers"], told)
            await send(message)

        if route is None:
            await error_response(NotFound("ROUTE_NOT_FOUND", NO_ROUTE))(scope, receive, telling)
            return
        preflight = scope["method"] == "OPTIONS"
        if bound.cors is not None and preflight and origin is not None:
            asked = _header(headers, b"access-control-request-headers")
            if _header(headers, b"access-control-request-method") is not None:
                answer = Response(status_code=200)
                answer.raw_headers += bound.cors.preflight(origin, asked)
                await answer(scope, receive, send)
                return
        try:
            if route.needs_token and not preflight:
                self._check_token(headers)
            client = scope.get("client")
            address = client[0] if client else ""
            if bound.addresses is not None and not bound.addresses.admits(address):
                raise PermissionDenied("ADDRESS_NOT_ALLOWED", f"IP address not allowed: {address}")
            if bound.size is not None:
                _check_announced(headers, bound.size)
        except RagmeshError as error:
            refused = error_response(error)
            if error.reason == "REQUEST_TOO_LARGE" and _expects_continue(headers):
                refused.status_code = 417
            await refused(scope, receive, telling)
            return
        if bound.size is not None:
            receive = _counted(receive, bound.size.bytes)
        await self._app(scope, receive, telling)

    def _check_token(self, headers: Headers) -> None:
        """Raises Unauthenticated. What the token may do is the route's question: Kong asks none."""
        try:
            self._authenticator.authenticate(_header(headers, b"authorization"))
        except Unauthenticated:
            raise
        except PermissionDenied:
            return


def _check_announced(headers: Headers, limit: SizeLimit) -> None:
    announced = _header(headers, b"content-length")
    if announced is None or not announced.isdigit():
        if limit.needs_length:
            raise InvalidArgument("LENGTH_REQUIRED", "A valid Content-Length header is required")
        return
    if int(announced[:20]) > limit.bytes:
        raise too_large("REQUEST_TOO_LARGE", TOO_LARGE)


def _counted(receive: Receive, limit: int) -> Receive:
    """For a body whose length nobody announced."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large("REQUEST_TOO_LARGE", TOO_LARGE)
        return message

    return counted


def _expects_continue(headers: Headers) -> bool:
    return (_header(headers, b"expect") or "").strip().lower() == "100-continue"


def _header(headers: Headers, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _merged(headers: Iterable[tuple[bytes, bytes]], told: Headers) -> Headers:
    """The answer's headers with Kong's, which replace those of the same name, `vary` apart."""
    names = {name for name, _ in told} - {b"vary"}
    return [*(header for header in headers if header[0].lower() not in names), *told]
