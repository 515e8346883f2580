"""Tokens by calendar window: reserved before the engine starts, settled when it is known what it
used.

A reservation is the prompt's estimate and the most that the answer may have. Who passes
``max_output`` on to the engine therefore overshoots a limit only by what the prompt's estimate
misses; a request without a maximum of its own gets the default one for this. Settling returns at
once and cannot fail, so a request that is cancelled settles on its way out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from gateway.limits.ledger import Charge, Ledger
from gateway.limits.periods import Period
from services.runtime.errors import InvalidArgument, ResourceExhausted

REASON = "TOKEN_LIMIT_EXCEEDED"

MESSAGE_TOKENS = 8
"""What a chat template adds around a message, about."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text, without its tokenizer; rather too many than too few.

    Common tokenizers make a token of 3.5 to 4.5 characters of English and of 0.7 to 1.5
    characters of Japanese; here it is 3, and 1.
    """
    if text.isascii():
        return math.ceil(len(text) / 3)
    # UTF-8 takes one byte for ASCII, two for Latin letters with marks, three for kana and kanji.
    return math.ceil(len(text.encode("utf-8", "replace")) / 3)


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """Tokens that a tenant may use in a window."""

    period: Period
    limit: int


class Reservation:
    """The tokens that one request holds. A context manager: leaving it settles.

    What is not known when it ends is taken as follows. With a usage reported, that; else with
    output seen, the estimate of the prompt and that output; else, when the caller left, the
    prompt alone, for the engine may have read it; else, when the request failed, nothing.
    """

    __slots__ = (
        "_charges",
        "_held",
        "_max_output",
        "_meter",
        "_output",
        "_prompt",
        "_settled",
        "_taken_at",
        "_usage",
        "_used",
    )

    def __init__(
        self,
        meter: "TokenMeter",
        charges: Sequence[Charge],
        used: Sequence[int],
        *,
        taken_at: float,
        prompt: int,
        max_output: int,
    ) -> None:
        self._meter = meter
        self._charges = charges
        self._used = used
        self._taken_at = taken_at
        self._prompt = prompt
        self._max_output = max_output
        self._held = charges[0].amount if charges else 0
        self._output = 0
        self._usage: int | None = None
        self._settled = False

    @property
    def max_output(self) -> int | None:
        """The most tokens that the answer may have; None where no token limit is set."""
        return self._max_output if self._charges else None

    @property
    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*-tokens``, of the window with the least left, as known now."""
        return _headers(self._charges, self._used, self._held, self._meter.now())

    def saw(self, output_tokens: int) -> None:
        """Output that went to the caller, as deltas come; an estimate will do."""
        self._output += output_tokens

    def report(self, tokens: int) -> None:
        """What the engine says it used, prompt and output; calls of one request add up."""
        self._usage = (self._usage or 0) + tokens

    def known(self, *, failed: bool = False) -> int:
        """Tokens used, as far as is known."""
        if self._usage is not None:
            return self._usage
        if self._output or not failed:
            return self._prompt + self._output
        return 0

    def settle(self, tokens: int) -> None:
        """Replace what was reserved by what was used. Later calls do nothing."""
        if self._settled:
            return
        self._settled = True
        change = tokens - self._held
        self._held = tokens
        if change:
            now = self._meter.now()
            for charge in self._charges:
                correction = charge._replace(amount=change)
                self._meter.ledger.correct(correction, self._taken_at, now)

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: object) -> None:
        # An exception that is not an Exception is a cancellation or a closed generator.
        failed = kind is not None and issubclass(kind, Exception)
        self.settle(self.known(failed=failed))


class TokenMeter:
    """Reserves tokens for tenants."""

    def __init__(
        self,
        ledger: Ledger,
        limits: Sequence[TokenLimit],
        *,
        default_output: int,
        now: Callable[[], float],
    ) -> None:
        self.ledger = ledger
        self._limits = limits
        self._smallest = min((limit.limit for limit in limits), default=0)
        self._default_output = default_output
        self.now = now

    @property
    def is_limited(self) -> bool:
        return bool(self._limits)

    async def reserve(self, tenant: str, prompt: int, max_output: int | None) -> Reservation:
        """Hold tokens for a request.

        Args:
            tenant: the tenant id.
            prompt: tokens of the prompt, about.
            max_output: the most the answer may have, over all choices; None: the default, or
                less where that could never fit.

        Raises:
            TokensExceeded: TOKEN_LIMIT_EXCEEDED; later it fits.
            InvalidArgument: TOKEN_LIMIT_TOO_SMALL: it never fits, whatever else is used.
        """
        now = self.now()
        if not self._limits:
            return Reservation(self, (), (), taken_at=now, prompt=prompt, max_output=0)
        if max_output is None:
            output = min(self._default_output, max(1, self._smallest - prompt))
        else:
            output = max_output
        amount = prompt + output
        if amount > self._smallest:
            self._refuse_for_good(amount, asked=max_output is not None)
        charges = [
            Charge(f"tokens:{tenant}", limit.period, limit.limit, amount) for limit in self._limits
        ]
        outcome = await self.ledger.take(charges, now)
        if not outcome.admitted:
            raise _exceeded(charges, outcome.used, now)
        return Reservation(
            self, charges, outcome.used, taken_at=now, prompt=prompt, max_output=output
        )

    def _refuse_for_good(self, amount: int, *, asked: bool) -> NoReturn:
        tightest = min(self._limits, key=lambda limit: limit.limit)
        raise InvalidArgument(
            "TOKEN_LIMIT_TOO_SMALL",
            f"This request may need {amount} tokens, and the limit is {tightest.limit} per "
            f"{tightest.period.name.lower()}: shorten the prompt or ask for fewer tokens.",
            field="max_tokens" if asked else None,
        )


class TokensExceeded(ResourceExhausted):
    """The tenant has used its tokens of a window."""

    def __init__(self, message: str, *, retry_after: float, headers: dict[str, str]) -> None:
        super().__init__(REASON, message, retry_after=retry_after)
        self.headers = headers
        """What the answer must tell beside the error."""


def _exceeded(charges: Sequence[Charge], used: Sequence[int], now: float) -> TokensExceeded:
    reached = [
        charge
        for charge, count in zip(charges, used, strict=True)
        if count + charge.amount > charge.limit
    ]
    longest = max(reached, key=lambda charge: charge.period.value)
    return TokensExceeded(
        f"The limit of {longest.limit} tokens per {longest.period.name.lower()} is reached.",
        retry_after=longest.period.remaining(now),
        headers=_headers(charges, used, 0, now),
    )


def _headers(
    charges: Sequence[Charge], used: Sequence[int], held: int, now: float
) -> dict[str, str]:
    if not charges:
        return {}
    left, _, charge = min(
        (max(0, charge.limit - count - held), -charge.period.value, charge)
        for charge, count in zip(charges, used, strict=True)
    )
    return {
        "x-ratelimit-limit-tokens": str(charge.limit),
        "x-ratelimit-remaining-tokens": str(left),
        "x-ratelimit-reset-tokens": _duration(charge.period.reset(now)),
    }


def _duration(seconds: int) -> str:
    """As OpenAI writes it: 1h2m3s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
