"""The mesh's REST surface, as the commands use it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from cli.console import Failure
from cli.settings import CommandSettings

RETRYABLE = frozenset({408, 425, 429, 502, 503, 504})
ATTEMPTS = 6
PATIENT_ATTEMPTS = 10
"""Of long work, which a restart of a service must not end: some two minutes."""
LONGEST_PAUSE = 30.0
EVENTS = "text/event-stream"
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


class ApiError(Failure):
    """The mesh refused, or did not answer."""

    def __init__(self, status: int, text: str, code: str, retry_after: float | None = None) -> None:
        super().__init__(text, code=code)
        self.http_status = status
        """0: there was no answer."""
        self.retry_after = retry_after
        """Seconds."""

    @property
    def may_retry(self) -> bool:
        return self.http_status == 0 or self.http_status in RETRYABLE


class Api:
    """Calls to one mesh with one token."""

    def __init__(
        self,
        settings: CommandSettings,
        transport: httpx.BaseTransport | None = None,
        *,
        attempts: int = ATTEMPTS,
    ) -> None:
        """Args:
        attempts: how often a call is made that may be repeated.

        Raises:
            Failure: there is no token.
        """
        self._attempts = attempts
        self.url = settings.base_url
        self._client = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {_token(settings)}"},
            timeout=_TIMEOUT,
            transport=transport,
            # A proxy of the environment has no business between this machine and itself.
            trust_env=settings.url is not None,
        )
        self._heard = False
        """Whether the mesh has answered before: then a silence is a restart, and worth a wait."""

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON answer. Raises ApiError."""
        with self._telling_failures():
            answer = self._client.request(method, path, **options)
        self._heard = True
        if answer.is_error:
            raise _error(answer)
        body = answer.json() if answer.content else {}
        return body if isinstance(body, dict) else {"data": body}

    def call_told(
        self, path: str, tell: Callable[[dict[str, Any]], None], **options: Any
    ) -> dict[str, Any]:
        """As `call` with POST, of a route that tells how far it is where events are asked for.

        Args:
            tell: gets each `progress` event's data.
        """
        # Only a terminal is told; the other calls start without it.
        from httpx_sse import EventSource  # noqa: PLC0415

        headers = {"accept": EVENTS}
        with (
            self._telling_failures(),
            self._client.stream("POST", path, headers=headers, **options) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise _error(answer)
            self._heard = True
            if not answer.headers.get("content-type", "").startswith(EVENTS):
                answer.read()  # a mesh that does not tell
                body: dict[str, Any] = answer.json()
                return body
            for event in EventSource(answer).iter_sse():
                said: dict[str, Any] = json.loads(event.data)
                if event.event == "error":
                    raise told(said)
                if event.event == "done":
                    return said
                tell(said)
        raise ApiError(0, f"The call to {self.url} broke off.", "no_answer")

    def call_again(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """As `call`, again after what passes: overload, a service that is down, a mesh that has
        answered before and does not now.

        Only for calls that may run twice.
        """
        return self.again(lambda: self.call(method, path, **options))

    def again(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the call answers, made again as `call_again` does."""
        for attempt in range(1, self._attempts):
            try:
                return call()
            except ApiError as error:
                self.pause(attempt, error)
        return call()

    def pause(self, attempt: int, error: ApiError) -> None:
        """Wait before another attempt. Raises the error when another cannot help."""
        if not error.may_retry or not self._heard or attempt >= self._attempts:
            raise error
        named = error.retry_after
        time.sleep(min(0.25 * 2**attempt if named is None else named, LONGEST_PAUSE))

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The named events of a stream, each with its data. Raises ApiError."""
        # Only `ask` streams; the others start without it.
        from httpx_sse import connect_sse  # noqa: PLC0415

        with (
            self._telling_failures(),
            connect_sse(self._client, "POST", path, json=body) as source,
        ):
            if source.response.is_error:
                source.response.read()
                raise _error(source.response)
            self._heard = True
            for event in source.iter_sse():
                yield event.event, event.data

    def lines(self, path: str, params: Mapping[str, str]) -> Iterator[bytes]:
        """The lines of a streamed answer, without their ends. Raises ApiError."""
        with (
            self._telling_failures(),
            self._client.stream("GET", path, params=params) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise _error(answer)
            self._heard = True
            rest = bytearray()
            for piece in answer.iter_bytes():
                rest += piece
                end = rest.rfind(b"\n") + 1
                # By hand: httpx also splits at the line ends of Unicode, which texts hold.
                yield from (line for line in bytes(rest[:end]).split(b"\n") if line)
                del rest[:end]
            if rest:
                yield bytes(rest)

    @contextmanager
    def _telling_failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ApiError(
                0, f"No mesh answers at {self.url}. `ragmesh up` starts one.", "no_answer"
            ) from error
        except httpx.HTTPError as error:
            kind = type(error).__name__
            raise ApiError(0, f"The call to {self.url} broke off ({kind}).", "no_answer") from error


def _token(settings: CommandSettings) -> str:
    if settings.token is not None:
        return settings.token.get_secret_value()
    try:
        return settings.admin_token.read_text("ascii").strip()
    except OSError as error:
        raise Failure(
            f"There is no token: {settings.admin_token} cannot be read ({error.strerror}). "
            "`ragmesh up` writes it; RAGMESH_TOKEN gives another.",
            code="no_token",
        ) from error


def told(failure: Mapping[str, Any]) -> ApiError:
    """The error object that ends a stream which had begun well."""
    error = failure["error"]
    code, kind = str(error.get("code") or "error"), str(error.get("type"))
    passes = kind in ("server_error", "rate_limit_error") or code in (
        "document_changed",
        "reindex_running",
    )
    return ApiError(503 if passes else 400, str(error["message"]), code)


def _error(answer: httpx.Response) -> ApiError:
    try:
        error = answer.json()["error"]
        text, code = str(error["message"]), str(error.get("code") or "error")
        param = error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        text, code, param = f"HTTP {answer.status_code}", "error", None
    where = f" ({param})" if param else ""
    wait = answer.headers.get("retry-after", "")
    retry_after = float(wait) if wait.isdecimal() else None
    return ApiError(answer.status_code, f"{text}{where}", code, retry_after)
