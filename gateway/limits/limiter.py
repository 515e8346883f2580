"""The face of the limits: one call as a request is let in, one before an engine works for it."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from prometheus_client import Counter

from gateway.auth import Principal
from gateway.limits import requests
from gateway.limits.edge import Edge, RatePlugin, read_edge
from gateway.limits.ledger import Charge, Ledger, MemoryLedger
from gateway.limits.link import RedisLink
from gateway.limits.periods import Period
from gateway.limits.requests import Admission, Bound
from gateway.limits.settings import LimitSettings
from gateway.limits.shared import CORRECT, RESTORE, TAKE, SharedLedger
from gateway.limits.streams import ENTER, LEAVE, RENEW, StreamPlaces
from gateway.limits.tokens import Reservation, TokenLimit, TokenMeter, TokensExceeded
from services.runtime.errors import RagmeshError, ResourceExhausted

log = logging.getLogger(__name__)

REFUSED = Counter(
    "ragmesh_gateway_limited",
    "Requests refused by a limit: edge and tenant (requests), tokens, streams.",
    ["limit"],
)


class Work:
    """What one generation holds: its tokens and, when it streams, its place.

    Leaving it gives both back, whatever the end. It never waits, so it is safe on the way out of
    a cancelled request.
    """

    __slots__ = ("_stack", "tokens")

    def __init__(self, tokens: Reservation, stack: ExitStack) -> None:
        self.tokens = tokens
        self._stack = stack

    @property
    def headers(self) -> dict[str, str]:
        return self.tokens.headers

    @property
    def max_output(self) -> int | None:
        """The most tokens that the answer may have, to be passed on to the engine; None leaves
        the engine free."""
        return self.tokens.max_output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: object) -> None:
        self.tokens.__exit__(kind, error, where)
        self._stack.close()


class Limiter:
    """Limits of the edge and of the tenants, in this process or over Redis."""

    def __init__(
        self,
        settings: LimitSettings,
        edge_file: Path | None,
        *,
        now: Callable[[], float] = time.time,
        check_interval: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        edge_file: the rendered Kong file whose limits hold here; None behind Kong, which then
            holds them itself and tells of them.
        check_interval: seconds between two looks at the file's time stamp.

        Raises:
            FailedPrecondition: CREDENTIALS_UNREADABLE, EDGE_UNSUPPORTED, REDIS_URL_INVALID.
        """
        self._now = now
        self._monotonic = monotonic
        self._check_interval = check_interval
        self._next_check = monotonic() + check_interval
        self._edge_file = edge_file
        self._seen = _fingerprint(edge_file)
        self._edge: Edge | None = read_edge(edge_file) if edge_file is not None else None
        local = MemoryLedger()
        self._ledger: Ledger = local
        self._link: RedisLink | None = None
        if settings.redis_url is not None:
            self._link = RedisLink(
                settings.redis_url.get_secret_value(),
                [TAKE, CORRECT, RESTORE, ENTER, RENEW, LEAVE],
                timeout=settings.limit_redis_timeout,
            )
            self._ledger = SharedLedger(self._link, local, now)
        self._tenant_limits = _by_period(
            (Period.MINUTE, settings.tenant_requests_per_minute),
            (Period.HOUR, settings.tenant_requests_per_hour),
        )
        token_limits = _by_period(
            (Period.MINUTE, settings.tenant_tokens_per_minute),
            (Period.DAY, settings.tenant_tokens_per_day),
        )
        self._tokens = TokenMeter(
            self._ledger,
            [TokenLimit(period, limit) for period, limit in token_limits],
            default_output=settings.default_output_tokens,
            now=now,
        )
        self._streams = StreamPlaces(
            settings.tenant_streams, link=self._link, lease=settings.stream_lease
        )

    async def start(self) -> None:
        """Connect to Redis, if there is one; its absence is no failure."""
        if self._link is not None:
            await self._link.start()

    async def aclose(self) -> None:
        await self._streams.aclose()
        if self._link is not None:
            await self._link.aclose()

    @property
    def counts_tokens(self) -> bool:
        """Whether tenants' tokens are limited; else no prompt need be estimated."""
        return self._tokens.is_limited

    @property
    def is_shared(self) -> bool:
        """Whether counts are shared with other processes at this moment."""
        return self._link is not None and self._link.up

    async def admit(
        self,
        principal: Principal | None,
        address: str,
        method: str,
        path: str,
        *,
        grpc: bool = False,
    ) -> Admission:
        """Count a request, once its token is verified.

        Args:
            principal: who calls; None for nobody. On a route that needs a token nobody is not
                counted: the route refuses, as Kong does before it counts.
            address: the client's address, which counts where nobody is named.

        Returns:
            What to tell in headers, and the refusal if a limit is reached.
        """
        self._follow_file()
        bounds: list[Bound] = []
        if self._edge is not None:
            route = self._edge.route(method, path, grpc=grpc)
            named = principal is not None and (route is None or route.needs_token)
            if route is not None and (named or not route.needs_token):
                # Where no token is asked for, Kong looks at none.
                consumer = principal.consumer if principal is not None and named else None
                plugin = self._edge.plugin(route, consumer, grpc=grpc)
                if plugin is not None:
                    caller = _identifier(plugin, consumer, address, route.service)
                    prefix = f"edge:{plugin.scope}:{caller}"
                    for period, limit in plugin.limits:
                        charge = Charge(prefix, period, limit)
                        bounds.append(Bound(charge, plugin.shown, plugin.message, "edge"))
        if principal is not None:
            # Behind Kong its own headers would replace these; it tells of its limits alone.
            shown = self._edge is not None
            for period, limit in self._tenant_limits:
                charge = Charge(f"tenant:{principal.tenant_id}", period, limit)
                bounds.append(Bound(charge, shown))
        admission = await requests.admit(self._ledger, bounds, self._now())
        if admission.refusal is not None:
            REFUSED.labels(admission.refused_by).inc()
        return admission

    async def begin(
        self, tenant_id: str, *, prompt: int, max_output: int | None, stream: bool
    ) -> Work:
        """Hold what a generation needs: its tokens and, for a stream, a place.

        Args:
            prompt: tokens of the prompt, about: `tokens.estimate_tokens`.
            max_output: the most tokens the answer may have, over all choices, as its caller says.

        Raises:
            ResourceExhausted: TOKEN_LIMIT_EXCEEDED, STREAM_LIMIT_EXCEEDED.
            InvalidArgument: TOKEN_LIMIT_TOO_SMALL.
        """
        with ExitStack() as stack:
            if stream:
                try:
                    stack.enter_context(await self._streams.enter(tenant_id))
                except ResourceExhausted:
                    REFUSED.labels("streams").inc()
                    raise
            try:
                tokens = await self._tokens.reserve(tenant_id, prompt, max_output)
            except TokensExceeded:
                REFUSED.labels("tokens").inc()
                raise
            return Work(tokens, stack.pop_all())

    def _follow_file(self) -> None:
        if self._edge_file is None or self._monotonic() < self._next_check:
            return
        self._next_check = self._monotonic() + self._check_interval
        fingerprint = _fingerprint(self._edge_file)
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            self._edge = read_edge(self._edge_file)
        except RagmeshError as error:
            # As with keys: the limits known so far stay in force, and the log says so.
            log.error("limits not reloaded: %s", error.message)
        else:
            log.info("limits reloaded")


def _by_period(*limits: tuple[Period, int | None]) -> list[tuple[Period, int]]:
    return [(period, limit) for period, limit in limits if limit is not None]


def _identifier(plugin: RatePlugin, consumer: str | None, address: str, service: str) -> str:
    if plugin.limit_by == "service":
        return f"service:{service}"
    if plugin.limit_by == "consumer" and consumer is not None:
        return f"consumer:{consumer}"
    return f"ip:{address}"


def _fingerprint(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
