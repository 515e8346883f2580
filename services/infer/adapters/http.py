"""A client of one engine's HTTP server: one connection pool, no retries, our errors."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson

from services.infer.adapters.failures import BAD, CUT, DOWN, LATE, failure
from services.infer.settings import ServerSettings
from services.runtime.context import REQUEST_ID_KEY, current_request_id
from services.runtime.errors import FailedPrecondition, RagmeshError
from services.runtime.traces import inject

OK = 200
_KEEP_ALIVE = 30.0
_DRAIN = 0.2
"""Seconds that a server may take to end its stream after its last event."""
_MAX_ERROR = 64 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises:
        Internal: ENGINE_BAD_ANSWER.
        """
        return parse_json(self.body)


class Reply:
    """An answer whose body is still coming."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")

    async def read(self, at_most: int | None = None) -> bytes:
        """The body, or the beginning of it."""
        if at_most is None:
            return await self._response.read()
        body = b""
        async for block in self._response.content.iter_any():
            body += block
            if len(body) > at_most:
                break
        return body

    async def read_error(self) -> bytes:
        return await self.read(_MAX_ERROR)

    def blocks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, whatever has arrived at a time."""
        return self._response.content.iter_any()  # type: ignore[return-value]

    async def drain(self) -> None:
        """Read to the very end, so that the connection can be used again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                async for _ in self._response.content.iter_any():
                    pass


class HttpServer:
    """The server at one address. Leaving a `stream` before its end closes its connection, which
    is how servers learn of a cancel."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout: float | None = None,
        ca_file: Path | None = None,
        proxy: str = "",
    ) -> None:
        """Args:
        url: the base of every path.
        headers: sent with every request.
        connect_timeout: seconds to open a connection; None: 5.
        ca_file: certificate of the authority that signed the server's.
        proxy: URL of an HTTP proxy; empty: none.

        Raises:
            FailedPrecondition: URL_INVALID, CA_FILE_UNREADABLE, KEY_INVALID.
        """
        self.url = url.rstrip("/")
        if self.url.partition("://")[0] not in ("http", "https"):
            raise FailedPrecondition(
                "URL_INVALID", f"An engine's address begins with http:// or https://, not {url!r}."
            )
        self._headers = dict(headers or {})
        if any(_CONTROL.search(value) for value in self._headers.values()):
            raise FailedPrecondition(
                "KEY_INVALID", "An engine's key holds a character that no header may hold."
            )
        self._connect_timeout = 5.0 if connect_timeout is None else connect_timeout
        self._tls = _tls(ca_file)
        self._proxy = proxy or None
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_settings(
        cls, url: str, settings: ServerSettings, headers: Mapping[str, str] | None = None
    ) -> "HttpServer":
        return cls(
            url,
            headers=headers,
            connect_timeout=settings.connect_timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
        )

    async def request(
        self, method: str, path: str, body: Any = None, *, timeout: float | None = None
    ) -> Answer:
        """Ask and read the whole answer, whatever its status.

        Args:
            path: after the base, beginning with a slash; or a whole URL.
            body: sent as JSON.
            timeout: seconds for all of it.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE: no connection, or one that broke.
            DeadlineExceeded: ENGINE_TIMEOUT.
            Internal: ENGINE_BAD_ANSWER: this is no HTTP.
        """
        async with self.stream(method, path, body, timeout=timeout) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Reply, None]:
        """Ask and read the answer as it comes. Arguments and errors as `request`; errors come
        while the body is read as well."""
        sent = {**_call_headers(), **(headers or {})}
        if body is not None:
            sent["content-type"] = "application/json"
        try:
            async with self._client().request(
                method,
                path if "://" in path else self.url + path,
                data=None if body is None else orjson.dumps(body),
                headers=sent,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(timeout, sock_connect=self._connect_timeout),
                allow_redirects=False,
            ) as response:
                try:
                    yield Reply(response)
                finally:
                    if not response.content.at_eof():
                        response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise network_error(error) from error

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=self._tls or True
                ),
                # A compressed stream would come in blocks instead of by the event.
                headers={"accept-encoding": "identity", **self._headers},
                # Only settings classes read the environment: no proxies, no .netrc.
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return self._session


def _call_headers() -> dict[str, str]:
    """The request id and the trace of the call that is being served, for the server's own log."""
    request_id = current_request_id()
    return {REQUEST_ID_KEY: request_id, **inject()} if request_id else inject()


def network_error(error: Exception) -> RagmeshError:
    """What a failed connection means."""
    if isinstance(error, aiohttp.ServerTimeoutError):  # while connecting: no other one is set
        return failure(DOWN)
    if isinstance(error, TimeoutError):
        return failure(LATE)
    if isinstance(error, aiohttp.ClientPayloadError):
        return failure(CUT)
    if isinstance(error, aiohttp.ClientResponseError):
        return failure(BAD)
    return failure(DOWN)


def parse_json(data: bytes | str) -> Any:
    """A JSON text. What only looser parsers take is read as well: bytes that are no UTF-8 and
    halves of surrogate pairs become replacement characters, ``-Infinity`` a number.

    Raises:
        Internal: ENGINE_BAD_ANSWER.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    text = data if isinstance(data, str) else data.decode(errors="replace")
    try:
        return _clean(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise failure(BAD) from error


def is_whole(data: bytes) -> bool:
    """Whether the last of a stream is a JSON text, instead of the beginning of one that a closed
    connection cut."""
    try:
        parse_json(data)
    except RagmeshError:
        return False
    return True


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def key_of(settings: ServerSettings) -> str:
    """The key, without what a file or a pasted line has around it; empty: none."""
    return settings.api_key.get_secret_value().strip()


def bearer(settings: ServerSettings) -> dict[str, str]:
    """The header that carries the key, if there is one."""
    key = key_of(settings)
    return {"authorization": f"Bearer {key}"} if key else {}


def with_version(url: str) -> str:
    """Add ``/v1`` to a bare address, as operators write ``http://host:8000``."""
    url = url.rstrip("/")
    host, _, path = url.partition("://")[2].partition("/")
    return url if path or not host else f"{url}/v1"


def without_version(url: str) -> str:
    """The address beside ``/v1``, where health and other routes lie."""
    return url.rstrip("/").removesuffix("/v1")


def _tls(ca_file: Path | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise FailedPrecondition(
            "CA_FILE_UNREADABLE", f"{ca_file} cannot be read as certificates."
        ) from error
