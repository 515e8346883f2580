"""What the contract asks of a row's engine besides the port: that it can be made to misbehave."""

from __future__ import annotations

from typing import ClassVar

from services.infer.ports import GenerateRequest
from services.infer.settings import EngineSettings

STALL = "stall"
"""Never answer."""
HANG = "hang"
"""Never go on after the first delta."""
CUT = "cut"
"""Close the stream after the first delta without an end."""
GARBAGE = "garbage"
"""Send what is no answer at all."""
BYTES = "bytes"
"""Send the answer one byte at a time, so that characters fall apart on the wire."""
CONTEXT = "context"
"""Refuse a prompt of 513 tokens for a context of 512."""
RATE = "rate"
"""Refuse for the rate limit, and say: again in 7 seconds, where the server says that."""
AUTH = "auth"
"""Refuse the key."""
OVERLOAD = "overload"
"""Refuse because too much is going on."""
DOWN = "down"
"""Fail inside."""
FILTER = "filter"
"""Refuse because of what the request says."""
NO_USAGE = "no_usage"
"""Answer without token counts."""

WIRE = frozenset({STALL, HANG, CUT, GARBAGE, BYTES, CONTEXT, RATE, AUTH, OVERLOAD, DOWN})
"""What every engine behind a server is tried with."""


class Rig:
    """An engine's surroundings for one test."""

    stands_in: ClassVar[str] = ""
    """What plays the engine's server; empty: the engine itself runs."""
    can: ClassVar[frozenset[str]] = frozenset()
    """The behaviours it knows."""
    rate_limit_delay: ClassVar[float | None] = 7.0
    """Seconds that the server names with RATE; None: it names none."""
    text: ClassVar[str | None] = None
    """What the engine answers to any chat; None: it depends."""
    settings: EngineSettings
    """The settings that reach it."""

    def behave(self, how: str) -> None:
        """From now on."""
        raise NotImplementedError(how)

    def directed(self, request: GenerateRequest) -> GenerateRequest:
        """The request, with what makes the engine behave when the request has to say it."""
        return request

    @property
    def running(self) -> int:
        """Generations that the engine works on."""
        return 0

    @property
    def aborted(self) -> int:
        """Generations that were ended from outside."""
        return 0
