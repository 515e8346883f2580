"""Requests by calendar window: Kong's limits of the edge, and the tenants' own.

All that bind a request are taken together: a refused request counts nowhere, as in Kong. The
headers are Kong's too: ``RateLimit-*`` tell of the window with the least left, of two such the
longer one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.limits.ledger import Charge, Ledger
from gateway.limits.periods import Period
from services.runtime.errors import ResourceExhausted

REASON = "RATE_LIMIT_EXCEEDED"
MESSAGE = "API rate limit exceeded"

# Header names by period, encoded once.
_LIMIT = {p: f"x-ratelimit-limit-{p.name.lower()}" for p in Period}
_REMAINING = {p: f"x-ratelimit-remaining-{p.name.lower()}" for p in Period}

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit that binds the request at hand."""

    charge: Charge
    shown: bool = True
    """Whether headers tell of it."""
    message: str = MESSAGE
    kind: str = "tenant"
    """Whose limit it is, for the metric: edge or tenant."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go on, and what its answer must tell."""

    headers: Headers
    refusal: ResourceExhausted | None = None
    refused_by: str = ""
    """The `kind` of the limit that was reached."""

    def check(self) -> None:
        """Raises ResourceExhausted RATE_LIMIT_EXCEEDED when a limit is reached."""
        if self.refusal is not None:
            raise self.refusal


FREE = Admission({})
"""No limit binds the request."""


async def admit(ledger: Ledger, bounds: Sequence[Bound], now: float) -> Admission:
    """Count one request against every bound, or against none."""
    if not bounds:
        return FREE
    outcome = await ledger.take([bound.charge for bound in bounds], now)
    headers: Headers = {}
    reached: Bound | None = None
    tightest: tuple[int, int] | None = None
    told: tuple[int, int] | None = None
    for bound, used in zip(bounds, outcome.used, strict=True):
        charge = bound.charge
        full = used + charge.amount > charge.limit
        # When another limit stops the request, this one has not counted it.
        counted = charge.amount if outcome.admitted else 0
        left = max(0, charge.limit - used - counted)
        rank = (left, -charge.period.value)
        if full and (tightest is None or rank < tightest):
            tightest, reached = rank, bound
        if not bound.shown:
            continue
        shown = headers.get(_REMAINING[charge.period])
        if shown is None or left < int(shown):
            headers[_LIMIT[charge.period]] = str(charge.limit)
            headers[_REMAINING[charge.period]] = str(left)
        if told is None or rank < told:
            told = rank
            headers["ratelimit-limit"] = str(charge.limit)
            headers["ratelimit-remaining"] = str(left)
            headers["ratelimit-reset"] = str(charge.period.reset(now))
    if reached is None:
        return Admission(headers)
    refusal = ResourceExhausted(
        REASON, reached.message, retry_after=reached.charge.period.reset(now)
    )
    return Admission(headers, refusal, reached.kind)
