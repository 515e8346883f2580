"""One HTTP exchange or one call of RagService, as the pipeline sees it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.auth import Principal
from services.runtime.context import Caller, caller_metadata
from services.runtime.deadlines import Budget

Timings = dict[str, float]
"""Milliseconds by hop."""


@dataclass(slots=True)
class Exchange:
    """What the middlewares know about a request; lives in the ASGI scope."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    timings: Timings = field(default_factory=dict)
    disconnected: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """What limits have to tell with the answer, whatever it is."""

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started) * 1000


@dataclass(slots=True)
class Call:
    """On whose behalf the pipeline works, and how long it may."""

    principal: Principal
    budget: Budget
    exchange: Exchange

    @property
    def tenant(self) -> str:
        """The tenant id that keys every store."""
        return self.principal.tenant_id

    @property
    def caller(self) -> Caller:
        return Caller(
            tenant=self.principal.tenant_id,
            subject=self.principal.subject,
            request_id=self.exchange.request_id,
            attributes=self.principal.attributes,
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What tells a service who is calling."""
        return caller_metadata(self.caller)

    @contextmanager
    def hop(self, service: str) -> Iterator[None]:
        """Add the block's time to the service's entry."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(service, started)

    def add(self, service: str, started: float) -> None:
        """Add the time since `started` (of `time.perf_counter`) to the service's entry."""
        timings = self.exchange.timings
        timings[service] = timings.get(service, 0.0) + (time.perf_counter() - started) * 1000

    def spend(self, part: str, seconds: float) -> None:
        """Add what a service said that a part of its time took."""
        timings = self.exchange.timings
        timings[part] = timings.get(part, 0.0) + seconds * 1000

    def spent(self) -> Timings:
        """Milliseconds by hop so far, with `total`; rounded to microseconds."""
        shown = {hop: round(ms, 3) for hop, ms in self.exchange.timings.items()}
        return {**shown, "total": round(self.exchange.elapsed_ms, 3)}
